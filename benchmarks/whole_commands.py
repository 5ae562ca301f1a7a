"""Whole commands beside the shortest program that reads the same file: `python -m benchmarks.whole_commands`.

CPU seconds of processes from their start to their end: `earnest diagnose` of a table of 60 and of 1,000,000 rows beside
polars that only reads it, and commands that need no model beside Python with numpy. The gap is what judging costs.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.logs import generate_csv, generate_jsonl
from benchmarks.side_by_side import Comparison, show

NUMPY = ["-c", "import numpy"]
READS = {
    "csv": "import polars, sys; polars.read_csv(sys.argv[1])",
    "jsonl": "import polars, sys; polars.read_ndjson(sys.argv[1])",
}
WRITERS: dict[str, Callable[[Path, int], None]] = {"csv": generate_csv, "jsonl": generate_jsonl}


def comparisons() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        for kind, rows, turns in (("csv", 60, 5), ("csv", 1_000_000, 3), ("jsonl", 1_000_000, 3)):
            path = Path(folder) / f"log.{kind}"
            WRITERS[kind](path, rows)
            yield Comparison(
                f"earnest diagnose, {kind}, {rows:,} rows",
                "polars reads it",
                partial(run, "-m", "earnest.cli", "diagnose", str(path)),
                partial(run, "-c", READS[kind], str(path)),
                "none: one reads and judges, the other reads",
                turns,
            )
    for words in (["--help"], ["train", "--help"], ["train", "hgigs"], ["explain", "A201"], ["rules"]):
        yield Comparison(
            f"earnest {' '.join(words)}",
            "python imports numpy",
            partial(run, "-m", "earnest.cli", *words),
            partial(run, *NUMPY),
            "none",
        )


def run(*words: str) -> None:
    """With the bytecode that the first, uncounted call has left."""
    environment = os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1, 2), done.stderr


if __name__ == "__main__":
    show(comparisons())

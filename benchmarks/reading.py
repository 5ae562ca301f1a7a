"""Logs of a million rows as a `Run`, beside polars, which makes a table of them: `python -m benchmarks.reading`.

Ours finds the format, maps names and stitches steps too. A run of our own is the third. Memory: `benchmarks.memory`.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.logs import generate_csv, generate_jsonl, generate_run
from benchmarks.side_by_side import Comparison, show
from earnest.logs import read
from earnest.run import read_run

ROWS, STEPS = 1_000_000, 20_000
KINDS = {"csv": (generate_csv, pl.read_csv), "jsonl": (generate_jsonl, pl.read_ndjson)}


def comparisons() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        for kind, (generate, peer) in KINDS.items():
            path = Path(folder) / f"log.{kind}"
            generate(path, ROWS)
            run, table = read(path), peer(path)
            np.testing.assert_array_equal(run["train/loss"].value, table["train/loss"].to_numpy())
            yield Comparison(
                f"reading {kind}, {ROWS:,} rows",
                "polars",
                partial(read, path),
                partial(peer, path),
                "every loss equal",
            )
        path = Path(folder) / "steps.jsonl"
        generate_run(path, STEPS)
        run, table = read_run(path.parent), pl.read_ndjson(path)
        np.testing.assert_array_equal(run["train/loss"].value, table["train/loss"].to_numpy())
        yield Comparison(
            f"reading a run, {STEPS:,} steps x 75 signals",
            "polars",
            partial(read_run, path.parent),
            partial(pl.read_ndjson, path),
            "every loss equal",
        )


if __name__ == "__main__":
    show(comparisons())

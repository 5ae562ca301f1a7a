"""Memory at the peak beside peers: `python -m benchmarks.memory`, five minutes on one core.

A training step: above what lies there between two steps (weights, gradients kept, AdamW's moments). A reader: above
what lies there before it reads. Each in a process of its own. TensorBoard's own reader is the peer if it is installed,
else 20 bytes a scalar: a step, a float and the gap between them.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.logs import generate_csv, generate_events, generate_jsonl, generate_run, measure
from benchmarks.side_by_side import OURS, Apart, show

ROWS, SCALARS, STEPS = 1_000_000, 1_750_000, 20_000
READERS: dict[str, tuple[str, Callable[[Path, int], None], int, str, str]] = {  # file -> what, writer, rows, readers
    "log.csv": (f"reading csv, {ROWS:,} rows", generate_csv, ROWS, "earnest", "polars csv"),
    "log.jsonl": (f"reading jsonl, {ROWS:,} rows", generate_jsonl, ROWS, "earnest", "polars jsonl"),
    "steps.jsonl": (f"reading a run, {STEPS:,} steps x 75 signals", generate_run, STEPS, "earnest run", "polars jsonl"),
}


def comparisons() -> Iterator[Apart]:
    for case, peer in (("higgs-small", "transformers"), ("dia", "transformers"), ("mot-all", "straightforward")):
        yield Apart(
            f"memory of a training step, {case}, fp32",
            peer,
            partial(step_mb, case, OURS),
            partial(step_mb, case, "peer"),
            "the loss and every gradient (groups train-*)",
            "MB",
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, (what, write, rows, ours, peer) in READERS.items():
            path = Path(folder) / name
            write(path, rows)
            yield Apart(
                f"memory of {what}",
                peer.split()[0],
                partial(reader_mb, path, ours),
                partial(reader_mb, path, peer),
                "none",
                "MB",
                3,
            )
            path.unlink()
        path = Path(folder) / "events.out.tfevents.1.host"
        generate_events(path, SCALARS)
        _, mb, count = measure(path, "earnest", sys.executable) or [0, 0, 0]
        has_peer = find_spec("tensorboard") is not None
        yield Apart(
            f"memory of reading TensorBoard, {SCALARS:,} scalars",
            "EventAccumulator" if has_peer else "20 bytes a scalar",
            partial(reader_mb, path, "earnest"),
            partial(reader_mb, path, "EventAccumulator") if has_peer else lambda: 20 * count / 2**20,
            f"{mb * 2**20 / count:.0f} bytes a scalar",
            "MB",
            3,
        )


def step_mb(case: str, name: str) -> float:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.train_step", case, "--memory-of", name]
    rest, peak = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1])
    return peak - rest


def reader_mb(path: Path, reader: str) -> float:
    measured = measure(path, reader, sys.executable)
    assert measured is not None, f"{reader} is not installed"
    return measured[1]


if __name__ == "__main__":
    show(comparisons())

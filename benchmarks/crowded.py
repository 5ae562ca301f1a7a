"""A training step beside other programs, by how OpenMP's threads wait: `python -m benchmarks.crowded`, minutes.

A transformer encoder of 3 M parameters (4 layers of width 256, 1000 positions, fused AdamW) takes some steps in a
process of its own, with threads that wait without spinning (as earnest's commands let them), with torch as it comes,
and with one thread, while four other processes compute without end. The median step counts, by the clock.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks.side_by_side import Apart, show

WAYS = {
    "threads as torch has them": {},
    "threads that wait": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OTHERS, STEPS, TURNS = 4, 6, 3


def comparisons() -> Iterator[Apart]:
    ours = partial(measured, WAYS["threads that wait"])
    with crowd(OTHERS):
        for other in ("threads as torch has them", "one thread"):
            what = f"a step beside {OTHERS} other programs, threads that wait"
            yield Apart(
                f"{what}: {other}", other, ours, partial(measured, WAYS[other]), "none: time by the clock", "s", TURNS
            )


@contextmanager
def crowd(others: int) -> Iterator[None]:
    """Processes that compute without end."""
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        for process in crowd:
            process.kill()


def measured(way: dict[str, str], steps: int = STEPS) -> float:
    """Seconds of a step in a process of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", f"from benchmarks.crowded import step_s; print(step_s({steps}))"]
    return float(subprocess.run(command, env=plain | way, capture_output=True, text=True, check=True).stdout)


def step_s(steps: int) -> float:
    """Seconds of the median step."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 4)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x_BSD, seconds = torch.randn(4, 250, 256), list[float]()
    for _ in range(steps):
        start_s = time.perf_counter()
        model(x_BSD).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start_s)
    return statistics.median(seconds)


if __name__ == "__main__":
    show(comparisons())

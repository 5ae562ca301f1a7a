"""A training step beside other programs, by how OpenMP's threads wait: `python -m benchmarks.crowded [--others 4]`.

A transformer encoder of 3 M parameters (4 layers of width 256, 1000 positions, fused AdamW) takes some steps in a
process of its own, by turns with torch as it comes, with threads that wait without spinning, and with one thread.
Meanwhile other processes compute without end. What is printed is the median step in seconds of wall time, by turn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

WAYS = {
    "as it comes": {},
    "threads wait": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=int, default=4, help="processes that compute without end")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # measure in this process
    call = parser.parse_args()
    if call.here:
        print(step_s(call.steps))
        return
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(call.others)]
    try:
        spent: dict[str, list[str]] = {name: [] for name in WAYS}
        for _ in range(call.turns):
            for name, way in WAYS.items():
                command = [sys.executable, "-m", "benchmarks.crowded", "--here", "--steps", str(call.steps)]
                done = subprocess.run(command, env=plain | way, capture_output=True, text=True, check=True)
                spent[name].append(f"{float(done.stdout):.2f}")
    finally:
        for process in crowd:
            process.kill()
    print(f"{os.cpu_count()} cores, {call.others} other processes")
    for name, steps in spent.items():
        print(f"{name:<12} {' '.join(steps)} s a step")


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
    main()

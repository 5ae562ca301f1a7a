"""Wall and CPU seconds of ``earnest runs`` on a folder of 200 runs of 2,000 steps each.

    python -m benchmarks.runs [--runs N] [--times N]

With no verdict in the cache, so that some are made within its budget. Each is run N times (5) in a process of its own;
the least counts, as a busy machine only adds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, STREAMS = 2000, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, cache = Path(folder) / "runs", Path(folder) / "cache"
        make(runs / "run_0")
        for number in range(1, asked.runs):
            shutil.copytree(runs / "run_0", runs / f"run_{number}")
        os.environ["EARNEST_CACHE"] = str(cache)
        walls, cpus = list[float](), list[float]()
        for _ in range(asked.times):
            shutil.rmtree(cache, ignore_errors=True)
            started_s = time.perf_counter()
            cpus.append(cpu_s(["-m", "earnest.cli", "runs", str(runs)], Path(folder) / "bytecode"))
            walls.append(time.perf_counter() - started_s)
        print(f"{asked.runs} runs: {min(walls):.2f} s wall, {min(cpus):.2f} s CPU")


def cpu_s(arguments: list[str], bytecode: Path) -> float:
    """CPU seconds, user and system, of one run of Python, its bytecode kept as an installed package has it."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, **kept})
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), arguments
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def make(path: Path) -> None:
    """A finished run of our own."""
    path.mkdir(parents=True)
    facts = {"system": "higgs-tiny", "codebooks": STREAMS - 1, "audio_vocab": 1026, "schedule_steps": STEPS}
    (path / "run.json").write_text(json.dumps({"schema": 1, "facts": facts, "probes": {}}))
    with open(path / "steps.jsonl", "w") as file:
        for step in range(1, STEPS + 1):
            row: dict[str, float] = {"step": step, "time_s": 1.7e9 + step, "train/loss": 2 + 5 * 0.998**step}
            for stream in range(STREAMS - 1):
                row[f"train/ce_nats/codebook_{stream}"] = 2 + 5 * 0.998**step + stream / 10
                if step % 200 == 0:
                    row[f"eval/ce_nats/codebook_{stream}"] = 2.1 + 5 * 0.998**step + stream / 10
            file.write(json.dumps(row) + "\n")
        file.write(json.dumps({"step": STEPS, "time_s": 1.7e9 + STEPS, "event": "finished"}) + "\n")


if __name__ == "__main__":
    main()

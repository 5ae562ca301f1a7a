"""All comparisons with peers: ratio, spread, parity and ceiling of each; fails if a ratio is above its ceiling.

    python -m benchmarks.bench [--only NAME ...] [--store] [--profile NAME]

Every group runs in a process of its own, one after the other. --store keeps what was measured in measured.json (the
ceiling of a line is what was kept, by 1.15) and writes docs/performance.md. --profile shows where the time of our side
of a group goes. The machine should be quiet: what else runs is told beside the figures.
"""

import argparse
import cProfile
import json
import os
import platform
import pstats
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Apart, Comparison, Line, amount

MEASURED = Path(__file__).parent / "measured.json"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
TABLE = ("<!-- table -->", "<!-- end of table -->")
CEILING = 1.15  # times the ratio that was kept
GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "delay": ("delay", {}),
    "sampling": ("sampling_step", {}),
    "collation": ("collation", {}),
    "codec": ("codec", {}),
    "gan-step": ("gan_step", {}),
    "reading": ("reading", {}),
    "logs": ("whole_commands", {}),
    "memory": ("memory", {}),
    "data": ("data_path", {}),
    "crowded": ("crowded", {}),
    "generate-higgs": ("generate", {"clips": 1, "seconds": 5}),
    "generate-higgs-6": ("generate", {"clips": 6, "seconds": 2}),
    "generate-dia": ("generate_dia", {"frames": 48}),
    "generate-mot": ("generate_mot", {"frames": 48}),
    "train-dia": ("train_step", {"cases": ["dia"]}),
    "train-higgs": ("train_step", {"cases": ["higgs-small"]}),
    "train-higgs-wide": ("train_step", {"cases": ["higgs-wide"], "turns": 1}),
    "train-mot": ("train_step", {"cases": ["mot-all"]}),
}


def comparisons(group: str) -> Iterator[Comparison | Apart]:
    module, arguments = GROUPS[group]
    made: Callable[..., Iterator[Comparison | Apart]] = import_module(f"benchmarks.{module}").comparisons
    return made(**arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--profile", choices=GROUPS, metavar="NAME")
    parser.add_argument("--here", choices=GROUPS, help=argparse.SUPPRESS)  # measure a group in this process
    call = parser.parse_args()
    if call.profile:
        profile(call.profile)
        return 0
    if call.here:
        for comparison in comparisons(call.here):
            print(json.dumps(asdict(comparison.measured())), flush=True)
        return 0
    before = kept()
    lines, above = dict[str, dict[str, Any]](), 0
    print(f"{machine()}\n")
    for group in call.only:
        for line in measured(group):
            ceiling = CEILING * before[line.what]["ratio"] if line.what in before else None
            above += ceiling is not None and line.ratio > ceiling
            verdict = "no ceiling yet" if ceiling is None else f"ceiling {ceiling:.2f}"
            print(f"{line}; {verdict}{' EXCEEDED' if ceiling and line.ratio > ceiling else ''}", flush=True)
            lines[line.what] = {**asdict(line), "ratio": line.ratio, "group": group, "machine": machine()}
    if call.store:
        MEASURED.write_text(json.dumps(before | lines, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    return int(above > 0)


def measured(group: str) -> Iterator[Line]:
    """Of a process of its own, one by one."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bench", "--here", group]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for row in process.stdout:
            if row.startswith("{"):
                yield Line(**json.loads(row))
            else:
                print(row, end="")
    assert process.returncode == 0, f"{group} failed"


def profile(group: str) -> None:
    """Where our side of each comparison spends its time, by function."""
    for comparison in comparisons(group):
        if isinstance(comparison, Apart):
            continue  # it runs in another process
        comparison.ours()
        profiler = cProfile.Profile()
        profiler.runcall(comparison.ours)
        print(comparison.what)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def machine() -> str:
    """The processor, and how much of it something else takes."""
    [model, *_] = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ] or [platform.processor() or platform.machine()]
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}"


def kept() -> dict[str, Any]:
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def page() -> str:
    """docs/performance.md with the table of what was kept."""
    begin, rest = PAGE.read_text(encoding="utf-8").split(TABLE[0])
    _, end = rest.split(TABLE[1])
    return begin + "\n".join([TABLE[0], *rows(kept()), TABLE[1]]) + end


def rows(lines: dict[str, Any]) -> Iterator[str]:
    """The table: a row a comparison, under the machine that measured it."""
    yield "| what | ours | peer | ratio | equal | `make bench` group |"
    yield "|---|---|---|---|---|---|"
    for line in lines.values():
        ratio = f"{line['ratio']:.2f} [{min(line['ratios']):.2f}, {max(line['ratios']):.2f}]"
        unit = line.get("unit", "s")
        peer = f"{line['peer']}: {amount(line['theirs'], unit)}"
        yield (
            f"| {line['what']} | {amount(line['ours'], unit)} | {peer} | {ratio} | {line['parity']} | {line['group']} |"
        )
    loads: dict[str, list[float]] = {}
    for line in lines.values():
        before, load, day = re.split(r"load ([\d.]+)", line["machine"])
        loads.setdefault(f"{before}load {{}}{day}", []).append(float(load))
    for measured_on, of_lines in loads.items():
        yield f"\nMeasured on: {measured_on.format(f'{min(of_lines)} to {max(of_lines)}')}."


if __name__ == "__main__":
    sys.exit(main())

"""False alarms on healthy runs that are simulated in the shape and names of trainers in use.

    python -m benchmarks.false_alarms [--runs N] [--from SEED]

N runs each (100) of adversarial training (VITS, DAC and EnCodec in turn) and of language models
(`tests.equipment.healthy`), judged through the command line's function. What is aimed at: no critical finding, warnings
in at most 2 % of the runs, no verdict of a bad level; exits with 1 if it is missed. A part is a test
(tests/test_false_alarms.py).
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.equipment.healthy import GANS, Table, language_model
from tests.strangers.reports import Report, diagnosed, write

MOST_WARNINGS = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    for kind, seed, report in reports(options.first, options.runs):
        said = alarms(report)
        counts.setdefault(kind, Counter())["runs"] += 1
        counts[kind].update({level for level, _ in said})
        if said:
            print(f"{kind} {seed}: {', '.join(words for _, words in said)}")
    print("\n| kind | runs | with a critical | with a warning | with a bad verdict | not read |")
    print("|---|---|---|---|---|---|")
    for kind, count in counts.items():
        cells = (count[level] for level in ("runs", "critical", "warning", "bad verdict", "not read"))
        print(f"| {kind} | {' | '.join(map(str, cells))} |")
    total = sum(counts.values(), Counter[str]())
    missed = total["critical"] or total["bad verdict"] or total["not read"]
    return int(bool(missed) or total["warning"] > MOST_WARNINGS * total["runs"])


def reports(first: int, runs: int) -> Iterator[tuple[str, int, Report]]:
    """Kind, seed and report of `runs` adversarial runs and as many language models."""
    for seed in range(first, first + runs):
        kind = list(GANS)[seed % len(GANS)]
        yield kind, seed, report_of(GANS[kind](seed))
        yield "language model", seed, report_of(language_model(seed))


def report_of(table: Table) -> Report:
    """The diagnosis of a simulated table, by the command line."""
    text, facts = table
    with tempfile.TemporaryDirectory() as folder:
        path = write({"log.csv": text}, Path(folder)) / "log.csv"
        return diagnosed(
            path, *(word for name, value in facts for word in ("--fact", f"{name}={value}")), as_text=False
        )


def alarms(report: Report) -> list[tuple[str, str]]:
    """(critical, warning, bad verdict or not read; the words) for each."""
    if report.exit > 1:
        return [("not read", report.text)]
    bad = [("bad verdict", f"{one['stream']} {one['verdict']}") for one in report.verdicts if one["level"] == "bad"]
    return bad + [
        (one["severity"], f"{one['rule']} {one['severity']} {','.join(one['streams'])}".strip())
        for one in report.findings
        if one["severity"] != "note"
    ]


if __name__ == "__main__":
    sys.exit(main())

"""The doctor beside three others from the package index, on logs that a human has read before.

    python -m benchmarks.rivals FOLDER [--python PYTHON] [--aside]

PYTHON is the interpreter of an environment with ``pip install trainproof runmedic losslint``, one that can be thrown
away; a tool that is missing is named and skipped. FOLDER is that of `benchmarks.strangers`; no tool is told any fact.
For each tool it counts:

- *read*: the logs of which it made anything;
- *named*: sick logs with a warning or worse whose own words hold the fault (`about` of the index, and the words of
  the family of rules that `codes` names); the words are the same for every tool, so ours may differ a little from
  `benchmarks.strangers`, which asks for the rule;
- *flagged*: sick logs with any warning or worse;
- *false alarms*: healthy logs with any warning or worse, and with a critical or error.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.strangers import Entry, entries
from tests.strangers.reports import diagnosed

FAMILIES = {  # beginning of a rule's code: words that any tool may use for it
    "A": r"shift|leak|label|too good|memori[sz]",
    "B": r"chance|flat|plateau|stuck|not learn|stagnat|uniform",
    "C": r"gradient|constant|frozen|weights",
    "D1": r"\bnan\b|\binf|finite|not.a.number",
    "D": r"diverg|ris(e|es|ing)|rose|stepped|increas|learning.rate|spike",
    "D4": r"scale|overflow|half.precision|fp16",
    "H110": r"scale|overflow|skip|memory|crash|fail|not finite|\bnan\b",
    "E109": r"\b[wc]er\b|error.rate|quality",
    "E111": r"\b[wc]er\b|error.rate|recogni",
    "E": r"overfit|memori[sz]|gap|leak|evaluation|validation|held.out",
    "F": r"discriminator|collaps|codebook|usage",
    "H": r"unit|sum|accumul",
}


class Said(NamedTuple):
    """One thing that a tool says: whether it is grave (critical, error, fail), and its words."""

    grave: bool
    text: str


Answer = list[Said] | None  # warnings and worse; None if the log was not read


def earnest(path: Path) -> Answer:
    report = diagnosed(path, as_text=False)
    if report.exit > 1:  # no run, but what the log says in words is quoted
        return [Said(True, report.text)] if re.search(r"the log (?:says|ends)|never a number", report.text) else None
    parts = ("name", "streams", "summary", "evidence")
    return [
        Said(finding["severity"] == "critical", json.dumps([finding[part] for part in parts], ensure_ascii=False))
        for finding in report.findings
        if finding["severity"] != "note"
    ]


def trainproof(answer: dict[str, Any]) -> Answer:
    findings = [finding for report in answer["reports"] for finding in report["findings"]]
    if not findings or any(finding["id"] == "TP-NO-LOSS" for finding in findings):
        return None
    return [
        Said(finding["level"] == "FAIL", f"{finding['id']} {finding['message']} {finding['evidence']}")
        for finding in findings
        if finding["level"] in ("WARN", "FAIL")
    ]


def runmedic(answer: list[dict[str, Any]]) -> Answer:
    if not any(run["series"] for run in answer):
        return None
    return [
        Said(finding["severity"] == "critical", f"{finding['check']} {finding['title']} {finding['evidence']}")
        for run in answer
        for finding in run["findings"]
        if finding["severity"] != "info"
    ]


def losslint(answer: dict[str, Any]) -> Answer:
    if not any(run["points"] for run in answer["runs"]):
        return None
    return [
        Said(finding["severity"] == "error", f"{finding['check']} {finding['message']}")
        for finding in answer["findings"]
        if finding["severity"] != "info"
    ]


RIVALS: dict[str, tuple[list[str], Callable[[Any], Answer]]] = {
    "trainproof": (["doctor", "--json"], trainproof),
    "runmedic": (["diagnose", "--json"], runmedic),
    "losslint": (["check", "--format", "json"], losslint),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter that has the rivals")
    parser.add_argument("--aside", action="store_true")
    options = parser.parse_args()
    tools: dict[str, Callable[[Path], Answer]] = {"earnest": earnest}
    for name, (words, reads) in RIVALS.items():
        program = options.python.parent / name
        if program.exists():
            tools[name] = _runner([str(program), *words], reads)
        else:
            print(f"{name} is not installed beside {options.python}; skipped")
    chosen = list(entries(options.folder, options.aside))
    counts = {name: Counter[str]() for name in tools}
    for entry in chosen:
        words = {
            name: _judged(entry, tool(options.folder / entry["file"]), counts[name]) for name, tool in tools.items()
        }
        print(f"{entry['id']} ({entry['label']}): " + ", ".join(f"{name} {word}" for name, word in words.items()))
    _print_table(counts, Counter(entry["label"] for entry in chosen))


def _runner(words: list[str], reads: Callable[[Any], Answer]) -> Callable[[Path], Answer]:
    def run(path: Path) -> Answer:
        done = subprocess.run([*words, str(path)], capture_output=True, text=True, timeout=120)
        try:
            return reads(json.loads(done.stdout))
        except json.JSONDecodeError:  # it wrote a message in place of an answer
            return None

    return run


def _judged(entry: Entry, answer: Answer, counts: Counter[str]) -> str:
    """What became of one log, in a word; `counts` is brought up to date."""
    if answer is None:
        return "not read"
    counts["read"] += 1
    counts[f"{entry['label']}, any"] += bool(answer)
    counts[f"{entry['label']}, grave"] += any(said.grave for said in answer)
    if entry["label"] == "sick" and any(_names(entry, said.text) for said in answer):
        counts["named"] += 1
        return "named"
    return ("alarm" if entry["label"] == "healthy" else "flagged") if answer else "silent"


def _names(entry: Entry, text: str) -> bool:
    """Whether a tool's words name the fault of a log: words of its codes' families or, without codes, its `about`."""
    closest = (max((one for one in FAMILIES if code.startswith(one)), key=len, default="") for code in entry["codes"])
    families = [FAMILIES[family] for family in dict.fromkeys(closest) if family]
    wanted = "|".join(families) or entry["about"] or ""
    return re.search(wanted, text, re.IGNORECASE) is not None


def _print_table(counts: dict[str, Counter[str]], labels: Counter[str]) -> None:
    sick, healthy = labels["sick"], labels["healthy"]
    print(f"\n| tool | read, of {labels.total()} | sick named, of {sick} | sick flagged | ", end="")
    print(f"healthy with any alarm, of {healthy} | healthy with a critical |\n|---|---|---|---|---|---|")
    for name, count in counts.items():
        cells = [count["read"], count["named"], count["sick, any"], count["healthy, any"], count["healthy, grave"]]
        print(f"| {name} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()

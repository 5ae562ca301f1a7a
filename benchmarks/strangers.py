"""How well the doctor reads logs of strangers that a human has read before.

    python -m benchmarks.strangers FOLDER [--aside] [--facts]

FOLDER holds logs and index.jsonl, a line for each: `id`, `file` (below FOLDER), `label` (healthy, sick, unknown),
`fault`, `sentence` (the human's reading), `has_vocabulary` (facts, or false), `must_not_say` (for the human eye),
`codes` (rules that name the fault, or their beginnings; empty: any), `about` (a regular expression that the finding's
name, streams, summary or evidence must hold), `never` (verdict words and rules that must not be said), `metrics`
(false: the text holds none), `aside` (true: not looked at without --aside, and then alone). With --facts the facts of
`has_vocabulary` are passed where the index has some.

A log is read *right*, *partly* or *wrong*:

| label | right | partly | wrong |
|---|---|---|---|
| healthy | nothing above a note | a warning, or no stream | a critical finding, or not read |
| sick | a warning or critical that names the fault | only flagged, or named in a note | neither, or not read |
| unknown | nothing critical | a warning that is not expected | a critical that is not expected, or not read |

What must never be said makes of right partly. The listing is for a human eye: the machine's word is no reading.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.strangers.reports import Report, diagnosed

GRADES = ("right", "partly", "wrong")
Entry = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--aside", action="store_true")
    parser.add_argument("--facts", action="store_true")
    options = parser.parse_args()
    table: dict[str, Counter[str]] = {}
    said = Counter[str]()
    for entry in entries(options.folder, options.aside):
        report = diagnosed(options.folder / entry["file"], *(facts(entry) if options.facts else []), as_text=False)
        grade, why = graded(entry, report)
        table.setdefault(entry["label"], Counter())[grade] += 1
        said.update(_counted(entry, report))
        print(f"{grade.upper()} {entry['id']} ({entry['label']}): {why}\n    human: {entry['sentence']}")
        print(f"    must not say: {entry['must_not_say']}\n    earnest: {listing(report)}\n")
    print(f"| label | {' | '.join(GRADES)} |\n|---|---|---|---|")
    for label, counts in sorted(table.items()):
        print(f"| {label} | {' | '.join(str(counts[grade]) for grade in GRADES)} |")
    print("\n" + ", ".join(f"{what}: {count}" for what, count in sorted(said.items())))


def entries(folder: Path, aside: bool) -> Iterator[Entry]:
    """The lines of the index: those that are set aside, or the others."""
    for line in (folder / "index.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("aside", False) == aside:
            yield entry


def facts(entry: Entry) -> list[str]:
    """Words of the command line for what the human knew: sizes of vocabularies."""
    known = entry["has_vocabulary"] or {}
    return [word for name, value in known.items() if isinstance(value, int) for word in ("--fact", f"{name}={value}")]


def graded(entry: Entry, report: Report) -> tuple[str, str]:
    """Right, partly or wrong, and why."""
    if report.exit > 1 and not _named(entry, report):
        return ("right", "no metric to read") if _is_bare(entry) else ("wrong", "not read")
    grade, why = {"healthy": _healthy, "sick": _sick, "unknown": _unknown}[entry["label"]](entry, report)
    never = [words for words in entry["never"] if _is_said(words, report)]
    if never:
        return ("partly" if grade == "right" else grade), f"{why}; said, and must not be: {', '.join(never)}"
    return grade, why


def _healthy(entry: Entry, report: Report) -> tuple[str, str]:
    for severity, grade in (("critical", "wrong"), ("warning", "partly")):
        alarms = [finding["rule"] for finding in report.findings if finding["severity"] == severity]
        if alarms:
            return grade, f"false alarm: {severity} {', '.join(alarms)}"
    if not report.verdicts and not _is_bare(entry):
        return "partly", "no alarm, and no stream"
    return "right", "no alarm"


def _is_bare(entry: Entry) -> bool:
    """A healthy log without a metric: nothing can be read, and nothing is to be said."""
    return entry["label"] == "healthy" and not entry.get("metrics", True)


def _sick(entry: Entry, report: Report) -> tuple[str, str]:
    named = _named(entry, report)
    if any(finding["severity"] != "note" for finding in named):
        return "right", f"named: {', '.join(finding['rule'] for finding in named)}"
    if named:
        return "partly", "named in a note"
    flagged = [finding["rule"] for finding in report.findings if finding["severity"] != "note"]
    return ("partly", f"flagged, not named: {', '.join(flagged)}") if flagged else ("wrong", "missed")


def _unknown(entry: Entry, report: Report) -> tuple[str, str]:
    expected = [finding["rule"] for finding in _named(entry, report)] if entry["codes"] or entry["about"] else []
    for severity, grade in (("critical", "wrong"), ("warning", "partly")):
        alarms = [one["rule"] for one in report.findings if one["severity"] == severity and one["rule"] not in expected]
        if alarms:
            return grade, f"{severity} {', '.join(alarms)}"
    return "right", f"expected: {', '.join(expected)}" if expected else "no alarm"


def _named(entry: Entry, report: Report) -> list[dict[str, Any]]:
    """The findings that name the fault. A log without a metric is judged by the three lines of the mistake."""
    if report.exit > 1:
        said = bool(entry["about"] and re.search(entry["about"], report.text, re.IGNORECASE))
        return [{"rule": "message", "severity": "warning"}] if said else []
    return [finding for finding in report.findings if _names(entry, finding)]


def _names(entry: Entry, finding: dict[str, Any]) -> bool:
    text = json.dumps([finding[part] for part in ("name", "streams", "summary", "evidence")], ensure_ascii=False)
    return (not entry["codes"] or finding["rule"].startswith(tuple(entry["codes"]))) and bool(
        re.search(entry["about"], text, re.IGNORECASE)
    )


def _is_said(words: str, report: Report) -> bool:
    verdicts = [verdict["verdict"] for verdict in report.verdicts]
    return words in verdicts or any(
        finding["rule"].startswith(words) and finding["severity"] != "note" for finding in report.findings
    )


def _counted(entry: Entry, report: Report) -> list[str]:
    """What is counted over all logs: named, flagged, false alarms."""
    severities = {finding["severity"] for finding in report.findings}
    alarm = bool(severities & {"critical", "warning"})
    if entry["label"] == "sick":
        return ["sick"] + ["sick, flagged"] * alarm + ["sick, named"] * bool(_named(entry, report))
    if entry["label"] == "healthy":
        return ["healthy"] + ["healthy, critical"] * ("critical" in severities) + ["healthy, any alarm"] * alarm
    return []


def listing(report: Report) -> str:
    """Everything that a human needs to compare: verdicts, and findings with their words."""
    if report.exit > 1:
        return f"exit {report.exit}: {report.text}"
    verdicts = ", ".join(f"{verdict['stream']} {verdict['verdict']}" for verdict in report.verdicts) or "no streams"
    lines = [
        f"{finding['rule']} {finding['severity']} {','.join(finding['streams']) or 'whole run'} since "
        f"{finding['since_step']}: {finding['summary']}"
        for finding in report.findings
    ]
    return "\n      ".join([f"exit {report.exit}: {verdicts}", *lines])


if __name__ == "__main__":
    main()

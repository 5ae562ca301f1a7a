"""What holds for every log, whatever is wrong with it: a report does not contradict itself, what is irrelevant changes
no verdict, and a true fact silences no finding.

The logs are those of this package, the two of every rule (tests/rules), the recorded ones (tests/logs), and the runs of
tests/equipment that are simulated, benign, or trained with a planted fault, written as tables. ``python -m
tests.strangers.consistency`` prints what is violated; ``--write`` lists it in `not_consistent_yet.txt`.
"""

import csv
import functools
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.equipment.cases import CASES as RULES
from tests.equipment.planted import BENIGN, FAULTS, planted
from tests.equipment.simulated import healthy_run
from tests.strangers import CASES, HERE, LOGS
from tests.strangers.curves import of_run
from tests.strangers.expectations import SEVERITIES, options
from tests.strangers.reports import Report, diagnosed, write

NOT_YET = HERE / "not_consistent_yet.txt"
RECORDED = sorted(path for path in (HERE.parent / "logs").iterdir() if path.is_dir() and path.name != "crashers")
SIMULATED = 24
# facts that a rescaled axis changes
IN_STEPS = ("steps_per_epoch", "schedule_steps", "warmup_steps", "accumulation_steps")
FEWEST_ROWS = 120  # of a table that is thinned

# A finding of these kinds says that the whole run does not learn, or not what it should: labels, learning, gradients,
# optimisation, codec and GAN. Those of generalisation, sound and bookkeeping may stand beside a loss that falls.
AGAINST_LEARNING = re.compile("[ABCDF]")
AGAINST_SUCCESS = re.compile("B10[123]|C1..|D201|D203|D302")  # as a warning, too
AGAINST_AN_END = re.compile("E10[12]")  # beside "converged"


@dataclass(frozen=True)
class Item:
    """A log and the facts that are passed with it. `table` is its only file, if that is a table with a step."""

    name: str
    files: tuple[tuple[str, str | bytes], ...]
    options: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    place: Path | None = None  # of a recorded log, which has no files here
    below: str = ""

    @property
    def table(self) -> str | None:
        content = self._only(".csv")
        return content if content and content.startswith("step,") else None

    @property
    def text(self) -> str | None:
        return self._only(".txt", ".log")

    def _only(self, *endings: str) -> str | None:
        if len(self.files) != 1:
            return None
        name, content = self.files[0]
        return content if name.endswith(endings) and isinstance(content, str) else None

    def with_content(self, content: str) -> "Item":
        return replace(self, files=tuple((name, content) for name, _ in self.files))


@functools.cache
def reported(item: Item) -> Report:
    """What is said of a log."""
    facts = [word for name, value in item.facts for word in ("--fact", f"{name}={value}")]
    if item.place:
        return diagnosed(item.place, *facts, *item.options, as_text=False)
    with tempfile.TemporaryDirectory() as folder:
        path = write(dict(item.files), Path(folder) / "log") / item.below
        return diagnosed(path, *facts, *item.options, as_text=False)


@functools.cache
def items() -> dict[str, Item]:
    """Every log, by name."""
    all_of = [*_strangers(), *_of_rules(), *_simulated()]
    all_of += [Item(f"recorded {path.name}", (), place=path) for path in RECORDED]
    return {item.name: item for item in all_of}


def _strangers() -> Iterator[Item]:
    for name, case in CASES.items():
        words = options(case)
        at = [index for index, word in enumerate(words) if word == "--fact"]
        facts = tuple(_pair(words[index + 1]) for index in at)
        others = tuple(word for index, word in enumerate(words) if index not in at and index - 1 not in at)
        files = tuple(LOGS[case.log](np.random.default_rng(0)).items())
        yield Item(name, files, others, facts, below=case.path)


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def _of_rules() -> Iterator[Item]:
    """The logs of tests/rules that are a table and facts; probes and demos are no part of a stranger's log."""
    for path in RULES:
        for section in ("Sick", "Healthy"):
            text = path.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
            blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))
            known = json.loads(blocks.get("json", "{}"))
            if "csv" in blocks and known.keys() <= {"facts"}:
                facts = tuple((name, json.dumps(value)) for name, value in known.get("facts", {}).items())
                yield Item(f"{path.stem} {section.lower()}", (("log.csv", blocks["csv"]),), facts=facts)


def _simulated() -> Iterator[Item]:
    runs = {f"simulated {seed}": healthy_run(seed) for seed in range(SIMULATED)}
    runs |= {f"benign {name}": make() for name, make in BENIGN.items()}
    runs |= {f"planted {fault}": planted(fault, 0) for fault in FAULTS}
    for name, run in runs.items():
        table, known = of_run(run)
        yield Item(name, (("log.csv", table),), facts=known)


# --- a report does not contradict itself


def contradictions(report: Report) -> list[str]:
    """Where verdicts, findings and exit code do not say one thing."""
    out = []
    for verdict in report.verdicts:
        about = [finding for finding in report.findings if _concerns(finding, verdict["stream"])]
        if verdict["level"] == "good":
            out += [
                f"{verdict['stream']} {verdict['verdict']} beside {one['rule']}"
                for one in about
                if _against(one, verdict)
            ]
        if (verdict["level"] == "bad" or verdict["verdict"] == "memorising") and not about:
            out.append(f"{verdict['stream']} {verdict['verdict']} without a finding")
    critical = any(finding["severity"] == "critical" for finding in report.findings)
    if report.exit < 2 and report.exit != critical:
        out.append(f"exit code {report.exit} with {'a' if critical else 'no'} critical finding")
    return out


def _concerns(finding: dict[str, Any], stream: str) -> bool:
    """A finding of the whole run concerns each stream, one of a codebook the mean of all, one of any the total."""
    named = finding["streams"]
    of_audio = stream == "audio" and any(one.startswith("codebook_") for one in named)
    return not named or stream in named or stream == "total" or of_audio


def _against(finding: dict[str, Any], verdict: dict[str, Any]) -> bool:
    if finding["severity"] == "critical":
        return bool(finding["streams"] or AGAINST_LEARNING.match(finding["rule"]))
    against = [AGAINST_SUCCESS] + [AGAINST_AN_END] * (verdict["verdict"] == "converged")
    return finding["severity"] == "warning" and any(each.fullmatch(finding["rule"]) for each in against)


def exit_codes(item: Item) -> list[str]:
    """The exit code says what was found, at each severity that may be asked for."""
    out = []
    for severity in SEVERITIES:
        report = reported(replace(item, options=(*item.options, "--fail-on", severity)))
        counts = SEVERITIES[: SEVERITIES.index(severity) + 1]
        found = any(finding["severity"] in counts for finding in report.findings)
        if report.exit < 2 and report.exit != found:
            out.append(f"exit code {report.exit} with --fail-on {severity}")
    return out


# --- what is irrelevant changes no verdict


def constant_column(item: Item) -> Item | None:
    """A column that never changes."""
    return _with_rows(item, lambda row: [*row, "16"], "world_size")


def noise_rows(item: Item) -> Item | None:
    """Rows between the others, in which nothing stands but a column of noise; lines of a text without a number, but not
    inside an array, which one call prints."""
    if item.text is not None and "array([" in item.text:
        return None
    if item.text is not None:
        lines = item.text.splitlines(keepends=True)
        return item.with_content(
            "".join(line + "[rank0] still here\n" * (index % 3 == 2) for index, line in enumerate(lines))
        )
    if (rows := _rows(item)) is None:
        return None
    rng = np.random.default_rng(1)
    out = [rows[0] + ["gpu_temp_c"]]
    for row in rows[1:]:
        out += [[*row, ""], [row[0]] + [""] * (len(row) - 1) + [f"{60 + 3 * rng.standard_normal():.1f}"]]
    return item.with_content(_written(out))


def other_interval(item: Item) -> Item | None:
    """Every second row only, and those of an evaluation."""
    rows = _rows(item)
    if rows is None or len(rows) <= FEWEST_ROWS:
        return None
    filled = [sum(row[column] != "" for row in rows[1:]) for column in range(len(rows[0]))]
    sparse = [column for column, count in enumerate(filled) if count < len(rows) / 2]
    kept = [row for index, row in enumerate(rows[1:]) if index % 2 or any(row[column] for column in sparse)]
    return item.with_content(_written([rows[0], *kept]))


def longer_steps(item: Item) -> Item | None:
    """Every step counts as ten."""
    return None if _has(item, IN_STEPS) else _with_rows(item, lambda row: [str(int(row[0]) * 10), *row[1:]])


def shorter_steps(item: Item) -> Item | None:
    """Ten steps count as one."""
    rows = _rows(item)
    if rows is None or _has(item, IN_STEPS) or any(int(row[0]) % 10 for row in rows[1:]):
        return None
    return _with_rows(item, lambda row: [str(int(row[0]) // 10), *row[1:]])


IRRELEVANT: dict[str, Callable[[Item], Item | None]] = {
    "constant column": constant_column,
    "noise rows": noise_rows,
    "other interval": other_interval,
    "longer steps": longer_steps,
    "shorter steps": shorter_steps,
}


def changed_verdicts(item: Item, change: str) -> list[str]:
    """Verdicts that what is irrelevant changes. A thinner log may turn "learning" into "converged", but not into a
    verdict of another level."""
    other = IRRELEVANT[change](item)
    assert other is not None
    word = "level" if change == "other interval" else "verdict"
    before, after = ({one["stream"]: one[word] for one in reported(each).verdicts} for each in (item, other))
    streams = dict.fromkeys([*before, *after])
    return [f"{one} {before.get(one)} -> {after.get(one)}" for one in streams if before.get(one) != after.get(one)]


def _rows(item: Item) -> list[list[str]] | None:
    return None if item.table is None else list(csv.reader(io.StringIO(item.table)))


def _written(rows: list[list[str]]) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


def _with_rows(item: Item, change: Callable[[list[str]], list[str]], column: str = "") -> Item | None:
    rows = _rows(item)
    if rows is None:
        return None
    return item.with_content(_written([rows[0] + [column] * bool(column), *map(change, rows[1:])]))


def _has(item: Item, facts: tuple[str, ...]) -> bool:
    return any(name in facts for name, _ in item.facts)


# --- a true fact silences no finding


def silenced(item: Item, fact: str) -> list[str]:
    """Warnings and criticals that are said without a fact, and with it neither they nor another of the same matter."""
    without = replace(item, facts=tuple(pair for pair in item.facts if pair[0] != fact))
    said = reported(item).findings
    return [
        f"{one['rule']} {one['severity']}"
        for one in reported(without).findings
        if one["severity"] != "note"
        and not any(_stands_for(other, one) for other in said if other["severity"] != "note")
    ]


def _stands_for(finding: dict[str, Any], other: dict[str, Any]) -> bool:
    whole_run = not finding["streams"] or not other["streams"]
    return finding["rule"] == other["rule"] or whole_run or bool(set(finding["streams"]) & set(other["streams"]))


def properties() -> dict[str, Callable[[], list[str]]]:
    """Name of a property of a log -> its violations."""
    out: dict[str, Callable[[], list[str]]] = {}
    for name, item in items().items():
        out[f"no contradiction / {name}"] = lambda item=item: contradictions(reported(item))
        for change, make in IRRELEVANT.items():
            if make(item) is not None:
                out[f"{change} / {name}"] = functools.partial(changed_verdicts, item, change)
        for fact, _ in item.facts:
            out[f"fact {fact} / {name}"] = functools.partial(silenced, item, fact)
    for name in list(CASES)[::10]:
        out[f"exit codes / {name}"] = functools.partial(exit_codes, items()[name])
    return out


def main() -> None:
    lines = ["# Properties that do not hold yet (tests/strangers/consistency.py), and how they are violated today.\n"]
    every = properties()
    for name, check in every.items():
        if violated := check():
            lines.append(f"{name}: {'; '.join(violated)}\n")
            print(lines[-1], end="")
    print(f"{len(lines) - 1} of {len(every)} violated")
    if "--write" in sys.argv:
        NOT_YET.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

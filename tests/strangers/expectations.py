"""What must be said of a log, and what must not: the form of expected/*.yaml, and the comparison with a report.

An expectation states a principle, so that it can be met in several honest ways: a rule is a regular expression of codes
or is left out, words are regular expressions that are looked for without regard to case, and `any_of` holds
alternatives.
"""

import re
import shlex
from collections.abc import Container
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.strangers.reports import Report

SEVERITIES = ("critical", "warning", "note")
Words = str | list[str]


class Saying(msgspec.Struct, forbid_unknown_fields=True):
    """Describes a finding; what is left out may be anything."""

    rule: str = ""  # regular expression of the code
    severity: str = ""  # "critical"; "warning+" is a warning or worse; "note|warning"
    stream: str = ""  # of one of its streams, whole; a finding of the whole run has none
    since: tuple[int, int] | None = None  # first and last step at which it may begin
    says: Words = []  # each must occur in its text: name, streams, summary, evidence, causes, probe, fix

    def fits(self, finding: dict[str, Any]) -> bool:
        since = finding["since_step"]
        return (
            (not self.rule or bool(re.fullmatch(self.rule, finding["rule"])))
            and (not self.severity or finding["severity"] in severities(self.severity))
            and (not self.stream or any(re.fullmatch(self.stream, stream) for stream in finding["streams"]))
            and (self.since is None or (since is not None and self.since[0] <= since <= self.since[1]))
            and all(occurs(words, finding["text"]) for words in listed(self.says))
        )


class Judgement(msgspec.Struct, forbid_unknown_fields=True):
    """Describes a verdict. Its level is how the report colours it (good, weak, bad, unknown), whatever the word."""

    stream: str = ".*"  # whole
    word: str = ""
    level: str = ""  # "good|unknown"
    says: Words = []

    def fits(self, verdict: dict[str, Any]) -> bool:
        return (
            bool(re.fullmatch(self.stream, verdict["stream"]))
            and (not self.word or bool(re.fullmatch(self.word, verdict["verdict"])))
            and (not self.level or verdict["level"] in self.level.split("|"))
            and all(occurs(words, verdict["why"]) for words in listed(self.says))
        )


class Expectation(msgspec.Struct, forbid_unknown_fields=True):
    """What a report must and must not hold."""

    healthy: bool = False  # exit code 0, no finding above a note, no verdict of a bad level
    exit: int | None = None
    most: str = ""  # severity of the gravest finding that is allowed, or "none"
    finds: list[Saying] = []  # each fits a finding
    never_finds: list[Saying] = []
    verdicts: list[Judgement] = []  # each fits a verdict
    never_verdicts: list[Judgement] = []
    says: Words = []  # each occurs in what the terminal shows
    never_says: Words = []
    signals: Words = []  # each fits a signal that was read, whole: eval/loss
    no_signals: Words = []
    last_step: tuple[int, int] | None = None
    any_of: "list[Expectation]" = []

    def unmet(self, report: Report) -> list[str]:
        """What is missing or too much, in words; empty if all is met."""
        out = []
        if self.healthy:
            out += Expectation(exit=0, most="note", never_verdicts=[Judgement(level="bad")]).unmet(report)
        if self.exit is not None and report.exit != self.exit:
            out.append(f"exit code {report.exit}, not {self.exit}")
        if self.most:
            allowed = () if self.most == "none" else SEVERITIES[SEVERITIES.index(self.most) :]
            out += [f"{_short(one)}, above {self.most}" for one in report.findings if one["severity"] not in allowed]
        out += [f"no finding {_given(one)}" for one in self.finds if not any(map(one.fits, report.findings))]
        out += [f"{_short(seen)}" for one in self.never_finds for seen in report.findings if one.fits(seen)]
        out += [f"no verdict {_given(one)}" for one in self.verdicts if not any(map(one.fits, report.verdicts))]
        out += [
            f"{seen['stream']} {seen['verdict']}"
            for one in self.never_verdicts
            for seen in report.verdicts
            if one.fits(seen)
        ]
        out += [f"not said: {words}" for words in listed(self.says) if not occurs(words, report.text)]
        out += [f"said: {words}" for words in listed(self.never_says) if occurs(words, report.text)]
        fits = {
            pattern: [name for name in report.signals if re.fullmatch(pattern, name)]
            for pattern in listed(self.signals)
        }
        out += [f"no signal {pattern}" for pattern, names in fits.items() if not names]
        out += [
            f"signal {name}"
            for pattern in listed(self.no_signals)
            for name in report.signals
            if re.fullmatch(pattern, name)
        ]
        if self.last_step and not (self.last_step[0] <= report.last_step <= self.last_step[1]):
            out.append(f"last step {report.last_step}, not in {list(self.last_step)}")
        if self.any_of:
            each = [one.unmet(report) for one in self.any_of]
            out += [" or ".join("; ".join(unmet) for unmet in each)] if all(each) else []
        return out


class Case(Expectation, forbid_unknown_fields=True):
    """A log, how it is passed, and what is expected."""

    right: str = ""  # the right reading in a sentence
    kind: str = ""  # what goes wrong in such logs today, in a word or two; "healthy" and "sick" are read right
    source: str = ""  # the public report whose mechanism it has
    log: str = ""  # if it is not the first word of the case's name
    path: str = ""  # below the log's folder, which is passed otherwise; "-" is standard input
    options: str = ""  # words of the command line


def read_cases(folder: Path, logs: Container[str]) -> dict[str, Case]:
    """All cases of a folder of YAML files, by name."""
    cases: dict[str, Case] = {}
    for path in sorted(folder.glob("*.yaml")):
        for name, fields in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            case = msgspec.convert(fields, Case)
            case.log = case.log or name.split()[0]
            if case.log not in logs or name in cases or not case.right or not case.kind:
                raise ValueError(f"{path.name}: {name}: no such log, twice, or without `right` and `kind`")
            cases[name] = case
    return cases


def severities(words: str) -> tuple[str, ...]:
    """The severities that "warning+" or "note|warning" allow."""
    return SEVERITIES[: SEVERITIES.index(words[:-1]) + 1] if words.endswith("+") else tuple(words.split("|"))


def listed(words: Words) -> list[str]:
    return [words] if isinstance(words, str) else words


def occurs(words: str, text: str) -> bool:
    return bool(re.search(words, text, re.IGNORECASE))


def options(case: Case) -> list[str]:
    return shlex.split(case.options)


def _short(finding: dict[str, Any]) -> str:
    return f"{finding['rule']} {finding['severity']} {','.join(finding['streams'])}".strip()


def _given(described: Saying | Judgement) -> str:
    given = {name: value for name, value in msgspec.structs.asdict(described).items() if value and value != ".*"}
    return ", ".join(f"{name} {value}" for name, value in given.items())

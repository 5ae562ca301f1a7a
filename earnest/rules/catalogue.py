"""A rule is one decorated function whose docstring is its documentation.

Its typed parameters say what it needs (`needs.py`). It answers with `Evidence`, with `Looked` (it had what it needs,
and unless it gives evidence all is fine) or with `TooEarly`. A rule whose needs are missing is reported as not checked,
and so is one that gave no answer: what is not reported was checked and is fine.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import NoneType
from typing import Any, get_args

from earnest.errors import fault
from earnest.facts import Facts
from earnest.probes.results import Results
from earnest.rules.finding import NotChecked, Severity
from earnest.rules.needs import BothSplits, Case, Need, OfFacts, OfProbes
from earnest.run import Series
from earnest.streams import Stream

FAMILIES = {
    "A": "labels and alignment",
    "B": "is anything learned",
    "C": "does gradient arrive",
    "D": "optimisation",
    "E": "data and generalisation",
    "F": "codec and GAN",
    "G": "what it sounds like",
    "H": "bookkeeping",
}
HEADINGS = ("What it sees", "Likely causes", "Next probe", "Fix", "References")


@dataclass(frozen=True)
class Evidence:
    """What a rule saw. `odds`: how many times likelier this is under the fault than in a healthy run (`decision.py`).

    `causes`, `next_probe` and `fix` refine the rule's documentation if this evidence says more.
    """

    at_step: int | None
    summary: str
    odds: float
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    stream: Stream | None = None
    severity: Severity | None = None
    causes: list[str] | None = None
    next_probe: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Looked:
    """The rule had what it needs and looked at it; fine, unless it gives evidence too."""


@dataclass(frozen=True)
class TooEarly:
    """The rule cannot judge yet: what it would need, in words."""

    needs: str


Answers = Iterator[Evidence | Looked | TooEarly]
Check = Callable[..., Answers]


@dataclass(frozen=True)
class Asked:
    """One parameter of a rule: its name, what it asks for, and whether that may be missing."""

    parameter: str
    need: Need
    optional: bool


@dataclass(frozen=True)
class Rule:
    """One rule: its check, and its documentation taken apart."""

    code: str
    name: str
    severity: Severity
    since: str
    asks: tuple[Asked, ...]
    points: int
    explains: tuple[str, ...]
    check: Check

    @cached_property
    def text(self) -> str:
        return inspect.cleandoc(self.check.__doc__ or "")

    @property
    def title(self) -> str:
        return self.text.split("\n", 1)[0].rstrip(".")

    def section(self, heading: str) -> str:
        found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        return found[1].strip() if found else ""

    @property
    def causes(self) -> list[str]:
        return [
            " ".join(item.split())
            for item in re.split(r"^- ", self.section("Likely causes"), flags=re.MULTILINE)
            if item.strip()
        ]

    @property
    def next_probe(self) -> str:
        return " ".join(self.section("Next probe").split())

    @property
    def fix(self) -> str:
        return " ".join(self.section("Fix").split())


RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity, *, since: str = "0.1", points: int = 1, explains: tuple[str, ...] = ()
) -> Callable[[Check], Check]:
    """Enter a function into the catalogue. `points`: the fewest finite points of the series it asks for first;
    `explains`: symptoms of the same fault, by code."""

    def enter(check: Check) -> Check:
        if code in RULES:
            raise ValueError(f"rule {code} is twice in the catalogue")
        name = check.__name__.replace("_", "-")
        RULES[code] = Rule(code, name, severity, since, asked_by(check), points, explains, check)
        return check

    return enter


_TYPES: dict[type[Need], dict[str, Any]] = {
    OfFacts: {field.name: field.type for field in fields(Facts)},
    OfProbes: Results.__annotations__,
}


def asked_by(check: Check) -> tuple[Asked, ...]:
    """What the parameters of a rule ask for. Raises TypeError if one is no need, or its type is not what it gets."""
    asked: list[Asked] = []
    for parameter, annotation in inspect.get_annotations(check).items():
        if parameter == "return":
            continue
        optional = NoneType in get_args(annotation)
        if optional:
            annotation = next(one for one in get_args(annotation) if one is not NoneType)
        type_, *about = get_args(annotation) or (annotation,)
        need = about[0] if about else None
        if not isinstance(need, Need):
            raise TypeError(f"{check.__name__}: {parameter} asks for nothing that needs.py has")
        if _TYPES.get(type(need), {}).get(parameter, type_ | None) != type_ | None:
            raise TypeError(f"{check.__name__}: {parameter} is not of type {type_}")
        asked.append(Asked(parameter, need.named(parameter), optional))
    return tuple(asked)


def answers(rule: Rule, case: Case) -> list[Evidence | Looked | NotChecked]:
    """What one rule answers. One that raises costs its own answer, not the diagnosis."""
    try:
        return list(apply(rule, case))
    except Exception as error:
        return [NotChecked(rule.code, f"a version of earnest without this fault: it {fault(error)}", fault=True)]


def apply(rule: Rule, case: Case) -> Iterator[Evidence | Looked | NotChecked]:
    """Run one rule on every stream it asks for; what it lacks becomes `NotChecked`."""
    first = rule.asks[0].need
    streams = first.streams(case)
    lacks: dict[str, None] = {} if streams else {first.words(): None}
    short: list[Series] = []
    for stream in streams:
        found = {asked.parameter: asked.need.find(case, stream) for asked in rule.asks}
        missing = [asked.need.words() for asked in rule.asks if found[asked.parameter] is None and not asked.optional]
        series = _series(found[rule.asks[0].parameter])
        if missing:
            lacks[", ".join(missing)] = None
        elif series is not None and len(series.finite) < rule.points:
            short.append(series)
        else:
            answers = list(rule.check(**found))
            for answer in answers or [TooEarly(SILENT)]:
                if isinstance(answer, TooEarly):
                    lacks[answer.needs] = None
                elif isinstance(answer, Evidence) and answer.stream is None:
                    yield replace(answer, stream=stream)
                else:
                    yield answer
    if short:
        lacks[_too_few(rule.points, short)] = None
    for needs in lacks:
        yield NotChecked(rule.code, needs)


# What a rule needs that gave no answer at all: a fault of the rule, which the tests look for.
SILENT = "an answer of its own, which it did not give: please report this as a bug"


def _series(first: object) -> Series | None:
    if isinstance(first, BothSplits):
        return first.evaluated
    return first if isinstance(first, Series) else None


def _too_few(points: int, short: Sequence[Series]) -> str:
    if len(short) == 1:
        return f"{points} points of {short[0].key} (it has {len(short[0].finite)})"
    key = short[0].key
    return f"{points} points of {key.split}/{key.name} ({len(short)} streams have fewer)"

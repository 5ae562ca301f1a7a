"""A rule is one decorated function whose docstring is its documentation.

``needs`` names the rule's arguments, one string each:

- a signal, ``grad_norm`` or ``eval/ce_nats``: a `Series`. The rule is called once for every stream that has the first
  signal named; the others are taken from the same stream, or from the whole run where they have none. ``ce_nats|loss``
  takes either.
- a fact of `earnest.facts.FACTS`, ``fact:audio_vocab``; a probe, ``probe:alignment``; ``verdicts``, the ladder's;
  ``run``, everything.
- with a question mark behind it, a need may be missing, and the argument is then None.

A rule yields `Evidence`. A rule whose needs are missing is reported as not checked; silence always means checked and
fine.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from earnest.rules.finding import NotChecked, Severity, Verdict
from earnest.run import Run, Series
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

    `causes`, `next_probe` and `fix` refine the rule's documentation where this evidence says more.
    """

    at_step: int | None
    summary: str
    odds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    stream: Stream | None = None
    severity: Severity | None = None
    causes: list[str] | None = None
    next_probe: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class TooEarly:
    """Yielded by a rule that cannot judge yet: what it would need, in words."""

    needs: str


@dataclass(frozen=True)
class Rule:
    """One rule: its check, and its documentation taken apart."""

    code: str
    name: str
    severity: Severity
    since: str
    needs: tuple[str, ...]
    points: int
    explains: tuple[str, ...]
    check: Callable[..., Iterable[Evidence | TooEarly]]
    text: str

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
    code: str, needs: list[str], severity: Severity, since: str = "0.1", points: int = 1, explains: tuple[str, ...] = ()
):
    """Enter a function into the catalogue. `points`: the fewest finite points of its first signal; `explains`: symptoms
    of the same fault, by code."""

    def enter(check):
        if code in RULES:
            raise ValueError(f"rule {code} stands twice in the catalogue")
        RULES[code] = Rule(
            code,
            check.__name__.replace("_", "-"),
            severity,
            since,
            tuple(needs),
            points,
            explains,
            check,
            inspect.cleandoc(check.__doc__ or ""),
        )
        return check

    return enter


@dataclass(frozen=True)
class View:
    """A run and its verdicts, as `needs` are looked up in it."""

    run: Run
    verdicts: list[Verdict]

    def streams(self, need: str) -> list[Stream | None]:
        """Streams that have a signal, in the order of the log."""
        wanted = [_split(option) for option in need.rstrip("?").split("|")]
        return list(dict.fromkeys(key.stream for key in self.run.series if key[:2] in wanted))

    def get(self, need: str, stream: Stream | None) -> Any:
        need = need.rstrip("?")
        if need == "run":
            return self.run
        if need == "verdicts":
            return self.verdicts or None
        if need.startswith("fact:"):
            return getattr(self.run.facts, need[5:])
        if need.startswith("probe:"):
            return getattr(self.run.probes, need[6:])
        for option in need.split("|"):
            split, name = _split(option)
            for where in dict.fromkeys((stream, None)):
                if (found := self.run.get(split, name, where)) is not None:
                    return found
        return None


def _split(need: str) -> tuple[str, str]:
    split, _, name = need.rpartition("/")
    return split or "train", name


def _is_signal(need: str) -> bool:
    return ":" not in need and need.rstrip("?") not in ("run", "verdicts")


def apply(one: Rule, view: View) -> Iterator[Evidence | NotChecked]:
    """Run one rule on every stream it speaks of; missing needs become `NotChecked`."""
    first = one.needs[0]
    streams = view.streams(first) if _is_signal(first) else [None]
    if not streams:
        yield NotChecked(one.code, _words(first))
        return
    unmet: dict[str, None] = {}
    short: list[Series] = []
    for stream in streams:
        arguments = [view.get(need, stream) for need in one.needs]
        missing = [
            _words(need)
            for need, argument in zip(one.needs, arguments, strict=True)
            if argument is None and not need.endswith("?")
        ]
        signal = arguments[0]
        if missing:
            unmet[", ".join(missing)] = None
        elif isinstance(signal, Series) and len(signal.finite) < one.points:
            short.append(signal)
        else:
            for found in one.check(*arguments):
                if isinstance(found, TooEarly):
                    unmet[found.needs] = None
                else:
                    yield found if found.stream or stream is None else replace(found, stream=stream)
    if short:
        has = f"it has {len(short[0].finite)}" if len(short) == 1 else f"{len(short)} streams have fewer"
        name = short[0].key if len(short) == 1 else f"{short[0].key.split}/{short[0].key.name}"
        unmet[f"{one.points} points of {name} ({has})"] = None
    for needs in unmet:
        yield NotChecked(one.code, needs)


def _words(need: str) -> str:
    need = need.rstrip("?")
    if need.startswith(("fact:", "probe:")):
        kind, name = need.split(":")
        return f"--fact {name}=..." if kind == "fact" else f"the probe {name}"
    if need == "verdicts":
        return "a loss"
    return " or ".join("/".join(_split(option)) for option in need.split("|"))

"""What the doctor says: a `Verdict` per stream, `Finding`s, and what was not checked.

The JSON form (``earnest diagnose --format json``) is these fields, under ``"schema": 2``.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from earnest.streams import Stream

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")  # most important first

Word = Literal[
    "worse-than-chance",
    "at-chance",
    "unigram-only",
    "learning",
    "converged",
    "never-moved",
    "getting-worse",
    "memorising",
    "degenerate",
    "cannot-judge",
]


@dataclass(frozen=True)
class Baseline:
    """What a predictor that has learnt nothing of the kind would score on the same targets."""

    name: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """Is this stream learning?

    `baseline` is the lowest rung reached; `ladder` holds every rung, highest first; `value` is the mean of the last
    `mean_of` values; `fault`: it could not be judged, by a fault of earnest's own.
    """

    stream: Stream
    verdict: Word
    value: float | None
    unit: str
    baseline: Baseline | None
    since_step: int | None
    why: str
    ladder: list[Baseline] = field(default_factory=list[Baseline])
    mean_of: int = 1
    fault: bool = False


@dataclass(frozen=True)
class Finding:
    """One fault: what, of which streams (none: of the whole run), since which step, the evidence, the likely causes,
    the next probe, the fix."""

    rule: str
    name: str
    severity: Severity
    streams: tuple[Stream, ...]
    confidence: float
    since_step: int | None
    summary: str
    evidence: list[dict[str, Any]]
    causes: list[str]
    next_probe: str
    fix: str


@dataclass(frozen=True)
class NotChecked:
    """A rule that could not run, and what it needs. `fault`: it failed by a fault of earnest's own."""

    rule: str
    needs: str
    fault: bool = False


@dataclass(frozen=True)
class Ask:
    """A number that the log does not hold, and without which streams cannot be judged. what: it is · where: it stands ·
    command: what to type · hints: what may be typed instead, and what the log itself suggests."""

    streams: tuple[Stream, ...]
    what: str
    where: str
    command: str
    hints: list[str]


@dataclass(frozen=True)
class Diagnosis:
    """Everything said of one run. `checked`: the rules that looked at something, by code, whatever they found. `asks`:
    what would let streams be judged that cannot be."""

    verdicts: list[Verdict]
    findings: list[Finding]
    not_checked: list[NotChecked]
    mapping: dict[str, str] = field(default_factory=dict[str, str])
    checked: list[str] = field(default_factory=list[str])
    asks: list[Ask] = field(default_factory=list[Ask])

    @property
    def faults(self) -> list[str]:
        """What could not be checked by a fault of earnest's own."""
        rules = [one.rule for one in self.not_checked if one.fault]
        return rules + [str(one.stream) for one in self.verdicts if one.fault]

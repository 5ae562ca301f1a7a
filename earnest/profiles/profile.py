"""`Profile`: what is known of a public trainer's log. One file of trainers/ each, read at the trainer's source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from earnest import records
from earnest.errors import UserError
from earnest.facts import Facts, Unit
from earnest.profiles.compiled import table
from earnest.profiles.formula import evaluate
from earnest.streams import TOTAL, Stream, parse

FOLDER = Path(__file__).parent / "trainers"
NONE = "none"  # said of the trainer: that no profile is wanted


@dataclass(frozen=True)
class Fingerprint:
    """What tells that a log is this trainer's: column names, or a line.

    where: of the trainer's outputs · columns: all of these are there, as logged or without the split · absent: none of
    these is · line: printed so, each # a number, spaces
    as many as they like, from ^ the beginning to $ the end · first: for a line that other programs print too: between
    which its last number lies when it is first printed · weak: counts only beside another one.
    """

    where: str
    columns: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    line: str = ""
    first: tuple[float, float] | None = None
    weak: bool = False


@dataclass(frozen=True)
class Logged:
    """One quantity that the trainer logs.

    columns: its names in the log · means: in words · signal: what it is for earnest, ``loss/mel``, "step" or "ignore";
    without one its name tells · unit: of a loss, if that says more than its name · divided: whether it is printed
    divided by the accumulation steps in training · chance: formula of what a predictor that has learnt nothing scores,
    undivided · level: what is known of its level beside that · usual: what public runs show.
    """

    columns: tuple[str, ...]
    means: str
    signal: str = ""
    unit: Unit | None = None
    divided: bool = False
    chance: str = ""
    level: str = ""
    usual: str = ""

    @property
    def stream(self) -> Stream | None:
        """The stream whose loss this is, or None if it is no loss."""
        name, _, stream = self.signal.partition("/")
        return None if name not in ("loss", "ce_nats") else parse(stream) if stream else TOTAL


@dataclass(frozen=True)
class Sign:
    """Where a loss lies if a defect is at work: at its start, or at its end, between two levels."""

    stream: Stream
    start: tuple[float, float] | None = None
    end: tuple[float, float] | None = None


@dataclass(frozen=True)
class Defect:
    """A known fault of the trainer. shows: what the log shows of it, in words · issue: public threads; none if it was
    found by reading the code alone · rules: whose findings it may be the cause of · sign: by which it is recognised."""

    what: str
    shows: str
    issue: str = ""
    rules: tuple[str, ...] = ()
    sign: Sign | None = None


@dataclass(frozen=True)
class Profile:
    """A public trainer. name: of its file · loss: the formula of what it prints · step: what its steps count · files:
    where that was read · seen: what public runs printed · extends: the trainer that it is built on · models: those
    that it trains, if the log does not say which."""

    name: str
    title: str
    repository: str
    commit: str
    files: tuple[str, ...]
    loss: str
    step: str
    fingerprints: tuple[Fingerprint, ...]
    logged: tuple[Logged, ...]
    facts: Facts = Facts()
    notes: tuple[str, ...] = ()
    defects: tuple[Defect, ...] = ()
    seen: str = ""
    extends: str = ""
    models: tuple[str, ...] = ()

    def column(self, *names: str) -> Logged | None:
        """What a column is, by the first of its names that the trainer is known to log."""
        return next((one for name in names for one in self.logged if name in one.columns), None)

    def facts_given(self, known: Facts) -> Facts:
        """The profile's facts, with what follows from them and from those that are known: units, and the levels of a
        predictor that has learnt nothing. What is known wins."""
        facts = self.facts.updated(known)
        of_streams = {one.stream: one for one in reversed(self.logged) if one.stream is not None}
        known_values = facts.known()
        levels = {stream: evaluate(one.chance, known_values) for stream, one in of_streams.items() if one.chance}
        baselines = {stream: level for stream, level in levels.items() if level is not None}
        units = {
            stream: "divided" if one.divided and facts.accumulation_steps is None else _as_read(one.unit)
            for stream, one in of_streams.items()
            if one.unit is not None
        }
        return replace(
            facts,
            trainer=self.name,
            baselines={**baselines, **(known.baselines or {})} or None,
            units={**units, **(known.units or {})} or None,
        )


def _as_read(unit: Unit | None) -> Unit | None:
    """The unit of a loss once it is read: bits are read as nats."""
    return "nats" if unit == "bits" else unit


@cache
def profiles() -> Mapping[str, Profile]:
    """Every profile by its name."""
    return {
        name: records.read(Profile, page | {"name": name}, f"profile {name}", "mend the file")
        for name, page in table("trainers").items()
    }


def profile(name: str) -> Profile:
    """A profile by its name; raises UserError if there is none."""
    found = profiles().get(name.lower())
    if found is None:
        close = get_close_matches(name.lower(), profiles(), 3)
        raise UserError(
            f"trainer {name!r}",
            f"one of {', '.join(profiles())}, or none",
            f"did you mean {' or '.join(close)}?" if close else "`earnest explain trainers` lists them",
        )
    return found


def known_defects(name: str | None) -> tuple[Defect, ...]:
    """The defects of a trainer, and of those that it is built on; none if there is no such profile."""
    found = profiles().get(name or "")
    return (*found.defects, *known_defects(found.extends)) if found else ()


def built_on(name: str | None, base: str) -> bool:
    """Whether a trainer is the one called `base`, or is built on it."""
    found = profiles().get(name or "")
    return found is not None and (found.name == base or built_on(found.extends, base))

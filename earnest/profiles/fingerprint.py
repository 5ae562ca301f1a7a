"""`recognise`: which trainer wrote a log, by the names of its columns and the form of its lines. A value counts only if
several trainers print the same form."""

import re
from dataclasses import dataclass
from functools import cache

from earnest.profiles.profile import Fingerprint, Profile, profiles

NUMBER = r"(?:[-+]?(?:\d++(?:[.,]\d++)*+(?:[eE][-+]?\d++)?+|nan|inf))"
ANYTHING = r"[^\n]{0,300}?"


@dataclass(frozen=True)
class Shown:
    """What a log shows of its trainer. columns: the names of its columns, both as logged and without their split ·
    text: what was printed, or parts of it; empty if the log is no text."""

    columns: frozenset[str]
    text: str = ""


@dataclass(frozen=True)
class Match:
    """A profile whose fingerprints are in the log. weight: how many names and words match · by: which, in words."""

    profile: Profile
    weight: int
    by: str


@dataclass(frozen=True)
class Recognised:
    """The trainer that wrote the log, or None. note: what tells it, or why it cannot be told, for the user; empty if no
    profile matches."""

    profile: Profile | None
    note: str


def recognise(shown: Shown) -> Recognised:
    """The profile with the most specific evidence. A trainer that is built on another goes before that one; if several
    have as much, none is taken."""
    found = matches(shown)
    if not found:
        return Recognised(None, "")
    best = [match for match in found if match.weight == found[0].weight]
    if len(best) > 1:
        named = " or ".join(match.profile.name for match in best)
        return Recognised(None, f"this may be the log of {named} ({best[0].by}): say which with --trainer NAME")
    return Recognised(best[0].profile, f"recognised as the log of {best[0].profile.title} by its {best[0].by}")


def matches(shown: Shown) -> list[Match]:
    """Every profile that the log may be of, the one with the most evidence first."""
    found = [match for profile in profiles().values() if (match := _match(profile, shown))]
    bases = {match.profile.extends for match in found}
    return sorted((match for match in found if match.profile.name not in bases), key=lambda match: -match.weight)


def _match(profile: Profile, shown: Shown) -> Match | None:
    borne = [fingerprint for fingerprint in profile.fingerprints if _bears(shown, fingerprint)]
    strong = [fingerprint for fingerprint in borne if not fingerprint.weak]
    if not strong:
        return None
    first = max(strong, key=_weight)
    by = f"columns {', '.join(first.columns)}" if first.columns else f"lines of the form {first.line!r}"
    return Match(profile, sum(map(_weight, borne)), by)


def _weight(fingerprint: Fingerprint) -> int:
    """How much it says: the names of columns, or the words of a line."""
    return len(fingerprint.columns) + len(re.findall(r"[^\W_]+", fingerprint.line))


def _bears(shown: Shown, fingerprint: Fingerprint) -> bool:
    if not shown.columns.isdisjoint(fingerprint.absent):
        return False
    if fingerprint.columns:
        return shown.columns.issuperset(fingerprint.columns)
    if max(literals(fingerprint.line), key=len) not in shown.text:
        return False
    found = pattern(fingerprint.line).search(shown.text)
    return found is not None and (fingerprint.first is None or _is_within(found[0], fingerprint.first))


def _is_within(line: str, levels: tuple[float, float]) -> bool:
    """Whether the last number of a line lies between two levels."""
    last = re.findall(NUMBER, line)[-1].replace(",", "")
    return levels[0] <= float(last) <= levels[1]


def literals(line: str) -> list[str]:
    """The pieces of a fingerprint's line that stand in the log as they are."""
    return [piece for piece in re.split(r"[#…\s^$]+", line) if piece] or [""]


@cache
def pattern(line: str, number: str = NUMBER) -> re.Pattern[str]:
    """A fingerprint's line as a pattern of a text: # is a number, … anything, and white space may be any."""
    start, inner = ("^[ \t]*+", line[1:]) if line.startswith("^") else ("", line)
    end, inner = ("[ \t\r]*+$", inner[:-1]) if inner.endswith("$") else ("", inner)
    parts = {"#": number, "…": ANYTHING}
    pieces = (
        parts.get(piece) or (r"[ \t]++" if piece.isspace() else re.escape(piece))
        for piece in re.split(r"([#…]|\s+)", inner)
        if piece
    )
    return re.compile(start + "".join(pieces) + end, re.MULTILINE)

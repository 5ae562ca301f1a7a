"""The trainer that wrote a log, and what its profile adds: the meaning of columns, and facts that nothing else
states."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from earnest.facts import Facts
from earnest.logs.log import Log
from earnest.logs.names import split_of
from earnest.logs.source import ANSI, Source
from earnest.logs.units import IN_NATS
from earnest.logs.words import without_split
from earnest.profiles import NONE, Logged, Profile, Recognised, Shown, profile, recognise
from earnest.profiles.models import models
from earnest.run import Run
from earnest.signals import Key, parse
from earnest.streams import TOTAL, Stream

MOST_MODELS = 3  # names in one log that are worth a note
MOST_BYTES = 1 << 18  # of the beginning of a text, and of its end, in which a trainer's lines are looked for


def trainer_of(log: Log, source: Source, named: str | None) -> Recognised:
    """The trainer that the user names, else the one whose fingerprint the log bears."""
    if named == NONE:
        return Recognised(None, "")
    if named is not None:
        found = profile(named)
        return Recognised(found, f"read as the log of {found.title}")
    columns = frozenset(log.columns) | frozenset(map(without_split, log.columns))
    return recognise(Shown(columns, _text(source)))


def _text(source: Source) -> str:
    if not source.is_text:
        return ""
    printed = source.head[:MOST_BYTES]
    if not source.head_is_whole and source.path.is_file():
        with open(source.path, "rb") as file:
            file.seek(max(0, source.path.stat().st_size - MOST_BYTES))
            printed += b"\n" + file.read(MOST_BYTES)
    return ANSI.sub("", printed.decode("utf-8", "replace").replace("\r", "\n"))


def note_on_models(source: Source) -> str:
    """The known models whose names on the Hub stand in the log, as a note; empty if there are none, or many."""
    printed = _text(source)
    named = [model for model in models().values() if any(hub in printed for hub in model.hub)]
    if not named or len(named) > MOST_MODELS:
        return ""
    said = " or ".join(f"--model {model.name} ({model.title})" for model in named)
    return f"the log names known models: {said} gives the facts of the one that was trained"


@dataclass(frozen=True)
class Known:
    """What a profile says of a log's columns: those that are signals, those that count steps, those that are not to be
    read and why. in_bits: streams whose loss the user states to be in base 2."""

    keys: Mapping[str, Key]
    steps: Iterable[str]
    ignored: Mapping[str, str]
    in_bits: Collection[Stream] = ()


NOTHING = Known({}, (), {})


def known_columns(log: Log, page: Profile | None, facts: Facts) -> Known:
    """The columns that the profile knows. A loss that is printed divided is multiplied back if it is known by what."""
    accumulation_steps = facts.accumulation_steps
    in_bits = [stream for stream, unit in (facts.units or {}).items() if unit == "bits"]
    if page is None:
        return Known({}, (), {}, in_bits)
    logged = {name: page.column(name, without_split(name)) for name in log.columns}
    found = {name: one for name, one in logged.items() if one is not None and one.signal}
    keys = {name: parse(f"{split_of(name)}/{one.signal}") for name, one in found.items() if not _is_aside(one)}
    for name, key in keys.items():
        if found[name].unit == "bits":
            log.scale[name] = IN_NATS
        if found[name].divided and key.split == "train" and accumulation_steps:
            log.scale[name] = (accumulation_steps, f"loss / {accumulation_steps} accumulation steps")
    return Known(
        keys,
        [name for name, one in found.items() if one.signal == "step"],
        {name: f"{page.name}: {one.means}" for name, one in found.items() if one.signal == "ignore"},
        in_bits,
    )


def _is_aside(one: Logged) -> bool:
    return one.signal in ("ignore", "step")


def add_facts(run: Run, page: Profile, note: str) -> None:
    """The profile's facts, where the run knows no better, and a note that says which."""
    streams = {key.stream or TOTAL for key in run.series if key.name in ("loss", "ce_nats")}
    given = page.facts_given(run.facts)
    facts: dict[str, object] = {
        name: value for name, value in vars(given).items() if value is not None and getattr(run.facts, name) is None
    }
    for name in ("baselines", "units"):
        of_run = {stream: value for stream, value in (getattr(given, name) or {}).items() if stream in streams}
        facts[name] = of_run or None
    run.facts = run.facts.updated(facts)
    sources = {name: f"the page on {page.name}" for name, value in facts.items() if value is not None}
    run.facts = run.facts.updated({"fact_sources": {**sources, **(run.facts.fact_sources or {})}})
    taken = ", ".join(_in_words(run.facts, name) for name in facts if facts[name] and name != "trainer")
    run.notes.insert(0, f"{note} (earnest explain {page.name}){f'; taken from it: {taken}' if taken else ''}")


def _in_words(facts: Facts, name: str) -> str:
    if name == "baselines":
        return ", ".join(f"chance of {stream} {level:.4g}" for stream, level in (facts.baselines or {}).items())
    if name == "units":
        return ", ".join(f"unit of {stream} {unit}" for stream, unit in (facts.units or {}).items())
    return f"{name}={getattr(facts, name)}"

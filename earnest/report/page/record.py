"""How the run was read, and everything that is known of it."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, cast

from earnest.facts import FACTS
from earnest.records import MOST_LEAVES, leaves, plain
from earnest.report import view
from earnest.report.page.fragment import Fragment, fill
from earnest.rules.finding import Diagnosis
from earnest.run import Run

MOST_CHARACTERS = 400  # of one fact
ELSEWHERE = ("mapping", "unmapped")


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """Everything else that is known of the run: columns, probes, facts and configuration."""
    facts = {name: fact for name, fact in run.facts.known().items() if name not in ELSEWHERE}
    parts = [
        ("Columns and what they were read as", _rows(diagnosis.mapping.items())),
        ("Columns not used, and why", _rows(flat(run.facts.unmapped or {}))),
        ("Results of probes", _rows(flat(plain(run.probes)))),
        ("Facts and configuration", _rows(flat(facts))),
    ]
    return Fragment("run", "The run", fill("record.html", notes=run.notes, parts=parts))


def _rows(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """The rows of a record; a name that is a fact gets its meaning."""
    return [(name, words, FACTS[name].meaning if name in FACTS else "") for name, words in pairs]


def flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested facts -> (dotted name, value in words), long ones cut short with a word on their length."""
    for name, fact in leaves(facts):
        entries = len(cast(Sized, fact)) if isinstance(fact, Mapping | list | tuple) else 0
        words = view.shown(fact) if entries <= MOST_LEAVES else f"{entries:,} entries"
        cut = f"{words[:MOST_CHARACTERS]}… ({len(words):,} characters)"
        yield name, words if len(words) <= MOST_CHARACTERS else cut

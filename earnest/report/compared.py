"""A comparison of runs: as text on a terminal, as JSON, and what both share with the page."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from earnest.comparison import Comparison, Contest, One
from earnest.report import view
from earnest.report.as_json import plain
from earnest.report.as_terminal import STYLE
from earnest.rules.measure import Measure

SCHEMA = 1
MOST_DIFFERENCES = 40  # on a terminal
MOST_COLUMNS = 4  # runs that stand beside each other on a terminal
SOURCES = {"held out": "held-out clips", "evaluation": "the last evaluation", "training": "training, mean of a tenth"}
NOT_SEEDS = (
    "The interval holds the noise of the log and the difference between held-out clips. It does not hold the luck of "
    "the seed: only a second run with another seed tells that."
)


def letter(index: int) -> str:
    """A, B, C, ...; what a run is called in tables."""
    return chr(ord("A") + index)


def level(measure: Measure | None) -> str:
    """``5.06 ±0.021``; without an interval the value alone."""
    if measure is None:
        return "–"
    half = f" ±{_half((measure.high - measure.low) / 2)}" if measure.interval else ""
    return view.number(measure.value) + half


def better(contest: Contest) -> str:
    """Who is better on a stream, by how much, and whether that is more than the interval."""
    if contest.why_not:
        return f"not comparable: {contest.why_not}"
    void = "".join(f"; {letter(index)} degenerate" for index in sorted(contest.void))
    return _standing(contest) + void


def _standing(contest: Contest) -> str:
    found = [(gap, index) for index in range(len(contest.measures)) if (gap := contest.gap(index))]
    gaps = sorted((gap.by, index, gap) for gap, index in found if index != contest.best)
    by, second, gap = gaps[0]
    best, room = letter(contest.best), f"±{_half(gap.interval or 0)}"
    if contest.winner is not None:
        return f"{best}, by {view.number(by)} over {letter(second)}: more than {room}"
    if not by and len(gaps) == 1:
        return "none: the same"
    if gap.interval is None:
        return f"unknown: {best} lower by {view.number(by)}, too few values for an interval"
    worse = ", ".join(letter(index) for _, index, gap in gaps if gap.is_real)
    why = f"none: {best} lower than {letter(second)} by {view.number(by)}, within {room}"
    return why + (f"; worse than {best}: {worse}" if worse else "")


def _half(size: float) -> str:
    return view.number(float(f"{size:.2g}"))


def headline(contests: Sequence[Contest]) -> str:
    """On how many streams which run is better by more than the interval."""
    judged = [contest for contest in contests if not contest.why_not]
    if not judged:
        return "No loss of these runs can be compared."
    wins = Counter(contest.winner for contest in judged)
    clauses = [f"{letter(index)} on {wins[index]}" for index in sorted(index for index in wins if index is not None)]
    streams = f"{len(judged)} stream" + "s" * (len(judged) != 1)
    if not clauses:
        return f"On none of {streams} is a run better by more than the interval."
    rest = f"; no run on {wins[None]}" if wins[None] else ""
    return f"Better by more than the interval, of {streams}: {', '.join(clauses)}{rest}."


def about(one: One) -> str:
    """What a run is, in one line."""
    state = view.state(one.run) or f"step {view.number(one.run.last_step)}"
    facts = one.run.facts
    return " · ".join(filter(None, [view.line(facts.system or facts.trainer or facts.format or ""), state]))


def found(comparison: Comparison) -> dict[str, list[str]]:
    """Findings by rule: since which step each run has it, empty of a run without it."""
    rules: dict[str, list[str]] = {}
    for index, one in enumerate(comparison.runs):
        for finding in view.in_order(one.diagnosis.findings):
            cells = rules.setdefault(f"{finding.rule} {finding.name}", [""] * len(comparison.runs))
            since = "" if not finding.since_step else f" since step {view.number(finding.since_step)}"
            cells[index] = f"{finding.severity}{since}"
    return rules


def verdicts(comparison: Comparison) -> dict[str, list[str]]:
    """Stream -> the word on it in every run; empty where a run has no such stream."""
    words: dict[str, list[str]] = {}
    for index, one in enumerate(comparison.runs):
        for verdict in one.diagnosis.verdicts:
            words.setdefault(view.line(verdict.stream), [""] * len(comparison.runs))[index] = verdict.verdict
    return words


def settings(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """What differs: (group, name, value of every run in words)."""
    return [
        (group, view.line(name), ["–" if value is None else view.private(view.shown(value)) for value in values])
        for group, name, values in comparison.differences
    ]


def titled(comparison: Comparison) -> Iterator[tuple[str, Sequence[Contest]]]:
    """The contests with what they are of."""
    for contests, place in (
        (comparison.at_end, "at the end"),
        (comparison.at_common, f"at step {view.number(comparison.common_step)}, which all have reached"),
    ):
        for source in dict.fromkeys(contest.source for contest in contests):
            chosen = [contest for contest in contests if contest.source == source]
            yield f"Loss {place}, of {SOURCES.get(source, 'different kinds')}", chosen


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print who is better, the verdicts, the findings, and what differs."""
    for part in _parts(comparison):
        console.print(part, highlight=False)


def _parts(comparison: Comparison) -> Iterator[RenderableType]:
    runs = comparison.runs
    for index, one in enumerate(runs):
        yield Text.assemble((f"{letter(index)}  {view.line(one.name)}", "bold"), f" · {about(one)}")
    yield Text("\n" + headline(comparison.at_end))
    for title, contests in titled(comparison):
        yield Text(f"\n{title}", style="bold")
        rows = [[view.line(one.stream), *map(level, one.measures), better(one)] for one in contests]
        yield from _table(["stream", "better"], rows, len(runs))
    words = verdicts(comparison)
    yield Text("\nVerdicts", style="bold")
    yield from _table(["stream"], [[stream, *map(_marked, cells)] for stream, cells in words.items()], len(runs))
    rules = found(comparison)
    yield Text("\nFindings" if rules else "\nNo findings", style="bold")
    yield from _table(["rule"], [[rule, *(cell or "–" for cell in cells)] for rule, cells in rules.items()], len(runs))
    differ = settings(comparison)
    yield Text("\nWhat differs" if differ else "\nNothing that is known differs", style="bold")
    for group in dict.fromkeys(group for group, _, _ in differ):
        named = [[name, *cells] for of, name, cells in differ if of == group]
        yield from _table([group], named[:MOST_DIFFERENCES], len(runs))
        if len(named) > MOST_DIFFERENCES:
            yield Text(f"  and {len(named) - MOST_DIFFERENCES} more: --format html shows all", style="dim")
    yield Text("\n" + NOT_SEEDS, style="dim")


def _marked(word: str) -> Text:
    return Text(f"{view.MARK[view.LEVEL[word]]} {word}", STYLE[view.LEVEL[word]]) if word else Text("–")


def _table(head: Sequence[str], rows: Sequence[Sequence[str | Text]], runs: int) -> Iterator[RenderableType]:
    """Rows with a column a run; of many runs, or of one row, a line for each."""
    if not rows:
        return
    if runs > MOST_COLUMNS:
        for name, *cells in rows:
            texts = [Text.assemble(f"{letter(index)} ", cell) for index, cell in enumerate(cells[:runs])]
            more = [Text(str(cell)) for cell in cells[runs:]]
            yield Padding(Text.assemble((str(name), "bold"), "  ", Text(" · ").join([*texts, *more])), (0, 0, 0, 2))
        return
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column(head[0], overflow="fold")
    for index in range(runs):
        grid.add_column(letter(index), overflow="fold")
    for name in head[1:]:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    yield Padding(grid, (0, 0, 0, 2), expand=False)


def as_json(comparison: Comparison) -> str:
    """The comparison as JSON."""
    content = {
        "schema": SCHEMA,
        "runs": [
            {"name": view.clean(one.name), "last_step": one.run.last_step, "findings": one.diagnosis.findings}
            for one in comparison.runs
        ],
        "at_end": [_plain(contest) for contest in comparison.at_end],
        "common_step": comparison.common_step,
        "at_common_step": [_plain(contest) for contest in comparison.at_common],
        "verdicts": verdicts(comparison),
        "differences": [difference._asdict() for difference in comparison.differences],
    }
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"


def _plain(contest: Contest) -> dict[str, Any]:
    values = [measure and {"value": measure.value, "interval": measure.interval} for measure in contest.measures]
    gaps = [gap and gap._asdict() for gap in map(contest.gap, range(len(contest.measures)))]
    entry = {"stream": contest.stream, "source": contest.source, "values": values, "above_best": gaps}
    entry["degenerate"] = sorted(contest.void)
    return entry | {"best": contest.best, "better": contest.winner, "not_comparable": contest.why_not or None}

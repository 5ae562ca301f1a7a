"""The page of several runs: who is better on which stream, their curves on one chart, and what differs."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from earnest.comparison import Comparison, Contest
from earnest.report import charts, compared, view
from earnest.report.page import whole
from earnest.report.page.curves import LOSSES, MOST_CHARTS, MOST_POINTS, OPTIMISATION, unit
from earnest.report.page.fragment import Fragment, fill
from earnest.report.page.streams import ladder
from earnest.report.page.tables import Cell, Table, of_words
from earnest.rules.finding import Baseline
from earnest.run import Series
from earnest.signals import Key
from earnest.streams import TOTAL, Stream, in_order

LONGEST_NAME = 40  # of a line on a chart


def render(comparison: Comparison) -> str:
    """The whole page."""
    title = f"{len(comparison.runs)} runs compared"
    head = fill("compared_head.html", title=title, headline=compared.headline(comparison.at_end), command="compare")
    parts = [*_tables(comparison), *_curves(comparison), *_differences(comparison)]
    return whole(title, head, [part for part in parts if part.html])


def _letters(comparison: Comparison) -> list[str]:
    return [compared.letter(index) for index in range(len(comparison.runs))]


def _tables(comparison: Comparison) -> Iterator[Fragment]:
    letters = _letters(comparison)
    rows = [
        [
            Cell(letters[index], "name"),
            Cell(one.name, "name"),
            Cell(compared.about(one), "prose"),
            Cell(view.headline(one.diagnosis), "prose"),
        ]
        for index, one in enumerate(comparison.runs)
    ]
    runs = Table(["", "Run", "What", "Said of it"], rows, title="The runs")
    yield section("several", "Runs", [("", runs)])
    contests = [(title, _contests(letters, of)) for title, of in compared.titled(comparison)]
    yield section("better", "Which is better", contests, about=compared.NOT_SEEDS)
    words = compared.verdicts(comparison)
    cells = [[Cell(stream, "name"), *map(_word, row)] for stream, row in words.items()]
    yield section("verdicts", "Verdicts", [("", Table(["Stream", *letters], cells))] if cells else [])
    found = [[rule, *(cell or "–" for cell in row)] for rule, row in compared.found(comparison).items()]
    table = of_words(["Rule", *letters], found)
    yield section("found", "Findings", [("", table)] if found else [], "None in any run.")


def _contests(letters: Sequence[str], contests: Sequence[Contest]) -> Table:
    rows = [
        [
            Cell(view.line(contest.stream), "name"),
            *(Cell(compared.level(measure)) for measure in contest.measures),
            Cell(compared.better(contest), "prose"),
        ]
        for contest in contests
    ]
    return Table(["Stream", *letters, "Better"], rows)


def _word(word: str) -> Cell:
    if not word:
        return Cell("–")
    return Cell(kind="drawn", html=fill("pill.html", word=word, level=view.LEVEL[word]), letters=len(word) + 5)


def _differences(comparison: Comparison) -> Iterator[Fragment]:
    letters, rows = _letters(comparison), compared.settings(comparison)
    groups = dict.fromkeys(group for group, _, _ in rows)
    tables = [
        (group.capitalize(), of_words(["", *letters], [[name, *cells] for of, name, cells in rows if of == group]))
        for group in groups
    ]
    yield section("differences", "What differs", tables, "Nothing that is known of the runs differs.")


def _curves(comparison: Comparison) -> Iterator[Fragment]:
    """One chart a stream with a line a run: held-out loss, loss of training, and how it was optimised."""
    known = {key for one in comparison.runs for key in one.run.series}
    streams = in_order({key.stream or TOTAL for key in known if key.name in LOSSES})
    for id, title, split in (("loss", "Held-out loss", "eval"), ("training", "Loss of training", "train")):
        drawn = [_loss(comparison, split, stream) for stream in streams[:MOST_CHARTS]]
        yield section(id, title, drawn=[chart for chart in drawn if chart], lines=_names(comparison))
    keys = sorted({key for key in known if key.name in OPTIMISATION}, key=str)[:MOST_CHARTS]
    lines = {key: [one.run.series.get(key) for one in comparison.runs] for key in keys}
    drawn = [
        _chart(comparison, " ".join(filter(None, [key.name.replace("_", " "), str(key.stream or "")])), key, of)
        for key, of in lines.items()
    ]
    yield section("optimisation", "Optimisation", drawn=[one for one in drawn if one], lines=_names(comparison))


def _names(comparison: Comparison) -> list[str]:
    named = [f"{compared.letter(index)} {view.line(one.name)}" for index, one in enumerate(comparison.runs)]
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in named]


def _loss(comparison: Comparison, split: str, stream: Stream) -> charts.Chart | None:
    of = None if stream == TOTAL else stream
    lines = [next(filter(None, (one.run.get(split, name, of) for name in LOSSES)), None) for one in comparison.runs]
    return _chart(comparison, str(stream), Key(split, "loss", of), lines, _shared(comparison, stream))


def _shared(comparison: Comparison, stream: Stream) -> list[Baseline]:
    """The baselines of a stream that are the same in all runs."""
    ladders = [ladder(one) for run in comparison.runs for one in run.diagnosis.verdicts if one.stream == stream]
    if not ladders:
        return []
    levels = [{(rung.name, rung.value) for rung in each} for each in ladders]
    return [rung for rung in ladders[0] if all((rung.name, rung.value) in each for each in levels)]


def _chart(
    comparison: Comparison, title: str, key: Key, lines: Sequence[Series | None], ladder: Sequence[Baseline] = ()
) -> charts.Chart | None:
    names = _names(comparison)
    series = {name: line for name, line in zip(names, lines, strict=True) if line is not None}
    last = max(one.run.last_step for one in comparison.runs)
    most = MOST_POINTS // (len(names) * MOST_CHARTS // 4)
    may_log = key.name == "grad_norm"
    return charts.chart(view.line(title), series, last, unit(key.name), ladder, may_log=may_log, hues=names, most=most)


def section(
    id: str,
    title: str,
    tables: Sequence[tuple[str, Table]] = (),
    nothing: str = "",
    about: str = "",
    drawn: Sequence[charts.Chart] = (),
    lines: Sequence[str] = (),
) -> Fragment:
    """A section of titled tables or of charts; empty if it holds neither and nothing is said of that."""
    if not tables and not drawn and not nothing:
        return Fragment(id, title, Markup(""))
    key = [(name, min(index, charts.HUES - 1)) for index, name in enumerate(lines)]
    values = {"id": id, "title": title, "tables": tables, "nothing": nothing, "about": about}
    return Fragment(id, title, fill("compared.html", **values, charts=drawn, key_of=key))

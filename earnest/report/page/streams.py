"""Is each stream learning? Its verdict, its value among its baselines, and why."""

from markupsafe import Markup

from earnest import glossary
from earnest.report import charts, view
from earnest.report.page.fragment import Fragment, fill
from earnest.report.page.tables import Cell, Table
from earnest.rules.finding import Baseline, Diagnosis, Verdict
from earnest.run import Run

LADDER_LETTERS = 18


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """The table of verdicts, one row a stream."""
    rows = [_row(verdict) for verdict in diagnosis.verdicts]
    head = ["Stream", "Verdict", "Value", "Baseline", "Ladder", "Why"]
    table = Table(head, rows, classes="streams", title="Verdict of each stream") if rows else None
    html = fill("streams.html", table_of=table, used=_words(diagnosis), asks=diagnosis.asks)
    return Fragment("streams", "Streams", html)


def ladder(verdict: Verdict) -> list[Baseline]:
    """The baselines of a verdict that are known."""
    return verdict.ladder or [rung for rung in [verdict.baseline] if rung]


def _row(verdict: Verdict) -> list[Cell]:
    level, drawn = view.LEVEL[verdict.verdict], charts.ladder(verdict.value, ladder(verdict))
    word = fill("pill.html", word=verdict.verdict, level=level)
    picture = fill("ladder.html", ladder=drawn, level=level, value=view.value(verdict)) if drawn else Markup("")
    return [
        Cell(view.line(verdict.stream), "name"),
        Cell(kind="drawn", html=word, letters=len(verdict.verdict) + 5),
        Cell(view.value(verdict)),
        Cell(view.baseline(verdict.baseline)),
        Cell(kind="drawn", html=picture, letters=LADDER_LETTERS) if drawn else Cell(),
        Cell(view.why(verdict), "prose"),
    ]


def _words(diagnosis: Diagnosis) -> list[str]:
    """The words of ours that stand in the table, in the order in which they need each other."""
    used = {verdict.verdict for verdict in diagnosis.verdicts}
    used |= {rung.name for verdict in diagnosis.verdicts for rung in ladder(verdict)}
    intervals = any(rung.interval for verdict in diagnosis.verdicts for rung in ladder(verdict))
    used |= {"baseline", "ladder", "nats"} | ({"interval"} if intervals else set())
    used |= {"held out" for verdict in diagnosis.verdicts if "held out" in verdict.why}
    return [word for word in glossary.TERMS if word in used]

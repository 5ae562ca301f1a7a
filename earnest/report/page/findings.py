"""What is wrong: every finding with its evidence, causes, next probe and fix, and the text of its rule."""

from collections.abc import Sequence
from typing import NamedTuple

from earnest.report import view
from earnest.report.page.fragment import Fragment, fill
from earnest.report.page.rule import RulePage, rule_page
from earnest.report.page.tables import Table, of_words
from earnest.rules.finding import Diagnosis, Finding
from earnest.run import Run

MOST_COLUMNS = 7  # of a table of evidence; more quantities stand in lines


class Rows(NamedTuple):
    """Rows of evidence that name the same quantities: as a table, or as pairs of a name and a value."""

    table: Table | None
    pairs: Sequence[Sequence[tuple[str, str]]]


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """The findings, each with evidence, causes, next probe, fix, and the text of its rule."""
    found = [(one, _evidence(one), _rule(one)) for one in view.in_order(diagnosis.findings)]
    html = fill("findings.html", findings=found, unchecked=diagnosis.not_checked)
    return Fragment("findings", "Findings", html)


def _evidence(finding: Finding) -> list[Rows]:
    return [_rows(rows) for rows in view.evidence(finding)]


def _rows(rows: view.Rows) -> Rows:
    if len(rows.values) > 1 and len(rows.names) <= MOST_COLUMNS:
        return Rows(of_words(rows.names, rows.values, named=False, classes="inner"), ())
    return Rows(None, [list(zip(rows.names, row, strict=True)) for row in rows.values])


def _rule(finding: Finding) -> RulePage | None:
    page = rule_page(finding.rule)
    return page if page.html else None

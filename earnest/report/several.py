"""The diagnosis of every run of a directory: short on a terminal, whole as Markdown, JSON, or a page for each."""

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from earnest.comparison import One
from earnest.errors import UserError
from earnest.files import write_whole
from earnest.report import as_json, as_markdown, html, view
from earnest.report.as_terminal import STYLE

SCHEMA = 1
PAGES = Path("reports")


def present(runs: Sequence[One], unread: Mapping[str, UserError], format: str, out: Path | None) -> None:
    """Write the diagnoses as text, Markdown, JSON, or as pages into the directory `out`. unread: runs that could not be
    read."""
    if format == "html":
        print(pages(runs, unread, out or PAGES))
        return
    text = io.StringIO()
    file = text if out else sys.stdout
    if format == "text":
        console = Console(file=file)
        for part in _parts(runs, unread):
            console.print(part, highlight=False)
    elif format == "markdown":
        print("\n".join(as_markdown.render(one.run, one.diagnosis) for one in runs), file=file)
    else:
        contents = {one.name: json.loads(as_json.render(one.run, one.diagnosis)) for one in runs}
        problems = {name: {"seen": error.seen, "fix": error.fix} for name, error in unread.items()}
        print(json.dumps(as_json.plain({"schema": SCHEMA, "runs": contents, "unread": problems}), indent=1), file=file)
    if out:
        write_whole(out, text.getvalue())


def _parts(runs: Sequence[One], unread: Mapping[str, UserError]) -> Iterator[Text]:
    for one in runs:
        yield Text.assemble((view.line(one.name), "bold"), f" · {view.title(one.run).partition(' · ')[2]}")
        yield Text(f"  {view.headline(one.diagnosis)}")
        for finding in view.in_order(one.diagnosis.findings):
            word = (f"{view.MARK[finding.severity]} {finding.severity}", STYLE[finding.severity])
            named = f" {view.line(finding.rule)} {view.line(finding.name)} · {view.about(finding)}"
            yield Text.assemble("  ", word, named)
    for name, error in unread.items():
        yield Text.assemble((view.line(name), "bold"), f" · not read: {view.line(error.seen)}")
    yield Text("\nOne run with its evidence and fixes: earnest diagnose DIR --run NAME", style="dim")


def pages(runs: Sequence[One], unread: Mapping[str, UserError], directory: Path) -> Path:
    """Write a page a run and one that lists them; -> the latter."""
    from earnest.report.page import whole
    from earnest.report.page.compared import section
    from earnest.report.page.fragment import fill
    from earnest.report.page.tables import Cell, Table

    directory.mkdir(parents=True, exist_ok=True)
    rows: list[list[Cell]] = []
    for one in runs:
        page = re.sub(r"[^\w.-]+", "-", one.name, flags=re.ASCII).strip(".-") or "run"
        page = f"{page}-{len(rows) + 1}.html"
        html(one.run, one.diagnosis, directory / page)
        link = Markup('<a href="{}">{}</a>').format(page, view.clean(one.name))
        summary = Cell(view.headline(one.diagnosis), "prose")
        worst = ", ".join(finding.rule for finding in view.in_order(one.diagnosis.findings)) or "–"
        rows.append([Cell(kind="name", html=link, letters=len(one.name)), summary, Cell(view.line(worst), "prose")])
    rows += [
        [Cell(name, "name"), Cell(f"not read: {error.seen}", "prose"), Cell("–")] for name, error in unread.items()
    ]
    table = section("several", "Runs", [("", Table(["Run", "Said of it", "Findings"], rows, title="The runs"))])
    title = f"{len(rows)} runs"
    head = fill("compared_head.html", title=title, headline="Each run has a page of its own.", command="diagnose")
    write_whole(directory / "index.html", whole(title, head, [table]))
    return directory / "index.html"

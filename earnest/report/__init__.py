"""(Run, Diagnosis) -> text: terminal, Markdown, JSON and one self-contained HTML page, all saying the same.

Each format is one module, imported when it is asked for, so that a quick diagnosis does not load the page's parts.
"""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from earnest.files import write_whole
from earnest.rules.finding import Diagnosis
from earnest.run import Run

if TYPE_CHECKING:
    from rich.console import Console

    from earnest.comparison import Comparison


def terminal(run: Run, diagnosis: Diagnosis, console: "Console") -> None:
    """Print the report."""
    from earnest.report.as_terminal import print_report

    print_report(run, diagnosis, console)


def markdown(run: Run, diagnosis: Diagnosis) -> str:
    """The report as Markdown."""
    from earnest.report.as_markdown import render

    return render(run, diagnosis)


def json(run: Run, diagnosis: Diagnosis) -> str:
    """The report as JSON; its contract is ``report/schema.json``."""
    from earnest.report.as_json import render

    return render(run, diagnosis)


def answer(run: Run, diagnosis: Diagnosis) -> str:
    """The small answer as JSON; its contract is ``docs/answer.schema.json``."""
    from earnest.report.as_json import small

    return small(run, diagnosis)


def html(run: Run, diagnosis: Diagnosis, path: Path) -> None:
    """Write the report as one page that needs nothing but itself."""
    from earnest.report.page import render

    write_whole(Path(path), render(run, diagnosis))


def present(run: Run, diagnosis: Diagnosis, format: str, out: Path | None, full: bool = False) -> None:
    """Write the report as text, Markdown, JSON or HTML into a file, or to standard output; a page is always a file.
    full: all of it as JSON, not the small answer."""
    if format == "html":
        html(run, diagnosis, out or Path("report.html"))
        print(out or Path("report.html"))
        return
    text = io.StringIO()
    file = text if out else sys.stdout
    if format == "text":
        from rich.console import Console

        terminal(run, diagnosis, Console(file=file, emoji=False))
    else:
        as_json = json if full else answer
        print(as_json(run, diagnosis) if format == "json" else markdown(run, diagnosis), file=file)
    if out:
        write_whole(out, text.getvalue())


def present_comparison(comparison: "Comparison", format: str, out: Path | None) -> None:
    """Write a comparison of runs as text, JSON or HTML, as `present` does."""
    if format == "html":
        from earnest.report.page.compared import render

        write_whole(out or Path("compare.html"), render(comparison))
        print(out or Path("compare.html"))
        return
    from rich.console import Console

    from earnest.report.compared import as_json, print_comparison

    text = io.StringIO()
    file = text if out else sys.stdout
    if format == "json":
        print(as_json(comparison), end="", file=file)
    else:
        print_comparison(comparison, Console(file=file))
    if out:
        write_whole(out, text.getvalue())


def write(run: Run, diagnosis: Diagnosis, directory: Path) -> list[Path]:
    """Write report.html, report.md and report.json into `directory`; each appears whole or not at all."""
    from earnest.report.page import render as page

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.html": page(run, diagnosis),
        "report.md": markdown(run, diagnosis),
        "report.json": json(run, diagnosis),
    }
    for name, text in texts.items():  # only once all three could be made
        write_whole(directory / name, text)
    return [directory / name for name in texts]

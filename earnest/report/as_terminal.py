"""The report on a terminal: readable at 80 columns, without colour, and with any text."""

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from earnest.report import view
from earnest.rules.finding import Diagnosis, Finding
from earnest.run import Run

STYLE = {
    **{"good": "green", "weak": "yellow", "bad": "bold red", "unknown": "dim"},
    **{"critical": "bold red", "warning": "yellow", "note": "cyan"},
}
LONGEST_CELL = 17  # "worse-than-chance"; a longer name pushes its own line to the right, not all of them
MOST_EVIDENCE = 9  # lines of one finding
MOST_COLUMNS = 12  # of a foreign log's columns are named here; the JSON names all


def print_report(run: Run, diagnosis: Diagnosis, console: Console) -> None:
    """Print verdicts, findings, what was not checked, and how the run was read."""
    if hasattr(console.file, "reconfigure"):
        # A terminal that knows ASCII only shows "?" for "→" then, not a traceback.
        console.file.reconfigure(errors="replace")  # type: ignore
    for part in _parts(run, diagnosis, console.width):
        console.print(part, highlight=False)


def _parts(run: Run, diagnosis: Diagnosis, width: int) -> Iterator[RenderableType]:
    """The report from top to bottom. All of it is `Text`, never markup: "[red]" in a log stays what it is."""
    yield Text(view.title(run), style="bold")
    yield Text(view.headline(diagnosis))
    if kept := view.kept(run):
        yield Text(f"checkpoints: {kept}")
    if diagnosis.verdicts:
        yield Text("\nStreams", style="bold")
        yield from _verdicts(diagnosis)
    if diagnosis.findings:
        yield Text("\nFindings", style="bold")
        for number, finding in enumerate(view.in_order(diagnosis.findings)):
            if number:
                yield Text()
            yield from _finding(finding, width)
    if diagnosis.asks:
        yield Text("\nTo judge more", style="bold")
    for ask in diagnosis.asks:
        yield _indented(Text(view.ask(ask)), 2)
        yield _indented(Text(view.line(ask.command), style="bold"), 6)
        yield from (_indented(Text(view.line(hint), style="dim"), 6) for hint in ask.hints)
    if diagnosis.not_checked:
        yield Text("\nNot checked", style="bold")
        yield _indented(Text(view.in_short(diagnosis)), 2)
    if run.notes or diagnosis.mapping:
        yield Text("\nHow the run was read", style="bold")
    for note in run.notes:
        yield _indented(Text(view.line(note)), 2)
    if diagnosis.mapping:
        columns = [f"{view.line(column)} → {view.line(signal)}" for column, signal in diagnosis.mapping.items()]
        shown = columns[:MOST_COLUMNS]
        if len(columns) > MOST_COLUMNS:
            shown.append(f"and {len(columns) - MOST_COLUMNS} more")
        yield _indented(Text(" · ".join(shown)), 2)


def _indented(text: Text, by: int) -> Padding:
    return Padding(text, (0, 0, 0, by), expand=False)


def _verdicts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """One aligned line a stream, and the reason below it: a column for it would be ten characters wide."""
    rows = [(view.line(v.stream), v.verdict, view.value(v), view.baseline(v.baseline), v) for v in diagnosis.verdicts]
    widths = [min(max(cell_len(str(row[column])) for row in rows), LONGEST_CELL) for column in range(3)]
    for stream, word, value, baseline, verdict in rows:
        level = view.LEVEL[word]
        stream += " " * (widths[0] - cell_len(stream))
        words = (f"{view.MARK[level]} {word:<{widths[1]}}", STYLE[level])
        yield _indented(Text.assemble(stream, "  ", words, f"  {value:>{widths[2]}}  {baseline}"), 2)
        yield _indented(Text(view.why(verdict), style="dim"), 6)


def _finding(finding: Finding, width: int) -> Iterator[RenderableType]:
    words = (f"{view.MARK[finding.severity]} {finding.severity}", STYLE[finding.severity])
    yield _indented(Text.assemble(words, f"  {view.line(finding.rule)} ", (view.line(finding.name), "bold")), 2)
    yield _indented(Text(view.about(finding), style="dim"), 4)
    yield _indented(Text(view.line(finding.summary)), 4)
    rows = [("evidence", text) for text in _evidence(finding, width - 16)]
    rows += [("causes", f"{rank}. {view.line(cause)}") for rank, cause in enumerate(finding.causes, 1)]
    rows += [("next probe", view.line(finding.next_probe)), ("fix", view.line(finding.fix))]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim", width=len("next probe"))
    grid.add_column(overflow="fold")
    for index, (label, text) in enumerate(rows):
        grid.add_row(
            "" if index and rows[index - 1][0] == label else label, Text(text, style="bold" if label == "fix" else "")
        )
    yield Padding(grid, (0, 0, 0, 4), expand=False)


def _evidence(finding: Finding, room: int) -> list[str]:
    """Evidence over steps as aligned lines, one for each quantity, where that fits; else one line a row."""
    shown: list[str] = []
    for rows in view.evidence(finding):
        columns = [[name, *(row[index] for row in rows.values)] for index, name in enumerate(rows.names)]
        widths = [max(cell_len(cell) for cell in cells) for cells in zip(*columns, strict=True)]
        lines = [
            "  ".join(" " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True))
            for cells in columns
        ]
        shown += lines if len(rows.values) > 1 and cell_len(lines[0]) <= room else rows.lines
    left_out = len(shown) - MOST_EVIDENCE
    return [*shown[:MOST_EVIDENCE], f"and {left_out} more lines in the other formats"] if left_out > 1 else shown

"""The report on a terminal: readable at 80 columns, without colour, and with any text."""

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from earnest.report import view
from earnest.rules.finding import Diagnosis, Finding
from earnest.run import Run

STYLE = {
    **{"good": "green", "weak": "yellow", "bad": "bold red", "unknown": "dim"},
    **{"critical": "bold red", "warning": "yellow", "note": "cyan"},
}
LONGEST_CELL = 17  # "worse-than-chance"; a longer name pushes its own line to the right, not all of them
MOST_COLUMNS = 12  # of a foreign log's columns are named here; the JSON names all


def print_report(run: Run, diagnosis: Diagnosis, console: Console) -> None:
    """Print verdicts, findings, what was not checked, and how the run was read."""

    def say(text: str | Text, indent: int = 0) -> None:
        # A `Text` is never read as markup, so "[red]" or ":smile:" in a log stays what it is.
        text = text if isinstance(text, Text) else Text(text)
        text.plain = text.plain.encode(console.encoding, "replace").decode(console.encoding)  # an ASCII terminal sees "?", not a crash
        console.print(Padding(text, (0, 0, 0, indent), expand=False), highlight=False)

    say(Text(view.title(run), style="bold"))
    say(view.headline(diagnosis))
    if diagnosis.verdicts:
        say(Text("\nStreams", style="bold"))
        _verdicts(diagnosis, say)
    if diagnosis.findings:
        say(Text("\nFindings", style="bold"))
    for finding in view.in_order(diagnosis.findings):
        _finding(finding, say)
    if diagnosis.not_checked:
        groups = "; ".join(f"{rules} (needs {needs})" for needs, rules in view.not_checked(diagnosis))
        say(Text.assemble("\n", ("Not checked: ", "bold"), groups))
    if diagnosis.mapping:
        columns = [f"{view.line(column)} → {view.line(signal)}" for column, signal in diagnosis.mapping.items()]
        more = f" · and {len(columns) - MOST_COLUMNS} more" if len(columns) > MOST_COLUMNS else ""
        say(Text.assemble("\n", ("Read as: ", "bold"), " · ".join(columns[:MOST_COLUMNS]) + more))
    for note in run.notes:
        say(Text.assemble(("Note: ", "bold"), view.line(note)))


def _verdicts(diagnosis: Diagnosis, say) -> None:
    """One aligned line a stream, and the reason below it: a column for it would be ten characters wide."""
    rows = [(view.line(v.stream), v.verdict, view.value(v), view.baseline(v.baseline), v) for v in diagnosis.verdicts]
    widths = [min(max(cell_len(str(row[column])) for row in rows), LONGEST_CELL) for column in range(3)]
    for stream, word, value, baseline, verdict in rows:
        level = view.LEVEL[word]
        cells = [stream + " " * (widths[0] - cell_len(stream)), f"{view.MARK[level]} {word:<{widths[1]}}", f"{value:>{widths[2]}}"]
        say(Text.assemble(cells[0], "  ", (cells[1], STYLE[level]), "  ", cells[2], f"  {baseline}"), 2)
        say(Text(view.why(verdict), style="dim"), 6)


def _finding(finding: Finding, say) -> None:
    mark, style = view.MARK[finding.severity], STYLE[finding.severity]
    say(Text.assemble((f"{mark} {finding.severity}", style), f"  {view.line(finding.rule)} ", (view.line(finding.name), "bold")), 2)
    say(Text(view.about(finding), style="dim"), 4)
    say(view.line(finding.summary), 4)
    for row in finding.evidence:
        say(Text.assemble(("evidence: ", "bold"), view.evidence(row)), 4)
    for rank, cause in enumerate(finding.causes, 1):
        say(Text.assemble((f"cause {rank}: ", "bold"), view.line(cause)), 4)
    say(Text.assemble(("next probe: ", "bold"), view.line(finding.next_probe)), 4)
    say(Text.assemble(("fix: ", "bold"), view.line(finding.fix), "\n"), 4)

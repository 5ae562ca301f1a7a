"""The report as Markdown, for an issue, a pull request or a notebook."""

import re
from collections.abc import Sequence

from earnest.report import view
from earnest.rules.finding import Ask, Diagnosis, Finding
from earnest.run import Run

MOST_COLUMNS = 50  # of a foreign log's columns; the JSON names all


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole report as one Markdown text."""
    kept = [f"checkpoints: {kept}" for kept in [view.kept(run)] if kept]
    parts = [f"# {text(view.title(run))}", text(view.headline(diagnosis)), *map(text, kept)]
    if diagnosis.findings:
        parts += ["## Findings", *(_finding(finding) for finding in view.in_order(diagnosis.findings))]
    if diagnosis.verdicts:
        rows = [
            (
                str(verdict.stream),
                f"**{verdict.verdict}**",
                view.value(verdict),
                view.baseline(verdict.baseline),
                view.why(verdict),
            )
            for verdict in diagnosis.verdicts
        ]
        parts += ["## Streams", table(["stream", "verdict", "value", "baseline [interval]", "why"], rows)]
    if diagnosis.asks:
        parts += ["## To judge more", "\n".join(map(_ask, diagnosis.asks))]
    if diagnosis.not_checked:
        parts += [
            "## Not checked",
            "\n".join(f"- {text(rules)}: needs {text(needs)}" for rules, needs in view.not_checked(diagnosis)),
        ]
    if diagnosis.mapping or run.notes:
        parts += ["## How the run was read", "\n".join(f"- {text(note)}" for note in run.notes)]
    if diagnosis.mapping:
        parts.append(table(["column", "read as"], list(diagnosis.mapping.items())[:MOST_COLUMNS]))
    if len(diagnosis.mapping) > MOST_COLUMNS:
        parts.append(f"and {len(diagnosis.mapping) - MOST_COLUMNS} more columns, all named in the JSON report")
    return "\n\n".join(part for part in parts if part) + "\n"


def _ask(ask: Ask) -> str:
    return "\n".join([f"- {text(view.ask(ask))}: {text(ask.command)}", *(f"  - {text(hint)}" for hint in ask.hints)])


def _finding(finding: Finding) -> str:
    lines = [
        f"### {finding.severity}: {text(finding.rule)} {text(finding.name)}",
        "",
        f"{text(view.about(finding))}",
        "",
        text(finding.summary),
        "",
    ]
    for rows in view.evidence(finding):
        several = len(rows.values) > 1
        lines += (
            [table([text(name) for name in rows.names], rows.values), ""]
            if several
            else [f"- evidence: {text(rows.lines[0])}", ""]
        )
    lines += [f"- cause {rank}: {text(cause)}" for rank, cause in enumerate(finding.causes, 1)]
    lines += [f"- next probe: {text(finding.next_probe)}", f"- **fix: {text(finding.fix)}**"]
    return "\n".join(lines)


def table(head: list[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells already bold (``**...**``) keep their stars."""
    lines = [
        head,
        ["---"] * len(head),
        *([cell if cell.startswith("**") else text(cell) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def text(words: str) -> str:
    """Words that Markdown must print as they are: no tags, no emphasis, no links, no new cells.

    An underscore inside a word (codebook_0) is no emphasis, so it is left readable.
    """
    words = view.line(words).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~#!])|(?<!\w)(_)|(_)(?!\w)", lambda found: "\\" + found[0], words)

"""A list of runs: a table on the terminal, or JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from earnest.lines import aligned
from earnest.overview import Entry, Judged
from earnest.report import view
from earnest.report.as_terminal import STYLE
from earnest.rules.finding import SEVERITIES

MOST_PROBLEMS = 10
LONGEST_SYSTEM = 12
HEAD = ("run", "what", "started", "state", "verdict", "held out")
NO_STYLE = ("",) * len(HEAD)
STATE_STYLE = {"running": "green", "interrupted": "yellow", "killed": "red"}


def table(entries: Sequence[Entry], console: Console) -> None:
    """Print the list: a line a run, at 80 columns, and another one before it for a long name."""
    runs = [entry for entry in entries if entry.own or not entry.problem]
    kinds = {entry.held_out.of for entry in runs if entry.held_out}
    rows = [_cells(entry, len(kinds) > 1) for entry in runs]
    names = shortened([view.line(entry.name) for entry in runs])
    styles = iter([("bold",) * len(HEAD), *(_styles(entry, row) for entry, row in zip(runs, rows, strict=True))])
    for cells in aligned([HEAD, *([name, *row] for name, row in zip(names, rows, strict=True))], console.width, {5}):
        marks = next(styles) if len(cells) > 1 else NO_STYLE
        console.print(Text.assemble(*zip(cells, marks, strict=False)), highlight=False)
    for line in notes(entries):
        console.print(Text(line, style="dim"))


def _styles(entry: Entry, cells: Sequence[str]) -> tuple[str, ...]:
    return ("", "", "", STATE_STYLE.get(cells[2].partition(" ")[0], ""), worst(entry.judged)[1], "")


def _cells(entry: Entry, with_kind: bool) -> list[str]:
    """What stands behind the name."""
    state = entry.history.state() if entry.history else ""
    value = view.number(entry.held_out.value) if entry.held_out else ""
    kind = f" {view.line(entry.held_out.of)}" if entry.held_out and with_kind else ""
    verdict = "? cannot be read" if entry.problem else worst(entry.judged)[0]
    system = view.line(entry.system)
    system = system if len(system) <= LONGEST_SYSTEM else f"{system[: LONGEST_SYSTEM - 1]}…"
    return [system, when(entry.started_s), f"{state} {reached(entry)}".strip(), verdict, value + kind]


def shortened(names: Sequence[str]) -> list[str]:
    """The names without the last folders that all runs can be told apart without: wandb/offline-run-2026... of one."""
    parts = [name.split("/") for name in names]
    beginnings = Counter("/".join(one[:count]) for one in parts for count in range(1, len(one) + 1))
    return [
        next((start for count in range(1, len(one)) if beginnings[start := "/".join(one[:count])] == 1), "/".join(one))
        for one in parts
    ]


def reached(entry: Entry) -> str:
    """How far a run went: ``356 of 600``, or ``600`` if it got to its end or that is not known."""
    if entry.step is None:
        return ""
    short = entry.last_step and entry.step < entry.last_step
    return view.number(entry.step) + (f" of {view.number(entry.last_step)}" if short else "")


def worst(judged: Judged | None) -> tuple[str, str]:
    """The worst that was said of a run in few words, and its style: findings first, else the verdicts."""
    if judged is None:
        return "not judged", "dim"
    for severity in SEVERITIES[:2]:
        if count := judged.severities.get(severity):
            return f"{view.MARK[severity]} {count} {severity}", STYLE[severity]
    for level in ("bad", "weak", "good", "unknown"):
        words = {word: judged.verdicts[word] for word in judged.verdicts if view.LEVEL[word] == level}
        if words:
            word = next(iter(words))
            return f"{view.MARK[level]} {words[word]} {word}", STYLE[level]
    return "? no stream", "dim"


def when(time_s: float) -> str:
    """A time of today by the clock, one of this year by the day, another one by the date."""
    then, now = datetime.fromtimestamp(time_s), datetime.now()
    if then.date() == now.date():
        return f"{then:%H:%M}"
    return f"{then.day} {then:%b}" if then.year == now.year else f"{then:%Y-%m-%d}"


def notes(entries: Sequence[Entry]) -> list[str]:
    """What the table's words mean, if they stand in it, and what is not in it."""
    lines: list[str] = []
    kinds = list(dict.fromkeys(entry.held_out.of for entry in entries if entry.held_out))
    if kinds:
        lines.append("held out: the newest evaluation" + (f" ({view.line(kinds[0])})" if len(kinds) == 1 else ""))
    if any(entry.history and entry.history.state() == "killed" for entry in entries):
        lines.append("killed: it wrote no end, and nothing else for a while")
    if waiting := sum(entry.judged is None and not entry.problem for entry in entries):
        lines.append(f"{waiting} not judged yet: --judge does so")
    lines += [f"{view.line(entry.name)}: {view.line(entry.problem)}" for entry in entries if entry.problem][
        :MOST_PROBLEMS
    ]
    return lines


def as_json(entries: Sequence[Entry]) -> str:
    """The list as JSON."""
    return json.dumps({"schema": 1, "runs": [_plain(entry) for entry in entries]}, indent=1) + "\n"


def _plain(entry: Entry) -> dict[str, object]:
    past, judged = entry.history, entry.judged
    return {
        "name": view.clean(entry.name),
        "path": view.clean(entry.path),
        "system": entry.system or None,
        "state": past.state() if past else None,
        "started": datetime.fromtimestamp(entry.started_s).astimezone().isoformat(timespec="seconds"),
        "trained_s": past.trained_s if past else None,
        "step": entry.step,
        "last_step": entry.last_step,
        "held_out": entry.held_out._asdict() if entry.held_out else None,
        "verdicts": judged.verdicts if judged else None,
        "findings": judged.severities if judged else None,
        "rules": judged.rules if judged else None,
        "problem": entry.problem or None,
    }

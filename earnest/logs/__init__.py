"""Anybody's logs -> `Run`.

`read` finds out by content what a path is. A format is a file here with a `Format`, and a line in `FORMATS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.logs import document, jsonl, mlflow, own, parquet, table, tensorboard, text, trackio, wandb
from earnest.logs.find import choose
from earnest.logs.format import Format
from earnest.logs.mapping import to_run
from earnest.logs.settings import facts_beside, facts_of
from earnest.logs.source import EXPECTED, FIX, standard_input
from earnest.logs.unused import NOT_USED, may_be_loss, option
from earnest.run import Run

# the first that claims a file reads it
FORMATS: list[Format] = [
    own.FORMAT,
    mlflow.FORMAT,
    tensorboard.FORMAT,
    wandb.FORMAT,
    trackio.FORMAT,
    parquet.FORMAT,
    document.FORMAT,
    jsonl.FORMAT,
    table.FORMAT,
    text.FORMAT,
]


def read(
    path: str | Path,
    *,
    overrides: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    run: str | None = None,
) -> Run:
    """Read the log at `path`, a file or a directory, as a `Run`; "-" is standard input.

    `overrides`: column -> signal (``{"my_loss": "train/ce_nats/text"}``, or ``step``, ``epoch``, ``ignore``); they win.
    `facts`: what the log does not hold (`facts.FACTS`); they win over what a configuration beside the log says.
    `run`: which of several runs, by the name that the error for several lists.
    Raises UserError if there is no log to read.
    """
    if str(path) == "-":
        with standard_input() as piped:
            return read(piped, overrides=overrides, facts=facts, run=run)
    source, format, run = choose(Path(path), FORMATS, run)
    log = format.read(source)
    if isinstance(log, Run):
        log.facts = log.facts.updated({"format": format.name, **(facts or {})})
        return log
    if not any(len(column.row) for column in log.columns.values()):
        raise UserError(f"{source.path.name} ({log.format}) has no numeric column", EXPECTED, FIX)
    result = to_run(log, dict(overrides or {}), run)
    if not result.series:
        listed = ", ".join(map(repr, list(log.columns)[:20]))
        raise UserError(
            f"{source.path.name}: no column is a known signal ({listed})",
            "a loss, a learning rate, a gradient norm, ...",
            f"name one, e.g. the loss with {option(may_be_loss(log, log.columns), 'train/loss')}",
        )
    if len(result.series) == 1 and all(len(series) < 2 for series in result.series.values()):
        unread = [note for note in result.notes if NOT_USED in note]
        seen = f"{source.path.name}: {unread[0]}" if unread else f"{source.path.name} holds one number"
        raise UserError(seen, "values over several steps", "log every step, or pass the whole log")
    settings = facts_of(log.config, "the log").else_of(facts_beside(source.path))
    sources = {name: where for name, where in settings.sources.items() if name not in (facts or {})}
    result.facts = Facts().updated(settings.facts).updated(result.facts).updated(facts or {})
    result.facts = result.facts.updated({"fact_sources": sources})
    result.notes += settings.notes
    result.path = Path(path)
    if all(len(series) < 2 for series in result.series.values()):
        result.notes.append("one row: values can be compared with baselines, nothing can be said over time")
    return result

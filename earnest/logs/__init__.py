"""Anybody's logs -> `Run`.

`read` finds out by content what a path is. A format is a file in formats/ with a `Format`, and a line in `FORMATS`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.logs.find import SeveralRuns as SeveralRuns
from earnest.logs.find import choose
from earnest.logs.format import Format
from earnest.logs.formats import document, jsonl, mlflow, own, parquet, table, tensorboard, text, trackio, wandb
from earnest.logs.log import Log
from earnest.logs.mapping import choose_beside, to_run
from earnest.logs.nameless import shown
from earnest.logs.pieces import Progress
from earnest.logs.settings import Settings, facts_beside, facts_in, facts_of, facts_of_model
from earnest.logs.source import EXPECTED, FIX, Source, standard_input
from earnest.logs.splits import joined_splits, splits_of_one
from earnest.logs.trainer import add_facts, known_columns, note_on_models, trainer_of
from earnest.logs.unused import NOT_USED, may_be_loss, option
from earnest.run import Run

MOST_LOST = 5  # columns without a number that are named
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
    model: str | None = None,
    config: Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Read the log at `path`, a file or a directory, as a `Run`; "-" is standard input.

    `overrides`: column -> signal (``{"my_loss": "train/ce_nats/text"}``, or ``step``, ``epoch``, ``ignore``); they win.
    `facts`: what the log does not hold (`facts.FACTS`), ``trainer`` among them; they win over what `config` says, a
    model's configuration, that over the facts of a known `model`, that over a configuration in or beside the log, and
    that over the page on the trainer whose log it is.
    `run`: which of several runs, by the name that the error for several lists.
    `progress`: of whoever reads the same log again and again while it grows; only what was appended is read then.
    Raises UserError if there is no log to read, and `SeveralRuns` if a directory holds several and `run` names none.
    """
    if str(path) == "-":
        with standard_input() as piped:
            return read(piped, overrides=overrides, facts=facts, run=run, model=model, config=config)
    given = facts or {}
    settings = facts_in(config) if config is not None else Settings()
    settings = settings.else_of(facts_of_model(model)) if model is not None else settings
    try:
        source, format, run = choose(Path(path), FORMATS, run)
    except SeveralRuns as several:
        of_splits = splits_of_one(several.paths)
        if not of_splits:
            raise
        each = partial(read, overrides=overrides, facts=facts, model=model, config=config, progress=progress)
        return joined_splits(Path(path), {split: each(at) for split, at in of_splits.items()})
    source.progress = progress
    log = format.read(source)
    if isinstance(log, Run):
        log.messages = source.messages
        log.facts = log.facts.updated({"format": format.name, **settings.facts, **given})
        return log
    if not any(len(column.row) for column in log.columns.values()):
        raise UserError(f"{source.path.name} ({log.format}) has no numeric column", EXPECTED, FIX)
    settings = settings.else_of(facts_of(log.config, "the log")).else_of(facts_beside(source.path))
    known = Facts().updated(settings.facts).updated(log.facts).updated(given)
    run = choose_beside(log, run)
    trainer = trainer_of(log, source, known.trainer)
    columns = shown(log) or known_columns(log, trainer.profile, known)
    result = to_run(log, dict(overrides or {}), run, columns)
    result.messages = source.messages
    _must_hold_a_run(result, log, source)
    sources = {name: where for name, where in settings.sources.items() if name not in given}
    result.facts = Facts().updated(settings.facts).updated(result.facts).updated(given)
    result.facts = result.facts.updated({"fact_sources": sources})
    if trainer.profile is not None:
        add_facts(result, trainer.profile, trainer.note)
    elif trainer.note:
        result.notes.append(trainer.note)
    result.notes += settings.notes
    if result.facts.text_vocab is None and result.facts.audio_vocab is None and (named := note_on_models(source)):
        result.notes.append(named)
    result.path = Path(path)
    if all(len(series) < 2 for series in result.series.values()):
        result.notes.append("one row: values can be compared with baselines, nothing can be said over time")
    return result


def _must_hold_a_run(run: Run, log: Log, source: Source) -> None:
    """Raises UserError if no column is a signal, or all there is is one number."""
    told = "".join(f"; {message.told}" for message in source.messages)
    lost = [name for name, column in log.columns.items() if len(column.value) and not np.isfinite(column.value).any()]
    told += f"; never a number: {', '.join(map(repr, lost[:MOST_LOST]))}" if lost else ""
    if not run.series:
        listed = ", ".join(map(repr, list(log.columns)[:20]))
        raise UserError(
            f"{source.path.name}: no column is a known signal ({listed}){told}",
            "a loss, a learning rate, a gradient norm, ...",
            f"name one, e.g. the loss with {option(may_be_loss(log, log.columns), 'train/loss')}",
        )
    one = next(iter(run.series.values()))
    if len(run.series) == 1 and len(one) < 2 and np.isfinite(one.value).all():
        unread = [note for note in run.notes if NOT_USED in note]
        seen = f"{source.path.name}: {unread[0]}" if unread else f"{source.path.name} holds one number"
        raise UserError(seen + told, "values over several steps", "log every step, or pass the whole log")

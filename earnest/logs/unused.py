"""Columns with values that were not used: named, with the ``--map`` that would use one."""

import shlex
from collections.abc import Iterable, Mapping

import numpy as np

from earnest.columns import Column
from earnest.logs.log import Log
from earnest.logs.words import SPLITS, words
from earnest.quantiles import median

MOST = 8
FEW = 10  # values; a column with fewer is named if it has half as many as the fullest
NOT_USED = "columns not used"
UNKNOWN = "not a known spelling of a signal; name it with --map"
# a word of a name -> the signal it may be; a suggestion, never used without the user's word
MAY_BE = {
    "acc": "accuracy_frac",
    "accuracy": "accuracy_frac",
    "ppl": "perplexity",
    "perplexity": "perplexity",
    "norm": "grad_norm",
    "lr": "learning_rate",
    "scale": "loss_scale",
    "usage": "used_frac",
    "entropy": "entropy_nats",
}


def unused(log: Log, unmapped: Mapping[str, str], has_loss: bool) -> list[str]:
    """A note on the columns that were not understood and have many values; without a loss, on which may be one."""
    fullest = max((len(column.row) for column in log.columns.values()), default=0)
    names = [name for name, reason in unmapped.items() if "--map" in reason and _varies(log.columns[name], fullest)]
    if not names:
        return [] if has_loss else ["no loss was read"]
    listed = ", ".join(f"{name!r} ({len(log.columns[name].row):,} values)" for name in names[:MOST])
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    if has_loss:
        likely = ((name, _may_be(name, log.columns[name])) for name in names)
        use = next((option(name, signal) for name, signal in likely if signal), "--map COLUMN=SIGNAL")
        return [f"{NOT_USED}: {listed}{more}; use one with {use}"]
    loss = may_be_loss(log, names)
    how = f"if {loss!r} is the loss, {option(loss, _split(loss) + '/loss')}"
    return [f"no loss was read; {NOT_USED}: {listed}{more}; {how}"]


def may_be_loss(log: Log, names: Iterable[str]) -> str:
    """The column that falls most, of those given; the first if none falls."""
    return max(names, key=lambda name: _fall(log.columns[name].value))


def option(column: str, signal: str) -> str:
    """The words of the command line that map a column to a signal, quoted for a shell."""
    return f"--map {shlex.quote(f'{column}={signal}')}"


def _varies(column: Column, fullest: int) -> bool:
    value = column.value[np.isfinite(column.value)]
    return len(value) >= max(2, min(FEW, fullest / 2)) and bool((value != value[0]).any())


def _may_be(name: str, column: Column) -> str | None:
    """A signal that a column may be, by a word of its name, or as it falls like a loss."""
    named = words(name)
    signal = next((MAY_BE[word] for word in named if word in MAY_BE), None)
    if signal is None and _fall(column.value) > 0.1:
        signal = "loss/" + "_".join(word for word in named if word not in SPLITS)
    return signal and f"{_split(name)}/{signal}"


def _split(name: str) -> str:
    return next((SPLITS[word] for word in words(name) if word in SPLITS), "train")


def _fall(value: np.ndarray) -> float:
    """The share by which a positive column falls from its first third to its last; 0 for any other."""
    value = value[np.isfinite(value)]
    if len(value) < 3 or (value <= 0).any():
        return 0.0
    third = len(value) // 3
    return 1 - median(value[-third:]) / median(value[:third])

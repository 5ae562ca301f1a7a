"""A table without a header: which column counts steps and which is the loss, if the numbers show it."""

import re

import numpy as np

from earnest.columns import Column
from earnest.logs.log import Log
from earnest.logs.trainer import Known
from earnest.logs.unused import option
from earnest.quantiles import median
from earnest.run import Values
from earnest.signals import Key

NAMELESS = re.compile(r"column_\d+")
FEWEST_ROWS = 8  # of which a loss can be told from a rate or an accuracy (assumed)
ROUGH = 0.2  # share of changes against the trend, from which on a column is measured and no schedule (assumed)
FALLS = 0.98  # times its level at first: a curve that stands alone, and falls (assumed)
RISES = 1.02  # times its level at first: no loss of a run that is worth reading by guess (assumed)


def shown(log: Log) -> Known | None:
    """The columns of step and loss, in a table whose columns have no names, with a note; None if they cannot be told.

    The step: a first column of whole numbers that grow from row to row. The loss: of the others the roughest
    one that is positive and no higher in its last third than in its first; the only other one if it falls.
    """
    if not log.columns or not all(map(NAMELESS.fullmatch, log.columns)):
        return None
    names = list(log.columns)
    while len(names) > 2 and not np.ptp(log.columns[names[0]].value):  # the number of the epoch, in one epoch
        names = names[1:]
    first, *others = names
    if not _counts(log.columns[first]):
        return None
    losses = {name: rough for name in others if (rough := _roughness(log.columns[name].value)) is not None}
    if len(others) == 1 and _falls(log.columns[others[0]].value):  # a curve and nothing else: there is no choice
        losses = {others[0]: 0.0}
    if not losses:
        return None
    loss = max(losses, key=lambda name: losses[name])
    log.notes.append(
        f"the table has no header: {first!r} counts up and is taken for the step, {loss!r} for the loss, as it varies "
        f"like one and does not rise; say which is which with {option(loss, 'train/loss')}"
    )
    return Known({loss: Key("train", "loss")}, [first], {})


def _counts(column: Column) -> bool:
    """Whether it counts up, or does so again from where it began."""
    value = column.value
    up = np.diff(value) > 0
    again = value[1:] <= value[0]
    return len(value) >= FEWEST_ROWS and bool(
        (value == np.floor(value)).all() and (up | again).all() and up.mean() > 0.5
    )


def _falls(value: Values) -> bool:
    """Whether a column is positive, moves in most rows and ends below its beginning."""
    value = value[np.isfinite(value)]
    if len(value) < FEWEST_ROWS or (value <= 0).any():
        return False
    third = len(value) // 3
    moves = float((np.diff(value) != 0).mean()) > 0.5
    return moves and bool(median(value[-third:]) < FALLS * median(value[:third]))


def _roughness(value: Values) -> float | None:
    """How much of its way a column goes to and fro, beside its level; None if it cannot be a loss."""
    value = value[np.isfinite(value)]
    if len(value) < FEWEST_ROWS or (value <= 0).any():
        return None
    third = len(value) // 3
    changes = np.diff(value)
    down = float((changes < 0).mean())
    back_and_forth = min(down, 1 - down - float((changes == 0).mean()))
    if median(value[-third:]) > RISES * median(value[:third]) or back_and_forth < ROUGH:
        return None
    return median(np.abs(changes)) / median(value)

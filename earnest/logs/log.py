"""`Log`: what a reader hands over, in the log's own words; `stitch` gives its rows one line of steps.

A row is one line, record or event of the log, in the order it was written. A reader keeps the cells that are there
and no others, so a value that was not logged never reads as NaN, and a NaN that was logged stays one.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from earnest.errors import UserError

STEP_NAMES = [
    "trainer_global_step", "train_global_step", "global_step", "global_steps", "num_updates", "num_update", "current_step", "train_step",
    "step", "steps", "_step", "nb_steps", "iteration", "iterations", "iter", "iters", "it", "itr", "n_iter", "update", "updates", "batch",
    "batch_idx", "batch_index", "minibatch",
]  # fmt: skip
EPOCH_NAMES = ("epoch", "epochs", "current_epoch", "train_epoch", "trainer_epoch", "epoch_idx", "ep")
# that count the same thing: not batches, nor W&B's log calls
COUNTERS = {"step", "global_step", "iteration", "iter", "it", "update", "num_updates"}
SPLITS = {
    **dict.fromkeys(["train", "training", "trn", "trainer", "tr", "inner"], "train"),
    **dict.fromkeys(["eval", "evaluation", "val", "valid", "validation", "dev", "heldout"], "eval"),
    "test": "test",
}
LABELS_OF_SPLITS = {"split", "phase", "mode", "stage", "subset", "partition"}
LABELS = LABELS_OF_SPLITS | {"tag", "tags", "metric", "name", "key"}
AXES = {**dict.fromkeys(STEP_NAMES, "step"), **dict.fromkeys(EPOCH_NAMES, "epoch")}
DISORDER_FRAC = (
    0.3  # assumed: more steps than this going down is no order at all; a resumed run goes down a handful of times
)


class Column(NamedTuple):
    """The cells of one column: `row` int64 (N,), increasing, and `value` float64 (N,)."""

    row: np.ndarray
    value: np.ndarray


@dataclass
class Log:
    """Columns under foreign names; `step` of each row where the format says it, else a column does."""

    format: str
    columns: dict[str, Column]
    step: np.ndarray | None = None
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scale: dict[str, tuple[float, str]] = field(
        default_factory=dict
    )  # column -> (factor to our unit, why), where the format defines it
    runs: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # runs side by side: run -> {its name of a column: the column}
    facts: dict[str, Any] = field(default_factory=dict)  # where the format itself holds one of signals.FACTS


@dataclass(frozen=True)
class Rows:
    """The step of every row, and which rows (`start` to `stop`) are the run that is read."""

    step: np.ndarray
    start: int
    stop: int
    ordered: bool
    epoch: np.ndarray | None
    axes: dict[str, str]  # column -> "step" or "epoch"
    shared: dict[int, tuple[np.ndarray, slice | np.ndarray]] = field(
        default_factory=dict
    )  # of columns that stand in the same rows

    def series(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Steps, strictly increasing, and values.

        Where steps go back (a resume), what was written before and is repeated or passed over is superseded:
        a value stays if its step is below every later step of its column.
        """
        if id(column.row) not in self.shared:
            self.shared[id(column.row)] = self._kept(column.row)
        step, kept = self.shared[id(column.row)]
        return step, column.value[kept]

    def _kept(self, row: np.ndarray) -> tuple[np.ndarray, slice | np.ndarray]:
        """The steps of the rows that count, and where those stand in the column."""
        first, last = (int(place) for place in np.searchsorted(row, [self.start, self.stop]))
        step = self.step[row[first:last]].astype(np.int64, copy=False)
        if len(step) < 2 or (np.diff(step) > 0).all():
            return step, slice(first, last)
        order = np.arange(len(step)) if self.ordered else np.argsort(step, kind="stable")
        step = step[order]
        lowest_later = np.minimum.accumulate(step[::-1])[::-1][1:]
        keep = np.append(step[:-1] < lowest_later, True)
        return step[keep], first + order[keep]


class Table:
    """Gathers cells into columns: whole arrays of a block, or one row at a time, in 16 bytes a cell."""

    def __init__(self):
        self.rows = 0
        self._cells: dict[str, tuple[array, array]] = {}

    def row(self, cells: dict[str, float]) -> None:
        known, number = self._cells, self.rows
        for name, value in cells.items():
            row, values = known.get(name) or self._column(name)
            row.append(number)
            values.append(value)
        self.rows += 1

    def block(self, name: str, value: np.ndarray, present: np.ndarray) -> None:
        """Cells of one column from row `self.rows` on; the caller adds the block's height to `rows` when all columns
        are in."""
        row, values = self._column(name)
        row.frombytes((np.flatnonzero(present) + self.rows).astype(np.int64).tobytes())
        values.frombytes(value[present].astype(np.float64).tobytes())

    def cells(self, name: str, row: np.ndarray, value: np.ndarray) -> None:
        rows, values = self._column(name)
        rows.frombytes(row.astype(np.int64).tobytes())
        values.frombytes(value.astype(np.float64).tobytes())

    def columns(self) -> dict[str, Column]:
        """The gathered columns; the table is empty afterwards."""
        every_row = np.arange(self.rows)  # one array for all columns without a gap
        columns = {}
        while self._cells:
            name, (row, value) = self._cells.popitem()
            full = len(row) == self.rows and row[0] == 0 and row[-1] == self.rows - 1
            columns[name] = _ordered(
                Column(every_row if full else np.frombuffer(row, np.int64), np.frombuffer(value, np.float64))
            )
        return dict(reversed(columns.items()))

    def _column(self, name: str) -> tuple[array, array]:
        if name not in self._cells:
            self._cells[name] = (array("q"), array("d"))
        return self._cells[name]


def _ordered(column: Column) -> Column:
    """By row: cells of one column that came in two turns (rows of one split after those of another) are put in
    order."""
    if (np.diff(column.row) < 0).any():
        order = np.argsort(column.row, kind="stable")
        return Column(column.row[order], column.value[order])
    return column


def _is_label(frame: pl.DataFrame, name: str) -> bool:
    """Whether a column of text tells splits (train, eval) or, beside a column called value, metrics (train/loss,
    lr)."""
    said = frame[name].drop_nulls().unique()
    if name.lower() in LABELS_OF_SPLITS:
        return len(said) > 1 and all(word.lower() in SPLITS for word in said)
    return 0 < len(said) <= 1000 and any(column.lower() == "value" for column in frame.columns)


def labelled(row: dict[str, Any], cells: dict[str, float]) -> dict[str, float]:
    """The cells of one row called as `add_frame` calls them."""
    split = next(
        (str(row[name]) for name in row if name.lower() in LABELS_OF_SPLITS and str(row[name]).lower() in SPLITS), None
    )
    if split is None:
        return cells
    return {name if axis_of(name) else f"{split}/{name}": value for name, value in cells.items()}


def add_frame(table: Table, frame: pl.DataFrame) -> None:
    """The Float64 columns of a block of rows; a null is a cell that is not there.

    Where a column says each row's split, or its metric's name, the rows of one word become columns called word/column.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name.lower() in LABELS]
    label = next((name for name in texts if _is_label(frame, name)), None)
    if label is not None:
        order = pl.int_range(table.rows, table.rows + len(frame), dtype=pl.Int64).alias("#row")
        values = [name for name, dtype in frame.schema.items() if dtype == pl.Float64]
        metrics = label.lower() not in LABELS_OF_SPLITS
        for (word,), part in frame.with_columns(order).group_by(label, maintain_order=True):
            for name in values:
                called = str(word) if metrics and name.lower() == "value" else f"{word}/{name}"
                called = name if axis_of(name) or word is None else called
                present = part[name].is_not_null()
                table.cells(called, part["#row"].filter(present).to_numpy(), part[name].filter(present).to_numpy())
        table.rows += len(frame)
        return
    frame_64 = frame.select(pl.selectors.float())
    filled, nulls = frame_64.fill_null(0.0).to_numpy(), frame_64.null_count().row(0) if frame_64.width else ()
    for index, (name, missing) in enumerate(zip(frame_64.columns, nulls, strict=True)):
        if missing < len(frame):
            table.block(
                name,
                filled[:, index],
                frame_64[name].is_not_null().to_numpy() if missing else np.ones(len(frame), bool),
            )
    table.rows += len(frame)


def number(value: Any) -> float | None:
    """A cell as a number: JSON numbers, and the strings that stand for one ("10.5", "NaN", "-Infinity"); None for all
    else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return None


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: {"train": {"loss": 3}} -> {"train/loss": 3}."""
    leaves: dict[str, Any] = {}
    stack = [(prefix, row)]
    while stack:
        path, node = stack.pop()
        for name, value in node.items():
            if isinstance(value, dict):
                stack.append((f"{path}{name}/", value))
            else:
                leaves[f"{path}{name}"] = value
    return leaves


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """The numeric leaves of a row."""
    cells = ((name, number(value)) for name, value in flat(row).items())
    return {name: value for name, value in cells if value is not None}


@lru_cache(maxsize=50_000)
def words(name: str) -> tuple[str, ...]:
    """Take a foreign name apart: ``trainLoss``, ``train/loss`` and ``Train Loss`` are all train, loss."""
    separated = []
    for before, char in zip(" " + name, name, strict=False):
        separated.append(" " + char if char.isupper() and before.islower() else char if char.isalnum() else " ")
    return tuple("".join(separated).lower().split())


@lru_cache(maxsize=50_000)
def axis_of(name: str) -> str | None:
    """ "step" or "epoch" where a name is one of their spellings."""
    return AXES.get("_".join(words(name)))


def stitch(log: Log, chosen: Mapping[str, object], run: str | None, reference: list[str]) -> Rows:
    """Find every row's step: a step column, an epoch column, or the row's number; then resumes, restarts and disorder.

    `chosen`: columns that the user named as "step" or "epoch"; `reference`: the columns that hold signals.
    """
    count = max((int(column.row[-1]) + 1 for column in log.columns.values() if len(column.row)), default=0)
    step, axes = log.step, {}
    step_name = _axis(log, STEP_NAMES, [name for name, axis in chosen.items() if axis == "step"])
    epoch_name = _axis(log, EPOCH_NAMES, [name for name, axis in chosen.items() if axis == "epoch"])
    epoch = None
    if epoch_name is not None:
        axes[epoch_name] = "epoch"
        epoch = _filled(log.columns[epoch_name], count)
    if step is None and step_name is not None:
        axes[step_name] = "step"
        step = _filled(_with_other_counters(log, step_name), count).astype(np.int64)
    elif step is None and epoch is not None and (epoch == np.floor(epoch)).all() and len(np.unique(epoch)) > 1:
        log.notes.append(f"no step column; steps are the epochs of column {epoch_name!r}")
        step = epoch.astype(np.int64)
    elif step is None:
        log.notes.append("no step column; steps are row numbers from 0 (name one with --map COLUMN=step)")
        step = np.arange(count)
    longest = max((name for name in reference), key=lambda name: len(log.columns[name].row), default=None)
    if longest is None:
        return Rows(step, 0, count, True, epoch, axes)
    at = log.columns[longest].row
    falls = np.flatnonzero(np.diff(step[at]) < 0)
    if len(falls) and epoch is not None and (np.diff(np.floor(epoch[at]))[falls] > 0).all():
        step = _within_epoch(step, np.floor(epoch))
        log.notes.append("the step column counts within an epoch; the epochs were laid end to end")
        falls = np.flatnonzero(np.diff(step[at]) < 0)
    if len(falls) > max(1, DISORDER_FRAC * (len(at) - 1)):
        log.notes.append(f"steps are in no order ({len(falls)} of {len(at)} go down) and were sorted")
        return Rows(step, 0, count, False, epoch, axes)
    start, stop = _one_run(log, step[at], at, falls, count, run)
    rows = Rows(step, start, stop, True, epoch, axes)
    _tell_resumes(log, longest, rows)
    return rows


def _axis(log: Log, names, chosen: list[str]) -> str | None:
    """The column that counts steps (or epochs): the user's choice, or the first known name that holds whole numbers."""
    if chosen:
        return chosen[0]
    spelled: dict[str, str] = {}
    for name in log.columns:
        spelled.setdefault("_".join(words(name)), name)
    for known in names:
        name = spelled.get(known)
        if name is not None:
            value = log.columns[name].value
            value = value[np.isfinite(value)]
            whole = names is EPOCH_NAMES or (value == np.floor(value)).all()
            if len(value) and np.abs(value).max() < 2**62 and whole and (len(value) == 1 or (value != value[0]).any()):
                return name
    return None


def _with_other_counters(log: Log, name: str) -> Column:
    """nanoGPT says `step 500: val loss` and `iter 501: loss`: a second counter fills the rows without the first where
    both only grow."""
    row, value = log.columns[name]
    for other in log.columns:
        if other == name or "_".join(words(other)) not in COUNTERS:
            continue
        extra = ~np.isin(log.columns[other].row, row)
        both_row = np.concatenate([row, log.columns[other].row[extra]])
        both = np.concatenate([value, log.columns[other].value[extra]])
        order = np.argsort(both_row, kind="stable")
        if extra.any() and (np.diff(both[order]) >= 0).all() and (both == np.floor(both)).all():
            row, value = both_row[order], both[order]
    return Column(row, value)


def _filled(column: Column, count: int) -> np.ndarray:
    """A value for each of `count` rows: a row without one belongs to the last that had one, the first rows to the
    first."""
    good = np.isfinite(column.value) & (np.abs(column.value) < 2**62)
    row, value = column.row[good], column.value[good]
    if len(row) == count:
        return value
    if not len(row):
        return np.zeros(count)
    return value[np.maximum(np.searchsorted(row, np.arange(count), side="right") - 1, 0)]


def _within_epoch(step: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """Lay epochs end to end: each starts one stride after the last step of the one before."""
    cuts = np.flatnonzero(np.diff(epoch) > 0) + 1
    rises = np.diff(step)
    stride = int(np.median(rises[rises > 0])) if (rises > 0).any() else 1
    whole, offset = step.copy(), 0
    for start, stop, next_start in zip(np.append(0, cuts[:-1]), cuts, cuts, strict=True):
        offset += int(step[start:stop].max()) + stride - int(step[next_start])
        whole[next_start:] = step[next_start:] + offset
    return whole


def _one_run(
    log: Log, step: np.ndarray, row: np.ndarray, falls: np.ndarray, count: int, run: str | None
) -> tuple[int, int]:
    """Where a fall goes back to the first step, another run begins; choose one of them, by default the last."""
    starts, first = [0], step[0]
    for fall in falls:
        if step[fall + 1] <= first:
            starts.append(int(fall) + 1)
            first = step[fall + 1]
    edges = [*(int(row[start]) for start in starts), count]
    edges[0] = 0
    spans = [step[start:stop] for start, stop in zip(starts, [*starts[1:], len(step)], strict=True)]
    last = max((index for index, span in enumerate(spans) if len(span) > 1), default=len(spans) - 1)
    if run is not None:
        if not run.isdigit() or not 1 <= int(run) <= len(spans):
            raise UserError(
                f"run {run!r}",
                f"a number from 1 to {len(spans)}: so many runs follow one another in this log",
                "choose one with --run",
            )
        last = int(run) - 1
    if len(spans) > 1:
        listed = ", ".join(f"{number}: steps {span.min()}-{span.max()}" for number, span in enumerate(spans[:20], 1))
        log.notes.append(
            f"{len(spans)} runs follow one another in this log ({listed}); number {last + 1} is read, choose another with --run"
        )
    return edges[last], edges[last + 1]


def _tell_resumes(log: Log, name: str, rows: Rows) -> None:
    column = log.columns[name]
    at = column.row[(column.row >= rows.start) & (column.row < rows.stop)]
    rises = np.diff(rows.step[at])
    for fall in np.flatnonzero(rises < 0)[:5]:
        before, after = rows.step[at[fall]], rows.step[at[fall + 1]]
        log.notes.append(
            f"resumed: after step {before} the log goes on at step {after}; what was written before counts no more"
        )
    if (rises == 0).any():
        log.notes.append(f"{int((rises == 0).sum())} steps stand more than once; the last of each counts")

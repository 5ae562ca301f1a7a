"""`stitch`: one line of steps for the rows of a log, whatever it counts in; resumes, restarts and disorder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from earnest.columns import Column
from earnest.errors import UserError
from earnest.logs.log import Log
from earnest.logs.words import COUNTERS, EPOCH_NAMES, SPLITS, STEP_NAMES, axis_of, words
from earnest.quantiles import median

DISORDER_FRAC = 0.3  # assumed: more steps than this going down is no order; a resumed run goes down a handful of times


@dataclass(frozen=True)
class Rows:
    """The step of every row, and which rows (`start` to `stop`) are the run that is read."""

    step: np.ndarray
    start: int
    stop: int
    ordered: bool
    epoch: np.ndarray | None
    axes: dict[str, str]  # column -> "step" or "epoch"
    counts_steps: bool  # False if a step is the number of an epoch, or of a row
    counts_epochs: bool
    # what `_kept` says of columns with values in the same rows, by the id of their rows
    shared: dict[int, tuple[np.ndarray, slice | np.ndarray]] = field(
        default_factory=dict[int, tuple[np.ndarray, slice | np.ndarray]]
    )

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
        """The steps of the rows that count, and the places of these rows in the column."""
        first, last = (int(place) for place in np.searchsorted(row, [self.start, self.stop]))
        step = self.step[row[first:last]].astype(np.int64, copy=False)
        if len(step) < 2 or (np.diff(step) > 0).all():
            return step, slice(first, last)
        order = np.arange(len(step)) if self.ordered else np.argsort(step, kind="stable")
        step = step[order]
        lowest_later = np.minimum.accumulate(step[::-1])[::-1][1:]
        keep = np.append(step[:-1] < lowest_later, True)
        return step[keep], first + order[keep]


def stitch(log: Log, chosen: Mapping[str, object], run: str | None, reference: list[str]) -> Rows:
    """Find every row's step: a step column, an epoch column, or the row's number; then resumes, restarts and disorder.

    `chosen`: columns that the user named as "step" or "epoch"; `reference`: the columns that hold signals.
    """
    count = max((int(column.row[-1]) + 1 for column in log.columns.values() if len(column.row)), default=0)
    step, axes, counts_steps, counts_epochs = log.step, dict[str, str](), True, False
    step_name = _axis(log, STEP_NAMES, [name for name, axis in chosen.items() if axis == "step"])
    epoch_name = _axis(log, EPOCH_NAMES, [name for name, axis in chosen.items() if axis == "epoch"])
    epoch = None
    if epoch_name is not None:
        axes[epoch_name] = "epoch"
        epoch = _filled(_however_spelled(log, epoch_name), count)
    if step is None and step_name is not None:
        axes[step_name] = "step"
        step = _filled(_with_other_counters(log, step_name), count).astype(np.int64)
    elif step is None and epoch is not None and (epoch == np.floor(epoch)).all() and len(np.unique(epoch)) > 1:
        log.notes.append(f"no step column; steps are the epochs of column {epoch_name!r}")
        step, counts_steps, counts_epochs = epoch.astype(np.int64), False, True
    elif step is None:
        log.notes.append("no step column; steps are row numbers from 0 (name one with --map COLUMN=step)")
        step, counts_steps = np.arange(count), False
    longest = max(reference, key=lambda name: len(log.columns[name].row), default=None)
    if longest is None:
        return Rows(step, 0, count, True, epoch, axes, counts_steps, counts_epochs)
    at = log.columns[longest].row
    falls = np.flatnonzero(np.diff(step[at]) < 0)
    anew = falls[step[at][falls + 1] <= step[at][0]] if len(falls) else falls  # where a run may begin anew
    if len(falls) and epoch is not None and _counts_within(np.diff(np.floor(epoch[at])), falls, anew):
        whole = np.floor(epoch)
        same = at[anew[np.diff(whole[at])[anew] == 0] + 1]  # runs that follow one another within their first epoch
        starts = np.union1d(np.append(0, np.flatnonzero(np.diff(whole) < 0) + 1), same).astype(np.int64)
        pieces = zip(starts, np.append(starts[1:], len(step)), strict=True)
        step = np.concatenate([_within_epoch(step[start:stop], whole[start:stop]) for start, stop in pieces])
        log.notes.append("the step column counts within an epoch; the epochs were laid end to end")
        falls = np.flatnonzero(np.diff(step[at]) < 0)
    if len(falls) > max(1, DISORDER_FRAC * (len(at) - 1)):
        log.notes.append(f"steps are in no order ({len(falls)} of {len(at)} go down) and were sorted")
        return Rows(step, 0, count, False, epoch, axes, counts_steps, counts_epochs)
    start, stop = _one_run(log, step[at], at, falls, count, run)
    rows = Rows(step, start, stop, True, epoch, axes, counts_steps, counts_epochs)
    _tell_resumes(log, longest, rows)
    return rows


def _counts_within(rises: np.ndarray, falls: np.ndarray, anew: np.ndarray) -> bool:
    """Whether steps fall where an epoch begins, but for a few places where the epochs fall too, or the first steps of
    an epoch come again: another start."""
    again = rises[falls] < 0
    same = falls[rises[falls] == 0]
    starts = again.sum() + len(same) < 0.5 * len(falls) and bool(np.isin(same, anew).all())
    return bool(starts and (rises < 0).sum() == again.sum())


def _axis(log: Log, names: Sequence[str], chosen: list[str]) -> str | None:
    """The column that counts steps (or epochs): the user's choice, or the first known name that holds whole numbers."""
    if chosen:
        return chosen[0]
    spelled: dict[str, str] = {}  # ITER beside iter: the fuller one counts, the other is a setting
    for name in sorted(log.columns, key=lambda name: -len(log.columns[name].row)):
        spelled.setdefault("_".join(words(name)), name)
    for known in names:
        name = spelled.get(known)
        if name is None:
            continue
        value = log.columns[name].value
        value = value[np.isfinite(value)]
        if not len(value):
            continue
        whole = names is EPOCH_NAMES or (value == np.floor(value)).all()
        counts = len(value) == 1 or (value != value[0]).any() or _is_one_report(log, name)
        if np.abs(value).max() < 2**62 and whole and counts:
            return name
    return None


def _is_one_report(log: Log, axis: str) -> bool:
    """Whether every other column has one value: a report of a metric a line, all of them at one step."""
    return all(len(column.row) <= 1 for name, column in log.columns.items() if name != axis)


def _with_other_counters(log: Log, name: str) -> Column:
    """nanoGPT says `step 500: val loss` and `iter 501: loss`: a second counter fills the rows without the first if
    both only grow."""
    row, value = _however_spelled(log, name)
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


def _however_spelled(log: Log, name: str) -> Column:
    """`TRAIN EPOCH 0` above `Val epoch 0`: columns of one name but for capitals and split are one if rows differ."""
    row, value = log.columns[name]
    for other, column in log.columns.items():
        alike = axis_of(other) == axis_of(name) and {*words(other)} - {*SPLITS} == {*words(name)} - {*SPLITS}
        if other != name and alike and not np.isin(column.row, row).any():
            order = np.argsort(both := np.concatenate([row, column.row]), kind="stable")
            row, value = both[order], np.concatenate([value, column.value])[order]
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
    if not len(cuts):
        return step
    rises = np.diff(step)
    stride = int(median(rises[rises > 0])) if (rises > 0).any() else 1
    whole, offset = step.copy(), 0
    for start, stop, next_start in zip(np.append(0, cuts[:-1]), cuts, cuts, strict=True):
        offset += int(step[start:stop].max()) + stride - int(step[next_start])
        whole[next_start:] = step[next_start:] + offset
    return whole


def _one_run(
    log: Log, step: np.ndarray, row: np.ndarray, falls: np.ndarray, count: int, run: str | None
) -> tuple[int, int]:
    """(first row, row after the last) of one run. A fall of the steps to the first step or below begins another run;
    without `run`, the last one is chosen."""
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
            f"{len(spans)} runs follow one another in this log ({listed}); number {last + 1} is read, "
            "choose another with --run"
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
        log.notes.append(f"{int((rises == 0).sum())} steps occur more than once; the last of each counts")

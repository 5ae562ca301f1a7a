"""`Log`: what a reader hands over, in the log's own words.

A row is one line, record or event of the log, in the order it was written. A reader keeps the cells that are there
and no others, so a value that was not logged never reads as NaN, and a NaN that was logged stays one.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from earnest.logs.words import LABELS, LABELS_OF_SPLITS, SPLITS, axis_of


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

"""`Log`: what a reader hands over, in the log's own words.

A row is one line, record or event of the log, in the order it was written. A reader keeps the cells that are there
and no others, so a value that was not logged never reads as NaN, and a NaN that was logged stays one.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from earnest.logs.words import LABELS_OF_RUNS, LABELS_OF_SPLITS, SPLITS, axis_of

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


class Column(NamedTuple):
    """The cells of one column: `row` int64 (N,), increasing, and `value` float64 (N,)."""

    row: np.ndarray
    value: np.ndarray


@dataclass
class Log:
    """Columns under foreign names.

    step: of each row, if the format says it; else a column does · scale: column -> (factor to our unit, why), if the
    format defines it · runs: of runs side by side, run -> {its name of a column: the column} · facts: those of
    `facts.Facts` that the format itself holds.
    """

    format: str
    columns: dict[str, Column]
    step: np.ndarray | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    scale: dict[str, tuple[float, str]] = field(default_factory=dict[str, tuple[float, str]])
    runs: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


class Table:
    """Gathers cells into columns: whole arrays of a block, or one row at a time, in 16 bytes a cell."""

    def __init__(self) -> None:
        self.rows = 0
        self.runs: dict[str, dict[str, str]] = {}  # run -> {its name of a column: the column}
        self._cells: dict[str, tuple[array[int], array[float]]] = {}

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

    def of_run(self, run: str, name: str) -> str:
        """What the column `name` of one of several runs is called."""
        return self.runs.setdefault(run, {}).setdefault(name, f"{run}/{name}")

    def columns(self) -> dict[str, Column]:
        """The gathered columns; the table is empty afterwards.

        Runs that are no runs, as there is one, or as their names tell rows apart, are put together again.
        """
        columns = self._columns()
        if len(self.runs) == 1 or 2 * len(self.runs) > self.rows:
            pieces: dict[str, list[Column]] = {}
            names = {column: name for run in self.runs.values() for name, column in run.items()}
            for name, column in columns.items():
                pieces.setdefault(names.get(name, name), []).append(column)
            columns = {name: _together(parts) for name, parts in pieces.items()}
            self.runs = {}
        return columns

    def _columns(self) -> dict[str, Column]:
        every_row = np.arange(self.rows)  # one array for all columns without a gap
        columns: dict[str, Column] = {}
        while self._cells:
            name, (row, value) = self._cells.popitem()
            column = _ordered(Column(np.frombuffer(row, np.int64), np.frombuffer(value, np.float64)))
            full = len(row) == self.rows and column.row[0] == 0 and column.row[-1] == self.rows - 1
            columns[name] = column._replace(row=every_row) if full else column
        return dict(reversed(columns.items()))

    def _column(self, name: str) -> "tuple[array[int], array[float]]":
        if name not in self._cells:
            self._cells[name] = (array("q"), array("d"))
        return self._cells[name]


def _together(parts: list[Column]) -> Column:
    row, value = zip(*parts, strict=True)
    return _ordered(Column(np.concatenate(row), np.concatenate(value))) if len(parts) > 1 else parts[0]


def _ordered(column: Column) -> Column:
    """By row: cells of one column that came in two turns (rows of one split after those of another) are put in
    order."""
    if (np.diff(column.row) < 0).any():
        order = np.argsort(column.row, kind="stable")
        return Column(column.row[order], column.value[order])
    return column


def add_row(table: Table, row: dict[str, Json]) -> None:
    """The numbers of one row, in columns named as `frames.add_frame` names them."""
    cells = numbers(row)
    words = {name.lower(): str(value) for name, value in row.items() if isinstance(value, str | int)}
    split = next((words[name] for name in words if name in LABELS_OF_SPLITS and words[name].lower() in SPLITS), None)
    if split is not None:
        cells = {name if axis_of(name) else f"{split}/{name}": value for name, value in cells.items()}
    run = next((words[name] for name in words if name in LABELS_OF_RUNS), None)
    if run is not None:
        cells = {table.of_run(run, name): value for name, value in cells.items() if name.lower() not in LABELS_OF_RUNS}
    table.row(cells)


def number(value: Json) -> float | None:
    """A cell as a number: JSON numbers, and texts of one ("10.5", "NaN", "-Infinity"); None for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return None


def flat(row: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested dictionaries as one: {"train": {"loss": 3}} -> {"train/loss": 3}."""
    leaves: dict[str, Json] = {}
    stack = [(prefix, row)]
    while stack:
        path, node = stack.pop()
        for name, value in node.items():
            if isinstance(value, dict):
                stack.append((f"{path}{name}/", value))
            else:
                leaves[f"{path}{name}"] = value
    return leaves


def numbers(row: dict[str, Json]) -> dict[str, float]:
    """The numeric leaves of a row."""
    cells = ((name, number(value)) for name, value in flat(row).items())
    return {name: value for name, value in cells if value is not None}

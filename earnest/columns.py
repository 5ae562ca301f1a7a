"""Numbers of rows -> columns: `Table` gathers them, `frame_of_lines` reads blocks of JSON lines by the thousand.

polars reads blocks of well-behaved lines, an order of magnitude faster than the standard library; it is imported when a
block is large enough to be worth it.
"""

import re
from array import array
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import polars as pl

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
MOST_COLUMNS = 10_000  # assumed: more names are no names of signals
MOST_CELLS = 1 << 24  # of a block as a table without gaps: 128 MB
NAMES = re.compile(rb'"([^"]+)"\s*:')
DEEPEST = 16  # of nested JSON that polars unnests: of rows 500 deep it made 17 GB (measured)
SMALL_BYTES = 1 << 16  # a block that the standard library reads before polars is imported
# JSON has no NaN and polars reads JSON: these replace it on the way through (no log holds the largest doubles)
STANDS_FOR = {
    b"NaN": b"1.7976931348623151e308",
    b"Infinity": b"1.7976931348623155e308",
    b"-Infinity": b"-1.7976931348623155e308",
}


class Column(NamedTuple):
    """The cells of one column: `row` int64 (N,), increasing, and `value` float64 (N,)."""

    row: np.ndarray
    value: np.ndarray


class Table:
    """Gathers cells into columns: whole arrays of a block, or one row at a time, in 16 bytes a cell.

    Of more than MOST_COLUMNS the first are kept, and a note says so.
    """

    def __init__(self, notes: list[str]) -> None:
        self.rows = 0
        self.notes = notes
        self.runs: dict[str, dict[str, str]] = {}  # run -> {its name of a column: the column}
        self._cells: dict[str, tuple[array[int], array[float]]] = {}

    def row(self, cells: dict[str, float]) -> None:
        known, number = self._cells, self.rows
        for name, value in cells.items():
            column = known.get(name) or self._column(name)
            if column:
                column[0].append(number)
                column[1].append(value)
        self.rows += 1

    def block(self, name: str, value: np.ndarray, present: np.ndarray) -> None:
        """Cells of one column from row `self.rows` on; the caller adds the block's height to `rows` when all columns
        are in."""
        self.cells(name, np.flatnonzero(present) + self.rows, value[present])

    def cells(self, name: str, row: np.ndarray, value: np.ndarray) -> None:
        if column := self._column(name):
            column[0].frombytes(row.astype(np.int64).tobytes())
            column[1].frombytes(value.astype(np.float64).tobytes())

    def of_run(self, run: str, name: str) -> str:
        """What the column `name` of one of several runs is called."""
        return self.runs.setdefault(run, {}).setdefault(name, f"{run}/{name}")

    def columns(self) -> dict[str, Column]:
        """The gathered columns; the table is empty afterwards.

        Runs that are no runs, as there is one, or as their names tell rows apart, are put together again.
        """
        columns = self._columns()
        if len(self.runs) == 1 or 2 * len(self.runs) > self.rows:
            columns = joined(columns, {column: name for run in self.runs.values() for name, column in run.items()})
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

    def _column(self, name: str) -> "tuple[array[int], array[float]] | None":
        """None if there are too many columns already."""
        if name not in self._cells:
            if len(self._cells) == MOST_COLUMNS:
                note = f"over {MOST_COLUMNS:,} columns: the first {MOST_COLUMNS:,} were read"
                if note not in self.notes:
                    self.notes.append(note)
                return None
            self._cells[name] = (array("q"), array("d"))
        return self._cells[name]


def joined(columns: dict[str, Column], names: Mapping[str, str]) -> dict[str, Column]:
    """Columns under other names (column -> name); those of one name become one."""
    pieces: dict[str, list[Column]] = {}
    for name, column in columns.items():
        pieces.setdefault(names.get(name, name), []).append(column)
    return {name: _together(parts) for name, parts in pieces.items()}


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


def frame_of_lines(block: bytes, labels: Container[str] = ()) -> "pl.DataFrame | None":
    """The numbers of a block of JSON lines as Float64 columns, nested objects as name/leaf; columns of text whose names
    are `labels` in lower case stay. None if the standard library should read the block: NaN in odd places, changing
    types, broken lines, rows with few names in common, deep nesting, or few rows."""
    if len(block) < SMALL_BYTES or len(set(NAMES.findall(block))) * block.count(b"\n") > MOST_CELLS or _is_deep(block):
        return None
    import polars as pl

    odd = b"NaN" in block or b"Infinity" in block
    if odd:
        for token, number in STANDS_FOR.items():  # the token first in the pattern: a literal is searched fast
            block = re.sub(rb"%b(?<=[:\s]%b)(?=\s*[,}\]])" % (token, token), number, block)
    try:
        frame = pl.read_ndjson(block, infer_schema_length=None)
        while nested := [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]:
            frame = frame.unnest(nested, separator="/")
        kept = [name for name, dtype in frame.schema.items() if dtype == pl.String and name.lower() in labels]
        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name not in kept]
        frame = frame.select(*kept, *map(_number, texts), pl.selectors.numeric().cast(pl.Float64, strict=False))
        back = {float(number): float(token) for token, number in STANDS_FOR.items()}
        return frame.with_columns(pl.selectors.float().replace(back)) if odd else frame
    except BaseException as error:  # polars' panics derive from BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        return None


def _is_deep(block: bytes) -> bool:
    """Whether objects and lists nest deeper than DEEPEST; brackets in texts may say so of rows that do not."""
    if block.count(b"{") + block.count(b"[") < block.count(b"\n") + DEEPEST:
        return False
    letters = np.frombuffer(block, np.uint8)
    opened, closed = (np.isin(letters, list(pair)) for pair in (b"{[", b"}]"))
    depth = np.cumsum(opened.astype(np.int8) - closed.astype(np.int8), dtype=np.int64)
    return int(depth.max()) > DEEPEST


def _number(name: str) -> "pl.Expr":
    """A column of texts as numbers, of "10/600" the first."""
    import polars as pl

    share = pl.col(name).str.extract(r"^(\d{1,15})/\d+$")
    return pl.coalesce(pl.col(name).cast(pl.Float64, strict=False), share.cast(pl.Float64, strict=False)).alias(name)


def add_columns(table: Table, frame: "pl.DataFrame") -> None:
    """The Float64 columns of a block of rows; a null is a cell that is not there."""
    import polars as pl

    frame_64 = frame.select(pl.selectors.float())
    filled, nulls = frame_64.fill_null(0.0).to_numpy(), frame_64.null_count().row(0) if frame_64.width else ()
    for index, (name, missing) in enumerate(zip(frame_64.columns, nulls, strict=True)):
        if missing < len(frame):
            present = frame_64[name].is_not_null().to_numpy() if missing else np.ones(len(frame), bool)
            table.block(name, filled[:, index], present)
    table.rows += len(frame)

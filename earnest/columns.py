"""Numbers of rows -> columns: `Table` gathers them, `JsonLines` reads blocks of JSON lines by the thousand.

polars reads blocks of well-behaved lines, an order of magnitude faster than the standard library; it is imported when a
block is large enough to be worth it.
"""

import re
from array import array
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from polars._typing import PolarsDataType

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
MOST_COLUMNS = 10_000  # assumed: more names are no names of signals
MOST_CELLS = 1 << 24  # of a block as a table without gaps: 128 MB
NAMES = re.compile(rb'"([^"]+)"\s*:')
NULL = re.compile(rb":\s*null")
DEEPEST = 16  # of nested JSON that polars unnests: of rows 500 deep it made 17 GB (measured)
SMALL_ROWS = 256  # a block of fewer goes where single rows go: an array of its own would be mostly head
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


class Grown:
    """An array that grows in place, a chunk of a file after another: a list of pieces would take its memory twice.

    Its type is as narrow as the first piece's, until a wider one comes.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype, self._bytes = dtype, bytearray()

    def add(self, piece: np.ndarray) -> None:
        dtype = np.promote_types(self._dtype, piece.dtype)
        if dtype != self._dtype:
            self._dtype, self._bytes = dtype, bytearray(self.array.astype(dtype).tobytes())
        self._bytes += piece.astype(dtype, copy=False).tobytes()

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self._bytes, self._dtype)


class _Cells:
    """The cells of one column: those of blocks as they came, those of single rows in arrays that grow."""

    def __init__(self) -> None:
        self.count = 0
        self._pieces: list[tuple[range | np.ndarray, np.ndarray]] = []
        self._row, self._value = array("q"), array("d")

    def append(self, row: int, value: float) -> None:
        self._row.append(row)
        self._value.append(value)
        self.count += 1

    def block(self, row: range | np.ndarray, value: np.ndarray) -> None:
        """Rows of a block; a range if no row is without a value: the rows then take no memory."""
        if len(row) < SMALL_ROWS:
            self._row.extend(row if isinstance(row, range) else row.tolist())
            self._value.frombytes(value.tobytes())
        else:
            self._close()
            self._pieces.append((row, value))
        self.count += len(row)

    def copy(self) -> "_Cells":
        """Cells to which others may be added; arrays of blocks are shared."""
        other = _Cells()
        other.count, other._pieces = self.count, [*self._pieces]
        other._row, other._value = self._row[:], self._value[:]
        return other

    def column(self, every_row: np.ndarray) -> Column:
        """All cells by row, in arrays of their own; of a column without a gap the rows are `every_row` itself."""
        self._close()
        if not self._pieces:  # a column of a table whose cells are all empty
            return Column(np.zeros(0, np.int64), np.zeros(0))
        rows, values = zip(*self._pieces, strict=True)
        value = np.concatenate(values)
        if self.count == len(every_row) and _one_after_the_other(rows):
            return Column(every_row, value)
        row = np.concatenate([np.asarray(row, np.int64) for row in rows])
        column = _ordered(Column(row, value))
        full = 0 < self.count == len(every_row) and column.row[0] == 0 and column.row[-1] == len(every_row) - 1
        return column._replace(row=every_row) if full else column

    def _close(self) -> None:
        """End the arrays of single rows, before a block or at the end."""
        if self._row:
            self._pieces.append((np.frombuffer(self._row, np.int64), np.frombuffer(self._value, np.float64)))
            self._row, self._value = array("q"), array("d")


class Table:
    """Gathers cells into columns: whole arrays of a block, or one row at a time, in 8 bytes a cell of a column without
    a gap and 16 of another.

    Of more than MOST_COLUMNS the first are kept, and a note says so.
    """

    def __init__(self, notes: list[str]) -> None:
        self.rows = 0
        self.notes = notes
        self.runs: dict[str, dict[str, str]] = {}  # run -> {its name of a column: the column}
        self._cells: dict[str, _Cells] = {}

    def row(self, cells: dict[str, float]) -> None:
        known, number = self._cells, self.rows
        for name, value in cells.items():
            column = known.get(name) or self._column(name)
            if column:
                column.append(number, value)
        self.rows += 1

    def block(self, name: str, value: np.ndarray, present: np.ndarray | None = None) -> None:
        """Cells of one column from row `self.rows` on; the caller adds the block's height to `rows` when all columns
        are in. present: the rows that have one; None if all do. `value` is kept: it must not change afterwards."""
        if present is not None:
            self.cells(name, np.flatnonzero(present) + self.rows, value[present])
        elif column := self._column(name):
            column.block(range(self.rows, self.rows + len(value)), value)

    def cells(self, name: str, row: np.ndarray, value: np.ndarray) -> None:
        if column := self._column(name):
            column.block(row.astype(np.int64, copy=False), value.astype(np.float64, copy=False))

    def copy(self) -> "Table":
        """A table that grows by itself from here on."""
        other = Table([*self.notes])
        other.rows, other.runs = self.rows, {run: {**names} for run, names in self.runs.items()}
        other._cells = {name: cells.copy() for name, cells in self._cells.items()}
        return other

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
            name, cells = self._cells.popitem()
            columns[name] = cells.column(every_row)
        return dict(reversed(columns.items()))

    def _column(self, name: str) -> _Cells | None:
        """None if there are too many columns already."""
        if name not in self._cells:
            if len(self._cells) == MOST_COLUMNS:
                note = f"over {MOST_COLUMNS:,} columns: the first {MOST_COLUMNS:,} were read"
                if note not in self.notes:
                    self.notes.append(note)
                return None
            self._cells[name] = _Cells()
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


def _one_after_the_other(pieces: Iterable[range | np.ndarray]) -> bool:
    """Whether rows are 0, 1, 2, ... without a gap."""
    next_row = 0
    for rows in pieces:
        if rows[0] != next_row or not (isinstance(rows, range) or (np.diff(rows) == 1).all()):
            return False
        next_row += len(rows)
    return True


def _ordered(column: Column) -> Column:
    """The column sorted by row: cells that came in two turns (rows of one split after those of another) are put in
    order."""
    if (np.diff(column.row) < 0).any():
        order = np.argsort(column.row, kind="stable")
        return Column(column.row[order], column.value[order])
    return column


class JsonLines:
    """Blocks of JSON lines -> frames of their numbers as Float64 columns, nested objects as name/leaf. Columns of text
    are kept if their names, in lower case, are among `labels`.

    The names and types of a block are tried on the next: finding them out takes polars longer than reading. A block is
    read so only if every key in it became a cell; else its own are found out.
    """

    def __init__(self, labels: Container[str] = ()) -> None:
        self._labels = labels
        self._schema: dict[str, PolarsDataType] = {}
        self.nulls = False  # whether the last block may hold nulls
        self.texts = set[str]()  # the columns of text that it held

    def copy(self) -> "JsonLines":
        """Reads on as this one would."""
        other = JsonLines(self._labels)
        other._schema, other.nulls, other.texts = {**self._schema}, self.nulls, self.texts
        return other

    def frame(self, block: bytes) -> "pl.DataFrame | None":
        """None if the standard library should read the block: NaN in odd places, changing types, broken lines, rows
        with few names in common, deep nesting, or few rows."""
        self.nulls = b"null" in block if len(block) < SMALL_BYTES else True
        if len(block) < SMALL_BYTES:
            return None
        odd = (b"N" in block and b"NaN" in block) or (b"I" in block and b"Infinity" in block)
        readable = _without_odd_numbers(block) if odd else block
        try:
            frame = self._alike(readable)
            frame = self._by_itself(readable) if frame is None else frame
            return None if frame is None else self._numbers(frame, odd)
        except BaseException as error:  # polars' panics derive from BaseException
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            return None

    def _alike(self, block: bytes) -> "pl.DataFrame | None":
        """A block of the names and types that are known; None if it has others."""
        import polars as pl

        if not self._schema or len(self._schema) * newlines(block) > MOST_CELLS:
            return None
        try:
            frame = pl.read_ndjson(block, schema=self._schema)
        except pl.exceptions.PolarsError:
            return None
        frame, cells = _unnested(frame)
        letters = np.frombuffer(block, np.uint8)
        colon = letters == ord(":")
        if cells == np.count_nonzero(colon):
            self.nulls = False
        elif (
            b'" :' in block
            or b'"\t:' in block
            or cells != (np.count_nonzero(colon[1:] & (letters[:-1] == ord('"'))) - len(NULL.findall(block)))
        ):
            return None
        return frame.select(column for column in frame if column.null_count() < len(frame))

    def _by_itself(self, block: bytes) -> "pl.DataFrame | None":
        """A block whose names and types are inferred from it, and remembered for the blocks to come."""
        import polars as pl

        if len(set(NAMES.findall(block))) * newlines(block) > MOST_CELLS or _is_deep(block):
            return None
        frame = pl.read_ndjson(block, infer_schema_length=None)
        self._schema |= {name: wide for name, kind in frame.schema.items() if (wide := _wide(kind)) != pl.Null}
        return _unnested(frame)[0]

    def _numbers(self, frame: "pl.DataFrame", odd: bool) -> "pl.DataFrame":
        import polars as pl

        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        self.texts = set(texts)
        kept = [name for name in texts if name.lower() in self._labels]
        numbers = [_number(name) for name in texts if name not in kept]
        frame = frame.select(*kept, *numbers, pl.selectors.numeric().cast(pl.Float64, strict=False))
        back = {float(number): float(token) for token, number in STANDS_FOR.items()}
        return frame.with_columns(pl.selectors.float().replace(back)) if odd else frame


def newlines(block: bytes) -> int:
    """How many there are, counted four times as fast as by `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


def _without_odd_numbers(block: bytes) -> bytes:
    for token, number in STANDS_FOR.items():  # the token first in the pattern: a literal is searched fast
        block = re.sub(rb"%b(?<=[:\s]%b)(?=\s*[,}\]])" % (token, token), number, block)
    return block


def _unnested(frame: "pl.DataFrame") -> "tuple[pl.DataFrame, int]":
    """The leaves of nested objects as columns name/leaf, and how many keys of all depths have a value."""
    import polars as pl

    cells = frame.height * frame.width - sum(frame.null_count().row(0)) if frame.width else 0
    while nested := [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]:
        before = set(frame.columns)
        frame = frame.unnest(nested, separator="/")
        cells += sum(len(frame) - frame[name].null_count() for name in frame.columns if name not in before)
    return frame, cells


def _wide(kind: "PolarsDataType") -> "PolarsDataType":
    """A type for the blocks to come: all numbers are Float64, within objects and lists too."""
    import polars as pl

    if isinstance(kind, pl.Struct):
        return pl.Struct({name: _wide(field) for name, field in kind.to_schema().items()})
    if isinstance(kind, pl.List):
        return pl.List(_wide(kind.inner))
    return pl.Float64() if kind.is_numeric() else kind


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

    for column in frame.select(pl.selectors.float()):
        missing = column.null_count()
        if missing == 0:
            table.block(column.name, column.to_numpy())
        elif missing < len(frame):
            table.block(column.name, column.fill_null(0.0).to_numpy(), column.is_not_null().to_numpy())
    table.rows += len(frame)

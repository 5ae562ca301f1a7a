"""CSV and TSV: any table with a header, Lightning's ``metrics.csv``, a chart exported from W&B.

polars parses large blocks of lines (`frames.frame_of_csv`), the standard library small ones. Cells that are no plain
numbers (decimal commas, ``53%``, ``tensor(2.3, device='cuda:0')``) are cleaned in either case by `numbers_of`.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy

from earnest import columns
from earnest.columns import Json, Table
from earnest.logs import pieces
from earnest.logs.format import Format
from earnest.logs.formats.cells import MISSING, is_number, numbers_of, split_plainly
from earnest.logs.log import Log, add_row
from earnest.logs.source import CUT, Source
from earnest.logs.words import LABELS_OF_ROWS, LABELS_OF_RUNS

NAME = "csv"
SEPARATORS = ",\t;|"
RULED = re.compile(r"^[\s|:]*-{2,}[-|:\s]*\|[-|:\s]*$")  # the line below the header of a Markdown table
MOST_PROSE = 20  # lines before a table
HEADER = re.compile(r"\s*[A-Za-z_#][\w\s./#@%()+-]{0,60}")  # a cell of a header below prose


def claims(source: Source) -> bool:
    return source.is_text and _shape(source) is not None


def _shape(source: Source) -> tuple[str, list[str], int] | None:
    """Separator, column names, lines before the first row; None if the text is no table."""
    lines = source.head.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not source.head_is_whole:
        lines = lines[:-1]  # the head may end within a line
    skipped = next(
        (
            index
            for index, line in enumerate(lines)
            if line.strip() and not _comment(line, lines[index + 1 : index + 2])
        ),
        None,
    )
    if skipped is None or len(lines[skipped]) > 1 << 20:
        return None
    best = _columns_of(lines[skipped:])
    for start in range(skipped + 1, min(len(lines), skipped + MOST_PROSE)):
        if best is not None or not (_is_prose(lines[start - 1]) or not lines[start - 1].strip()):
            break
        below = [line for line in lines[start:] if line.strip()]
        table = _columns_of(below) if len(below) > 2 else None
        if table is not None and all(map(HEADER.fullmatch, table[1])):
            best, skipped = table, lines.index(below[0], start)
    body = [line for line in lines[skipped:] if line.strip() and not RULED.match(line)][:50]
    if best is None and len(body) > 1 and not _is_prose(body[0]):
        best = (",", [body[0]]) if _table_like([body[0]], [[line] for line in body[1:]]) else None
    if best is None:
        return None
    separator, header = best
    if all(is_number(cell) or cell in MISSING for cell in header):  # no header
        return separator, [f"column_{index}" for index in range(1, len(header) + 1)], skipped
    names: dict[str, None] = {}
    for cell in header:
        name = cell.strip().lstrip("#").strip() or f"column_{len(names) + 1}"
        names[name if name not in names else f"{name}#{len(names) + 1}"] = None
    return separator, list(names), skipped + 1


def _columns_of(lines: list[str]) -> tuple[str, list[str]] | None:
    """Separator and cells of the first line, if that is the header of a table of two columns or more."""
    body, best = [line for line in lines if line.strip() and not RULED.match(line)][:50], None
    for separator in SEPARATORS if body else "":
        try:
            rows = list(csv.reader(body, delimiter=separator))
        except csv.Error:  # a cell of over 128 KiB: with another separator it may be several
            continue
        if len(rows[0]) < 2 or (best and len(rows[0]) <= len(best[1])):
            continue
        shaped = [row for row in rows[1:] if len(row) == len(rows[0])]
        between = sum(map(_is_printed, rows[1:]))  # lines of a program between the rows, up to half of all
        enough = len(shaped) >= 0.8 * (len(rows) - 1 - between) and 2 * between < len(rows)
        if enough and _table_like(rows[0], shaped):
            best = (separator, rows[0])
    return best


def _is_prose(line: str) -> bool:
    """Whether a line is a sentence or a fence before a pasted table: words, and no header of one."""
    bare = line.strip()
    return bare.startswith(("```", "~~~")) or bare.endswith((".", "!", "?", ":")) or len(bare.split()) > 6


def _is_printed(row: list[str]) -> bool:
    """Whether a line between the rows is no row of the table, but what a program printed: one cell, and no number."""
    return len(row) == 1 and not is_number(row[0])


def _comment(line: str, following: list[str]) -> bool:
    """A line before the header: empty, or a comment that is not itself the header (`# step,loss`)."""
    if not line.lstrip().startswith("#"):
        return False
    return not following or all(
        line.count(separator) != following[0].count(separator) for separator in SEPARATORS if separator in line
    )


def _table_like(header: list[str], rows: list[list[str]]) -> bool:
    """A header of names (or all numbers) over rows with at least one column of numbers; one row under a header is a
    table too."""
    numeric = [is_number(cell) for cell in header]
    if any(numeric) and not all(value or cell in MISSING for value, cell in zip(numeric, header, strict=True)):
        return False
    if any("{" in cell or len(cell) > 300 for cell in header) or (len(header) == 1 and re.search(r"[:=]", header[0])):
        return False
    columns = list(zip(*rows, strict=True)) if rows else []
    numbers = any(
        sum(is_number(cell) for cell in column) >= max(1, 0.8 * sum(cell not in MISSING for cell in column))
        for column in columns
    )
    return numbers or (
        not rows
        and not any(numeric)
        and len(header) > 1
        and all(re.fullmatch(r'[\w\s./#@%()"-]{1,80}', cell) for cell in header)
    )


def read(source: Source) -> Log:
    return pieces.read(source, Rows)


class Rows:
    """Blocks of a table's lines -> a log. Whether a column of odd cells is one of numbers is told from most of them."""

    def __init__(self, source: Source):
        shape = _shape(source)
        assert shape is not None
        self.separator, self.names, self.skip = shape
        self.notes: list[str] = []
        self.table = Table(self.notes)
        self.wrapped: dict[str, str] = {}
        self.texts: dict[str, bool] = {}  # column -> whether its cells are texts
        self.header_line: bytes | None = None
        self.begun, self.steady = False, True

    def copy(self) -> "Rows":
        other = copy(self)
        other.table, other.wrapped, other.texts = self.table.copy(), {**self.wrapped}, {**self.texts}
        other.notes = other.table.notes
        return other

    def block(self, block: bytes) -> None:
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self.begun:
            *dropped, block = block.split(b"\n", self.skip)
            self.header_line = dropped[-1] + b"\n" if dropped else None
            self.begun = True
        if self.header_line is not None and block.count(self.header_line):
            self.notes.append("the header occurs more than once: several logs in one file")
            block = block.replace(self.header_line, b"")
        if (
            not block.endswith(b"\n")
            and block.rpartition(b"\n")[2].count(self.separator.encode()) < len(self.names) - 1
        ):
            self.notes.append(CUT)
            block = block[: block.rfind(b"\n") + 1]
        if not block.strip():
            return
        if len(block) < columns.SMALL_BYTES:
            for row in _rows(block, self.separator, self.names, self.wrapped, self._told):
                add_row(self.table, row)
        else:
            from earnest.logs.formats import frames

            frame = frames.frame_of_csv(block, self.separator, self.names, self.wrapped)
            for name in frame.columns:
                if frame[name].null_count() < len(frame):
                    self._told(name, not frame[name].dtype.is_float())
            frames.add_frame(self.table, frame)

    def _told(self, name: str, is_text: bool) -> None:
        """What the cells of a column were in this block: a piece must agree with what came before."""
        labels = name.lower() in (LABELS_OF_ROWS if is_text else LABELS_OF_RUNS)
        self.steady &= self.texts.setdefault(name, is_text) == is_text and not self.wrapped and not labels

    def log(self, source: Source) -> Log:
        self.notes += [f"column {name!r}: {how}" for name, how in list(self.wrapped.items())[:20]]
        return _wandb_export(Log(NAME, self.table.columns(), notes=self.notes, runs=self.table.runs))


def _rows(
    block: bytes, separator: str, names: list[str], wrapped: dict[str, str], told: Callable[[str, bool], None]
) -> Iterator[dict[str, Json]]:
    """The rows of a small block; a column is numbers, or text if most of its cells hold none. told: is handed the names
    of columns with cells, and whether these are texts."""
    text = block.decode("utf-8", "replace")
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error:  # a cell of over 128 KiB
        lines = split_plainly(text, separator)
    if len(names) > 1:
        lines = [line for line in lines if not _is_printed(line)]
    lines = [line[: len(names)] + [""] * (len(names) - len(line)) for line in lines if line]
    if not lines:
        return
    cells = [numbers_of(column, name, wrapped) for name, column in zip(names, zip(*lines, strict=True), strict=True)]
    for name, column in zip(names, cells, strict=True):
        if any(cell is not None for cell in column):
            told(name, any(isinstance(cell, str) for cell in column))
    kept = {name: cell for name, column in zip(names, cells, strict=True) if (cell := _column(name, column))}
    for row in zip(*kept.values(), strict=True):
        yield {name: cell for name, cell in zip(kept, row, strict=True) if cell is not None}


def _column(name: str, cells: Sequence[float | str | None]) -> Sequence[float | str | None] | None:
    """A column of numbers, or of labels; whole numbers that name runs are labels too."""
    if any(isinstance(cell, str) for cell in cells):
        return cells if name.lower() in LABELS_OF_ROWS else None
    numbers = [cell for cell in cells if isinstance(cell, float)]
    if name.lower() in LABELS_OF_RUNS and all(map(float.is_integer, numbers)):
        return [cell if cell is None else int(cell) for cell in cells]
    return cells


def _wandb_export(log: Log) -> Log:
    """A chart exported from W&B: `run - metric` with its `__MIN` and `__MAX`; several runs may be side by side."""
    names = [name for name in log.columns if not re.search(r"__(MIN|MAX)$", name)]
    if len(names) == len(log.columns):
        return log
    log.format = "wandb csv"
    log.columns = {name: log.columns[name] for name in names}
    for run in sorted({name.rpartition(" - ")[0] for name in names if " - " in name}):
        log.runs[run] = {
            name.rpartition(" - ")[2]: name for name in names if " - " not in name or name.startswith(f"{run} - ")
        }
    return log


FORMAT = Format(NAME, "CSV", 30, claims, read, suffixes=(".csv", ".tsv"))

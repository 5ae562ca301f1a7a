"""CSV and TSV: any table with a header, Lightning's ``metrics.csv``, a chart exported from W&B.

polars parses a block of lines at a time. A block with a cell that is no number to it (decimal commas, ``53%``,
``tensor(2.3, device='cuda:0')``) is parsed again as text and cleaned.
"""

import csv
import re
from collections.abc import Mapping

import polars as pl

from earnest.columns import Table
from earnest.logs.format import Format
from earnest.logs.frames import add_frame
from earnest.logs.log import Log
from earnest.logs.source import Source

NAME = "csv"
MISSING = ["", "null", "NULL", "None", "none", "NA", "N/A", "n/a", "-", "--", "<NA>"]
SEPARATORS = ",\t;|"
DECIMAL_COMMA = r"^\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*$"
THOUSANDS = r"^\s*[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*$"
WRAPPED = (
    r"^\s*(?:(?:\w+\.)*(?:tensor|array|float\d*)\(\[?)?\s*([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|NaN|inf|Infinity))\s*%?"
    r"\s*(?:[,\])].*)?$"
)


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
    body = [line for line in lines[skipped:] if line.strip()][:50]
    best = None
    for separator in SEPARATORS:
        try:
            rows = list(csv.reader(body, delimiter=separator))
        except csv.Error:  # a cell of over 128 KiB
            return None
        if len(rows[0]) < 2 or (best and len(rows[0]) <= len(best[1])):
            continue
        shaped = [row for row in rows[1:] if len(row) == len(rows[0])]
        if len(shaped) >= 0.8 * (len(rows) - 1) and _table_like(rows[0], shaped):
            best = (separator, rows[0])
    if best is None and len(body) > 1 and _table_like([body[0]], [[line] for line in body[1:]]):
        best = (",", [body[0]])
    if best is None:
        return None
    separator, header = best
    if all(_is_number(cell) or cell in MISSING for cell in header):  # no header
        return separator, [f"column_{index}" for index in range(1, len(header) + 1)], skipped
    names: list[str] = []
    for cell in header:
        name = cell.strip().lstrip("#").strip() or f"column_{len(names) + 1}"
        names.append(name if name not in names else f"{name}#{len(names) + 1}")
    return separator, names, skipped + 1


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
    numeric = [_is_number(cell) for cell in header]
    if any(numeric) and not all(value or cell in MISSING for value, cell in zip(numeric, header, strict=True)):
        return False
    if any("{" in cell or len(cell) > 300 for cell in header) or (len(header) == 1 and re.search(r"[:=]", header[0])):
        return False
    columns = list(zip(*rows, strict=True)) if rows else []
    numbers = any(
        sum(_is_number(cell) for cell in column) >= max(1, 0.8 * sum(cell not in MISSING for cell in column))
        for column in columns
    )
    return numbers or (
        not rows
        and not any(numeric)
        and len(header) > 1
        and all(re.fullmatch(r'[\w\s./#@%()"-]{1,80}', cell) for cell in header)
    )


def _is_number(cell: str) -> bool:
    cell = cell.strip()[:200]
    return re.match(WRAPPED, cell) is not None or re.match(DECIMAL_COMMA, cell) is not None


def read(source: Source) -> Log:
    shape = _shape(source)
    assert shape is not None
    separator, names, skip = shape
    table, notes = Table(), source.notes
    cleaned: dict[str, str] = {}
    header_line = None
    for number, block in enumerate(source.lines()):
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if number == 0:
            *dropped, block = block.split(b"\n", skip)
            header_line = dropped[-1] + b"\n" if dropped else None
        if header_line is not None and block.count(header_line):
            notes.append("the header occurs more than once: several logs in one file")
            block = block.replace(header_line, b"")
        if not block.endswith(b"\n") and block.rpartition(b"\n")[2].count(separator.encode()) < len(names) - 1:
            notes.append("the last line is cut short and was left out")
            block = block[: block.rfind(b"\n") + 1]
        if not block.strip():
            continue
        frame = _parsed(block, separator, names, cleaned)
        add_frame(table, frame)
    notes += [f"column {name!r}: {how}" for name, how in list(cleaned.items())[:20]]
    return _wandb_export(Log(NAME, table.columns(), notes=notes, runs=table.runs))


def _parsed(block: bytes, separator: str, names: list[str], cleaned: dict[str, str]) -> pl.DataFrame:
    texts = {name: pl.String for name in names}
    try:
        text = _read_csv(block, separator, texts, n_rows=1000)
        empty = text.null_count().row(0)
        unread = text.select(pl.all().cast(pl.Float64, strict=False)).null_count().row(0)
        kinds = {name: pl.Float64 if a == b else pl.String for name, a, b in zip(names, empty, unread, strict=True)}
        frame = _read_csv(block, separator, kinds)
        return frame.with_columns([_clean(frame[name], cleaned) for name, kind in kinds.items() if kind == pl.String])
    except (pl.exceptions.PolarsError, ValueError):
        pass
    try:
        text = _read_csv(block, separator, texts, quote_char=None)
    except (pl.exceptions.PolarsError, ValueError):  # ragged or oddly quoted beyond polars
        rows = [row[: len(names)] + [""] * (len(names) - len(row)) for row in _tolerant(block, separator)]
        text = pl.DataFrame(
            {name: [None if row[index] in MISSING else row[index] for row in rows] for index, name in enumerate(names)}
        )
        text = text.cast(dict.fromkeys(names, pl.String))
    return text.select([_clean(text[name], cleaned) for name in names])


def _read_csv(
    block: bytes,
    separator: str,
    schema: Mapping[str, type[pl.DataType]],
    n_rows: int | None = None,
    quote_char: str | None = '"',
) -> pl.DataFrame:
    return pl.read_csv(
        block,
        schema=schema,
        n_rows=n_rows,
        quote_char=quote_char,
        separator=separator,
        has_header=False,
        null_values=MISSING,
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
    )


def _tolerant(block: bytes, separator: str) -> list[list[str]]:
    return [line.split(separator) for line in block.decode("utf-8", "replace").split("\n") if line]


def _clean(cells: pl.Series, cleaned: dict[str, str]) -> pl.Series:
    """Text cells as numbers, or left as text (a String column) if most of them are none."""
    cells = cells.str.strip_chars(' "')
    cells = cells.set(cells.is_in(MISSING).fill_null(False), None)
    value = cells.cast(pl.Float64, strict=False)
    lost = cells.filter(value.is_null() & cells.is_not_null())
    if len(lost):
        if lost.str.contains(DECIMAL_COMMA).any():
            thousands = lost.str.contains(THOUSANDS).all()
            how = "commas read as thousands" if thousands else "decimal commas read as points"
            better = (
                cells.str.replace_all(",", "", literal=True) if thousands else cells.str.replace(",", ".", literal=True)
            )
        else:
            how = "numbers taken out of their wrapping (%, tensor(...)); what holds none was left out"
            better = cells.str.extract(WRAPPED)
        value = better.cast(pl.Float64, strict=False)
        if value.null_count() > 0.5 * len(cells) + 0.5 * cells.null_count():
            return cells
        cleaned[cells.name] = how
    return value


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

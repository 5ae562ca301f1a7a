"""Blocks of rows as polars reads them -> cells of a `Table`."""

from collections.abc import Iterator, Mapping

import polars as pl

from earnest.columns import Table, add_columns
from earnest.logs.formats.cells import MISSING, numbers_of, split_plainly
from earnest.logs.log import called, is_label, value_folder
from earnest.logs.words import LABELS, LABELS_OF_RUNS


def add_frame(table: Table, frame: pl.DataFrame) -> None:
    """The Float64 columns of a block of rows; a null is a cell that is not there.

    If a column says each row's split, or its metric's name, the rows of one word become columns called word/column;
    if one says each row's run, the columns of a run are its own.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name.lower() in LABELS]
    label = next((name for name in texts if is_label(name, frame[name].drop_nulls().unique(), frame.columns)), None)
    runs = [name for name in frame.columns if name.lower() in LABELS_OF_RUNS]
    run = next((name for name in runs if _is_run(frame[name], at_least=1 if table.runs else 2)), None)
    if label is None and run is None:
        add_columns(table, frame)
        return
    order = pl.int_range(table.rows, table.rows + len(frame), dtype=pl.Int64).alias("#row")
    values = [name for name, dtype in frame.schema.items() if dtype == pl.Float64 and name != run]
    folder = value_folder(values)
    for of_run, rows in _groups(frame.with_columns(order), run):
        for word, part in _groups(rows, label):
            for name in values:
                column = called(name.removeprefix(folder), label, word) if label else name
                if of_run is not None:
                    column = table.of_run(of_run, column)
                present = part[name].is_not_null()
                table.cells(column, part["#row"].filter(present).to_numpy(), part[name].filter(present).to_numpy())
    table.rows += len(frame)


def _groups(frame: pl.DataFrame, column: str | None) -> Iterator[tuple[str | None, pl.DataFrame]]:
    """The rows of each word of a column, in the order in which the words come; None: rows without one."""
    if column is None:
        yield None, frame
        return
    for (word,), rows in frame.group_by(column, maintain_order=True):
        yield f"{word:.0f}" if isinstance(word, float) else word if word is None else str(word), rows


def _is_run(cells: pl.Series, at_least: int) -> bool:
    """Whether a column names runs: words or whole numbers, each of them in at least `at_least` rows on average."""
    if cells.dtype != pl.String and not (cells.dtype == pl.Float64 and (cells.drop_nulls() % 1 == 0).all()):
        return False
    return at_least * cells.n_unique() <= len(cells)


def frame_of_csv(block: bytes, separator: str, names: list[str], wrapped: dict[str, str]) -> pl.DataFrame:
    """A block of a table without its header: columns of numbers as Float64, others as String."""
    texts = dict.fromkeys(names, pl.String)
    try:
        text = _read_csv(block, separator, texts, n_rows=1000)
        empty = text.null_count().row(0)
        unread = text.select(pl.all().cast(pl.Float64, strict=False)).null_count().row(0)
        kinds = {name: pl.Float64 if a == b else pl.String for name, a, b in zip(names, empty, unread, strict=True)}
        frame = _read_csv(block, separator, kinds)
        odd = [name for name, kind in kinds.items() if kind == pl.String]
        return frame.with_columns([_cleaned(frame[name], wrapped) for name in odd])
    except (pl.exceptions.PolarsError, ValueError):
        pass
    try:
        text = _read_csv(block, separator, texts, quote_char=None)
    except (pl.exceptions.PolarsError, ValueError):  # ragged or oddly quoted beyond polars
        lines = split_plainly(block.decode("utf-8", "replace"), separator)
        rows = [line[: len(names)] + [""] * (len(names) - len(line)) for line in lines]
        text = pl.DataFrame({name: [row[index] for row in rows] for index, name in enumerate(names)}, schema=texts)
    return text.select([_cleaned(text[name], wrapped) for name in names])


def _cleaned(cells: pl.Series, wrapped: dict[str, str]) -> pl.Series:
    values = numbers_of(cells.to_list(), cells.name, wrapped)
    kind = pl.String if any(isinstance(value, str) for value in values) else pl.Float64
    return pl.Series(cells.name, values, kind)


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

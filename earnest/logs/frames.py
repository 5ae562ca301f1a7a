"""Blocks of rows as polars reads them -> cells of a `Table`."""

from collections.abc import Iterator

import polars as pl

from earnest.columns import Table, add_columns
from earnest.logs.log import called, is_label, value_folder
from earnest.logs.words import LABELS_OF_RUNS


def add_frame(table: Table, frame: pl.DataFrame) -> None:
    """The Float64 columns of a block of rows; a null is a cell that is not there.

    If a column says each row's split, or its metric's name, the rows of one word become columns called word/column;
    if one says each row's run, the columns of a run are its own.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    label = next((name for name in texts if is_label(name, frame[name].drop_nulls().unique(), frame.columns)), None)
    run = next((name for name in frame.columns if name.lower() in LABELS_OF_RUNS and _is_run(frame[name])), None)
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


def _is_run(cells: pl.Series) -> bool:
    """Whether a column tells runs: words or whole numbers, each in several rows."""
    if cells.dtype != pl.String and not (cells.dtype == pl.Float64 and (cells.drop_nulls() % 1 == 0).all()):
        return False
    return 2 * cells.n_unique() <= len(cells)

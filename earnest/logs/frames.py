"""Blocks of rows as polars reads them -> cells of a `Table`. polars is imported by the readers that need it."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from earnest.logs.log import Table
from earnest.logs.words import LABELS, LABELS_OF_RUNS, LABELS_OF_SPLITS, SPLITS, axis_of


def add_frame(table: Table, frame: pl.DataFrame) -> None:
    """The Float64 columns of a block of rows; a null is a cell that is not there.

    If a column says each row's split, or its metric's name, the rows of one word become columns called word/column;
    if one says each row's run, the columns of a run are its own.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name.lower() in LABELS]
    label = next((name for name in texts if _is_label(frame, name)), None)
    run = next((name for name in frame.columns if name.lower() in LABELS_OF_RUNS and _is_run(frame[name])), None)
    if label is None and run is None:
        _add_columns(table, frame)
        return
    order = pl.int_range(table.rows, table.rows + len(frame), dtype=pl.Int64).alias("#row")
    values = [name for name, dtype in frame.schema.items() if dtype == pl.Float64 and name != run]
    folder = next((name for name in values if _is_value(name)), "").rpartition("/")[0]
    for of_run, rows in _groups(frame.with_columns(order), run):
        for word, part in _groups(rows, label):
            for name in values:
                called = _called(name.removeprefix(f"{folder}/"), label, word)
                if of_run is not None:
                    called = table.of_run(of_run, called)
                present = part[name].is_not_null()
                table.cells(called, part["#row"].filter(present).to_numpy(), part[name].filter(present).to_numpy())
    table.rows += len(frame)


def _add_columns(table: Table, frame: pl.DataFrame) -> None:
    frame_64 = frame.select(pl.selectors.float())
    filled, nulls = frame_64.fill_null(0.0).to_numpy(), frame_64.null_count().row(0) if frame_64.width else ()
    for index, (name, missing) in enumerate(zip(frame_64.columns, nulls, strict=True)):
        if missing < len(frame):
            present = frame_64[name].is_not_null().to_numpy() if missing else np.ones(len(frame), bool)
            table.block(name, filled[:, index], present)
    table.rows += len(frame)


def _groups(frame: pl.DataFrame, column: str | None) -> Iterator[tuple[str | None, pl.DataFrame]]:
    """The rows of each word of a column, in the order in which the words come; None: rows without one."""
    if column is None:
        yield None, frame
        return
    for (word,), rows in frame.group_by(column, maintain_order=True):
        yield f"{word:.0f}" if isinstance(word, float) else word if word is None else str(word), rows


def _called(name: str, label: str | None, word: str | None) -> str:
    if label is None or word is None or axis_of(name):
        return name
    return word if label.lower() not in LABELS_OF_SPLITS and name.lower() == "value" else f"{word}/{name}"


def _is_value(name: str) -> bool:
    return name.lower().rpartition("/")[2] == "value"


def _is_run(cells: pl.Series) -> bool:
    """Whether a column tells runs: words or whole numbers, each in several rows."""
    if cells.dtype != pl.String and not (cells.dtype == pl.Float64 and (cells.drop_nulls() % 1 == 0).all()):
        return False
    return 2 * cells.n_unique() <= len(cells)


def _is_label(frame: pl.DataFrame, name: str) -> bool:
    """Whether a column of text tells splits (train, eval) or, beside a column called value, metrics (train/loss,
    lr)."""
    said = frame[name].drop_nulls().unique()
    if name.lower() in LABELS_OF_SPLITS:
        return len(said) > 1 and all(word.lower() in SPLITS for word in said)
    return 0 < len(said) <= 1000 and any(map(_is_value, frame.columns))

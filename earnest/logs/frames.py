"""Blocks of rows as polars reads them -> cells of a `Table`. polars is imported by the readers that need it."""

import numpy as np
import polars as pl

from earnest.logs.log import Table
from earnest.logs.words import LABELS, LABELS_OF_SPLITS, SPLITS, axis_of


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


def _is_label(frame: pl.DataFrame, name: str) -> bool:
    """Whether a column of text tells splits (train, eval) or, beside a column called value, metrics (train/loss,
    lr)."""
    said = frame[name].drop_nulls().unique()
    if name.lower() in LABELS_OF_SPLITS:
        return len(said) > 1 and all(word.lower() in SPLITS for word in said)
    return 0 < len(said) <= 1000 and any(column.lower() == "value" for column in frame.columns)

"""Parquet: a table of rows."""

import os
from collections.abc import Generator
from contextlib import contextmanager

from earnest.columns import MOST_COLUMNS, Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.log import Log
from earnest.logs.source import EXPECTED, FIX, Source
from earnest.logs.words import LABELS_OF_ROWS

NAME = "parquet"
MOST_CELLS = 30_000_000  # 24 bytes each while they are read


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw.startswith(b"PAR1")


def read(source: Source) -> Log:
    import polars as pl
    from polars.exceptions import PanicException

    from earnest.logs.formats.frames import add_frame

    table = Table(source.notes)
    try:
        with _panics_unheard():
            frame = pl.scan_parquet(source.path)
            schema = frame.collect_schema()
            labels = [name for name, kind in schema.items() if kind == pl.String and name.lower() in LABELS_OF_ROWS]
            numeric = [name for name, kind in schema.items() if kind.is_numeric()][: MOST_COLUMNS + 1]
            height = int(frame.select(pl.len()).collect().item())
            _must_fit(source, height, len(labels) + len(numeric))
            rows = frame.select(*labels, pl.col(numeric).cast(pl.Float64)).collect()
    except (pl.exceptions.PolarsError, OSError, PanicException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source.path.name} starts as Parquet and cannot be read ({reason})", EXPECTED, FIX) from error
    add_frame(table, rows)
    return Log(NAME, table.columns(), notes=source.notes, runs=table.runs)


@contextmanager
def _panics_unheard() -> Generator[None, None, None]:
    """polars' threads write where they panicked on the terminal, beside what is raised here and told in three lines."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _must_fit(source: Source, height: int, width: int) -> None:
    """Raise UserError for more numbers than fit into memory: a few bytes of Parquet may stand for any number of equal
    cells."""
    if height * width > MOST_CELLS:
        raise UserError(
            f"{source.path.name} holds {height:,} rows of {width:,} columns of numbers",
            f"at most {MOST_CELLS:,} numbers",
            "thin it, or leave columns out, and pass the result",
        )


FORMAT = Format(NAME, "Parquet", 20, claims, read, suffixes=(".parquet",))

"""Parquet: a table of rows."""

import polars as pl

from earnest.errors import UserError
from earnest.logs.log import Log, Table, add_frame
from earnest.logs.source import EXPECTED, FIX, Source

NAME = "parquet"


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw.startswith(b"PAR1")


def read(source: Source) -> Log:
    table = Table()
    try:
        frame = pl.scan_parquet(source.path)
        names = [name for name, dtype in frame.collect_schema().items() if dtype.is_numeric()]
        rows = frame.select([pl.col(name).cast(pl.Float64) for name in names]).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{source.path.name} starts as Parquet and cannot be read ({error})", EXPECTED, FIX) from error
    add_frame(table, rows)
    return Log(NAME, table.columns())

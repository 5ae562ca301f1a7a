"""Parquet: a table of rows."""

from earnest.columns import Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.log import Log
from earnest.logs.source import EXPECTED, FIX, Source
from earnest.logs.words import LABELS_OF_ROWS

NAME = "parquet"


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw.startswith(b"PAR1")


def read(source: Source) -> Log:
    import polars as pl

    from earnest.logs.frames import add_frame

    table = Table()
    try:
        frame = pl.scan_parquet(source.path)
        texts = [name for name, dtype in frame.collect_schema().items() if dtype == pl.String]
        labels = [name for name in texts if name.lower() in LABELS_OF_ROWS]
        rows = frame.select(*labels, pl.selectors.numeric().cast(pl.Float64)).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{source.path.name} starts as Parquet and cannot be read ({error})", EXPECTED, FIX) from error
    add_frame(table, rows)
    return Log(NAME, table.columns(), notes=source.notes, runs=table.runs)


FORMAT = Format(NAME, "Parquet", 20, claims, read, suffixes=(".parquet",))

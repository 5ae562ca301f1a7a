"""Trackio's SQLite file of a project: ``metrics`` holds (timestamp, run_name, step, metrics as JSON), ``configs``
(run_name, config)."""

import re
import shutil
import zlib
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from earnest.columns import Json, Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.log import Log, numbers
from earnest.logs.source import EXPECTED, FIX, LARGEST_TEXT_BYTES, Source
from earnest.records import loads

if TYPE_CHECKING:
    import sqlite3

NAME = "trackio"
LONGEST_CELL_BYTES = 4 << 20
PLAIN_TABLE = re.compile(r"CREATE TABLE\b", re.IGNORECASE)


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw.startswith(b"SQLite format 3\0")


def read(source: Source) -> Log:
    """Runs in one file are side by side: a run's columns are called `run/metric`."""
    import sqlite3

    table, config = Table(source.notes), dict[str, Json]()
    steps: list[int] = []
    runs: dict[str, dict[str, str]] = {}
    try:
        with _opened(source.path) as file:
            for run, step, cells in file.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
                values = numbers(_json(cells))
                own = runs.setdefault(str(run), {})
                own.update((name, f"{run}/{name}") for name in values)
                table.row({own[name]: value for name, value in values.items()})
                steps.append(step if isinstance(step, int) else 0)
            for run, cells in file.execute("SELECT run_name, config FROM configs"):
                config[str(run)] = _json(cells)
    except (sqlite3.Error, zlib.error, UnicodeDecodeError, OSError) as error:
        seen = f"{source.path.name} is an SQLite file without Trackio's tables, or damaged ({error})"
        raise UserError(seen, EXPECTED, FIX) from error
    return Log(NAME, table.columns(), np.array(steps, np.int64), config=config, notes=source.notes, runs=runs)


@contextmanager
def _opened(path: Path) -> "Generator[sqlite3.Connection, None, None]":
    """The file, opened so that nothing is written to it, not even a lock.

    Of a writer that is at work, or was killed, the newest rows lie beside it (-wal): then a copy of both is read.

    Tables only are read, as a view can calculate without end, and no cell over LONGEST_CELL_BYTES.
    """
    import sqlite3

    beside = path.with_name(f"{path.name}-wal")
    with TemporaryDirectory(prefix="earnest-") as folder:
        if beside.is_file() and 0 < path.stat().st_size + beside.stat().st_size < LARGEST_TEXT_BYTES:
            path = shutil.copyfile(path, Path(folder, path.name))
            shutil.copyfile(beside, Path(folder, beside.name))
            how = ""
        else:
            how = "&immutable=1"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{how}", uri=True)) as file:
            file.text_factory = _decoded
            file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL_BYTES)
            made = dict(file.execute("SELECT name, sql FROM sqlite_master WHERE name IN ('metrics', 'configs')"))
            if odd := [name for name, sql in made.items() if not PLAIN_TABLE.match(str(sql))]:
                raise sqlite3.DatabaseError(f"{odd[0]} is no plain table")
            yield file


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _json(cells: str | bytes) -> dict[str, Json]:
    if isinstance(cells, bytes):
        cells = zlib.decompressobj().decompress(cells, LONGEST_CELL_BYTES) if cells[:1] == b"\x78" else cells
    try:
        value: Json = loads(cells)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


FORMAT = Format(NAME, "Trackio", 60, claims, read, suffixes=(".db",))

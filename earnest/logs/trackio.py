"""Trackio's SQLite file of a project: ``metrics`` holds (timestamp, run_name, step, metrics as JSON), ``configs``
(run_name, config)."""

import json
import sqlite3
import zlib

import numpy as np

from earnest.columns import Json, Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.log import Log, numbers
from earnest.logs.source import EXPECTED, FIX, Source

NAME = "trackio"


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw.startswith(b"SQLite format 3\0")


def read(source: Source) -> Log:
    """Runs in one file are side by side: a run's columns are called `run/metric`."""
    table, config = Table(), dict[str, Json]()
    steps: list[int] = []
    runs: dict[str, dict[str, str]] = {}
    try:
        # immutable: a log is not written to, not even a lock
        with sqlite3.connect(f"{source.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True) as file:
            file.text_factory = _decoded
            for run, step, cells in file.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
                values = numbers(_json(cells))
                own = runs.setdefault(str(run), {})
                own.update((name, f"{run}/{name}") for name in values)
                table.row({own[name]: value for name, value in values.items()})
                steps.append(step if isinstance(step, int) else 0)
            for run, cells in file.execute("SELECT run_name, config FROM configs"):
                config[str(run)] = _json(cells)
    except (sqlite3.Error, zlib.error, UnicodeDecodeError) as error:
        seen = f"{source.path.name} is an SQLite file without Trackio's tables, or damaged ({error})"
        raise UserError(seen, EXPECTED, FIX) from error
    return Log(NAME, table.columns(), np.array(steps, np.int64), config=config, notes=source.notes, runs=runs)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _json(cells: str | bytes) -> dict[str, Json]:
    if isinstance(cells, bytes):
        cells = zlib.decompress(cells) if cells[:1] == b"\x78" else cells
    try:
        value: Json = json.loads(cells)
    except (ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


FORMAT = Format(NAME, "Trackio", 60, claims, read, suffixes=(".db",))

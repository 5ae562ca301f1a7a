"""MLflow's file store: ``mlruns/EXPERIMENT/RUN/`` with ``metrics/NAME`` (lines of ``timestamp value step``) and
``params/NAME`` (mlflow/store/tracking/file_store.py)."""

import os
from array import array
from pathlib import Path

import numpy as np

from earnest.columns import MOST_COLUMNS, Column
from earnest.facts import MOST
from earnest.files import open_regular
from earnest.logs.format import Format
from earnest.logs.log import Log, number
from earnest.logs.source import Source

NAME = "mlflow"
LONGEST_PARAMETER_BYTES = 10_000
DEEPEST = 6  # folders in the name of a metric


def claims(source: Source) -> bool:
    return source.is_dir and (source.path / "meta.yaml").is_file() and (source.path / "metrics").is_dir()


def read(source: Source) -> Log:
    columns: dict[str, Column] = {}
    steps = array("q")
    for file in _files(source.path / "metrics", source.notes):
        rows, values = array("q"), array("d")
        for block in Source(file).lines():
            for line in block.decode("utf-8", "replace").splitlines():
                cells = line.split()
                value = number(cells[1]) if len(cells) > 1 else None
                if value is not None:
                    step = number(cells[2]) if len(cells) > 2 else None
                    rows.append(len(steps))
                    values.append(value)
                    steps.append(int(step) if step is not None and abs(step) < MOST else 0)  # false for NaN too
        if rows:
            columns[file.relative_to(source.path / "metrics").as_posix()] = Column(
                np.frombuffer(rows, np.int64), np.frombuffer(values)
            )
    config = {file.name: _beginning(file) for file in _files(source.path / "params", source.notes)}
    return Log(NAME, columns, np.frombuffer(steps, np.int64), config=config, notes=source.notes)


def _beginning(file: Path) -> str:
    with open_regular(file) as opened:
        return opened.read(LONGEST_PARAMETER_BYTES).decode("utf-8", "replace")


def _files(folder: Path, notes: list[str]) -> list[Path]:
    """The files of a folder, in order of their names; a metric's name may hold folders."""
    files: list[Path] = []
    for name, below, here in os.walk(folder):
        if len(Path(name).relative_to(folder).parts) == DEEPEST:
            below.clear()
        files += [path for file in here if not file.startswith(".") and (path := Path(name, file)).is_file()]
        if len(files) > MOST_COLUMNS:
            notes.append(f"{folder.name} holds over {MOST_COLUMNS:,} files: the first that were found were read")
            break
    return sorted(files[:MOST_COLUMNS])


FORMAT = Format(NAME, "MLflow", 70, claims, read)

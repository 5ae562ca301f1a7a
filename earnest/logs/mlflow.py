"""MLflow's file store: ``mlruns/EXPERIMENT/RUN/`` with ``metrics/NAME`` (lines of ``timestamp value step``) and
``params/NAME`` (mlflow/store/tracking/file_store.py)."""

import math
from pathlib import Path

import numpy as np

from earnest.columns import Column
from earnest.logs.format import Format
from earnest.logs.log import Log, number
from earnest.logs.source import Source

NAME = "mlflow"


def claims(source: Source) -> bool:
    return source.is_dir and (source.path / "meta.yaml").is_file() and (source.path / "metrics").is_dir()


def read(source: Source) -> Log:
    columns: dict[str, Column] = {}
    steps: list[int] = []
    for file in _files(source.path / "metrics"):
        rows: list[int] = []
        values: list[float] = []
        for line in b"".join(Source(file).lines()).decode("utf-8", "replace").splitlines():
            cells = line.split()
            value = number(cells[1]) if len(cells) > 1 else None
            if value is not None:
                step = number(cells[2]) if len(cells) > 2 else None
                rows.append(len(steps))
                values.append(value)
                steps.append(int(step) if step is not None and math.isfinite(step) else 0)
        if rows:
            columns[file.relative_to(source.path / "metrics").as_posix()] = Column(
                np.array(rows, np.int64), np.array(values)
            )
    config = {
        file.name: file.read_text(encoding="utf-8", errors="replace")[:10_000]
        for file in _files(source.path / "params")
    }
    return Log(NAME, columns, np.array(steps, np.int64), config=config, notes=source.notes)


def _files(folder: Path) -> list[Path]:
    return (
        sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )


FORMAT = Format(NAME, "MLflow", 70, claims, read)

"""`Step` and `Run`: what a training run writes and what everything after it reads.

A run directory holds ``run.json`` (facts, probe results), ``steps.jsonl`` (one row per logged step,
append-only), ``artifacts.jsonl`` and the files that these name. Each row is one ``write`` to a file
opened for appending, so a killed run keeps every step that it reported and a reader may follow a
run that is being written.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earnest.errors import UserError

SCHEMA = 1
ROW_WORDS = ("step", "time_s", "event")  # what a row of steps.jsonl holds besides signals


@dataclass(frozen=True)
class Step:
    """One optimizer step: its number (from 1) and its signals; `batch` and `model` are live, for monitors."""

    index: int
    signals: Mapping[str, float]
    batch: Any = None
    model: Any = None


@dataclass(frozen=True)
class Series:
    """One signal over steps: `step` int64 (S,), strictly increasing, and `value` float64 (S,)."""

    step: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    @property
    def finite(self) -> "Series":
        keep = np.isfinite(self.value)
        return Series(self.step[keep], self.value[keep])

    def since(self, step: int) -> "Series":
        keep = self.step >= step
        return Series(self.step[keep], self.value[keep])


@dataclass(frozen=True)
class Artifact:
    """A file of the run: `kind` (demo, prediction, reference), its path relative to the run, and facts about it."""

    kind: str
    path: str
    step: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """Everything known about a run, ours or anybody's.

    `facts`: configuration, vocabulary sizes, codebooks, delays, parameter groups, versions.
    `series`: signal key -> `Series`. `probes`: results of experiments on model and data.
    `notes`: what the reader repaired, stitched or could not read, in words.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    path: Path | None = None

    @property
    def last_step(self) -> int:
        return max((int(series.step[-1]) for series in self.series.values() if len(series)), default=0)


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all: aside, fsync, rename."""
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def checkpoint_path(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step_{step:07d}"


def checkpoints(run_dir: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in (run_dir / "checkpoints").glob("step_*") if path.suffix != ".tmp")


def latest_checkpoint(run_dir: Path) -> Path:
    """Raises UserError where the run has none."""
    found = checkpoints(run_dir)
    if not found:
        raise UserError(
            f"no checkpoint in {run_dir}",
            "a run that has saved at least one",
            "train for longer, or save more often (--save-every-steps)",
        )
    return found[-1]


class RunWriter:
    """Writes a run directory; open an existing one to continue it."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        run_json = self.path / "run.json"
        self._run = (
            json.loads(run_json.read_text()) if run_json.exists() else {"schema": SCHEMA, "facts": {}, "probes": {}}
        )
        self._steps = _open_append(self.path / "steps.jsonl")
        self._artifacts = _open_append(self.path / "artifacts.jsonl")

    def facts(self, facts: Mapping[str, Any]) -> None:
        self._run["facts"].update(facts)
        self._save()

    def probe(self, name: str, result: Any) -> None:
        self._run["probes"][name] = result
        self._save()

    def step(self, index: int, signals: Mapping[str, float]) -> None:
        self._append(self._steps, {"step": index, "time_s": time.time(), **signals})

    def event(self, index: int, name: str) -> None:
        """Mark something that is not a measurement: started, resumed, interrupted, finished."""
        self._append(self._steps, {"step": index, "time_s": time.time(), "event": name})

    def artifact(self, artifact: Artifact) -> None:
        self._append(self._artifacts, vars(artifact))

    def close(self) -> None:
        self._steps.close()
        self._artifacts.close()

    def _save(self) -> None:
        write_whole(self.path / "run.json", json.dumps(self._run, indent=1))

    @staticmethod
    def _append(file, row: Mapping[str, Any]) -> None:
        # json writes NaN and Infinity, and the reader takes them: a NaN loss is a fact worth keeping.
        file.write((json.dumps(row) + "\n").encode())


def _open_append(path: Path):
    """Open unbuffered for appending, after cutting a last line that a kill left unfinished."""
    if path.exists():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
    return open(path, "ab", buffering=0)


def read_run(path: Path) -> Run:
    """Read a run directory of our own.

    A step that stands twice (a resume repeats the steps after its checkpoint) counts once, as last written.
    Raises UserError where the directory holds no run.
    """
    path = Path(path)
    run_json = path / "run.json"
    if not run_json.exists():
        raise UserError(
            f"no run.json in {path}",
            "a run directory written by `earnest train`",
            "pass the directory that `earnest train` printed",
        )
    try:
        stored = json.loads(run_json.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{run_json} is not JSON ({error})", "the run.json of a run directory", "restore the file or train again"
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("facts"), dict):
        raise UserError(
            f"{run_json} without facts", "the run.json of a run directory", "restore the file or train again"
        )
    notes: list[str] = []
    rows = list(_rows(path / "steps.jsonl", notes))
    artifacts = [Artifact(**row) for row in _rows(path / "artifacts.jsonl", notes)]
    if any(row.get("event") == "resumed" for row in rows):
        notes.append("resumed; steps written twice count once, as last written")
    return Run(stored["facts"], series_from_rows(rows), stored.get("probes", {}), artifacts, notes, path)


def series_from_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Rows with a step and signals -> one `Series` per signal; the last value of a step wins."""
    columns: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ROW_WORDS:
                columns.setdefault(name, {})[row["step"]] = math.nan if value is None else float(value)
    return {
        name: Series(
            np.array(sorted(column), dtype=np.int64),
            np.array([column[step] for step in sorted(column)], dtype=np.float64),
        )
        for name, column in columns.items()
    }


def _rows(path: Path, notes: list[str]) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError:
                notes.append(f"{path.name}:{number} is not JSON and was left out")

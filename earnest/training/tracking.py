"""Trackers beside the run directory: W&B, TensorBoard, Trackio, MLflow, by accelerate's classes.

A tracker gets every row of signals under its own name, the configuration, and findings as alerts once they are
believed. One that breaks is reported once and left out; the training goes on.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from earnest.errors import UserError
from earnest.loops.looks import Looks
from earnest.monitors.guard import Guard
from earnest.run import read_run
from earnest.training.config import Config

PROJECT = "earnest"  # unless the tracker's own environment variable names another
START_FIX = {  # the most common reason why each tracker does not start
    "wandb": "wandb login, or WANDB_MODE=offline",
    "mlflow": "check MLFLOW_TRACKING_URI",
    "trackio": "check TRACKIO_DIR",
    "tensorboard": "check that the run directory can be written to",
}


def chosen(words: Sequence[str]) -> list[str]:
    """The names of trackers in the words of an option, each once. Raises UserError for one that is not known, or not
    installed."""
    names = list(dict.fromkeys(name for word in words for name in re.split(r"[,\s]+", word.strip().lower()) if name))
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, 1)
            fix = f"did you mean {near[0]}?" if near else "leave --tracker out: the run directory holds the same"
            raise UserError(f"--tracker {name}", f"one of {', '.join(TRACKERS)}", fix)
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        seen = f"--tracker {','.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UserError(seen, "the package of each tracker", f"pip install {' '.join(missing)}")
    return names


class Tracker(Protocol):
    """What accelerate's trackers have in common."""

    def start(self) -> None: ...
    def store_init_configuration(self, values: dict[str, Any]) -> None: ...
    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...
    def finish(self) -> None: ...


class Opened(NamedTuple):
    """A tracker; configured: it continues a run, and has its configuration already."""

    tracker: Tracker
    configured: bool = False


class Tracking:
    """The trackers of one run."""

    def __init__(self, run_dir: Path):
        self.run_dir, self.guard = run_dir, Guard()
        self.looks = Looks(run_dir, self.guard)
        self.trackers = dict[str, Tracker]()

    def begin(self, names: Sequence[str], config: Config, resumed: bool) -> None:
        """Start the trackers. A resumed run goes on under the name it had. Raises UserError if one does not start."""
        run = run_name(self.run_dir)
        for name in names:
            try:
                tracker, configured = TRACKERS[name](self.run_dir, run, resumed)
                tracker.start()
            except Exception as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise UserError(f"{name} did not start: {reason}", "a tracker that starts", START_FIX[name]) from error
            self.trackers[name] = tracker
            if not configured:
                self._call(name, partial(tracker.store_init_configuration, dict(_flat(asdict(config)))))

    def row(self, step: int, signals: Mapping[str, float]) -> None:
        """A row of signals that was written."""
        values = {name: float(value) for name, value in signals.items()}
        for name, tracker in self.trackers.items():
            self._call(name, partial(tracker.log, values, step))

    def look(self, step: int, ended: bool = False) -> None:
        """Judge the run; what is newly believed becomes an alert."""
        self.guard.call("judge", lambda: self.looks.new(step, ended), [])

    def finish(self) -> None:
        for name, tracker in self.trackers.items():
            self._call(name, tracker.finish)
        self.trackers.clear()

    def _call(self, name: str, function: Callable[[], object]) -> None:
        self.guard.call(f"tracker:{name}", function, None)


def run_name(run_dir: Path) -> str:
    """The directory's name and the second in which the run began: the same after a resume, another one for the next run
    of that directory."""
    past = read_run(run_dir).history
    began = f"-{int(past.started_s):x}" if past else ""
    return re.sub(r"[^\w.-]", "-", run_dir.resolve().name) + began


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """A configuration as trackers show it: data.path and its value."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str | int | float | bool) else str(value)


def _of_accelerate(name: str) -> Any:
    """A class of accelerate's, which has no types."""
    return getattr(import_module("accelerate.tracking"), name)


def _wandb(run_dir: Path, run: str, resumed: bool) -> Opened:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return Opened(_of_accelerate("WandBTracker")(project, name=run, id=run, dir=str(run_dir), resume="allow"))


def _tensorboard(run_dir: Path, run: str, resumed: bool) -> Opened:
    return Opened(_of_accelerate("TensorBoardTracker")("", run_dir / "tensorboard"))


def _trackio(run_dir: Path, run: str, resumed: bool) -> Opened:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    return Opened(_of_accelerate("TrackioTracker")(project, name=run, resume="allow" if resumed else "never"))


def _mlflow(run_dir: Path, run: str, resumed: bool) -> Opened:
    """MLflow keeps the configuration that it was told first, and refuses another one."""
    earlier = _earlier(run) if resumed else None
    return Opened(_of_accelerate("MLflowTracker")(PROJECT, run_name=run, run_id=earlier), earlier is not None)


def _earlier(run: str) -> str | None:
    """MLflow's own name for a run that was begun before."""
    mlflow: Any = import_module("mlflow")
    experiment = mlflow.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    if experiment is None:
        return None
    named = f"attributes.run_name = '{run}'"
    found = mlflow.MlflowClient().search_runs([experiment.experiment_id], named, max_results=1)
    return str(found[0].info.run_id) if found else None


TRACKERS: dict[str, Callable[[Path, str, bool], Opened]] = {
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "mlflow": _mlflow,
}

"""Alerts in the tracker that a training uses. No tracker is imported that the training has not imported itself."""

import gc
import sys
from collections.abc import Callable
from typing import Any

from earnest.monitors.guard import Guard
from earnest.rules.finding import Finding

LEVELS = {"critical": "ERROR", "warning": "WARN", "note": "INFO"}  # of W&B and Trackio


def alert(finding: Finding, step: int, guard: Guard) -> list[str]:
    """Tell every tracker that has a run under way; returns their names."""
    told: list[str] = []
    for name, door in DOORS.items():
        if name in sys.modules and guard.call(f"alert:{name}", lambda d=door: d(finding, step), False):
            told.append(name)
    return told


def title_of(finding: Finding) -> str:
    """The title of a finding's alert: its rule, by code and name."""
    return f"earnest {finding.rule} {finding.name}"


def text_of(finding: Finding) -> str:
    """The text of a finding's alert: summary, streams, confidence and fix."""
    streams = ", ".join(map(str, finding.streams)) or "whole run"
    return f"{finding.summary} ({streams}; confidence {finding.confidence:.2f}). Fix: {finding.fix}"


def _wandb(finding: Finding, step: int) -> bool:
    run = getattr(sys.modules["wandb"], "run", None)
    if run is None:
        return False
    run.alert(title=title_of(finding), text=text_of(finding), level=LEVELS[finding.severity])
    return True


def _trackio(finding: Finding, step: int) -> bool:
    trackio = sys.modules["trackio"]
    if trackio.context_vars.current_run.get() is None:
        return False
    level = getattr(trackio.AlertLevel, LEVELS[finding.severity])
    trackio.alert(title=title_of(finding), text=text_of(finding), level=level)
    return True


def _mlflow(finding: Finding, step: int) -> bool:
    mlflow = sys.modules["mlflow"]
    if mlflow.active_run() is None:
        return False
    mlflow.set_tag(f"earnest.{finding.rule}", f"{finding.severity} at step {step}: {text_of(finding)}"[:5000])
    return True


def _tensorboard(finding: Finding, step: int) -> bool:
    kinds = tuple(
        kind
        for module in ("torch.utils.tensorboard.writer", "tensorboardX.writer")
        if (kind := getattr(sys.modules.get(module), "SummaryWriter", None)) is not None
    )
    if not kinds:
        return False
    writers: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), kinds)]
    for writer in writers:
        writer.add_text(f"earnest/{title_of(finding).removeprefix('earnest ')}", text_of(finding), step)
    return bool(writers)


DOORS: dict[str, Callable[[Finding, int], bool]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "torch.utils.tensorboard": _tensorboard,
    "tensorboardX": _tensorboard,
}

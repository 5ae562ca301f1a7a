"""Where a run starts, how its progress is told, and how it ends."""

import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from earnest.errors import UserError
from earnest.run import checkpoints, read_run
from earnest.training.config import check_same

OnProgress = Callable[[str, int, int, str], None]  # stage, done, total, note


def silent(stage: str, done: int, total: int, note: str) -> None:
    """The `OnProgress` of whoever wants to hear nothing."""


def starting_point(config: Any, run_dir: Path, resume: bool) -> Path | None:
    """The checkpoint to continue from, None to start anew.

    Raises UserError where that would mix two runs in one directory: one is there and is not to be resumed, or it was
    started with another configuration.
    """
    exists = (run_dir / "run.json").exists()
    if exists and not resume:
        raise UserError(
            f"a run in {run_dir}", "an empty directory", "add --resume to continue it, or choose another --out"
        )
    if not exists:
        return None
    check_same(dict(read_run(run_dir).facts.config or {}), config)
    saved = checkpoints(run_dir)
    return saved[-1] if saved else None


def made_with(*packages: str) -> dict[str, Any]:
    """The facts of a run about what it ran on: versions of these packages, the machine."""
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return {"versions": {package: version(package) for package in packages}, "machine": machine}


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C ask for an end after the step under way; a second one ends at once."""
    asked = False

    def ask(signum, frame):
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)

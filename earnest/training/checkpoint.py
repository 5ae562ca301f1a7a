"""Checkpoints that appear whole or not at all, and what is needed to continue bit-identically."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from earnest.errors import UserError
from earnest.run import checkpoint_path, checkpoints


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a directory aside, flush every file to disk, then rename it to `path`.

    Raises UserError where the disk is full or refuses: then `path` is as it was, and what was written aside is gone.
    """
    aside = path.with_name(path.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        fill(aside)
        for file in aside.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.rename(aside, path)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors report a full disk in words of their own
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"writing {path} failed: {error}",
            "room for a checkpoint; nothing half-written was left, and earlier checkpoints are untouched",
            "free space or move the run directory, then continue with --resume",
        ) from error


def save_checkpoint(
    run_dir: Path,
    step: int,
    save_model: Callable[[Path], None],
    training_state: dict[str, Any],
    facts: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write ``checkpoints/step_N``: the model as `save_model` writes it, training_state.pt (tensors and plain values,
    read back with weights_only=True) and checkpoint.json (`facts`); then drop all but the newest `keep`."""
    path = checkpoint_path(run_dir, step)

    def fill(aside: Path) -> None:
        save_model(aside)
        torch.save(training_state, aside / "training_state.pt")
        (aside / "checkpoint.json").write_text(json.dumps({"step": step, **facts}, indent=1))

    write_directory(path, fill)
    for old in checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old)
    return path


def load_training_state(path: Path) -> dict[str, Any]:
    return torch.load(path / "training_state.pt", weights_only=True)

"""Checkpoints that appear whole or not at all, and what is needed to continue bit-identically."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from earnest.errors import UserError
from earnest.files import whole_directory
from earnest.run import checkpoint_path, checkpoints


def save_checkpoint(
    run_dir: Path,
    step: int,
    save_model: Callable[[Path], None],
    training_state: Mapping[str, Any],
    config: Mapping[str, Any],
    keep: int = 2,
) -> None:
    """Write ``checkpoints/step_N``: the model as `save_model` writes it, training_state.pt (tensors and plain values,
    read back with weights_only=True; torch's random numbers among them) and checkpoint.json. Then drop all but the
    newest `keep`.

    Raises UserError if the disk is full or refuses: then nothing half-written is left.
    """
    path = checkpoint_path(run_dir, step)
    state = {**training_state, "step": step, "torch_rng": torch.get_rng_state()}
    try:
        with whole_directory(path) as aside:
            save_model(aside)
            torch.save(state, aside / "training_state.pt")
            (aside / "checkpoint.json").write_text(json.dumps({"step": step, "config": config}, indent=1))
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise UserError(
            f"writing {path} failed: {error}",
            "room for a checkpoint; nothing half-written was left, and earlier checkpoints are untouched",
            "free space or move the run directory, then continue with --resume",
        ) from error
    for old in checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old)


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / "training_state.pt", weights_only=True)


def checkpoint_step(checkpoint: Path) -> int:
    """After which step it was written."""
    return json.loads((checkpoint / "checkpoint.json").read_text())["step"]

"""What a checkpoint holds beside the model, so that training continues bit-identically."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from earnest.checkpoints import About, checkpoint_path, save
from earnest.errors import UserError


def save_checkpoint(
    run_dir: Path,
    step: int,
    save_model: Callable[[Path], None],
    training_state: Mapping[str, Any],
    about: About,
    keep: int = 2,
) -> None:
    """Write ``checkpoints/step_N``: the model as `save_model` writes it, training_state.pt (tensors and plain values,
    read back with weights_only=True; torch's random numbers among them) and checkpoint.json. The newest `keep` stay,
    and the best.

    Raises UserError if the disk is full or refuses: then nothing half-written is left.
    """

    def fill(aside: Path) -> None:
        save_model(aside)
        torch.save({**training_state, "step": step, "torch_rng": torch.get_rng_state()}, aside / "training_state.pt")

    try:
        save(run_dir, step, fill, about, keep)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise UserError(
            f"writing {checkpoint_path(run_dir, step)} failed: {error}",
            "room for a checkpoint; nothing half-written was left, and earlier checkpoints are untouched",
            f"free space or move the run directory, then: earnest train --resume --out {run_dir}",
        ) from error


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote beside the model, with ``step`` and ``torch_rng``; tensors and plain values only."""
    return torch.load(checkpoint / "training_state.pt", weights_only=True)

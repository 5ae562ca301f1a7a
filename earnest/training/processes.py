"""Several processes that train together: numbers that all of them know, and what happens if one of them is lost."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed

from earnest import checkpoints

# What collectives raise if another process has ended: gloo's own words, torch's classes for NCCL and for the store
LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer|NCCL|Broken pipe", re.IGNORECASE)


def summed(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Each number, summed over all processes, which give them in the same order. One small tensor is exchanged, in
    float64: objects would be pickled, and sent in two parts."""
    return _reduced(numbers, device, distributed.ReduceOp.SUM)


def largest(number: float, device: torch.device) -> float:
    """The largest that any process gives."""
    return _reduced([number], device, distributed.ReduceOp.MAX)[0]


def _reduced(numbers: Sequence[float], device: torch.device, operation: distributed.ReduceOp.RedOpType) -> list[float]:
    if not distributed.is_initialized():
        return list(numbers)
    tensor_N = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor_N, operation)
    return tensor_N.tolist()


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process did not answer."""
    return isinstance(error, distributed.DistError) or bool(LOST.search(str(error)))


def lost(run_dir: Path, ranks: int, error: RuntimeError) -> tuple[str, str, str]:
    """The three lines that a process prints if another one of the training is lost."""
    saved = checkpoints.checkpoints(run_dir)
    kept = f"kept up to {saved[-1]}" if saved else "no checkpoint was written yet"
    return (
        f"another of the {ranks} processes is gone ({' '.join(str(error).split())[:120]})",
        f"all {ranks} of them; what that one died of stands in its own lines; {kept}",
        f"the same command with --resume --out {run_dir}",
    )

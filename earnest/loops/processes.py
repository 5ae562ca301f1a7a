"""Trainings of several processes: which of them watches, how it never waits for the others, and numbers that all of
them know.

Only the first process looks and writes. A collective that it began by itself would wait for ever, so whatever looks
runs within `Alone`, which refuses collectives before they are begun.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from earnest.probes.reach import is_whole

# Where launchers write the number of a process, and how many there are: torchrun and accelerate; MPI in three dialects.
NUMBERS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
COLLECTIVES = ("c10d", "c10d_functional", "_c10d_functional", "_c10d_functional_autograd", "symm_mem")


def place() -> tuple[int, int]:
    """The number of this process among those that train together, and how many these are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, count = (next((os.environ[name] for name in names if name in os.environ), "") for names in (NUMBERS, COUNTS))
    return int(rank or 0), int(count or 1)


def several() -> bool:
    """Whether other processes train with this one now, for which a collective would wait."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class WouldWait(RuntimeError):
    """A collective that one process alone was about to begin."""


class Alone(TorchDispatchMode):
    """Inside, a collective raises `WouldWait` in place of being begun."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "namespace", "") in COLLECTIVES:
            raise WouldWait(f"{func} would wait for the other processes")
        if any(one.__name__ == "DTensor" for one in types):
            return NotImplemented  # a tensor in parts comes back here with what it asks of others
        return func(*args, **(kwargs or {}))


def alone(function: Callable[[], Any]) -> Any:
    """What a function returns; with several processes, it may not wait for the others."""
    if not several():
        return function()
    with Alone():
        return function()


def inner(module: nn.Module) -> nn.Module:
    """The model within DistributedDataParallel, whose own forward pass may wait for the other processes."""
    while isinstance(module, DistributedDataParallel):
        module = cast(nn.Module, cast(Any, module).module)
    return module


def hands_on(module: nn.Module) -> bool:
    """Whether a call of this module only hands its arguments on to another: DistributedDataParallel, and within it a
    LightningModule, whose forward pass is for so long its training step."""
    redirected = getattr(vars(module).get("forward"), "__qualname__", "")
    return isinstance(module, DistributedDataParallel) or redirected.startswith("_ForwardRedirection")


def sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of the parameters (FSDP, DTensor, DeepSpeed's ZeRO-3): a forward pass, and
    norms, then need all processes."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = tuple(
        kind for name in ("FullyShardedDataParallel", "FSDPModule") if (kind := getattr(fsdp, name, None)) is not None
    )
    return any(isinstance(module, kinds) for module in model.modules()) or any(
        not is_whole(p) or hasattr(p, "ds_id") for p in model.parameters()
    )


def summed(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Each number, summed over all processes, which give them in the same order. One small tensor is exchanged, in
    float64: objects would be pickled, and sent in two parts."""
    return _reduced(numbers, device, dist.ReduceOp.SUM)


def largest(number: float, device: torch.device) -> float:
    """The largest that any process gives."""
    return _reduced([number], device, dist.ReduceOp.MAX)[0]


def _reduced(numbers: Sequence[float], device: torch.device, operation: dist.ReduceOp.RedOpType) -> list[float]:
    if not several():
        return list(numbers)
    tensor_N = torch.tensor(numbers, dtype=torch.float64, device=device)
    cast(Any, dist).all_reduce(tensor_N, operation)
    return cast(list[float], cast(Any, tensor_N).tolist())


def anybody(says: bool, device: torch.device) -> bool:
    """Whether any process says so. All of them must ask at the same step."""
    return bool(largest(float(says), device))

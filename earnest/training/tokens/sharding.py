"""Weights in shards on several devices (FSDP2, `fully_shard`): gathered to be evaluated or saved.

No device ever holds the whole model twice: the model stays on the CPU until accelerate shards it (on the meta device,
then filled tensor by tensor). The first process's whole copy stays there too, except while it is evaluated. All
processes must call `gather_weights` and `optimizer_state` together; the first one gets the whole tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

ROOM_FRAC = 0.7  # of the memory that is free, for a whole copy's weights; the rest is for what it computes (assumed)
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_weights(objective: nn.Module, copy: nn.Module) -> None:
    """Fill the first process's `copy` of the model with the weights of all shards."""
    prefix = "model."  # as `TokenObjective` names it
    whole = {
        name.removeprefix(prefix): tensor for name, tensor in get_model_state_dict(objective, options=WHOLE).items()
    }
    if whole:
        copy.load_state_dict(whole)


def optimizer_state(objective: nn.Module, optimizer: Any) -> dict[str, Any]:
    """What `load_optimizer_state` takes, also of a model that lies in shards."""
    return (
        get_optimizer_state_dict(objective, _plain(optimizer), options=WHOLE)
        if _sharded(objective)
        else optimizer.state_dict()
    )


def load_optimizer_state(objective: nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Continue from a state that the same kind of run saved."""
    if _sharded(objective):
        set_optimizer_state_dict(objective, _plain(optimizer), state, options=WHOLE)
    else:
        optimizer.load_state_dict(state)


def _sharded(objective: nn.Module) -> bool:
    return isinstance(objective, FSDPModule)


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer within accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


@contextmanager
def buffers_set_aside(module: nn.Module) -> Iterator[None]:
    """Mark all buffers as not persistent while accelerate shards a module.

    accelerate treats everything that a checkpoint would hold as shards, buffers too; what no checkpoint holds it leaves
    as it is.
    """
    held = [
        (part, name)
        for part in module.modules()
        for name in part._buffers
        if name not in part._non_persistent_buffers_set
    ]
    for part, name in held:
        part._non_persistent_buffers_set.add(name)
    try:
        yield
    finally:
        for part, name in held:
            part._non_persistent_buffers_set.discard(name)


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a model from the CPU to `device` while the block runs, if there is room; else it stays, and is slow."""
    moves = next(model.parameters()).device.type == "cpu" != device.type and _bytes(model) < ROOM_FRAC * _free(device)
    if moves:
        model.to(device)
    try:
        yield
    finally:
        if moves:
            model.to("cpu")


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _free(device: torch.device) -> int:
    """Free bytes of a GPU, including those that torch has reserved and does not use; 0 for any other device."""
    if device.type != "cuda":
        return 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept

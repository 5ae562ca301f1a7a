"""Weights in shards on several devices (FSDP2, `fully_shard`): gathered to be evaluated or saved.

All processes must call these functions together; the first one gets the whole tensors.
"""

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

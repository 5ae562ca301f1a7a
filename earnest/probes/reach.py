"""Which parameters a gradient and an optimizer reach."""

import re
import sys
from collections.abc import Iterable, Set

import torch
from torch import Tensor, nn

from earnest.probes.results import Gradients, Optimizer


def is_whole(tensor: Tensor) -> bool:
    """Whether this process holds all of it; what is asked of a tensor in parts (DTensor) waits for all processes."""
    return not isinstance(tensor, getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ()))


def has_gradient(parameter: Tensor) -> bool:
    """Whether there is a gradient that is not all zero; of one in parts, whether there is any."""
    return parameter.grad is not None and (not is_whole(parameter.grad) or bool(parameter.grad.any()))


def not_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> Optimizer:
    """Parameters that require a gradient and are in no group of the optimizer, and how many parameters require one."""
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = tuple(name for name, parameter in trained.items() if id(parameter) not in given)
    return Optimizer(missing, len(trained))


def without_gradient(model: nn.Module, used: Set[str], held: Set[str] | None = None) -> Gradients:
    """After a backward pass. used: names of the parameters that were computed with while gradients were on · held: of
    those that are asked about (an optimizer's), all if not given."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (held is None or name in held)
    }
    reached = {name for name, parameter in trained.items() if has_gradient(parameter)}
    none = [name for name in trained if name not in reached]
    return sorted_by_kind(reached, none, used)


def sorted_by_kind(
    reached: Iterable[str], without: Iterable[str], used: Set[str], steps: int = 1, step: int = 0
) -> Gradients:
    """The probe ``gradients``, from names of parameters: with a gradient, and without one after `steps` steps.

    A bias is reached if its layer's weight is: its own gradient may cancel, as that of a discriminator's last layer
    does under the hinge loss while every output lies within the margin.
    """
    reached = set(reached)
    layers = {name.rpartition(".")[0] for name in reached}
    none = [name for name in without if not (name.endswith(".bias") and name.removesuffix(".bias") in layers)]
    kinds = {_kind(name) for name in reached}
    beside = [name for name in none if _kind(name) in kinds and "expert" not in name]
    cut = [name for name in none if name not in beside and name in used]
    idle = [name for name in none if name not in beside and name not in cut]
    return Gradients(tuple(none), steps, step, tuple(beside), tuple(cut), tuple(idle))


def _kind(name: str) -> str:
    """A parameter's name without its numbers."""
    return re.sub(r"\d+", "*", name)

"""Which parameters a gradient and an optimizer reach."""

import re
from collections.abc import Iterable, Sequence, Set

import torch
from torch import nn

from earnest.probes.results import Gradients, Optimizer


def not_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> Optimizer:
    """Parameters that require a gradient and stand in no group of the optimizer, and how many do."""
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
    reached = {name for name, parameter in trained.items() if parameter.grad is not None and parameter.grad.any()}
    zero = [name for name in reached if _holds_back(name) and not trained[name].any()]
    none = [name for name in trained if name not in reached and not _behind_zeros(name, trained[name], zero)]
    return sorted_by_kind(reached, none, used)


def sorted_by_kind(
    reached: Iterable[str], without: Iterable[str], used: Set[str], steps: int = 1, step: int = 0
) -> Gradients:
    """The probe ``gradients``, from names of parameters: with a gradient, and without one after `steps` steps."""
    none = list(without)
    kinds = {_kind(name) for name in reached}
    beside = [name for name in none if _kind(name) in kinds and "expert" not in name]
    cut = [name for name in none if name not in beside and name in used]
    idle = [name for name in none if name not in beside and name not in cut]
    return Gradients(tuple(none), steps, step, tuple(beside), tuple(cut), tuple(idle))


def _holds_back(name: str) -> bool:
    """Whether zeros in a parameter would make the gradients of what comes before it zero."""
    return not name.endswith("bias")


def _behind_zeros(name: str, parameter: nn.Parameter, zero: Sequence[str]) -> bool:
    """Whether a gradient arrives and is zero only because a neighbour, which has a gradient, still holds zeros: LoRA's
    A at its start (arXiv:2106.09685 §4.1), or what leads into any branch that starts as nothing.

    Neighbours share all words of their names but the last three, and the first: q_proj.lora_A.default.weight.
    """
    words = name.split(".")
    module = words[: max(1, len(words) - 3)]
    return parameter.grad is not None and any(other.split(".")[: len(module)] == module for other in zero)


def _kind(name: str) -> str:
    """A parameter's name without its numbers."""
    return re.sub(r"\d+", "*", name)

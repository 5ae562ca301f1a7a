"""Which weights a step's gradient reaches, and by how much a step changes each group of them."""

import re
from collections import defaultdict

import torch
from torch import nn

from earnest.probes.results import Gradients
from earnest.signals import key

SAMPLED = (
    4096  # entries of a tensor, evenly spread: a mean of squares to about 2 %, at a cost that no model's size adds to
)
REACHED_STEPS = 5  # a projection that starts at zero, as an adapter's, passes a gradient on from step 2


class Updates:
    """Norm of each step's update over the norm of the weights, per group of trained tensors: the part of the model they
    stand in."""

    def __init__(self, model: nn.Module):
        self.groups: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                flat = parameter.detach().reshape(-1)  # a view, as parameters are contiguous
                self.groups[group_of(name)].append(flat[:: -(-len(flat) // SAMPLED)])
        self.before = self._sampled()

    def _sampled(self) -> dict[str, torch.Tensor]:
        return {group: torch.cat([view.float() for view in views]) for group, views in self.groups.items()}

    def signals(self) -> dict[str, float]:
        """update_frac per group, since the last call. A group whose weights are all zero has none."""
        now = self._sampled()
        found = {
            key("update_frac", group): float((now[group] - before).norm() / size)
            for group, before in self.before.items()
            if (size := float(before.norm()))
        }
        self.before = now
        return found


def group_of(name: str) -> str:
    """The part of a model that a tensor stands in: all layers of a stack are one."""
    stack = re.split(r"\.\d+\.", name, maxsplit=1)
    return stack[0] if len(stack) > 1 else name.rpartition(".")[0] or name


class Reached:
    """Trained tensors that no gradient but zero has reached in the first steps."""

    def __init__(self, model: nn.Module):
        self.waiting = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.steps = 0

    def watch(self, step: int) -> Gradients | None:
        """Look at the gradients of a step; after REACHED_STEPS the probe ``gradients``, once."""
        if self.steps == REACHED_STEPS:
            return None
        self.steps += 1
        self.waiting = {name: p for name, p in self.waiting.items() if p.grad is None or not p.grad.any()}
        return Gradients(tuple(self.waiting), self.steps, step) if self.steps == REACHED_STEPS else None

"""Which weights a step's gradient reaches, and by how much a step changes each group of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from earnest.monitors import Monitor
from earnest.probes.reach import has_gradient
from earnest.probes.results import Gradients, Moved, Results
from earnest.run import Step
from earnest.signals import key

# Entries of a tensor, evenly spread: a mean of squares to about 2 %, at a cost that does not grow with the model.
SAMPLED = 4096
MOVED_STEPS = 60  # after which nearly every entry of a trained matrix has moved (measured: benchmarks/bf16_weights.py)
REACHED_STEPS = 5  # a projection that starts at zero, as an adapter's, passes a gradient on from step 2


class Updates(Monitor):
    """Norm of each step's update over the norm of the weights, per group of trained tensors: the part of the model that
    they belong to."""

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]):
        self.groups: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                flat = parameter.detach().reshape(-1)  # a view, as parameters are contiguous
                self.groups[group_of(name)].append(flat[:: -(-len(flat) // SAMPLED)])
        self.before = self._sampled()
        self.still = {group: torch.ones_like(sampled, dtype=torch.bool) for group, sampled in self.before.items()}
        self.steps, self.last_step = 0, 0

    def _sampled(self) -> dict[str, torch.Tensor]:
        return {group: torch.cat([view.float() for view in views]) for group, views in self.groups.items()}

    def begin(self) -> None:
        """What the next call compares with, if it is not the weights at the last one."""
        self.before = self._sampled()

    def step(self, step: Step) -> Mapping[str, float]:
        """update_frac per group, since the last call. A group whose weights are all zero has none."""
        now = self._sampled()
        signals = {
            key("update_frac", group): float(torch.linalg.vector_norm(now[group] - before) / size)
            for group, before in self.before.items()
            if (size := float(torch.linalg.vector_norm(before)))
        }
        for group, still in self.still.items():
            still &= now[group] == self.before[group]
        self.before, self.steps, self.last_step = now, self.steps + 1, step.index
        return signals

    def probes(self) -> Results:
        """The probe ``moved``, as soon as MOVED_STEPS steps are over: fewer move what has a gradient at most of
        them."""
        if self.steps < MOVED_STEPS:
            return Results()
        share = {group: 1 - float(still.float().mean()) for group, still in self.still.items()}
        return Results(moved=Moved(share, self.steps, self.last_step))


def group_of(name: str) -> str:
    """The part of a model that a tensor belongs to: all layers of a stack are one."""
    stack = re.split(r"\.\d+\.", name, maxsplit=1)
    return stack[0] if len(stack) > 1 else name.rpartition(".")[0] or name


class Reached(Monitor):
    """Trained tensors that no gradient but zero has reached in the first REACHED_STEPS steps."""

    def __init__(self, model: nn.Module):
        self.waiting = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.steps, self.last_step = 0, 0

    def step(self, step: Step) -> Mapping[str, float]:
        if self.steps < REACHED_STEPS:
            self.steps, self.last_step = self.steps + 1, step.index
            self.waiting = {name: p for name, p in self.waiting.items() if not has_gradient(p)}
        return {}

    def probes(self) -> Results:
        """The probe ``gradients``, as soon as the steps are over."""
        if self.steps < REACHED_STEPS:
            return Results()
        return Results(gradients=Gradients(tuple(self.waiting), self.steps, self.last_step))

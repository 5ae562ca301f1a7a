"""Whether the models that are trained are in training mode when their optimizer steps."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

from earnest.monitors import Monitor
from earnest.probes.results import EvaluationMode, Results

FEWEST_LOOKS = 3  # in a row


class Modes(Monitor):
    """A model counts if all of it is in evaluation mode (of a part, that is a choice), an optimizer that steps trains
    it, and dropout or batch normalisation in it would do something else in training mode."""

    def __init__(self) -> None:
        self._since: dict[str, EvaluationMode] = {}
        self._looked = False

    def look(self, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
        """Before an optimizer's step."""
        self._looked = True
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        for name, model in models.items():
            if any(module.training for module in model.modules()):
                self._since.pop(name, None)
            elif any(id(p) in held for p in model.parameters()):
                before = self._since.get(name)
                if before is None:
                    self._since[name] = EvaluationMode(name or type(model).__name__, idle(model), step, 1)
                else:
                    self._since[name] = EvaluationMode(before.model, before.layers, before.since_step, before.steps + 1)

    def probes(self) -> Results:
        """The probe ``evaluation_mode``, of models that are in it now."""
        if not self._looked:
            return Results()
        return Results(
            evaluation_mode=tuple(one for one in self._since.values() if one.steps >= FEWEST_LOOKS and one.layers)
        )


def in_evaluation_mode(model: nn.Module) -> tuple[EvaluationMode, ...]:
    """The same of one look at a model that trains."""
    layers = () if any(module.training for module in model.modules()) else idle(model)
    return (EvaluationMode(type(model).__name__, layers, 0, 1),) if layers else ()


def idle(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that do in evaluation mode what they would not in training mode."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    return tuple(
        name
        for name, module in modules.items()
        if (isinstance(module, _DropoutNd) and module.p > 0)
        or (isinstance(module, _NormBase) and module.track_running_stats)
    )

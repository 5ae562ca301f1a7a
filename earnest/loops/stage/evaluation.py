"""Evaluation before the first step, kept short: a model that is to be trained is not asked the same over and over."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from earnest.loops.stage.replaced import tell

ASKED = 3  # times that a model answers by itself to arguments of one shape


class Evaluation:
    """Shortens an evaluation: from the fourth call on, a model that an optimizer holds repeats its last answer, in eval
    mode without gradients. Codecs and teachers, which no optimizer holds, and models that generate, whose inputs grow,
    run as they are."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, ...], tuple[int, Any]] = {}  # how often it answered, and its last answer
        self._held: set[int] = set()  # ids of the parameters that any optimizer was given
        self._inside = False

    def install(self) -> None:
        """From here on."""
        call, add = nn.Module.__call__, torch.optim.Optimizer.add_param_group

        def added(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
            add(optimizer, group)
            self._held |= {id(one) for one in optimizer.param_groups[-1]["params"]}

        def answered(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._inside or not self._held or module.training or torch.is_grad_enabled():
                return call(module, *args, **kwargs)
            self._inside = True
            try:
                return self._answered(call, module, args, kwargs)
            finally:
                self._inside = False

        torch.optim.Optimizer.add_param_group = added  # type: ignore[method-assign]
        nn.Module.__call__ = answered  # type: ignore[method-assign]

    def _answered(
        self, call: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not any(one.requires_grad and id(one) in self._held for one in module.parameters()):
            return call(module, *args, **kwargs)
        asked = id(module), *(_form(one) for one in (*args, *kwargs.values()))
        times, answer = self._answers.get(asked, (0, None))
        if times >= ASKED:
            tell("evaluation before the first step: cut short, its figures are not those of the model")
            return answer
        answer = call(module, *args, **kwargs)
        self._answers[asked] = times + 1, answer
        return answer


def _form(value: Any) -> Any:
    """What two questions have in common if only the numbers in their tensors differ."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return tuple((name, _form(one)) for name, one in cast(Mapping[Any, Any], value).items())
    if isinstance(value, list | tuple):
        return tuple(_form(one) for one in cast(Sequence[Any], value))
    return value if isinstance(value, int | str | None) else type(value).__name__

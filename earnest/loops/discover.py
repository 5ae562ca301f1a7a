"""Finds the models and optimizers of a training that were not handed over, when they first run, and which modules are
called from outside."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from earnest.loops.first_step import held_by
from earnest.loops.processes import hands_on
from earnest.loops.seen import Seen

STEPS = 8  # optimizer steps after which no further model is looked for


class Discovery:
    """Looks for roots: modules that train and that no other module's forward pass calls. Their calls are passed to
    `Seen.called`. If no model is known, the roots whose parameters an optimizer holds become the models.

    Calls of all modules are looked at for the first few steps only.
    """

    def __init__(
        self,
        seen: Seen,
        add_model: Callable[[str, nn.Module], None],
        add_optimizer: Callable[[str, torch.optim.Optimizer], None],
        replace_optimizer: Callable[[str, torch.optim.Optimizer], None],
    ):
        self.seen, self.add_model = seen, add_model
        self.add_optimizer, self.replace_optimizer = add_optimizer, replace_optimizer
        self.roots: dict[int, nn.Module] = {}
        self.finds_models, self.finds_optimizers = not seen.models, not seen.optimizers
        self._depth = self._steps = 0
        self._hooks: list[Any] = [register_optimizer_step_pre_hook(self._before_step)]
        self._call: Any = nn.Module.__call__
        nn.Module.__call__ = self._looking()

    def close(self) -> None:
        self._stop_looking()
        while self._hooks:
            self._hooks.pop().remove()

    def _stop_looking(self) -> None:
        if self._call is not None:
            nn.Module.__call__, self._call = self._call, None

    def _looking(self) -> Callable[..., Any]:
        original = self._call

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or hands_on(module):
                return original(module, *args, **kwargs)
            if not self._depth and torch.is_grad_enabled():
                self.seen.guard.call("Discovery", lambda: self._root(module), None)
            self._depth += 1
            try:
                return original(module, *args, **kwargs)
            finally:
                self._depth -= 1

        return call

    def _root(self, module: nn.Module) -> None:
        if id(module) in self.roots or not any(p.requires_grad for p in module.parameters()):
            return
        if self.finds_models or any(module is part for model in self.seen.models.values() for part in model.modules()):
            self.roots[id(module)] = module
            self._hooks.append(module.register_forward_pre_hook(self.seen.called, with_kwargs=True))

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._steps += 1
        if self._call is not None and self.finds_models:
            self.seen.guard.call("Discovery", lambda: self._adopt(optimizer), None)
        known = self.seen.optimizers
        if not any(optimizer is one for one in known.values()):
            held = held_by([optimizer])
            before = next((name for name, one in known.items() if held_by([one]) == held), None)
            if before is not None:  # a loop that makes its optimizer anew
                self.replace_optimizer(before, optimizer)
            elif self.finds_optimizers:
                self.add_optimizer(f"optimizer_{len(known)}" if known else "", optimizer)
        if self._steps >= STEPS:
            self._stop_looking()

    def _adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take as models the roots whose parameters this optimizer holds; if it holds none that has a gradient, and no
        model is known, those that have gradients, which no optimizer seems to hold."""
        given = [p for group in optimizer.param_groups for p in group["params"]]
        held = {id(p) for p in given}
        if not self.seen.models and all(p.grad is None for p in given):
            held = {id(p) for root in self.roots.values() for p in root.parameters() if p.grad is not None}
        inside = {id(part) for model in self.seen.models.values() for part in model.modules()}
        for root in list(self.roots.values()):
            if id(root) not in inside and any(id(p) in held for p in root.parameters()):
                models = self.seen.models
                self.add_model(f"{type(root).__name__}_{len(models)}" if models else "", root)

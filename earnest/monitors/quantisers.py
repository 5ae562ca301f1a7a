"""How much of each codebook is used, in anybody's codec: from the codes that its quantisers return."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from earnest.facts import Facts
from earnest.monitors import Monitor
from earnest.monitors.guard import Guard
from earnest.run import Step
from earnest.signals import key
from earnest.streams import Codebook

QUANTISER = re.compile(
    r"quanti[sz]|vq|fsq|lfq|codebook", re.IGNORECASE
)  # VectorQuantize, ResidualVQ, EuclideanCodebook
TABLE = re.compile(r"codebook|embed")  # vq.layers.0._codebook.embed
FEWEST_CODES = 16  # in one call; fewer integers are a length, a level or a seed


class Quantisers(Monitor):
    """Modules that are named like quantisers and return integers while they are trained. Of quantisers within each
    other the innermost count: there is one for each codebook.

    looks: whether the step under way is looked at · window: codes of the first codebook in the first row.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.looks = True
        self.window: int | None = None
        self._modules: list[nn.Module] = []
        self._counts: dict[int, Tensor] = {}  # number of a module -> times that each id was chosen
        self._hooks: list[Any] = []

    def add(self, model: nn.Module) -> None:
        for module in model.modules():
            if QUANTISER.search(type(module).__name__) and not any(module is known for known in self._modules):
                number = len(self._modules)
                self._modules.append(module)
                self._hooks.append(module.register_forward_hook(partial(self._returned, number)))

    def close(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _returned(self, number: int, module: nn.Module, args: object, output: object) -> None:
        self._guard.call("Quantisers", lambda: self._count(number, module, output), None)

    def _count(self, number: int, module: nn.Module, output: object) -> None:
        if not self.looks or not module.training or torch.compiler.is_compiling():
            return
        codes = integers(output)
        if codes is not None and codes.numel() >= FEWEST_CODES and int(codes.min()) >= 0:
            before = self._counts.get(number, codes.new_zeros(0))
            self._counts[number] = added(before, codes.detach().reshape(-1).bincount())

    def step(self, step: Step) -> Mapping[str, float]:
        """The signals ``used_frac`` and ``perplexity`` of each codebook, over the calls since the last row."""
        signals: dict[str, float] = {}
        for place, number in enumerate(self._innermost()):
            counts_V = self._counts[number].double()
            share_V = counts_V[counts_V > 0] / counts_V.sum()
            signals[key("perplexity", Codebook(place))] = float((-share_V * share_V.log()).sum().exp())
            if (size := entries(self._modules[number])) and size >= len(counts_V):
                signals[key("used_frac", Codebook(place))] = float((counts_V > 0).sum()) / size
            self.window = self.window or int(counts_V.sum())
        self._counts = {}
        return signals

    def facts(self) -> Facts:
        """What the shares are to be compared with."""
        size = next((size for module in self._modules if (size := entries(module))), None)
        return Facts(codebook_size=size, usage_window_frames=self.window) if size and self.window else Facts()

    def _innermost(self) -> list[int]:
        seen = {id(self._modules[number]) for number in self._counts}
        return [
            number
            for number in sorted(self._counts)
            if not any(
                id(part) in seen for part in self._modules[number].modules() if part is not self._modules[number]
            )
        ]


def integers(output: object) -> Tensor | None:
    """The first tensor of integers that a module returns, at any depth."""
    if isinstance(output, Tensor):
        real = output.is_floating_point() or output.is_complex() or output.dtype == torch.bool
        return None if real else output
    if isinstance(output, Mapping):
        output = tuple(cast(Mapping[Any, object], output).values())
    parts = cast(Sequence[object], output) if isinstance(output, list | tuple) else ()
    return next((found for part in parts if (found := integers(part)) is not None), None)


def entries(quantiser: nn.Module) -> int | None:
    """The number of its codebook's entries, None if no table is named like one."""
    tables = [
        tensor
        for tensors in (quantiser.named_parameters(), quantiser.named_buffers())
        for name, tensor in tensors
        if TABLE.search(name) and tensor.is_floating_point() and tensor.ndim in (2, 3)
    ]
    return max((int(table.shape[-2]) for table in tables), default=None)


def added(first: Tensor, second: Tensor) -> Tensor:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.clone()
    total[: len(shorter)] += shorter
    return total

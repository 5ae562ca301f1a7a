"""Leaving somebody's model, and the random numbers, exactly as they were."""

import random
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILLED_STD = 0.02  # of what stands in parameters that are all 0, which would let nothing through (assumed)


class Kept:
    """Inside, every run starts from the same random numbers, buffers and empty gradients (`reset`). Afterwards all is
    as it was found, gradients and zeros included.

    Parameters that are all 0 (adapters, gates and output layers at the start of a training) hold small numbers inside.
    The modes of the modules are not touched: dropout draws the same numbers in every run.
    """

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self) -> "Kept":
        self._random = random_state()
        self._grads = [(parameter, parameter.grad) for parameter in self.model.parameters()]
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        self._zeros = fill_zeros(self.model.parameters())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.reset()
        with torch.no_grad():
            for parameter in self._zeros:
                parameter.zero_()
        for parameter, grad in self._grads:
            parameter.grad = grad

    def reset(self) -> None:
        """Random numbers, buffers and gradients as every run finds them."""
        set_random_state(self._random)
        with torch.no_grad():
            for buffer, was in self._buffers:
                if buffer.shape == was.shape and not torch.equal(buffer, was):
                    buffer.copy_(was)
        for parameter, _ in self._grads:
            parameter.grad = None

    def moved_buffers(self) -> list[Tensor]:
        """Buffers that the last run changed."""
        return [buffer for buffer, was in self._buffers if buffer.shape != was.shape or not torch.equal(buffer, was)]


def fill_zeros(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Draw small numbers in parameters that are all 0; which these were."""
    zeros = [p for p in parameters if p.is_floating_point() and p.numel() and not p.is_inference() and not p.any()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in zeros:
            parameter.copy_(FILLED_STD * torch.randn(parameter.shape, generator=generator))
    return zeros


def random_state() -> tuple[Any, ...]:
    """The states of Python's, numpy's and torch's random numbers, and those of all GPUs."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), devices


def set_random_state(state: tuple[Any, ...]) -> None:
    """Set what `random_state` returned."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state_all(state[3])

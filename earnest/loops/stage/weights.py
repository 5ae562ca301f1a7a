"""Weights that no file brings: drawn at random."""

import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from earnest.loops.stage.replaced import tell

DRAWN_STD = 0.02
HUGE = 1e4  # no weight is so large


class DrawnWeights(dict[str, Any]):
    """Stands in for a missing file of weights: a model that loads it is drawn at random."""


def drawn_weights(file: str | os.PathLike[str]) -> DrawnWeights:
    tell(f"weights {os.fspath(file)}: drawn at random")
    return DrawnWeights()


def draw(model: nn.Module) -> None:
    """Small random numbers in every parameter that was allocated and not drawn, or is all 0 though it is no bias."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            empty = not torch.isfinite(parameter).all() or parameter.abs().max() > HUGE
            zero = parameter.ndim > 1 and not parameter.any()
            if empty or zero:
                one = torch.ones_like(parameter) if "norm" in name.lower() and parameter.ndim == 1 else None
                drawn = DRAWN_STD * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn if one is None else one)


def draw_garbage(parameters: Iterable[nn.Parameter]) -> None:
    """Small random numbers in parameters that hold none or huge ones; 1 in those of one axis."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in parameters:
            if one.is_floating_point() and one.numel() and not (torch.isfinite(one).all() and one.abs().max() < HUGE):
                one.copy_(DRAWN_STD * torch.randn(one.shape, generator=generator) if one.ndim > 1 else torch.ones(1))


def install() -> None:
    """Files of weights that are not there, and `load_state_dict` of them."""
    load, load_state_dict = torch.load, nn.Module.load_state_dict

    def load_or_draw(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | os.PathLike) and not os.path.exists(file):
            return drawn_weights(file)
        return load(file, *args, **kwargs)

    def load_or_drawn(self: nn.Module, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if isinstance(state, DrawnWeights):
            draw_all(self)
            return inspect.getmodule(load_state_dict)._IncompatibleKeys([], [])  # type: ignore[union-attr]
        return load_state_dict(self, state, *args, **kwargs)

    torch.load = load_or_draw
    nn.Module.load_state_dict = load_or_drawn  # type: ignore[method-assign]


def draw_all(model: nn.Module) -> None:
    """Weights that classes only allocate are drawn; norms are 1. So are tables of zeros that a checkpoint would fill
    though they are no parameters: with a codec's codebooks of zeros all codes would be 0."""
    generator = torch.Generator().manual_seed(0)
    stored = {tensor.data_ptr() for tensor in model.state_dict().values() if isinstance(tensor, torch.Tensor)}
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.data_ptr() in stored and buffer.is_floating_point() and buffer.ndim > 1 and not buffer.any():
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(fan, 1) ** 0.5)
            else:
                parameter.fill_(1.0)

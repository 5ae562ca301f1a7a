"""What torch.compile makes of a model: its layers in training, one position of a continuation in generation."""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from earnest.errors import UserError


def compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
    """torch.compile of a function. dynamic: for tensors of any shapes, or anew for each."""
    return cast(Any, torch).compile(function, dynamic=dynamic)


@cache
def compiled_layer() -> Callable[..., Any]:
    """``layer(*given, **context)`` with its small operators (norms, rotary embeddings, activations, casts) fused, for
    any lengths: layers of one class share what was compiled, so a model of 28 takes no longer than one of 1."""
    return compiled(_output, dynamic=True)


def _output(layer: nn.Module, *given: Tensor, **context: Any) -> Any:
    return layer(*given, **context)


def check_compiler(device: torch.device) -> None:
    """Raises UserError if torch cannot compile for a device."""
    try:
        compiled(torch.neg, dynamic=False)(torch.ones(1, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise UserError(
            f"--compile, and torch cannot compile here ({' '.join(str(error).split())[:100]})",
            "a C++ compiler (g++ or clang++), and for a GPU Triton, which comes with torch",
            "install one, or leave --compile out",
        ) from error

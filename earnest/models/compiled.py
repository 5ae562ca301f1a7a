"""What torch.compile makes of a model: its layers in training, one position of a continuation in generation."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from earnest.errors import UserError


@cache
def compiled_layer() -> Callable[..., Any]:
    """``layer(*given, **context)`` with its small operators (norms, rotary embeddings, activations, casts) fused, for
    any lengths: layers of one class share what was compiled, so a model of 28 takes no longer than one of 1."""
    return torch.compile(_output, dynamic=True)


def _output(layer: nn.Module, *given: Tensor, **context: Any) -> Any:
    return layer(*given, **context)


def check_compiler(device: torch.device) -> None:
    """Raises UserError if torch cannot compile for a device."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise UserError(
            f"--compile, and torch cannot compile here ({' '.join(str(error).split())[:100]})",
            "a C++ compiler (g++ or clang++), and for a GPU Triton, which comes with torch",
            "install one, or leave --compile out",
        ) from error

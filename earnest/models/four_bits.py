"""Frozen linear layers in four bits (NF4, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes."""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from earnest.errors import UserError

BLOCKS = ".layers."  # in the name of what is packed: embeddings and output layers stay as they are


@torch.no_grad()
def in_four_bits(lm: nn.Module) -> None:
    """Pack the frozen linear layers of a model's blocks, those below adapters too: a weight takes 0.52 bytes, and is
    computed with in the type that it had. Raises UserError without bitsandbytes."""
    linear: Any = bitsandbytes("--lora.base nf4").nn
    for name, layer in list(lm.named_modules()):
        is_adapter = "lora_" in name  # which stays as it is, frozen too
        if BLOCKS not in name or is_adapter or type(layer) is not nn.Linear or layer.weight.requires_grad:
            continue
        weight, parent, _, child = layer.weight, *name.rpartition(".")
        packed = linear.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, weight.dtype, quant_type="nf4", device="meta"
        )
        packed.weight = linear.Params4bit(weight.data, requires_grad=False, quant_type="nf4", module=packed)
        packed.bias = layer.bias
        packed.support_avx512bf16_for_cpu = False  # it would pack them another way in evaluation, and cannot go back
        setattr(lm.get_submodule(parent), child, packed.to(weight.device))  # which packs them


def unpacked(weight: Tensor) -> Tensor:
    """A weight (N, K) of any linear layer; of a packed one, what its four bits mean."""
    state = getattr(weight, "quant_state", None)
    return weight if state is None else bitsandbytes("--lora.base nf4").functional.dequantize_4bit(weight.data, state)


def bitsandbytes(option: str) -> ModuleType:
    """The package that an option needs. Raises UserError without it."""
    try:
        return import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"{option}, and no bitsandbytes ({' '.join(str(error).split())[:100]})",
            "the package bitsandbytes, for this machine",
            f'pip install "earnest[low-memory]", or leave {option.split()[0]} out',
        ) from error

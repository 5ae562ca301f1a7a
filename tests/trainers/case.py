"""What a public trainer in miniature is, and what its modules share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

IGNORE = -100
Parts = tuple[nn.Module, Any, Callable[[nn.Module, Any], Any] | None]


@dataclass(frozen=True)
class Case:
    """A trainer: `build` makes model, batch and loss; `faults` are the rules that must speak, none for a right one;
    `refused` is what the error says if it cannot run."""

    name: str
    build: Callable[[], Parts]
    faults: Sequence[str] = ()
    refused: str | None = None


def llama(classes: int, **more: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(_config(classes, **more))


def backbone(classes: int = 8, width: int = 32, layers: int = 2) -> LlamaModel:
    return LlamaModel(_config(classes, hidden_size=width, num_hidden_layers=layers))


def _config(classes: int, **more: Any) -> LlamaConfig:
    sizes: dict[str, Any] = {
        "vocab_size": classes,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaConfig(**sizes | more)


def codes(frames: int, codebooks: int, classes: int, seed: int, low: int = 0) -> Tensor:
    """Random codes (T, C)."""
    return torch.randint(low, classes, (frames, codebooks), generator=torch.Generator().manual_seed(seed))


def padded(rows: Sequence[Tensor], fill: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)

"""What a MoT is built on: weights of other models, and where these weights go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from earnest.errors import UserError
from earnest.models.backbones import load_backbone, load_experts


@dataclass(frozen=True)
class Base:
    """A Llama with its tokenizer (None for a fresh Llama), and for each of its layers MusicGen's feed-forward network
    (none at all for fresh ones)."""

    llama: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase | None
    networks: list[dict[str, Tensor]]
    activation: str

    @classmethod
    def load(cls, backbone: str, experts: str, expert_layers: Sequence[int], fresh: LlamaConfig) -> "Base":
        """Read the named checkpoints; if no backbone is named, make one of the configuration `fresh`.

        Raises UserError if a layer has no expert.
        """
        llama, tokenizer = load_backbone(backbone) if backbone else (LlamaForCausalLM(fresh), None)
        if not experts:
            return cls(llama, tokenizer, [], "gelu")
        networks, activation = load_experts(experts)
        layers = llama.config.num_hidden_layers
        chosen = list(expert_layers) or list(range(layers))
        if len(chosen) != layers or not all(0 <= layer < len(networks) for layer in chosen):
            raise UserError(
                f"a backbone of {layers} layers and experts of {len(networks)}, with expert layers {chosen}",
                f"for each of the {layers} layers one of the experts' layers 0 to {len(networks) - 1}",
                "name them with --design.expert-layers (one may serve several times), or take experts with more layers",
            )
        return cls(llama, tokenizer, [networks[layer] for layer in chosen], activation)


def fit_to_norm(norm: nn.Module, *readers: nn.Linear) -> None:
    """Fresh weights expect inputs of unit RMS; a trained norm scales them down (SmolLM2: to 0.04), so we divide by the
    norm's RMS."""
    rms = cast(Tensor, norm.weight).square().mean().sqrt()
    for reader in readers:
        reader.weight.div_(rms)

"""A Higgs continues prompts, one delayed frame at a time."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from earnest.data.batch import Prompt
from earnest.models.positions import Positions
from earnest.models.prepacked import CachedAttention, KeyValues, RotaryTable, normed, prepacked
from earnest.models.system import Continuation, Round

if TYPE_CHECKING:
    from earnest.models.higgs.model import Higgs


class HiggsContinuation(Continuation):
    """Sequences that are being continued.

    The layers are written out here for one audio position, as transformers' modules and caches take twice as long
    (benchmarks/generate.py); tests compare the logits of both.
    """

    def __init__(self, model: "Higgs", prompts: Sequence[Prompt]):
        self.model = model
        device = model.lm.device

        def padded(name: str, value: int) -> Tensor:
            rows = [getattr(prompt, name) for prompt in prompts]
            return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left").to(device)

        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        positions = int(lengths_B.max())
        first_B1 = (positions - lengths_B)[:, None]  # position at which the prompt begins, behind its padding
        place_S = torch.arange(positions, device=device)
        cache: Any = DynamicCache(config=model.lm.config)
        model.lm.model(
            input_ids=padded("text_S", model.pad_id),
            audio_input_ids=padded("tokens_SC", 0),
            audio_input_ids_mask=padded("is_audio_S", False),
            attention_mask=place_S >= first_B1,
            position_ids=(place_S - first_B1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        layers = [
            _AudioLayer(layer, KeyValues(cached.keys, cached.values))
            for layer, cached in zip(model.lm.model.layers, cache.layers, strict=True)
        ]
        self.head = prepacked(model.lm.audio_lm_head)
        rotary = RotaryTable(model.lm.model.rotary_emb, model.lm.model.norm.weight)
        self.layers = Positions(layers, rotary, model.lm.model.norm, positions, first_B1)

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        yield Round(slice(0, self.model.codebooks), self.advance(frame_BC))

    def advance(self, frame_BC: Tensor) -> Tensor:
        """Append one frame of tokens (B, C); returns the audio logits (B, C, V) of the next."""
        states_BD = self.layers.advance(self.model.lm.model.embed_audio_tokens(frame_BC))
        return self.head(states_BD).view(len(frame_BC), self.model.codebooks, -1)


class _AudioLayer:
    """One layer for one audio position."""

    def __init__(self, layer: Any, past: KeyValues):
        mlp = layer.audio_mlp
        self.attention, self.activation = CachedAttention(layer.self_attn, past), mlp.act_fn
        self.before_attention, self.before_mlp = layer.audio_input_layernorm, layer.audio_post_attention_layernorm
        self.gate_up, self.down = prepacked(mlp.gate_proj, mlp.up_proj), prepacked(mlp.down_proj)

    def advance(self, hidden_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor:
        before_BD = normed(hidden_BD, self.before_attention)
        hidden_BD = hidden_BD + self.attention.advance(before_BD, cos_B1H, sin_B1H, exists_B11S)
        gate_BF, up_BF = self.gate_up(normed(hidden_BD, self.before_mlp)).chunk(2, dim=-1)
        return hidden_BD + self.down(self.activation(gate_BF) * up_BF)

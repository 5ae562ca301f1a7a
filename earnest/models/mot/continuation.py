"""A MoT continues prompts, one code at a time."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from earnest.data.batch import Prompt
from earnest.models.mot.layers import MoTLayer
from earnest.models.positions import Positions
from earnest.models.prepacked import CachedAttention, KeyValues, RotaryTable, normed, prepacked
from earnest.models.system import Continuation, Round
from earnest.streams import Codebook

if TYPE_CHECKING:
    from earnest.models.mot.model import MoT


class MoTContinuation(Continuation):
    """A batch of sequences that is being continued, and how many audio tokens there are.

    The layers are written out here for one audio position, as transformers' modules and caches take several times as
    long (benchmarks/generate_mot.py); tests compare the logits of both.
    """

    def __init__(self, model: "MoT", prompts: Sequence[Prompt]):
        self.model, device, backbone = model, model.device, model.backbone
        self.tokens = 0
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        positions = int(lengths_B.max())
        first_B1 = (positions - lengths_B)[:, None]  # position at which the prompt begins, behind its padding
        place_S = torch.arange(positions, device=device)
        cache: Any = DynamicCache(config=model.config.llama)
        text_BS = pad_sequence([prompt.text_S for prompt in prompts], True, model.pad_id, "left").to(device)
        backbone(
            text_BS,
            place_S >= first_B1,
            (place_S - first_B1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        layers = [
            _AudioLayer(layer, block, KeyValues(cached.keys, cached.values))
            for (layer, block), cached in zip(model.layer_pairs(), cache.layers, strict=True)
        ]
        rotary = RotaryTable(backbone.rotary_emb, model.embed_audio.weight)
        self.layers = Positions(layers, rotary, backbone.norm, positions, first_B1, each=model.codebooks)
        self.heads = [model.heads()[Codebook(c)] for c in range(model.codebooks)]
        self.rows = [prepacked(head.own_rows_VD) for head in self.heads]

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        """One round per codebook. Of the frame only the last token is appended here: each of the others was appended
        when the one after it was drawn."""
        token_B1 = frame_BC[:, -1:]
        for c in range(self.model.codebooks):
            token_B1 = yield Round(slice(c, c + 1), self.advance(token_B1))

    def advance(self, token_B1: Tensor) -> Tensor:
        """Append one token (B, 1); returns the logits (B, 1, V) of the next: the codes and, if the model has one, the
        end, -inf between the codes of a frame."""
        model, codebook = self.model, self.tokens % self.model.codebooks
        audio_BD = model.embedded(token_B1, torch.full_like(token_B1, self.tokens))[:, 0]
        self.tokens += 1
        logits_BV = self.heads[codebook].with_prior(self.rows[codebook](self.layers.advance(audio_BD)))
        return F.pad(logits_BV, (0, model.bos_id - logits_BV.shape[-1]), value=-torch.inf)[:, None]


class _AudioLayer:
    """One layer for one audio position."""

    def __init__(self, layer: MoTLayer, block: LlamaDecoderLayer, past: KeyValues):
        self.block, self.activation = block, layer.expert.act
        self.attention = CachedAttention(layer.attention or block.self_attn, past)
        self.down, self.fc1, self.fc2, self.up = (
            prepacked(part) for part in (layer.expert.down, layer.expert.fc1, layer.expert.fc2, layer.expert.up)
        )

    def advance(self, hidden_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor:
        before_BD = normed(hidden_BD, self.block.input_layernorm)
        hidden_BD = hidden_BD + self.attention.advance(before_BD, cos_B1H, sin_B1H, exists_B11S)
        inner_BE = self.down(normed(hidden_BD, self.block.post_attention_layernorm))
        return hidden_BD + self.up(self.fc2(self.activation(self.fc1(inner_BE))))

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
from earnest.models.prepacked import CachedAttention, KeyValues, RotaryTable, normed, prepacked
from earnest.models.system import Continuation, Round
from earnest.streams import Codebook

if TYPE_CHECKING:
    from earnest.models.mot.model import MoT


class MoTContinuation(Continuation):
    """A batch of sequences that is being continued: the keys and values of each layer, where each sequence begins, and
    how many audio tokens there are.

    The layers are written out here for one audio position, as transformers' modules and caches take several times as
    long (benchmarks/generate_mot.py); tests compare the logits of both.
    """

    def __init__(self, model: "MoT", prompts: Sequence[Prompt]):
        self.model, device, backbone = model, model.device, model.backbone
        self.tokens = 0
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.positions = int(lengths_B.max())
        self.first_B1 = (self.positions - lengths_B)[:, None]  # position at which the prompt begins, behind its padding
        self.padded = bool(self.first_B1.any())
        place_S = torch.arange(self.positions, device=device)
        cache: Any = DynamicCache(config=model.config.llama)
        text_BS = pad_sequence([prompt.text_S for prompt in prompts], True, model.pad_id, "left").to(device)
        backbone(
            text_BS,
            place_S >= self.first_B1,
            (place_S - self.first_B1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        self.layers = [
            _AudioLayer(layer, block, KeyValues(cached.keys, cached.values))
            for (layer, block), cached in zip(model.layer_pairs(), cache.layers, strict=True)
        ]
        self.rotary = RotaryTable(backbone.rotary_emb, model.embed_audio.weight)
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
        model, backbone, codebook = self.model, self.model.backbone, self.tokens % self.model.codebooks
        audio_BD = model.embedded(token_B1, torch.full_like(token_B1, self.tokens))[:, 0]
        cos_B1H, sin_B1H = self.rotary.at(self.positions - self.first_B1, self.positions)
        self.positions, self.tokens = self.positions + 1, self.tokens + 1
        exists_B11S = None
        if self.padded:
            exists_B11S = (torch.arange(self.positions, device=audio_BD.device) >= self.first_B1)[:, None, None]
        for layer in self.layers:
            audio_BD = layer.advance(audio_BD, cos_B1H, sin_B1H, exists_B11S)
        logits_BV = self.heads[codebook].with_prior(self.rows[codebook](normed(audio_BD, backbone.norm)))
        return F.pad(logits_BV, (0, model.bos_id - logits_BV.shape[-1]), value=-torch.inf)[:, None]


class _AudioLayer:
    """One layer for one audio position."""

    def __init__(self, layer: MoTLayer, block: LlamaDecoderLayer, past: KeyValues):
        self.block, self.activation = block, layer.expert.act
        self.attention = CachedAttention(layer.attention or block.self_attn, past)
        self.down, self.fc1, self.fc2, self.up = (
            prepacked(part) for part in (layer.expert.down, layer.expert.fc1, layer.expert.fc2, layer.expert.up)
        )

    def advance(self, audio_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor:
        before_BD = normed(audio_BD, self.block.input_layernorm)
        audio_BD = audio_BD + self.attention.advance(before_BD, cos_B1H, sin_B1H, exists_B11S)
        inner_BE = self.down(normed(audio_BD, self.block.post_attention_layernorm))
        return audio_BD + self.up(self.fc2(self.activation(self.fc1(inner_BE))))

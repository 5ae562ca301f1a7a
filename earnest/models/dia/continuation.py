"""A Dia continues prompts, one delayed frame at a time."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from earnest.data.batch import Prompt
from earnest.errors import UserError
from earnest.models.positions import Positions
from earnest.models.prepacked import CachedAttention, KeyValues, RotaryTable, normed, prepacked
from earnest.models.system import Continuation, Round

if TYPE_CHECKING:
    from earnest.models.dia.model import Dia


class DiaContinuation(Continuation):
    """Sequences that are being continued: keys and values of the texts, and of the frames so far.

    The decoder's layers are written out here for one position, as transformers' modules and caches take two to three
    times as long (benchmarks/generate_dia.py); tests compare the logits of both.
    """

    def __init__(self, model: "Dia", prompts: Sequence[Prompt]):
        self.model = model
        decoder: Any = model.lm.model.decoder
        device = model.lm.device
        text_BL = pad_sequence([prompt.text_S for prompt in prompts], batch_first=True, padding_value=model.pad_id).to(
            device
        )
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        exists_BL = torch.arange(text_BL.shape[1], device=device) < lengths_B[:, None]
        text_BLE = model.lm.model.encoder(input_ids=text_BL, attention_mask=exists_BL).last_hidden_state
        layers = [_DecoderLayer(layer, text_BLE, exists_BL) for layer in decoder.layers]
        first_B1 = lengths_B.new_zeros(len(prompts), 1)
        self.layers = Positions(layers, RotaryTable(decoder.rotary_emb, text_BLE), decoder.norm, 0, first_B1)
        self.embeddings = decoder.embeddings
        self.head = prepacked(model.lm.logits_dense)

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        yield Round(slice(0, self.model.codebooks), self.advance(frame_BC))

    def advance(self, frame_BC: Tensor) -> Tensor:
        """Append one frame of tokens (B, C); returns the logits (B, C, V) of the next. Raises UserError beyond the
        model's context."""
        most = self.model.max_audio_positions
        if self.layers.positions == most:
            raise UserError(
                f"audio of more than {most} positions",
                f"at most {most}: the model knows no further ones",
                "generate fewer frames",
            )
        hidden_BD = self.embeddings.embed(frame_BC + self.embeddings.offsets).sum(1)
        return self.head(self.layers.advance(hidden_BD)).unflatten(-1, (self.model.codebooks, -1))


class _DecoderLayer:
    """One layer of the decoder, with its keys and values of the texts and of the frames so far."""

    def __init__(self, layer: Any, text_BLE: Tensor, exists_BL: Tensor):
        own, cross = layer.self_attention, layer.cross_attention
        self.layer, self.cross_head_dim = layer, cross.head_dim
        none_BNSH = text_BLE.new_empty(len(text_BLE), own.num_key_value_heads, 0, own.head_dim)
        self.attention = CachedAttention(own, KeyValues(none_BNSH, none_BNSH), scale=1.0)
        self.cross_query, self.cross_out = prepacked(cross.q_proj), prepacked(cross.o_proj)
        self.gate_up, self.down = prepacked(layer.mlp.gate_up_proj), prepacked(layer.mlp.down_proj)
        self.text_keys_BNLH, self.text_values_BNLH = (
            _heads(projection(text_BLE), cross.head_dim).transpose(1, 2).contiguous()
            for projection in (cross.k_proj, cross.v_proj)
        )
        self.exists_B11L = None if exists_BL.all() else exists_BL[:, None, None]

    def advance(self, hidden_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor:
        layer = self.layer
        before_BD = normed(hidden_BD, layer.pre_sa_norm)
        hidden_BD = hidden_BD + self.attention.advance(before_BD, cos_B1H, sin_B1H, exists_B11S)
        hidden_BD = hidden_BD + self._cross_attention(normed(hidden_BD, layer.pre_ca_norm))
        gate_BF, up_BF = self.gate_up(normed(hidden_BD, layer.pre_mlp_norm)).chunk(2, dim=-1)
        return hidden_BD + self.down(up_BF * layer.mlp.activation_fn(gate_BF))

    def _cross_attention(self, hidden_BD: Tensor) -> Tensor:
        query_BNGH = _heads(self.cross_query(hidden_BD), self.cross_head_dim).unflatten(
            1, (self.text_keys_BNLH.shape[1], -1)
        )
        attended_BNGH = F.scaled_dot_product_attention(
            query_BNGH, self.text_keys_BNLH, self.text_values_BNLH, attn_mask=self.exists_B11L, scale=1.0
        )
        return self.cross_out(attended_BNGH.flatten(1))


def _heads(hidden: Tensor, head_dim: int) -> Tensor:
    return hidden.unflatten(-1, (-1, head_dim))

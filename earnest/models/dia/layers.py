"""Dia's layers on the positions that exist, without padding."""

from dataclasses import dataclass
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers.models.dia.modeling_dia import DiaDecoderLayer, DiaEncoderLayer, DiaSelfAttention

from earnest.data.batch import Spans
from earnest.models.attention import attend
from earnest.models.operators import rms_normed, turned
from earnest.models.packed import rotary_of

SCALE = 1.0  # of the scores: Dia leaves out 1 / sqrt(head_dim)


@dataclass(frozen=True)
class Within:
    """Attention of each clip's positions to those of the same clip, with rotary embeddings."""

    clips: Spans
    cos_P1D: Tensor
    sin_P1D: Tensor

    @classmethod
    def of(cls, clips: Spans, rotary: nn.Module, like: Tensor) -> Self:
        """rotary: a rotary embedding of transformers; like: a tensor whose dtype its values get."""
        return cls(clips, *rotary_of(clips, rotary, like))

    def attended(self, attention: DiaSelfAttention, normed_PD: Tensor) -> Tensor:
        q_PHD, k_PND = (
            turned(_heads(project(normed_PD), attention), self.cos_P1D, self.sin_P1D)
            for project in (attention.q_proj, attention.k_proj)
        )
        v_PND = _heads(attention.v_proj(normed_PD), attention)
        mixed_PHD = attend(q_PHD, k_PND, v_PND, self.clips, self.clips, attention.is_causal, SCALE)
        return attention.o_proj(mixed_PHD.flatten(1))


class PackedEncoderLayer(DiaEncoderLayer):
    """transformers' layer, which also takes the positions of all texts one after the other. Without `within` it is
    transformers' own."""

    def forward(self, text_ND: Tensor, *given: Any, within: Within | None = None, **context: Any) -> Any:
        if within is None:
            return cast(Any, super()).forward(text_ND, *given, **context)
        text_ND = text_ND + within.attended(self.self_attention, rms_normed(text_ND, self.pre_sa_norm))
        return text_ND + self.mlp(rms_normed(text_ND, self.post_sa_norm))


class PackedDecoderLayer(DiaDecoderLayer):
    """transformers' layer, which also takes the positions of all clips one after the other, with those of their texts.
    Without `within` it is transformers' own."""

    def forward(
        self,
        audio_MD: Tensor,
        *given: Any,
        text_ND: Tensor | None = None,
        within: Within | None = None,
        texts: Spans | None = None,
        **context: Any,
    ) -> Any:
        if within is None:
            return cast(Any, super()).forward(audio_MD, *given, **context)
        assert text_ND is not None and texts is not None
        audio_MD = audio_MD + within.attended(self.self_attention, rms_normed(audio_MD, self.pre_sa_norm))
        cross = self.cross_attention
        q_MHD = _heads(cross.q_proj(rms_normed(audio_MD, self.pre_ca_norm)), cross)
        k_NHD, v_NHD = (_heads(project(text_ND), cross) for project in (cross.k_proj, cross.v_proj))
        mixed_MHD = attend(q_MHD, k_NHD, v_NHD, within.clips, texts, False, SCALE)
        audio_MD = audio_MD + cross.o_proj(mixed_MHD.flatten(1))
        return audio_MD + self.mlp(rms_normed(audio_MD, self.pre_mlp_norm))


def _heads(hidden_PX: Tensor, attention: Any) -> Tensor:
    return hidden_PX.unflatten(-1, (-1, attention.head_dim))

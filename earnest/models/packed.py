"""A batch without its padding: the positions that exist, split into text and audio once for all layers."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as checkpoints

from earnest.data.batch import Batch, Spans, taken
from earnest.models.attention import attend
from earnest.models.compiled import compiled_layer
from earnest.models.operators import turned
from earnest.models.system import System


def recomputed(model: System, layer: nn.Module, *given: Tensor, **context: Any) -> Any:
    """A layer's output; in training, if the model says so, by a compiled layer, and with its activations computed again
    in the backward pass, which takes a third more time and keeps only what goes into the layers."""
    training = model.training and torch.is_grad_enabled()
    run = partial(compiled_layer(), layer) if training and model.compiled else layer
    if training and model.recompute:
        return cast(Any, checkpoints).checkpoint(run, *given, use_reentrant=False, **context)
    return run(*given, **context)


@dataclass(frozen=True)
class Route:
    """Where the positions of a batch go.

    The N text and M audio positions are kept as two blocks, each in row-major order of (clip, position), so that a
    layer for one of them reads a slice. Attention needs them clip by clip.
    """

    order_P: Tensor  # row i of the batch's positions, in row-major order, is row order_P[i] of [text, audio]
    place_P: Tensor  # its inverse
    clips: Spans
    texts: int  # N
    cos_P1D: Tensor  # rotary embedding of each position, in row-major order
    sin_P1D: Tensor

    @classmethod
    def of(cls, batch: Batch, rotary: nn.Module, like: Tensor) -> Self:
        """rotary: a rotary embedding of transformers; like: a tensor whose dtype its values get."""
        places = batch.places
        place_P = taken(batch.is_audio_BS, places.exist_P).sort(stable=True).indices
        turns = rotary_of(places.clips, rotary, like)
        return cls(place_P.argsort(), place_P, places.clips, len(places.text_N), *turns)

    def joined(self, text_NX: Tensor, audio_MX: Tensor) -> Tensor:
        """Two blocks -> (P, ...) in row-major order."""
        return torch.cat([text_NX, audio_MX]).index_select(0, self.order_P)

    def parted(self, all_PX: Tensor) -> tuple[Tensor, Tensor]:
        """(P, ...) in row-major order -> the two blocks."""
        sorted_PX = all_PX.index_select(0, self.place_P)
        return sorted_PX[: self.texts], sorted_PX[self.texts :]

    def attend(self, q_PHD: Tensor, k_PHD: Tensor, v_PHD: Tensor) -> Tensor:
        """Causal attention within each clip, with rotary embeddings: (P, H, D); nothing is computed at padding."""
        q_PHD, k_PHD = turned(q_PHD, self.cos_P1D, self.sin_P1D), turned(k_PHD, self.cos_P1D, self.sin_P1D)
        return attend(q_PHD, k_PHD, v_PHD, self.clips, self.clips, causal=True)


def rotary_of(clips: Spans, rotary: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position, (P, 1, D). rotary: a rotary embedding of transformers; like: a tensor whose
    dtype they get."""
    cos_1PD, sin_1PD = rotary(like, position_ids=clips.step_P[None])
    return cos_1PD[0, :, None], sin_1PD[0, :, None]

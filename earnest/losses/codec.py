"""The losses of a codec that need no discriminator: spectral ones on the wave, and one per teacher on what the
codebooks say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from earnest.codecs.amy import Reconstruction
from earnest.codecs.rvq import ResidualVQ
from earnest.losses.distillation import Distillation, Statistics
from earnest.losses.waveform import MultiScaleMelLoss, MultiScaleSpectrogramLoss

TAUGHT = {
    "llm": 0,
    "wavlm": 1,
}  # teacher -> the last codebook that its features are predicted from: 0 alone, 0 and 1 together
MEL_LOSSES = (MultiScaleMelLoss, MultiScaleSpectrogramLoss)


@dataclass(frozen=True)
class CodecBatch:
    """wave_BN, and at the codec's frames: per teacher (features_BTF, exists_BT); pitch and level, NaN where there is
    none, if needed."""

    wave_BN: Tensor
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    prosody_BT2: Tensor | None = None


class CodecObjective(nn.Module):
    """Called with what the codec made of a batch, it returns the losses by stream, and their signals."""

    mel_losses: Any  # a ModuleList of `MelLoss`

    def __init__(
        self,
        weights: Mapping[str, float],
        sample_rate_hz: int,
        quantiser: ResidualVQ,
        of_teachers: Mapping[str, Statistics],
    ):
        """weights: a spectral loss of weight 0 is not computed."""
        super().__init__()
        self.mel_losses = nn.ModuleList(kind(sample_rate_hz) for kind in MEL_LOSSES if weights[kind.stream])
        self.heads = nn.ModuleDict(
            {name: Distillation(name, quantiser.said_dim(TAUGHT[name]), one) for name, one in of_teachers.items()}
        )

    def forward(
        self, reconstruction: Reconstruction, batch: CodecBatch, split: str = "train"
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        losses, signals = {}, {}
        for loss in self.mel_losses:
            losses[loss.stream], found = loss(reconstruction.wave_BN, batch.wave_BN, split)
            signals |= found
        for name, head in self.heads.items():
            losses[name], found = head(reconstruction.quantised.said(TAUGHT[name]), *batch.features[name], split)
            signals |= found
        return losses, signals

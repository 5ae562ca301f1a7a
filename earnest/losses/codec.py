"""The losses of a codec that need no discriminator: those that compare waves, and one per teacher of its codebooks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor, nn

from earnest.codecs.trainable import Reconstruction, Signals
from earnest.losses.distillation import Distillation
from earnest.losses.waveform import WaveLoss


@dataclass(frozen=True)
class CodecBatch:
    """wave_BN, and at the codec's frames: per teacher (features_BTF, exists_BT); pitch and level if the quantiser wants
    them, NaN where there is none."""

    wave_BN: Tensor
    features: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])
    pitch_and_level_BT2: Tensor | None = None


class CodecObjective(nn.Module):
    """Called with what the codec made of a batch, it returns the losses by stream, and their signals."""

    def __init__(self, wave_losses: Sequence[WaveLoss], distillations: Sequence[Distillation] = ()):
        super().__init__()
        self.wave_losses = nn.ModuleList(wave_losses)
        self.distillations = nn.ModuleDict({distillation.stream: distillation for distillation in distillations})

    def forward(
        self, reconstruction: Reconstruction, batch: CodecBatch, split: str = "train"
    ) -> tuple[dict[str, Tensor], Signals]:
        losses, signals = self.compare_waves(reconstruction.wave_BN, batch.wave_BN, split)
        for stream, distillation in self._distillations.items():
            seen_BDT = reconstruction.quantised.teacher_view(distillation.codebook)
            losses[stream], measured = distillation(seen_BDT, *batch.features[stream], split)
            signals |= measured
        return losses, signals

    def compare_waves(
        self, wave_BN: Tensor, target_BN: Tensor, split: str = "train"
    ) -> tuple[dict[str, Tensor], Signals]:
        """The losses that need nothing but the waves."""
        losses, signals = dict[str, Tensor](), Signals()
        for loss in self._wave_losses:
            losses[loss.stream], measured = loss(wave_BN, target_BN, split)
            signals |= measured
        return losses, signals

    def baselines(self, waves: list[Tensor]) -> dict[str, dict[str, float]]:
        """Stream -> what predictors that have learnt nothing score, by name; waves (N,)."""
        constants = {stream: {"constant mean": taught.constant} for stream, taught in self._distillations.items()}
        return {loss.stream: loss.baselines(waves) for loss in self._wave_losses} | constants

    @property
    def _wave_losses(self) -> Iterable[WaveLoss]:
        return cast(Iterable[WaveLoss], self.wave_losses)

    @property
    def _distillations(self) -> Mapping[str, Distillation]:
        return cast(Mapping[str, Distillation], self.distillations)

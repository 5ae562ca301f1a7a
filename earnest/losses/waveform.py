"""Reconstruction losses on waveforms, over mel bands at several window lengths; each returns (loss, signals)."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from earnest.codecs.trainable import Signals
from earnest.signals import key


def mel_filters(window_samples: int, mels: int, sample_rate_hz: int, low_hz: float = 0.0) -> Tensor:
    """Triangular filters of height 1 on the HTK mel scale from `low_hz` up, as a matrix (bins, mels).

    A weight is the triangle's area over its bin's share of the frequency axis, not its height at the bin's centre: a
    filter narrower than a bin would lie between two centres and be empty, a band that the loss silently ignores.
    """
    bin_hz = sample_rate_hz / window_samples
    bins = window_samples // 2 + 1
    edges_hz = ((torch.arange(bins + 1, dtype=torch.float64) - 0.5) * bin_hz).clamp(0, sample_rate_hz / 2)
    bottom_mel, top_mel = (2595 * math.log10(1 + hz / 700) for hz in (low_hz, sample_rate_hz / 2))
    corners_hz = 700 * (10 ** (torch.linspace(bottom_mel, top_mel, mels + 2, dtype=torch.float64) / 2595) - 1)
    left_hz, peak_hz, right_hz = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    # the triangle's area up to each bin edge: a rising parabola up to the peak, a falling one after it
    x_hz = edges_hz[:, None]
    rising = (x_hz.clamp(left_hz, peak_hz) - left_hz) ** 2 / (peak_hz - left_hz)
    falling = (right_hz - peak_hz) - (right_hz - x_hz.clamp(peak_hz, right_hz)) ** 2 / (right_hz - peak_hz)
    return ((rising + falling) / 2 / bin_hz).diff(dim=0).float()


class WaveLoss(nn.Module, ABC):
    """A loss that compares two waves."""

    stream: str

    @abstractmethod
    def forward(self, wave_BN: Tensor, target_BN: Tensor, split: str = "train") -> tuple[Tensor, Signals]:
        """wave_BN and target_BN, float32, of one length."""

    @abstractmethod
    def baselines(self, waves: list[Tensor]) -> dict[str, float]:
        """What predictors that have learnt nothing score on waves (N,), by name."""


class MelLoss(WaveLoss, ABC):
    """A distance between the magnitudes in mel bands, averaged over windows of `window_samples`, hop a quarter of the
    window."""

    def __init__(self, window_samples: tuple[int, ...], filters: list[Tensor], scales: list[float]):
        """filters: (bins, bands) per window; scales: what a magnitude of the STFT is multiplied by, per window."""
        super().__init__()
        self.window_samples, self.scales = window_samples, dict(zip(window_samples, scales, strict=True))
        for samples, filters_FM in zip(window_samples, filters, strict=True):
            self.register_buffer(f"window_{samples}", torch.hann_window(samples), persistent=False)
            self.register_buffer(f"filters_{samples}", filters_FM, persistent=False)

    @abstractmethod
    def distance(self, bands_BMT: Tensor, target_BMT: Tensor) -> Tensor: ...

    def bands(self, wave_BN: Tensor, samples: int) -> Tensor:
        """wave_BN -> magnitudes (B, bands, frames)."""
        spectrum_BFT = torch.stft(
            wave_BN,
            samples,
            samples // 4,
            window=getattr(self, f"window_{samples}"),
            return_complex=True,
            pad_mode="constant",
        )
        magnitude_BFT = (torch.view_as_real(spectrum_BFT).square().sum(-1) + 1e-12).sqrt() * self.scales[samples]
        return getattr(self, f"filters_{samples}").t() @ magnitude_BFT

    def forward(self, wave_BN: Tensor, target_BN: Tensor, split: str = "train") -> tuple[Tensor, Signals]:
        losses = list[Tensor]()
        for samples in self.window_samples:
            with torch.no_grad():
                target_BMT = self.bands(target_BN, samples)
            losses.append(self.distance(self.bands(wave_BN, samples), target_BMT))
        loss = torch.stack(losses).mean()
        return loss, {key("loss", self.stream, split): loss.detach()}

    @torch.no_grad()
    def baselines(self, waves: list[Tensor]) -> dict[str, float]:
        """The loss of predicting silence, and of predicting the geometric-mean spectrum in every frame."""
        silence, mean = list[Tensor](), list[Tensor]()
        for samples in self.window_samples:
            bands = [self.bands(wave_N[None], samples) for wave_N in waves]
            mean_M1 = torch.cat(bands, 2).clamp_min(1e-5).log().mean(2).exp()[..., None]
            silent = [self.bands(torch.zeros_like(wave_N)[None], samples) for wave_N in waves]
            pairs = zip(silent, bands, strict=True)
            silence.append(torch.stack([self.distance(silent_BMT, clip_BMT) for silent_BMT, clip_BMT in pairs]).mean())
            mean.append(
                torch.stack([self.distance(mean_M1.expand_as(clip_BMT), clip_BMT) for clip_BMT in bands]).mean()
            )
        return {"silence": torch.stack(silence).mean().item(), "mean frame": torch.stack(mean).mean().item()}


class MultiScaleMelLoss(MelLoss):
    """The L1 distance between log10 magnitudes (as in DAC, Kumar et al. 2023, arXiv:2306.06546).

    Magnitudes are means over a band, relative to a full-scale sine; a softer one than `floor` counts as `floor`.
    """

    stream = "mel"

    def __init__(
        self,
        sample_rate_hz: int,
        window_samples: tuple[int, ...] = (128, 512, 1024, 2048),
        mels: tuple[int, ...] = (20, 80, 160, 320),
        floor: float = 1e-4,
    ):
        filters = [
            mel_filters(samples, count, sample_rate_hz) for samples, count in zip(window_samples, mels, strict=True)
        ]
        # a full-scale sine has half the window's sum in its bin, and a Hann window sums to half its length
        super().__init__(
            window_samples,
            [filters_FM / filters_FM.sum(0) for filters_FM in filters],
            [4 / samples for samples in window_samples],
        )
        self.floor = floor

    def distance(self, bands_BMT: Tensor, target_BMT: Tensor) -> Tensor:
        return (bands_BMT.clamp_min(self.floor).log10() - target_BMT.clamp_min(self.floor).log10()).abs().mean()


class MultiScaleSpectrogramLoss(MelLoss):
    """L1 between magnitudes plus mean squared error between their log10, over 2 (as in audiocraft, and in Amy-LM, where
    both sum over the scales and are divided by 10).

    STFTs are normalised by the window's energy; bands begin at 64 Hz. Amy-LM has 64 bands at every scale: 21, 9 and 1
    of them fall between the bins of windows of 64, 128 and 256 and are constants. Here a band is never empty, and a
    window has at most a quarter as many bands as samples.
    """

    stream = "msspec"

    def __init__(
        self, sample_rate_hz: int, window_samples: tuple[int, ...] = (64, 128, 256, 512, 1024), mels: int = 64
    ):
        filters = [
            mel_filters(samples, min(mels, samples // 4), sample_rate_hz, low_hz=64.0) for samples in window_samples
        ]
        # Hann: sum w^2 = 3/8 N
        super().__init__(window_samples, filters, [(3 / 8 * samples) ** -0.5 for samples in window_samples])

    def distance(self, bands_BMT: Tensor, target_BMT: Tensor) -> Tensor:
        log_error_BMT = (bands_BMT + 1e-5).log10() - (target_BMT + 1e-5).log10()
        return ((bands_BMT - target_BMT).abs().mean() + log_error_BMT.square().mean()) / 2

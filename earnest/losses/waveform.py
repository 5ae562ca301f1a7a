"""Reconstruction losses on waveforms; each returns (loss, signals)."""

import torch
from torch import Tensor, nn

from earnest.signals import key


def mel_filters(window_samples: int, mels: int, sample_rate_hz: int) -> Tensor:
    """Triangular filters on the HTK mel scale, as a matrix (bins, mels); each column sums to 1.

    A weight is the triangle's area over its bin's share of the frequency axis, not its height at the bin's centre: a filter
    narrower than a bin would lie between two centres and be empty, a band that the loss silently ignores.
    """
    bin_hz = sample_rate_hz / window_samples
    bins = window_samples // 2 + 1
    edges_hz = ((torch.arange(bins + 1, dtype=torch.float64) - 0.5) * bin_hz).clamp(0, sample_rate_hz / 2)
    top_mel = 2595 * torch.log10(torch.tensor(1 + sample_rate_hz / 2 / 700, dtype=torch.float64))
    corners_hz = 700 * (10 ** (torch.arange(mels + 2, dtype=torch.float64) / (mels + 1) * top_mel / 2595) - 1)
    low_hz, peak_hz, high_hz = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    # the triangle's area up to each bin edge: a rising parabola up to the peak, a falling one after it
    x_hz = edges_hz[:, None]
    rising = (x_hz.clamp(low_hz, peak_hz) - low_hz) ** 2 / (peak_hz - low_hz)
    falling = (high_hz - peak_hz) - (high_hz - x_hz.clamp(peak_hz, high_hz)) ** 2 / (high_hz - peak_hz)
    area = ((rising + falling) / (high_hz - low_hz)).diff(dim=0)
    return (area / area.sum(0)).float()


class MultiScaleMelLoss(nn.Module):
    """Mean over windows of the L1 distance between log10 mel magnitudes (as in DAC, Kumar et al. 2023, arXiv:2306.06546).

    Hop is a quarter of the window. Magnitudes are relative to a full-scale sine; what is softer than `floor` counts as `floor`.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        window_samples: tuple[int, ...] = (128, 512, 1024, 2048),
        mels: tuple[int, ...] = (20, 80, 160, 320),
        floor: float = 1e-4,
    ):
        super().__init__()
        self.window_samples, self.floor = window_samples, floor
        for samples, count in zip(window_samples, mels, strict=True):
            self.register_buffer(f"window_{samples}", torch.hann_window(samples), persistent=False)
            self.register_buffer(f"filters_{samples}", mel_filters(samples, count, sample_rate_hz), persistent=False)

    def log_mel(self, wave_BN: Tensor, samples: int) -> Tensor:
        """wave_BN -> (B, mels, frames): log10 of the mean magnitude in each band."""
        window_W = getattr(self, f"window_{samples}")
        spectrum_BFT = torch.stft(wave_BN, samples, samples // 4, window=window_W, return_complex=True, pad_mode="constant")
        magnitude_BFT = (torch.view_as_real(spectrum_BFT).square().sum(-1) + 1e-12).sqrt() * (2 / window_W.sum())
        return (getattr(self, f"filters_{samples}").t() @ magnitude_BFT).clamp_min(self.floor).log10()

    def forward(self, wave_BN: Tensor, target_BN: Tensor) -> tuple[Tensor, dict[str, float]]:
        """wave_BN and target_BN, float32, of one length."""
        losses = []
        for samples in self.window_samples:
            with torch.no_grad():
                target = self.log_mel(target_BN, samples)
            losses.append((self.log_mel(wave_BN, samples) - target).abs().mean())
        loss = torch.stack(losses).mean()
        return loss, {key("loss", "mel"): loss.item()}

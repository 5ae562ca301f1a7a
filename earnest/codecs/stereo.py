"""Stereo with a mono codec: both channels go through it, and the left one's codebooks stand before the right one's."""

from typing import Any

import torch
from torch import Tensor, nn


class Stereo(nn.Module):
    """A `Codec` of two channels: encode takes wave_B2N and decode gives it; codebooks are twice those of the mono
    codec."""

    channels = 2

    def __init__(self, mono: Any):
        super().__init__()
        self.mono = mono
        self.name = f"{mono.name}-stereo"
        self.sample_rate_hz, self.hop_samples = mono.sample_rate_hz, mono.hop_samples
        self.codebooks, self.codebook_size = 2 * mono.codebooks, mono.codebook_size

    @property
    def frame_rate_hz(self) -> float:
        return self.mono.frame_rate_hz

    @property
    def context_frames(self) -> tuple[float, float]:
        return self.mono.context_frames

    @torch.no_grad()
    def encode(self, wave_BN: Tensor) -> Tensor:  # (B, 2, N)
        return self.mono.encode(wave_BN.flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1, 2)

    @torch.no_grad()
    def decode(self, codes_BCT: Tensor) -> Tensor:
        return self.mono.decode(codes_BCT.unflatten(1, (2, -1)).flatten(0, 1)).unflatten(0, (-1, 2))

"""Stereo with a mono codec: both channels go through it, the left one's codebooks first."""

import torch
from torch import Tensor, nn

from earnest.codecs.codec import Codec


class Stereo(nn.Module):
    """A `Codec` of two channels: encode takes wave_B2N and decode gives it; codebooks are twice those of the mono
    codec."""

    channels = 2
    mono: Codec

    def __init__(self, mono: Codec):
        super().__init__()
        self.mono = mono
        self.name = f"{mono.name}-stereo"
        self.sample_rate_hz, self.hop_samples = mono.sample_rate_hz, mono.hop_samples
        self.codebooks, self.codebook_size = 2 * mono.codebooks, mono.codebook_size

    @property
    def device(self) -> torch.device:
        return self.mono.device

    @property
    def frame_rate_hz(self) -> float:
        return self.mono.frame_rate_hz

    @property
    def context_frames(self) -> tuple[float, float]:
        return self.mono.context_frames

    @torch.no_grad()
    def encode(self, wave_BN: Tensor) -> Tensor:  # (B, 2, N)
        codes_BCT = self.mono.encode(wave_BN.flatten(0, 1))
        return torch.unflatten(codes_BCT, 0, (-1, 2)).flatten(1, 2)

    @torch.no_grad()
    def decode(self, codes_BCT: Tensor) -> Tensor:
        sides_BCT = torch.unflatten(codes_BCT, 1, (2, -1)).flatten(0, 1)
        return torch.unflatten(self.mono.decode(sides_BCT), 0, (-1, 2))

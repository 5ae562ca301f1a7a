"""The contract of a codec: audio to codes and back. Every codec, earnest's own or pretrained, is a `Codec`."""

from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """What data and language models need of a codec. Audio is float32 in [-1, 1].

    A codec of one channel takes and returns wave_BN, one of two channels wave_B2N.
    """

    @property
    def name(self) -> str: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def hop_samples(self) -> int:
        """Audio samples per frame."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def codebooks(self) -> int: ...

    @property
    def codebook_size(self) -> int: ...

    @property
    def frame_rate_hz(self) -> float: ...

    @property
    def context_frames(self) -> tuple[float, float]:
        """How many frames before and behind a frame its audio depends on; inf: on all."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its weights are, and where the codes and waves must be that it is given."""
        ...

    def encode(self, wave_BN: Tensor) -> Tensor:
        """wave_BN, zero-padded at the end -> codes_BCT int64, T = ceil(N / hop_samples); not differentiable."""
        ...

    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> wave_BN, N = T * hop_samples; not differentiable."""
        ...

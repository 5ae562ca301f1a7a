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
        """(before, after): how many frames on either side of a frame its audio depends on; inf if on all of them."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of its weights; codes and waves that are passed in must be there too."""
        ...

    def encode(self, wave_BN: Tensor) -> Tensor:
        """wave_BN, zero-padded at the end -> codes_BCT int64, T = ceil(N / hop_samples); not differentiable."""
        ...

    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> wave_BN, N = T * hop_samples; not differentiable."""
        ...

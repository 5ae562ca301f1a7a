"""A codec that computes in bfloat16, after a look whether it still is that codec."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from earnest.codecs.codec import Codec
from earnest.errors import UserError

Precision = Literal["float32", "bfloat16"]
# Both assumed, far below what rounding does (measured, amy-tiny with random weights: 44 dB, and 97 % of the codes).
LEAST_DB, LEAST_EQUAL = 20.0, 0.5


@contextmanager
def computing_in(precision: Precision, codec: Codec) -> Iterator[None]:
    """Let a codec compute in a precision within the block. Raises UserError if bfloat16 makes something else of noise:
    oneDNN with torch 2.13 computes a convolution of 16 to 32 channels, 8 wide, at stride 4, wrongly on a Xeon
    (docs/log.md)."""
    if precision == "float32":
        yield
        return
    generator = torch.Generator().manual_seed(0)
    shape = (1, codec.channels, codec.sample_rate_hz) if codec.channels > 1 else (1, codec.sample_rate_hz)
    noise_BN = (0.1 * torch.randn(shape, generator=generator)).to(codec.device)
    codes_BCT = codec.encode(noise_BN)
    wave_BN = codec.decode(codes_BCT)
    with torch.autocast(codec.device.type, torch.bfloat16):
        equal = float((codec.encode(noise_BN)[:, 0] == codes_BCT[:, 0]).float().mean())
        apart_BN = codec.decode(codes_BCT).float() - wave_BN
    decibel = float(10 * (wave_BN.square().sum() / apart_BN.square().sum()).log10())
    if not (decibel >= LEAST_DB and equal >= LEAST_EQUAL):
        raise UserError(
            f"{codec.name} in bfloat16 on {codec.device}: {equal:.0%} of the first codebook's codes are those of "
            f"float32, and its noise lies {decibel:.0f} dB below the sound",
            f"at least {LEAST_EQUAL:.0%} and {LEAST_DB:.0f} dB: rounding alone does less",
            "compute in float32, or on another device",
        )
    with torch.autocast(codec.device.type, torch.bfloat16):
        yield

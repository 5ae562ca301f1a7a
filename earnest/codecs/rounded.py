"""A codec that computes in bfloat16, after a look whether it still is that codec."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn

from earnest.codecs.codec import Codec
from earnest.errors import UserError

Precision = Literal["float32", "bfloat16"]
# Both assumed, far below what rounding does (measured, amy-tiny with random weights: 44 dB, and 97 % of the codes).
LEAST_DB, LEAST_EQUAL = 20.0, 0.5
# A convolution of random weights loses 0.003 of its spread to rounding, and a wrong one 0.78 (docs/log.md).
MOST_LOST = 0.1
PLACES, LEAST_PLACES, MOST_PRODUCTS = 2500, 64, 2e8  # of the noise that a convolution is tried on, and what that costs
CONVOLUTIONS = {nn.Conv1d: 1, nn.ConvTranspose1d: 1, nn.Conv2d: 2, nn.ConvTranspose2d: 2}  # dimensions of each


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


def refuse_wrong_convolutions(model: nn.Module, device: torch.device) -> None:
    """Try each kind of convolution of a model that is to be trained in bfloat16, on noise. Raises UserError if one of
    them is not, but for rounding, what it is in float32: its gradients would be those of another model."""
    for described, convolution in _kinds(model).items():
        if (lost := _lost(convolution, device)) > MOST_LOST:
            raise UserError(
                f"{described} in bfloat16 on {device} differs from float32 by {lost:.2f} of its spread",
                f"at most {MOST_LOST}: rounding alone does less than 0.01",
                "--mixed-precision no, or another device",
            )


def _kinds(model: nn.Module) -> dict[str, nn.Module]:
    """One convolution of each kind, by its description."""
    return {str(module): module for module in model.modules() if type(module) in CONVOLUTIONS}


@torch.no_grad()
def _lost(convolution: nn.Module, device: torch.device) -> float:
    """By how much of its spread a convolution of random weights changes in bfloat16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tried = cast(nn.Conv1d, copy.deepcopy(convolution)).to("cpu", torch.float32)
        nn.init.normal_(tried.weight)
        places = int(min(PLACES, max(LEAST_PLACES, MOST_PRODUCTS / tried.weight.numel())))
        sides = (places,) if CONVOLUTIONS[type(convolution)] == 1 else (math.isqrt(places),) * 2
        noise: Tensor = torch.randn(1, tried.in_channels, *sides).to(device)
    tried = tried.to(device)
    exact = tried(noise)
    with torch.autocast(device.type, torch.bfloat16):
        rounded = tried(noise)
    return float((rounded.float() - exact).std() / exact.std())

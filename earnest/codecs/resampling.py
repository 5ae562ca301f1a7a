"""Waves from one sampling rate to another inside a model, as torchaudio's `resample` does by default.

The Higgs tokenizer feeds its semantic encoder this way. torchaudio is no dependency: its wheels are built for one
version of torch each, and with another every import of transformers that looks for it breaks."""

import math
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

ZEROS, ROLLOFF = 6, 0.99  # zero crossings of the sinc on either side, and its cut-off as a share of Nyquist's frequency


def resample(wave_XN: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """(..., N) -> (..., ceil(N * to_hz / from_hz)): band-limited interpolation (J. O. Smith, Digital Audio Resampling)
    by a sinc under a Hann window."""
    if from_hz == to_hz:
        return wave_XN
    common = math.gcd(from_hz, to_hz)
    step, phases = from_hz // common, to_hz // common
    kernel_P1K = _kernel(step, phases).to(wave_XN)
    reach = (kernel_P1K.shape[-1] - step) // 2
    wave_BN = wave_XN.reshape(-1, wave_XN.shape[-1])
    parts_BPM = F.conv1d(F.pad(wave_BN, (reach, reach + step))[:, None], kernel_P1K, stride=step)
    samples = math.ceil(phases * wave_XN.shape[-1] / step)
    return parts_BPM.transpose(1, 2).flatten(1)[:, :samples].reshape(*wave_XN.shape[:-1], samples)


@cache
def _kernel(step: int, phases: int) -> Tensor:
    """(phases, 1, K): what each output sample between two steps takes of the input around it."""
    cutoff = min(step, phases) * ROLLOFF
    reach = math.ceil(ZEROS * step / cutoff)
    place_K = torch.arange(-reach, reach + step, dtype=torch.float32) / step
    place_PK = place_K - torch.arange(phases, dtype=torch.float32)[:, None] / phases
    place_PK = (place_PK * cutoff).clamp(-ZEROS, ZEROS)
    window_PK = torch.cos(place_PK * math.pi / ZEROS / 2) ** 2
    return (torch.sinc(place_PK) * window_PK * (cutoff / step))[:, None]


@contextmanager
def as_torchaudio() -> Generator[None, None, None]:
    """While a module of transformers is imported: `torchaudio.functional.resample` is the one above."""
    stand_in, functional = ModuleType("torchaudio"), ModuleType("torchaudio.functional")
    functional.__dict__["resample"] = resample
    stand_in.__dict__["functional"] = functional
    names = {"torchaudio": stand_in, "torchaudio.functional": functional}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

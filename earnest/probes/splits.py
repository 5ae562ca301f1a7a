"""The clips of a run: whether training and held-out ones are the same, and whether they are sound at all or noise."""

import hashlib
from collections.abc import Sequence

import numpy as np
import soundfile

from earnest.data.audio import opened_as
from earnest.data.row import Row
from earnest.probes.results import Duplicates, Noise

CLIPS, CLIP_S = 16, 10  # that are read, evenly spread, and how much of each (assumed: it costs seconds)
COMPARED_CLIPS = 100_000  # training clips that held-out ones are compared with, evenly spread
FRAME = 1024  # samples of a spectrum
MIN_FRAMES = 32  # of a clip that is judged: fewer estimate no variance


def duplicates(train: Sequence[Row], held_out: Sequence[Row]) -> Duplicates:
    """How many held-out clips hold exactly the codes of a training clip, and their sources."""
    known = {_digest(row) for row in train[:: -(-len(train) // COMPARED_CLIPS) or 1]}
    shared = [row.source for row in held_out if _digest(row) in known]
    return Duplicates(len(shared), len(held_out), tuple(shared[:6]))


def _digest(row: Row) -> bytes:
    codes_CT = np.ascontiguousarray(row.codes_CT, np.int64)
    return hashlib.sha256(str(codes_CT.shape).encode() + codes_CT.tobytes()).digest()


def noise(train: Sequence[Row]) -> Noise | None:
    """How many of the clips that are read sound like stationary noise. None if none can be read.

    In Gaussian noise of any colour the power at a frequency has a standard deviation over time as large as its mean
    (measured: 0.97 to 1.00 of it), and one moment says nothing of the next. Speech and music have pauses and beats
    (measured: from 1.8 up); what only drones or hums varies less, or slowly.
    """
    clips, sources = 0, list[str]()
    for row in train[:: -(-len(train) // CLIPS)]:
        try:
            with soundfile.SoundFile(opened_as(row.source)) as file:
                wave_N = file.read(CLIP_S * file.samplerate, dtype="float32", always_2d=True)[:, 0]
        except (OSError, soundfile.SoundFileError):
            continue
        frames_TF = wave_N[: len(wave_N) // FRAME * FRAME].reshape(-1, FRAME)
        power_TF = np.abs(np.fft.rfft(frames_TF * np.hanning(FRAME)))[:, 2:-2] ** 2
        mean_F = power_TF.mean(0) if len(power_TF) else np.zeros(1)
        if len(power_TF) < MIN_FRAMES or not mean_F.any():
            continue
        loud_TF = power_TF[:, mean_F > 1e-3 * mean_F.max()]  # within 30 dB: the audible part
        centred_TF = loud_TF - loud_TF.mean(0)
        variation = np.median(loud_TF.std(0) / loud_TF.mean(0))
        memory = np.median((centred_TF[1:] * centred_TF[:-1]).mean(0) / loud_TF.var(0))
        clips += 1
        if 0.85 < variation < 1.15 and abs(memory) < 0.1:
            sources.append(row.source)
    return Noise(len(sources), clips, tuple(sources[:6])) if clips else None

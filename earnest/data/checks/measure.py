"""What a recording is like, before anything is trained on it: level, clipping, silence, band, noise, and what it is a
copy of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earnest.data.audio import (
    FULL_SCALE_16_BIT,
    LEAST_16_BIT_PEAK,
    OVER_PEAK,
    Block,
    ClipError,
    Segment,
    blocks,
    is_long,
    read_samples,
)

FRAME_S = 0.025
WINDOW = 1024  # samples of a spectrum
SILENT_DB = -60.0  # of full scale: assumed inaudible beside speech
FLAT_TOP = 3  # samples in a row at the highest value: a wave touches its peak with one or two
LEAST_BAND_HZ = 3000.0  # nothing was recorded at less: a telephone ends at 3.4 kHz, and a bass where it likes
BAND_DB = 60.0  # below the loudest band: what lies lower is no sound of the recording
EDGE_HZ = 300.0  # a filter of resampling falls within this; a voice or a room does not
EDGE_DB = 15.0
SOUND_FRAC = 0.02  # of the peak: where a recording begins and ends
PAUSE_S, HISS_S, PAUSE_WITHIN_DB = 0.1, 0.2, 3.0
LONGEST_PAUSE_S = 0.11  # of 108 prompts with noise 105 have a longer one; a fast loop of drums has none (docs/log.md)
NOISE_FROM_HZ, LEAST_VARIES, MOST_VARIES, NOISE_FLATNESS = 150.0, 0.6, 1.4, 0.08  # noise and no music: see `hisses`
COPY_RANGE_DB, COPY_DB = 30.0, 1.0  # copies agree to this, in what is audible
COPY_FRAMES = 8  # two strokes of a drum agree in fewer, and are no copies


@dataclass(frozen=True, eq=False)
class Measured:
    """One recording. Levels are in dB of full scale."""

    duration_s: float
    rate_hz: int
    peak: float
    clipped_frac: float
    """Share of the samples in runs at the highest value."""
    lead_s: float
    """Silence before the first sound."""
    tail_s: float
    """Silence after the last sound."""
    silent_frac: float
    band_hz: float
    """Where the spectrum ends in an edge; half the sample rate if it does not."""
    floor_db: float
    """Level of the quietest twentieth."""
    contrast_db: float
    """The loudest twentieth above the quietest."""
    pause_db: float
    """How much the quietest parts differ: noise fills pauses to one level, in a clean recording each is another."""
    has_noise: bool
    """Whether the quietest parts are pauses, and noise fills them: see `hisses`."""
    envelope_T: np.ndarray
    """Level by time, in dB below the loudest: the same for copies, whatever their level and the silence around them."""


def measure(path: Path, segment: Segment | None = None) -> Measured:
    """Raises ClipError for a file that cannot be used, as training would. A long recording is read twice, a minute or
    so at a time."""
    if is_long(path, segment):
        return _measured(path, lambda: blocks(path, segment))
    wave_NK, rate_hz = read_samples(path, segment)
    return _measured(path, lambda: iter([(wave_NK, rate_hz)]))


def _measured(path: Path, read: Callable[[], Iterator[Block]]) -> Measured:
    tops_K, bottoms_K, samples, rate_hz = _range(path, read())
    peak = float(max(tops_K.max(), bottoms_K.max()))
    if peak > FULL_SCALE_16_BIT or OVER_PEAK < peak < LEAST_16_BIT_PEAK:
        raise ClipError(path, f"samples up to {peak:.6g}, which are neither in [-1, 1] nor of 16 bits")
    scale = 1 if peak <= 1 else peak if peak <= OVER_PEAK else FULL_SCALE_16_BIT
    levels_T, envelopes, bands, clipped = list[np.ndarray](), list[np.ndarray](), list[float](), 0
    hissing = list[bool]()
    for wave_NK, _ in read():
        if not len(wave_NK):
            continue
        wave_N = wave_NK.mean(axis=1) / scale if scale != 1 else wave_NK.mean(axis=1)
        levels_T.append(levels(wave_N, rate_hz))
        bands.append(band_hz(wave_N, rate_hz))
        hissing.append(hisses(wave_N, rate_hz, levels_T[-1], bands[-1]))
        clipped += sum(_at(wave_NK[:, k], tops_K[k]) + _at(-wave_NK[:, k], bottoms_K[k]) for k in range(len(tops_K)))
        envelopes.append(envelope(wave_N, rate_hz) if len(wave_NK) == samples else levels_T[-1])
    level_T = np.concatenate(levels_T)
    loud = np.flatnonzero(level_T > SILENT_DB)
    lead, tail = (loud[0], len(level_T) - 1 - loud[-1]) if len(loud) else (len(level_T), len(level_T))
    return Measured(
        duration_s=samples / rate_hz,
        rate_hz=rate_hz,
        peak=peak,
        clipped_frac=clipped / (samples * len(tops_K)),
        lead_s=float(lead) * FRAME_S,
        tail_s=float(tail) * FRAME_S,
        silent_frac=float(np.mean(level_T <= SILENT_DB)),
        band_hz=max(bands),
        floor_db=float(np.quantile(level_T, 0.05)),
        contrast_db=float(np.quantile(level_T, 0.95) - np.quantile(level_T, 0.05)),
        pause_db=float(np.quantile(level_T, 0.15) - np.quantile(level_T, 0.02)),
        has_noise=sum(hissing) > len(hissing) / 2,
        envelope_T=envelopes[0] if len(envelopes) == 1 else level_T - level_T.max(),
    )


def _range(path: Path, read: Iterator[Block]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(highest, negated lowest sample of each channel, samples, sample rate)."""
    highest, samples, rate_hz = list[np.ndarray](), 0, 0
    for wave_NK, file_hz in read:
        rate_hz = file_hz
        if not np.isfinite(wave_NK).all():
            raise ClipError(path, "NaN or infinite samples")
        samples += len(wave_NK)
        if len(wave_NK):
            highest.append(np.stack([wave_NK.max(0), -wave_NK.min(0)]))
    if not samples:
        raise ClipError(path, "no samples")
    tops_K, bottoms_K = np.max(highest, axis=0)
    return tops_K, bottoms_K, samples, rate_hz


def levels(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
    """Level of each 25 ms, in dB of full scale."""
    frame = max(round(FRAME_S * rate_hz), 1)
    frames = max(len(wave_N) // frame, 1)
    wave_TN = np.resize(wave_N, frames * frame).reshape(frames, frame)
    return 10 * np.log10((wave_TN.astype(np.float64) ** 2).mean(1) + 1e-12)


def hisses(wave_N: np.ndarray, rate_hz: int, level_T: np.ndarray, band: float) -> bool:
    """Whether a recording has pauses, and noise in them. A pause is a tenth of a second near the lowest level; one that
    is no longer than a hiss of speech, as in a word that is cut closely, proves nothing, nor do pauses of which none is
    longer than that between two strokes of a drum. In noise the power at each
    frequency varies from frame to frame by as much as its mean (0.7 to 1.1 where noise was added to speech, whatever
    its colour), and many frequencies share it. In music it varies by 1.6 and more, or hardly while a tone is held."""
    is_quiet_T = level_T < np.quantile(level_T, 0.05) + PAUSE_WITHIN_DB
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_quiet_T.astype(np.int8), [0]])))
    pauses = [slice(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    pauses = [pause for pause in pauses if (pause.stop - pause.start) * FRAME_S >= PAUSE_S]
    frame = max(round(FRAME_S * rate_hz), 1)
    hz_F = np.arange(frame // 2 + 1) * rate_hz / frame
    in_band_F = (hz_F >= NOISE_FROM_HZ) & (hz_F <= 0.9 * band)
    lengths_s = [(pause.stop - pause.start) * FRAME_S for pause in pauses]
    if sum(lengths_s) < HISS_S or max(lengths_s) < LONGEST_PAUSE_S or not in_band_F.any():
        return False
    wave_TN = np.resize(wave_N, len(level_T) * frame).reshape(len(level_T), frame)
    powers = [np.abs(np.fft.rfft(wave_TN[pause] * np.hanning(frame)))[:, in_band_F] ** 2 + 1e-20 for pause in pauses]
    within = np.average([_varies(power_TF) for power_TF in powers], weights=[len(power_TF) for power_TF in powers])
    power_TF = np.concatenate(powers)
    flatness = np.exp(np.log(power_TF.mean(0)).mean()) / power_TF.mean()
    return bool(within > LEAST_VARIES and _varies(power_TF) < MOST_VARIES and flatness > NOISE_FLATNESS)


def _varies(power_TF: np.ndarray) -> float:
    """How much the power at a frequency varies, as a share of its mean; the median of frequencies."""
    return float(np.median(power_TF.std(0) / power_TF.mean(0)))


def _at(wave_N: np.ndarray, top: float) -> int:
    """How many samples lie in runs of FLAT_TOP and more at the channel's highest value."""
    at_top_N = (wave_N >= top * 0.9999) & (top > 0.05)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], at_top_N.astype(np.int8), [0]])))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= FLAT_TOP].sum())


def spectrum_db(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
    """Mean power of the louder half of its windows, by frequency, in dB below the strongest."""
    windows = max(len(wave_N) // WINDOW, 1)
    wave_TN = np.resize(wave_N, windows * WINDOW).reshape(windows, WINDOW)
    power_TF = np.abs(np.fft.rfft(wave_TN * np.hanning(WINDOW))) ** 2
    loud_T = power_TF.sum(1) >= np.median(power_TF.sum(1))
    power_F = power_TF[loud_T].mean(0)
    smooth_F = np.convolve(np.pad(power_F, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return 10 * np.log10(smooth_F / max(smooth_F.max(), 1e-20) + 1e-15)


def band_hz(wave_N: np.ndarray, rate_hz: int) -> float:
    """The frequency above which a recording holds nothing, if its spectrum falls there as a filter's does; else half
    its rate."""
    if not wave_N.any():
        return rate_hz / 2
    level_F = spectrum_db(wave_N, rate_hz)
    bin_hz = rate_hz / WINDOW
    present = np.flatnonzero(level_F > -BAND_DB)
    top, width = int(present[-1]), max(round(EDGE_HZ / bin_hz), 3)
    if top + 2 * width >= len(level_F) or top < width or top * bin_hz < LEAST_BAND_HZ:
        return rate_hz / 2
    drop = level_F[top - width : top].mean() - level_F[top + width :].max()
    return top * bin_hz if drop >= EDGE_DB else rate_hz / 2


def envelope(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
    """Level of each 25 ms between the first and the last sound, in dB below the loudest."""
    level_N = np.abs(wave_N)
    sound = np.flatnonzero(level_N > SOUND_FRAC * level_N.max())
    if not level_N.any():
        return np.zeros(0)
    level_T = levels(wave_N[sound[0] : sound[-1] + 1], rate_hz)
    return level_T - level_T.max()


def is_copy(a_T: np.ndarray, b_T: np.ndarray) -> bool:
    """Whether two envelopes are those of one recording: takes of a text by one speaker differ by several dB."""
    audible_T = a_T > -COPY_RANGE_DB
    if len(a_T) != len(b_T) or audible_T.sum() < COPY_FRAMES:
        return False
    return float(np.abs(a_T - b_T)[audible_T].max()) < COPY_DB

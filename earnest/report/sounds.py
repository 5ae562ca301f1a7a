"""Demos for the page: a wav file becomes a player's data URI and a spectrogram, both embedded."""

import base64
import struct
import warnings
import wave
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import ShortTimeFFT, resample_poly

from earnest.files import read_small

RATE_HZ = 16_000  # of embedded audio
RATES_HZ = (1_000, 400_000)  # beyond these a header is broken
LARGEST_BYTES = 50_000_000
LONGEST_S = 30  # of one clip; the rest of it stays in its file
WINDOW_SAMPLES, HOP_SAMPLES = 256, 160  # 16 ms windows every 10 ms: one pixel each, 128 rows of 62.5 Hz
RANGE_DB = 80.0  # below the loudest a 16-bit file can hold, so that silence looks silent
SILENT_DB = -60.0  # RMS below this is called silent; assumed
# dark to light
_RAMP = [(8, 8, 24), (44, 20, 96), (120, 34, 120), (196, 60, 92), (240, 122, 60), (252, 196, 96), (255, 252, 220)]


@dataclass(frozen=True)
class Sound:
    """One clip, ready to embed."""

    audio_uri: str
    picture_uri: str
    length_s: float
    said: str

    @property
    def size(self) -> int:
        return len(self.audio_uri) + len(self.picture_uri)


def load(path: Path) -> Sound:
    """Read a wav file; raises ValueError or OSError where it is none."""
    stored = BytesIO(read_small(path, LARGEST_BYTES))
    try:
        with warnings.catch_warnings(action="ignore"):  # of chunks that it skips
            rate, samples = wavfile.read(stored)
    except Exception as error:  # the parser raises whatever a broken header leads it into
        raise ValueError(f"it is no wav file that can be read ({error})") from error
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise ValueError(f"its rate is {rate:,} Hz")
    wave_N, length_s, cut = _mono(samples, rate)
    if not len(wave_N):
        raise ValueError("it holds no samples")
    peak = float(np.abs(wave_N).max())
    rms_db = 20 * np.log10(max(float(np.sqrt(np.mean(wave_N**2))), 1e-9))
    parts = [f"{length_s:.1f} s", "silent" if rms_db < SILENT_DB else f"{rms_db:.0f} dBFS"]
    if peak >= 0.999:
        parts.append("reaches full scale")
    if cut:
        parts.append(f"first {LONGEST_S} s")
    return Sound(
        _uri("audio/wav", _wav(wave_N)),
        _uri("image/png", spectrogram(wave_N)),
        min(length_s, LONGEST_S),
        " · ".join(parts),
    )


def _mono(samples: np.ndarray, rate: int) -> tuple[np.ndarray, float, bool]:
    """Any wav's samples -> (16 kHz mono within ±1, its whole length in seconds, whether it was cut)."""
    length_s, cut = len(samples) / rate, len(samples) > LONGEST_S * rate
    samples = samples[: LONGEST_S * rate]
    if samples.dtype == np.uint8:
        samples = samples.astype(np.float64) / 128 - 1
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    wave_N = np.nan_to_num(
        np.asarray(samples, np.float64).reshape(len(samples), -1).mean(axis=1) if len(samples) else np.zeros(0)
    )
    if rate != RATE_HZ and len(wave_N):
        common = gcd(rate, RATE_HZ)
        wave_N = resample_poly(wave_N, RATE_HZ // common, rate // common)
    return np.clip(wave_N, -1, 1), length_s, cut


def _wav(wave_N: np.ndarray) -> bytes:
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes((wave_N * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def spectrogram(wave_N: np.ndarray) -> bytes:
    """A PNG: time to the right at 10 ms a pixel, 0 to 8 kHz upwards, brightness over 80 dB below full scale."""
    window = np.hanning(WINDOW_SAMPLES)
    padded = np.pad(wave_N, (0, max(0, WINDOW_SAMPLES - len(wave_N))))
    transform = ShortTimeFFT(window, HOP_SAMPLES, RATE_HZ, scale_to="magnitude")
    level_db = 20 * np.log10(np.abs(transform.stft(padded))[1:] + 1e-9)
    share = np.clip(level_db / RANGE_DB + 1, 0, 1)
    return _png((share[::-1] * 63).astype(np.uint8))  # 64 shades: a third of the bytes of 256, the same to the eye


def _png(pixels: np.ndarray) -> bytes:
    """(rows, columns) of 0..63 -> a palette PNG (W3C PNG, sections 11.2 and 9.2)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows, columns = pixels.shape
    ramp = np.array(_RAMP, float)
    palette = np.stack(
        [np.interp(np.linspace(0, len(ramp) - 1, 64), np.arange(len(ramp)), ramp[:, part]) for part in range(3)], axis=1
    )
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette.astype(np.uint8).tobytes()),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        ]
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

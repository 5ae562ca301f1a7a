"""Audio files in and out: path <-> wave_N, float32, one channel, in [-1, 1]."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from earnest.errors import UserError

# What libsndfile reads and names itself; `.g722` has no header and goes through the g722 package.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".g722"})
G722_HZ, G722_BITS_PER_S = 16000, 64000  # ITU-T G.722 at its usual rate; the file itself says neither


class ClipError(ValueError):
    """One clip cannot be used: which file, and why. Callers skip it and count it; see `folder.read_clips`."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(str(path), reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_wave(path: str | os.PathLike[str], sample_rate_hz: int, channels: int = 1) -> np.ndarray:
    """Read an audio file as wave_N: float32 (N,), at `sample_rate_hz`, the mean of its channels; with `channels` = 2 as
    (2, N), of a mono file twice the same.

    Any rate is resampled by soxr at its high quality. A file that was cut short is read to its end. Raises ClipError if
    the file is unreadable, holds no sample, or holds NaN or infinity; UserError if a .g722 file needs the g722 package.
    """
    path = Path(path)
    wave_NK, file_hz = _read_g722(path) if path.suffix.lower() == ".g722" else _read_soundfile(path)
    if not len(wave_NK):
        raise ClipError(path, "no samples")
    if channels == 2 and wave_NK.shape[1] > 2:
        raise ClipError(path, f"{wave_NK.shape[1]} channels, and stereo is wanted")
    wave_N = wave_NK.mean(axis=1) if channels == 1 else np.broadcast_to(wave_NK, (len(wave_NK), 2))
    if not np.isfinite(wave_N).all():
        raise ClipError(path, "NaN or infinite samples")
    if not 1000 <= file_hz <= 1_000_000:
        # A damaged header: resampling from 1 Hz would fill the memory.
        raise ClipError(path, f"a sample rate of {file_hz} Hz")
    wave_N = soxr.resample(wave_N, file_hz, sample_rate_hz)
    if not len(wave_N):
        raise ClipError(path, f"no samples at {sample_rate_hz} Hz")
    return np.ascontiguousarray(wave_N.T)


def write_wave(path: str | os.PathLike[str], wave_N: np.ndarray, sample_rate_hz: int) -> float:
    """Write wave_N (or wave_NK) as 16-bit PCM, in the format that the suffix names (.wav, .flac); return the share that
    was clipped.

    Samples outside [-1, 1) are clipped. 16-bit audio that `read_wave` returned is written back bit by bit. Raises
    ClipError if a sample is NaN or infinite: silence in its place would hide a broken model.
    """
    pcm_N, clipped_frac = _pcm(path, wave_N)
    soundfile.write(path, pcm_N, sample_rate_hz, subtype="PCM_16")
    return clipped_frac


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[np.ndarray], sample_rate_hz: int) -> Iterator[int]:
    """Write a wave that comes in pieces, as `write_wave` does; yield after each piece how many samples are written.

    A .wav grows: it is a complete file after every piece, so that it can be played, and it stays if the program ends.
    "-" is standard output, as .au, a format that needs no length at its start. Any other format is written after the
    last piece. Raises ClipError as `write_wave` does, UserError if the file cannot be written.
    """
    name, samples = str(path), 0
    if name != "-" and Path(path).suffix.lower() != ".wav":
        pieces = [np.concatenate(list(pieces))]
    for wave_N in pieces:
        pcm_N, _ = _pcm(path, wave_N)
        try:
            if name == "-":
                if not samples:
                    channels = pcm_N.shape[1] if pcm_N.ndim > 1 else 1
                    sys.stdout.buffer.write(
                        b".snd" + np.array([24, 2**32 - 1, 3, sample_rate_hz, channels], ">u4").tobytes()
                    )
                sys.stdout.buffer.write(pcm_N.astype(">i2").tobytes())
                sys.stdout.buffer.flush()
            elif not samples:
                soundfile.write(path, pcm_N, sample_rate_hz, subtype="PCM_16")
            else:
                with soundfile.SoundFile(path, "r+") as file:  # closing it sets the length in its header
                    file.seek(0, soundfile.SEEK_END)
                    file.write(pcm_N)
        except (OSError, soundfile.SoundFileError) as error:
            raise UserError(
                f"{name}: {error}", "audio that can be written there", "check folder, suffix and space on the disk"
            ) from error
        samples += len(pcm_N)
        yield samples


def _pcm(path: str | os.PathLike[str], wave_N: np.ndarray) -> tuple[np.ndarray, float]:
    """wave_N -> int16, and the share of its samples that was clipped."""
    wave_N = np.asarray(wave_N, dtype=np.float32)
    if not np.isfinite(wave_N).all():
        raise ClipError(path, "not written: NaN or infinite samples")
    scaled_N = np.rint(wave_N * 32768)
    # Full scale itself (+1.0 -> 32768) misses by one step of 65536, which nobody hears: not counted.
    clipped_frac = float(np.mean((scaled_N < -32768) | (scaled_N > 32768))) if len(scaled_N) else 0.0
    return np.clip(scaled_N, -32768, 32767).astype(np.int16), clipped_frac


def _read_soundfile(path: Path) -> tuple[np.ndarray, int]:
    if not path.is_file():
        raise ClipError(path, "no such file")
    blocks: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(path) as file:
            # In blocks, because a damaged header may claim gigabytes that are not there.
            while len(block_NK := file.read(2**20, dtype="float32", always_2d=True)):
                blocks.append(block_NK)
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(path, f"unreadable ({getattr(error, 'error_string', error)})") from error
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), file.samplerate


def _read_g722(path: Path) -> tuple[np.ndarray, int]:
    try:
        from G722 import G722
    except ImportError as error:
        raise UserError(
            f"{path}, and no g722 package", "the g722 package, to read .g722 files", "pip install g722"
        ) from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ClipError(path, f"unreadable ({error.strerror})") from error
    pcm_N = np.array(G722(G722_HZ, G722_BITS_PER_S).decode(data), dtype=np.int16)
    return pcm_N.astype(np.float32)[:, None] / 32768, G722_HZ

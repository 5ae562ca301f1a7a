"""Audio files in and out: path <-> wave_N, float32, one channel, in [-1, 1]."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from earnest.errors import UserError

log = logging.getLogger(__name__)

# What libsndfile reads and names itself
SNDFILE_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64"})
FFMPEG_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".m4b", ".webm", ".wma", ".amr", ".mka", ".3gp"})  # through PyAV
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES | {".g722"}  # which has no header and goes through the g722 package
# Samples outside [-1, 1]: up to 12 dB above it a mastering or a lossy codec went over, and the clip is divided by its
# peak; far above, samples of 16 bits were stored as they are; anything else has an unknown unit.
OVER_PEAK, LEAST_16_BIT_PEAK, FULL_SCALE_16_BIT = 4.0, 256.0, 32768.0
G722_HZ, G722_BITS_PER_S = 16000, 64000  # ITU-T G.722 at its usual rate; the file itself says neither


class ClipError(ValueError):
    """One clip cannot be used: which file, and why. Callers skip it and count it; see `folder.read_clips`."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(str(path), reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


BLOCK_SAMPLES = 2**20
SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class Segment:
    """A part of a file: from `start_s` on, for `duration_s` (None: to its end), one `channel` of it (None: all)."""

    start_s: float = 0.0
    duration_s: float | None = None
    channel: int | None = None


def read_wave(
    path: str | os.PathLike[str],
    sample_rate_hz: int,
    channels: int = 1,
    segment: Segment | None = None,
    on_scaled: Callable[[str], None] = log.warning,
) -> np.ndarray:
    """Read an audio file as wave_N: float32 (N,), at `sample_rate_hz`, the mean of its channels; with `channels` = 2 as
    (2, N), of a mono file twice the same.

    Any rate is resampled by soxr at its high quality. A file that was cut short is read to its end. Samples outside
    [-1, 1] are scaled if their unit is known, and `on_scaled` is told the file and how. Raises ClipError if the file is
    unreadable, holds no sample, holds NaN or infinity, or samples of an unknown unit; UserError if a .g722 or .m4a file
    needs a package.
    """
    path = Path(path)
    wave_NK, file_hz = read_samples(path, segment)
    if not len(wave_NK):
        raise ClipError(path, "no samples")
    if channels == 2 and wave_NK.shape[1] > 2:
        raise ClipError(path, f"{wave_NK.shape[1]} channels, and stereo is wanted")
    if not np.isfinite(wave_NK).all():
        raise ClipError(path, "NaN or infinite samples")
    if not 1000 <= file_hz <= 1_000_000:
        # A damaged header: resampling from 1 Hz would fill the memory.
        raise ClipError(path, f"a sample rate of {file_hz} Hz")
    wave_NK = _scaled(path, wave_NK, on_scaled)
    wave_N = wave_NK.mean(axis=1) if channels == 1 else np.broadcast_to(wave_NK, (len(wave_NK), 2))
    wave_N = soxr.resample(wave_N, file_hz, sample_rate_hz)
    if not len(wave_N):
        raise ClipError(path, f"no samples at {sample_rate_hz} Hz")
    return np.ascontiguousarray(wave_N.T)


def read_samples(path: Path, segment: Segment | None = None) -> tuple[np.ndarray, int]:
    """(wave_NK, sample rate) of a file or a part of it as the file has them, float32. Raises ClipError if it is
    unreadable, or ends before the part begins."""
    suffix = path.suffix.lower()
    if suffix == ".g722" or suffix in FFMPEG_SUFFIXES:
        wave_NK, file_hz = _read_g722(path) if suffix == ".g722" else _read_ffmpeg(path)
        if segment:
            start, samples = _place(path, segment, len(wave_NK), file_hz)
            wave_NK = wave_NK[start:] if samples is None else wave_NK[start : start + samples]
    else:
        wave_NK, file_hz = _read_soundfile(path, segment)
    if segment and segment.channel is not None and wave_NK.shape[1] > 1:
        wave_NK = wave_NK[:, segment.channel : segment.channel + 1]
    return wave_NK, file_hz


def cut(path: Path, wave_NK: np.ndarray, file_hz: int, segment: Segment) -> np.ndarray:
    """A part of a file that was read whole."""
    start, samples = _place(path, segment, len(wave_NK), file_hz)
    if segment.channel is not None:
        wave_NK = wave_NK[:, segment.channel : segment.channel + 1] if wave_NK.shape[1] > 1 else wave_NK
    return wave_NK[start:] if samples is None else wave_NK[start : start + samples]


def opened_as(path: str | Path) -> Any:
    """A path as soundfile takes it: it encodes names strictly, and on POSIX a name need not be UTF-8 (its types know no
    bytes)."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def length_s(path: Path, segment: Segment | None = None) -> float | None:
    """How long a clip is, without reading it: as its header says, or as its list does; None if that is not known."""
    if segment and segment.duration_s is not None:
        return segment.duration_s
    try:
        info = soundfile.info(opened_as(path))
    except (soundfile.SoundFileError, OSError):
        return None
    # a damaged header may claim more than the file can hold
    held = path.stat().st_size / (SAMPLE_BYTES[info.subtype] * info.channels) if info.subtype in SAMPLE_BYTES else None
    samples = info.frames if held is None else min(info.frames, held)
    return samples / info.samplerate - (segment.start_s if segment else 0)


def _place(path: Path, segment: Segment, samples: int, file_hz: int) -> tuple[int, int | None]:
    """First sample of a part, and how many (None: all that follow)."""
    start = round(segment.start_s * file_hz)
    if start < 0 or start >= max(samples, 1):
        raise ClipError(path, f"{samples / file_hz:.2f} s long, and the clip begins at {segment.start_s:g} s")
    return start, None if segment.duration_s is None else round(segment.duration_s * file_hz)


def _scaled(path: Path, wave_NK: np.ndarray, on_scaled: Callable[[str], None]) -> np.ndarray:
    peak = float(np.abs(wave_NK).max())
    if peak <= 1:
        return wave_NK
    if peak <= OVER_PEAK:
        on_scaled(f"{path} (peak {peak:.3g}, divided by it)")
        return wave_NK / np.float32(peak)
    if LEAST_16_BIT_PEAK <= peak <= FULL_SCALE_16_BIT:
        on_scaled(f"{path} (samples of 16 bits up to {peak:.0f}, divided by {FULL_SCALE_16_BIT:.0f})")
        return wave_NK / np.float32(FULL_SCALE_16_BIT)
    raise ClipError(path, f"samples up to {peak:.6g}, which are neither in [-1, 1] nor of 16 bits")


def write_wave(path: str | os.PathLike[str], wave_N: np.ndarray, sample_rate_hz: int) -> float:
    """Write wave_N (or wave_NK) in the format that the suffix names, as 16-bit PCM if it can be; return the share that
    was clipped.

    Samples outside [-1, 1) are clipped. 16-bit audio that `read_wave` returned is written back bit by bit. Raises
    ClipError if a sample is NaN or infinite: silence in its place would hide a broken model.
    """
    pcm_N, clipped_frac = _pcm(path, wave_N)
    written_as = check_output(path)
    soundfile.write(path, pcm_N, sample_rate_hz, format=written_as.format, subtype=written_as.subtype)
    return clipped_frac


class WrittenAs(NamedTuple):
    """soundfile's names of a format, and of how it stores samples; None for its own choice."""

    format: str | None = None
    subtype: str | None = None


def check_output(path: str | os.PathLike[str]) -> WrittenAs:
    """The format that a file's name asks for, with samples as 16-bit PCM, or as the format has them (.mp3).

    Raises UserError, before anything is made, for a format that cannot be written and a folder that is not there.
    """
    path = Path(path)
    if str(path) == "-":
        return WrittenAs()
    format = path.suffix.lower().removeprefix(".").replace("aif", "aiff").replace("aifff", "aiff").upper()
    format = {"OGA": "OGG", "OPUS": "OGG"}.get(format, format)
    if format not in soundfile.available_formats() or format == "RAW":
        raise UserError(
            f"{path}", "a name that ends in .wav, .flac, .mp3 or .ogg", "rename it: the end names the format"
        )
    if not path.parent.is_dir() or path.is_dir():
        where = f"{path} is a directory" if path.is_dir() else f"no directory {path.parent}"
        raise UserError(where, "a file in a directory that is there", "make the directory, or name another file")
    subtype = "PCM_16" if soundfile.check_format(format, "PCM_16") else None
    return WrittenAs(format, "OPUS" if path.suffix.lower() == ".opus" else subtype)


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[np.ndarray], sample_rate_hz: int) -> Iterator[int]:
    """Write a wave that comes in pieces, as `write_wave` does; yield after each piece how many samples are written.

    A .wav grows: it is a complete file after every piece, so that it can be played, and it stays if the program ends.
    "-" is standard output, as .au, a format that needs no length at its start. Any other format is written after the
    last piece. Raises ClipError as `write_wave` does, UserError if the file cannot be written.
    """
    name, samples, written_as = str(path), 0, check_output(path)
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
                soundfile.write(path, pcm_N, sample_rate_hz, format=written_as.format, subtype=written_as.subtype)
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


def _read_soundfile(path: Path, segment: Segment | None = None) -> tuple[np.ndarray, int]:
    if not path.is_file():
        raise ClipError(path, "no such file")
    blocks: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(opened_as(path)) as file:
            start, left = _place(path, segment, file.frames, file.samplerate) if segment else (0, None)
            if start:
                file.seek(start)
            # In blocks, because a damaged header may claim gigabytes that are not there.
            size = BLOCK_SAMPLES if left is None else min(BLOCK_SAMPLES, left)
            while len(block_NK := file.read(size, dtype="float32", always_2d=True)):
                blocks.append(block_NK)
                left = left if left is None else left - len(block_NK)
                size = BLOCK_SAMPLES if left is None else min(BLOCK_SAMPLES, left)
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(path, f"unreadable ({getattr(error, 'error_string', error)})") from error
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), file.samplerate


def _read_ffmpeg(path: Path) -> tuple[np.ndarray, int]:
    try:
        import av
        import av.error
    except ImportError as error:
        raise UserError(
            f"{path}, and no av package", f"PyAV, to read {path.suffix} files", 'pip install "earnest[train]"'
        ) from error
    if not path.is_file():
        raise ClipError(path, "no such file")
    blocks: list[np.ndarray] = []
    file_hz = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ClipError(path, "no audio in it")
            for frame in container.decode(container.streams.audio[0]):
                if not file_hz:
                    file_hz, layout = frame.sample_rate, frame.layout
                    planar = av.AudioResampler("fltp", layout, file_hz)
                blocks += [block.to_ndarray().T for block in planar.resample(frame)]
    except (av.error.FFmpegError, OSError) as error:
        raise ClipError(path, f"unreadable ({' '.join(str(error).split())[:100]})") from error
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), file_hz


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

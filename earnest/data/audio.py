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
# Samples outside [-1, 1]. Up to 12 dB over: mastering or a lossy codec overshot, and the clip is divided by its peak.
# Between 256 and 32768: 16-bit samples that were stored without scaling. Anything else is in an unknown unit.
OVER_PEAK, LEAST_16_BIT_PEAK, FULL_SCALE_16_BIT = 4.0, 256.0, 32768.0
G722_HZ, G722_BITS_PER_S = 16000, 64000  # ITU-T G.722 at its usual rate; the file itself says neither


class ClipError(ValueError):
    """One clip cannot be used: which file, and why. Callers skip it and count it; see `decoding.read_clips`."""

    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(str(path), reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


BLOCK_SAMPLES = 2**20
Block = tuple[np.ndarray, int]  # block_NK, and the sample rate of the file
LONG_S = 300  # a longer file is read in pieces
LEAST_BYTES_PER_S, USUAL_BYTES_PER_S = 500, 4000  # of speech, packed as tightly as may be; of m4a
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
    if is_long(path, segment):
        return np.concatenate(list(wave_pieces(path, sample_rate_hz, channels, segment, on_scaled)), axis=-1)
    wave_NK, file_hz = read_samples(path, segment)
    if not len(wave_NK):
        raise ClipError(path, "no samples")
    _check_block(path, wave_NK, file_hz, channels)
    scale = _scale(path, float(np.abs(wave_NK).max()), on_scaled)
    wave_NK = wave_NK / np.float32(scale) if scale != 1 else wave_NK
    wave_N = wave_NK.mean(axis=1) if channels == 1 else np.broadcast_to(wave_NK, (len(wave_NK), 2))
    wave_N = soxr.resample(wave_N, file_hz, sample_rate_hz)
    if not len(wave_N):
        raise ClipError(path, f"no samples at {sample_rate_hz} Hz")
    return np.ascontiguousarray(wave_N.T)


def read_samples(path: Path, segment: Segment | None = None) -> tuple[np.ndarray, int]:
    """(wave_NK, sample rate) of a file or a part of it as the file has them, float32. Raises ClipError if it is
    unreadable, or ends before the part begins."""
    read = list(blocks(path, segment))
    waves = [block_NK for block_NK, _ in read]
    return (np.concatenate(waves), read[0][1]) if waves else (np.zeros((0, 1), np.float32), 0)


def blocks(path: Path, segment: Segment | None = None) -> Iterator[Block]:
    """(block_NK, sample rate) of a file or a part of it, some 2^20 samples at a time. Raises as `read_samples`."""
    suffix = path.suffix.lower()
    if suffix == ".g722" or suffix in FFMPEG_SUFFIXES:
        read = _g722_blocks(path) if suffix == ".g722" else _ffmpeg_blocks(path)
        read = _part_of(path, read, segment) if segment else read
    else:
        read = _soundfile_blocks(path, segment)
    channel = segment.channel if segment else None
    for block_NK, file_hz in read:
        yield block_NK if channel is None or block_NK.shape[1] == 1 else block_NK[:, channel : channel + 1], file_hz


def is_long(path: Path, segment: Segment | None = None) -> bool:
    """Whether a clip is longer than LONG_S, or its length is not known and it is large. A small file is not opened."""
    try:
        size = path.stat().st_size if path.is_file() else 0
    except OSError:
        return False
    if size < LONG_S * LEAST_BYTES_PER_S:
        return False
    seconds = length_s(path, segment)
    return size > LONG_S * USUAL_BYTES_PER_S if seconds is None else seconds > LONG_S


def wave_pieces(
    path: Path,
    sample_rate_hz: int,
    channels: int = 1,
    segment: Segment | None = None,
    on_scaled: Callable[[str], None] = log.warning,
) -> Iterator[np.ndarray]:
    """What `read_wave` reads, (N,) or (channels, N), one piece after the other: the file is read twice, for its peak
    first, and never held whole. Raises as `read_wave`."""
    peak, samples, file_hz, file_channels = 0.0, 0, 0, 1
    for block_NK, file_hz in blocks(path, segment):
        _check_block(path, block_NK, file_hz, channels)
        samples, file_channels = samples + len(block_NK), block_NK.shape[1]
        peak = max(peak, float(np.abs(block_NK).max(initial=0)))
    if not samples:
        raise ClipError(path, "no samples")
    scale = _scale(path, peak, on_scaled)
    stream = soxr.ResampleStream(file_hz, sample_rate_hz, channels, dtype="float32")
    for block_NK, _ in blocks(path, segment):
        block_NK = block_NK / np.float32(scale) if scale != 1 else block_NK
        mixed_N = block_NK.mean(axis=1) if channels == 1 else np.repeat(block_NK, channels // file_channels, axis=1)
        yield np.ascontiguousarray(stream.resample_chunk(mixed_N).T)
    last = stream.resample_chunk(np.zeros((0,) if channels == 1 else (0, channels), np.float32), last=True)
    yield np.ascontiguousarray(last.T)


def opened_as(path: str | Path) -> Any:
    """A path as soundfile takes it. soundfile encodes text as UTF-8, which a POSIX name need not be, so it gets bytes;
    its type hints do not allow them, hence Any."""
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
    is_plain = info.subtype in SAMPLE_BYTES and info.format != "FLAC"
    held = path.stat().st_size / (SAMPLE_BYTES[info.subtype] * info.channels) if is_plain else None
    samples = info.frames if held is None else min(info.frames, held)
    return samples / info.samplerate - (segment.start_s if segment else 0)


def _place(path: Path, segment: Segment, samples: int, file_hz: int) -> tuple[int, int | None]:
    """First sample of a part, and how many (None: all that follow)."""
    start = round(segment.start_s * file_hz)
    if start < 0 or start >= max(samples, 1):
        raise ClipError(path, f"{samples / file_hz:.2f} s long, and the clip begins at {segment.start_s:g} s")
    return start, None if segment.duration_s is None else round(segment.duration_s * file_hz)


def _check_block(path: Path, wave_NK: np.ndarray, file_hz: int, channels: int) -> None:
    if channels == 2 and wave_NK.shape[1] > 2:
        raise ClipError(path, f"{wave_NK.shape[1]} channels, and stereo is wanted")
    if not np.isfinite(wave_NK).all():
        raise ClipError(path, "NaN or infinite samples")
    if not 1000 <= file_hz <= 1_000_000:
        # A damaged header: resampling from 1 Hz would fill the memory.
        raise ClipError(path, f"a sample rate of {file_hz} Hz")


def _scale(path: Path, peak: float, on_scaled: Callable[[str], None]) -> float:
    """What samples are divided by, to lie in [-1, 1]. Raises ClipError for samples of an unknown unit."""
    if peak <= 1:
        return 1.0
    if peak <= OVER_PEAK:
        on_scaled(f"{path} (peak {peak:.3g}, divided by it)")
        return peak
    if LEAST_16_BIT_PEAK <= peak <= FULL_SCALE_16_BIT:
        on_scaled(f"{path} (samples of 16 bits up to {peak:.0f}, divided by {FULL_SCALE_16_BIT:.0f})")
        return FULL_SCALE_16_BIT
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
    ending = path.suffix.removeprefix(".").upper()
    format = {"AIF": "AIFF", "OGA": "OGG", "OPUS": "OGG"}.get(ending, ending)
    if format not in soundfile.available_formats() or format == "RAW":
        raise UserError(
            f"{path}", "a name that ends in .wav, .flac, .mp3 or .ogg", "rename it: its ending selects the format"
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
                    header = [24, 2**32 - 1, 3, sample_rate_hz, channels]  # its bytes, length unknown, 16-bit PCM
                    sys.stdout.buffer.write(b".snd" + np.array(header, ">u4").tobytes())
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


def _soundfile_blocks(path: Path, segment: Segment | None) -> Iterator[Block]:
    if not path.is_file():
        raise ClipError(path, "a directory" if path.is_dir() else "no such file")
    if not path.stat().st_size:
        raise ClipError(path, "an empty file, of 0 bytes")
    try:
        with soundfile.SoundFile(opened_as(path)) as file:
            start, left = _place(path, segment, file.frames, file.samplerate) if segment else (0, None)
            if start:
                file.seek(start)
            # In blocks, because a damaged header may claim gigabytes that are not there.
            size = BLOCK_SAMPLES if left is None else min(BLOCK_SAMPLES, left)
            yield np.zeros((0, file.channels), np.float32), file.samplerate
            while len(block_NK := file.read(size, dtype="float32", always_2d=True)):
                yield block_NK, file.samplerate
                left = left if left is None else left - len(block_NK)
                size = BLOCK_SAMPLES if left is None else min(BLOCK_SAMPLES, left)
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(path, f"unreadable ({getattr(error, 'error_string', error)})") from error


def _part_of(path: Path, blocks: Iterator[Block], segment: Segment) -> Iterator[Block]:
    """A part of a file that can only be read from its beginning."""
    start_s, at, file_hz, end = segment.start_s, 0, 0, None
    for block_NK, file_hz in blocks:
        start = round(start_s * file_hz)
        end = None if segment.duration_s is None else start + round(segment.duration_s * file_hz)
        yield block_NK[max(start - at, 0) : None if end is None else max(end - at, 0)], file_hz
        at += len(block_NK)
        if end is not None and at >= end:
            return
    if file_hz:
        _place(path, segment, at, file_hz)


def _ffmpeg_blocks(path: Path) -> Iterator[Block]:
    try:
        import av
        import av.error
    except ImportError as error:
        raise UserError(
            f"{path}, and no av package", f"PyAV, to read {path.suffix} files", 'pip install "earnest[train]"'
        ) from error
    if not path.is_file():
        raise ClipError(path, "no such file")
    held, samples = list[np.ndarray](), 0
    file_hz, resampler = 0, None
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ClipError(path, "no audio in it")
            for frame in container.decode(container.streams.audio[0]):
                if resampler is None:
                    file_hz = frame.sample_rate
                    resampler = av.AudioResampler("fltp", frame.layout, file_hz)
                held += [block.to_ndarray().T for block in resampler.resample(frame)]
                samples += frame.samples
                if samples >= BLOCK_SAMPLES:
                    yield np.concatenate(held), file_hz
                    held, samples = [], 0
    except (av.error.FFmpegError, OSError) as error:
        raise ClipError(path, f"unreadable ({' '.join(str(error).split())[:100]})") from error
    if held:
        yield np.concatenate(held), file_hz


def _g722_blocks(path: Path) -> Iterator[Block]:
    try:
        from G722 import G722
    except ImportError as error:
        raise UserError(
            f"{path}, and no g722 package", "the g722 package, to read .g722 files", "pip install g722"
        ) from error
    if not path.is_file():
        raise ClipError(path, "no such file")
    decoder: Any = G722(G722_HZ, G722_BITS_PER_S)
    try:
        with open(path, "rb") as file:
            while data := file.read(BLOCK_SAMPLES // 2):
                pcm_N = np.array(decoder.decode(data), dtype=np.int16)
                yield pcm_N.astype(np.float32)[:, None] / 32768, G722_HZ
    except OSError as error:
        raise ClipError(path, f"unreadable ({error.strerror})") from error

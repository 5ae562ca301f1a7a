"""Waves of clips on disk: training reads the stretch that a step sees, and memory does not grow with the corpus."""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import groupby
from threading import Lock
from typing import overload

import numpy as np

from earnest.data.audio import ClipError, is_long, wave_pieces
from earnest.data.clip import Clip, log_left_out
from earnest.data.decoding import read_clips, skip
from earnest.errors import UserError
from earnest.files import cache_dir

FULL_SCALE = np.float32(32767)


class StoredWave:
    """One wave on disk. Of it, `wave[start:stop]` is read; `wave[:]` is all of it."""

    def __init__(self, waves: "Waves", start: int, samples: int):
        self._waves, self._start, self._samples = waves, start, samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._samples)
        return self._waves.read(self._start + start, max(stop - start, 0))[::step]


class Waves(Sequence[StoredWave]):
    """Waves in [-1, 1], one after the other in a file of the cache directory that has no name: it goes with the
    process, however that ends. `in_16_bits` halves it: samples are int16 then, full scale is 32767; else float32.

    Raises UserError if the disk is full or cannot be written.
    """

    def __init__(self, in_16_bits: bool = False):
        self._stored = np.dtype(np.int16 if in_16_bits else np.float32)
        self._rounds, self._most = in_16_bits, sys.maxsize
        self._starts, self._lengths, self._end = list[int](), list[int](), 0
        self._lock = Lock()  # of the file's position
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=cache_dir())  # noqa: SIM115 - it closes with its last user
        except OSError as error:
            raise _no_room(error) from error

    def add(self, pieces: Iterable[np.ndarray]) -> None:
        """A wave, float32, that comes in pieces. If they raise, nothing of it is kept."""
        end = self._end
        for piece_N in pieces:
            with self._lock:
                try:
                    self._file.seek(end * self._stored.itemsize)
                    self._file.write((_in_16_bits(piece_N) if self._rounds else piece_N).tobytes())
                    self._file.flush()
                except OSError as error:
                    raise _no_room(error) from error
            end += len(piece_N)
        self._starts.append(self._end)
        self._lengths.append(end - self._end)
        self._end = end

    def cut(self, samples: int) -> "Waves":
        """The same waves, of each at most its first `samples`; nothing is copied."""
        shorter = copy(self)
        shorter._most = samples
        return shorter

    def in_16_bits(self) -> "Waves":
        """The same waves, read as int16; nothing is copied."""
        rounded = copy(self)
        rounded._rounds = True
        return rounded

    def read(self, start: int, samples: int) -> np.ndarray:
        """Samples of the file, whosever they are. Raises OSError if it cannot be read."""
        wave_N = np.empty(samples, self._stored)
        with self._lock:
            self._file.seek(start * self._stored.itemsize)
            if self._file.readinto(wave_N.data.cast("B")) != wave_N.nbytes:
                raise OSError(f"the file of waves in {cache_dir()} ends early")
        return _in_16_bits(wave_N) if self._rounds and self._stored == np.float32 else wave_N

    @property
    def samples(self) -> int:
        return sum(min(length, self._most) for length in self._lengths)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> StoredWave: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredWave]: ...
    def __getitem__(self, index: int | slice) -> StoredWave | list[StoredWave]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return StoredWave(self, self._starts[index], min(self._lengths[index], self._most))


def store_waves(
    clips: Iterable[Clip], waves: Waves, sample_rate_hz: int, skipped: list[ClipError], total: int
) -> list[Clip]:
    """Add the clips' waves, one channel, at `sample_rate_hz`; -> the clips that can be used. A long clip is never held
    whole. A clip that cannot be used is counted as `read_clips` does, which raises UserError if there are too many."""
    kept = list[Clip]()
    for long, group in groupby(clips, lambda clip: is_long(clip.path, clip.segment)):
        if not long:
            for clip, wave_N in read_clips(group, sample_rate_hz, skipped, total):
                waves.add([wave_N])
                kept.append(clip)
            continue
        for clip in group:
            try:
                waves.add(wave_pieces(clip.path, sample_rate_hz, 1, clip.segment))
                kept.append(clip)
            except ClipError as error:
                skip(error, skipped, total)
                log_left_out("that cannot be used", [str(error)])
    return kept


def _in_16_bits(wave_N: np.ndarray) -> np.ndarray:
    return np.rint(wave_N.clip(-1, 1) * FULL_SCALE).astype(np.int16)


def _no_room(error: OSError) -> UserError:
    return UserError(
        f"{cache_dir()}: {error.strerror or error}",
        "a disk that takes the waves of the clips while the codec trains: 115 MB an hour at 16 kHz, twice that beside "
        "a teacher",
        "free space, or set EARNEST_CACHE to a folder on another disk",
    )

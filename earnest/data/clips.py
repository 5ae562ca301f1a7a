"""The clips of a large corpus in columns: each takes the bytes of its name and text, and a `Clip` object 600 more."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast, overload

import msgspec
import numpy as np

from earnest.data.audio import Segment
from earnest.data.clip import Clip

Item = TypeVar("Item")
OWN = ("name", "text", "tags", "words")  # of each clip
SHARED = ("speaker", "language", "split", "source")  # with many others


class Clips(Sequence[Clip]):
    """A sequence that makes each `Clip` when it is asked for, equal to the one that was given. What clips share
    (speaker, language, folder) is kept once; parts of files are few, so their segments are in a dictionary."""

    def __init__(self, columns: "_Columns", segments: Mapping[int, Segment], place_N: np.ndarray):
        """place_N: which clips of the columns these are; segments: place in the columns -> which part of its file the
        clip is."""
        self._columns, self._segments, self._place_N = columns, segments, place_N

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "Clips":
        """These clips, in their order."""
        columns, segments = _Columns(), dict[int, Segment]()
        for place, clip in enumerate(clips):
            columns.add(clip)
            if clip.segment:
                segments[place] = clip.segment
        return cls(columns, segments, np.arange(len(columns), dtype=np.int32))

    def take(self, places: Sequence[int] | np.ndarray) -> "Clips":
        """Some of these clips, by their places here."""
        return Clips(self._columns, self._segments, self._place_N[np.asarray(places, np.int32)])

    def with_segments(self, segments: Mapping[int, Segment]) -> "Clips":
        """The same clips; those whose places here are in `segments` become that part of their file."""
        own = {int(self._place_N[place]): segment for place, segment in segments.items()}
        return Clips(self._columns, {**self._segments, **own}, self._place_N)

    def __len__(self) -> int:
        return len(self._place_N)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "Clips": ...
    def __getitem__(self, index: int | slice) -> "Clip | Clips":
        if isinstance(index, slice):
            return Clips(self._columns, self._segments, self._place_N[index])
        place = int(self._place_N[index])
        return self._columns.clip(place, self._segments.get(place))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))


def taken(clips: Sequence[Item], places: Sequence[int] | np.ndarray) -> Sequence[Item]:
    """The items at these places; if they are `Clips`, no `Clip` is made."""
    if isinstance(clips, Clips):
        return cast(Sequence[Item], clips.take(places))
    return [clips[int(place)] for place in places]


class _Columns:
    """Fields of clips: own texts one after the other in one block of bytes, shared ones as numbers into a list."""

    def __init__(self) -> None:
        self.block, self.ends = bytearray(), array("Q", [0])
        self.numbers = {name: dict[str, int]() for name in (*SHARED, "folder")}
        self.values = {name: list[str]() for name in self.numbers}
        self.shared = {name: array("i") for name in self.numbers}

    def __len__(self) -> int:
        return len(self.ends) - 1

    def add(self, clip: Clip) -> None:
        path = str(clip.path)
        folder = path.removesuffix(clip.name)
        file = "" if folder != path and folder else path  # the folder and the name say it, or the path is kept
        own = [getattr(clip, name) for name in OWN]
        self.block += msgspec.msgpack.encode([text.encode(errors="surrogateescape") for text in (*own, file)])
        self.ends.append(len(self.block))
        cells = {name: getattr(clip, name) or "" for name in SHARED} | {"folder": "" if file else folder}
        for name, cell in cells.items():
            number = self.numbers[name].setdefault(cell, len(self.values[name]))
            if number == len(self.values[name]):
                self.values[name].append(cell)
            self.shared[name].append(number)

    def clip(self, place: int, segment: Segment | None) -> Clip:
        start, end = self.ends[place], self.ends[place + 1]
        cells = msgspec.msgpack.decode(memoryview(self.block)[start:end], type=list[bytes])
        *own, file = (cell.decode(errors="surrogateescape") for cell in cells)
        name, text, tags, words = own
        speaker, language, split, source = (self.values[kind][self.shared[kind][place]] for kind in SHARED)
        path = Path(file or self.values["folder"][self.shared["folder"][place]] + name)
        return Clip(path, name, text, speaker, language, tags, split or None, source, words, segment)

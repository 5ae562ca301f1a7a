"""The clips of a large corpus without an object for each, and without their words in memory: they lie in a mapped
file, in which a clip is 4 bytes here."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import eq
from pathlib import Path
from typing import TypeVar, cast, overload

import msgspec
import numpy as np

from earnest.data.audio import Segment
from earnest.data.clip import Clip
from earnest.files import mapped

Item = TypeVar("Item")
OWN = ("name", "text", "tags", "words")  # of each clip
SHARED = ("speaker", "language", "split", "source")  # with many others
MOST_SHARED = 2**16  # values that are kept once; what goes beyond them (a speaker for each clip) is written out
DECODER = msgspec.msgpack.Decoder(list[int | bytes])


class Clips(Sequence[Clip]):
    """A sequence that makes each `Clip` when it is asked for, equal to the one that was given. Parts of files are few,
    so their segments are in a dictionary."""

    def __init__(self, records: "_Records", segments: Mapping[int, Segment], place_N: np.ndarray):
        """place_N: which of the records these are; segments: place in the records -> which part of its file the
        clip is."""
        self._records, self._segments, self._place_N = records, segments, place_N

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "Clips":
        """These clips, in their order."""
        if isinstance(clips, Clips):
            return clips
        segments = dict[int, Segment]()
        records = _Records(clips, segments)
        return cls(records, segments, np.arange(len(records), dtype=np.int32))

    def take(self, places: Sequence[int] | np.ndarray) -> "Clips":
        """Some of these clips, by their places here."""
        return Clips(self._records, self._segments, self._place_N[np.asarray(places, np.int32)])

    def with_segments(self, segments: Mapping[int, Segment]) -> "Clips":
        """The same clips; those whose places here are in `segments` become that part of their file."""
        own = {int(self._place_N[place]): segment for place, segment in segments.items()}
        return Clips(self._records, {**self._segments, **own}, self._place_N)

    def __len__(self) -> int:
        return len(self._place_N)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "Clips": ...
    def __getitem__(self, index: int | slice) -> "Clip | Clips":
        if isinstance(index, slice):
            return Clips(self._records, self._segments, self._place_N[index])
        place = int(self._place_N[index])
        return self._records.clip(place, self._segments.get(place))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence holds equal clips."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(cast(Sequence[object], other)) and all(map(eq, self, cast(Sequence[object], other)))

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def taken(clips: Sequence[Item], places: Sequence[int] | np.ndarray) -> Sequence[Item]:
    """The items at these places; if they are `Clips`, no `Clip` is made."""
    if isinstance(clips, Clips):
        return cast(Sequence[Item], clips.take(places))
    return [clips[int(place)] for place in places]


class _Records:
    """Clips in a file: of each a list in MessagePack, in which a number stands for a value that others have too."""

    def __init__(self, clips: Iterable[Clip], segments: dict[int, Segment]):
        """segments: is given those of clips that are parts of files, by their places."""
        self.values = {name: list[bytes]() for name in (*SHARED, "folder")}
        ends = array("Q", [0])
        self._block = mapped(self._written(clips, segments, ends))
        self._end_N = np.frombuffer(mapped([ends.tobytes()]), np.uint64)

    def __len__(self) -> int:
        return len(self._end_N) - 1

    def _written(self, clips: Iterable[Clip], segments: dict[int, Segment], ends: "array[int]") -> Iterator[bytes]:
        numbers = {name: dict[bytes, int]() for name in self.values}
        for place, clip in enumerate(clips):
            if clip.segment:
                segments[place] = clip.segment
            path = str(clip.path)
            folder = path.removesuffix(clip.name)
            file = "" if folder != path and folder else path  # the folder and the name say it, or the path is kept
            cells = [_bytes(getattr(clip, name) or "") for name in SHARED] + [_bytes("" if file else folder)]
            shared = (
                self._number(numbers[name], cell, self.values[name])
                for name, cell in zip(self.values, cells, strict=True)
            )
            own = (_bytes(text) for text in (*(getattr(clip, name) for name in OWN), file))
            record = msgspec.msgpack.encode([*shared, *own])
            ends.append(ends[-1] + len(record))
            yield record

    @staticmethod
    def _number(numbers: dict[bytes, int], cell: bytes, values: list[bytes]) -> int | bytes:
        if cell not in numbers:
            if len(values) == MOST_SHARED:
                return cell
            numbers[cell] = len(values)
            values.append(cell)
        return numbers[cell]

    def clip(self, place: int, segment: Segment | None) -> Clip:
        cells = DECODER.decode(memoryview(self._block)[self._end_N[place] : self._end_N[place + 1]])
        speaker, language, split, source, folder = (
            _text(values[cell] if isinstance(cell, int) else cast(bytes, cell))
            for values, cell in zip(self.values.values(), cells, strict=False)
        )
        name, text, tags, words, file = (_text(cast(bytes, cell)) for cell in cells[len(self.values) :])
        path = Path(file or folder + name)
        return Clip(path, name, text, speaker, language, tags, split or None, source, words, segment)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _text(cell: bytes) -> str:
    return cell.decode(errors="surrogatepass")

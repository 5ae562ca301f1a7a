"""Logs of lines, read as they grow: what was read of one is kept, and only what was appended is read again.

What is kept ends with a whole line, and holds only as long as the file still begins with the same bytes. A log whose
columns cannot be told from a piece (`Reader.steady`) is read whole each time, as is what is packed, joined or damaged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from earnest.logs.log import Log
from earnest.logs.source import BLOCK_BYTES, CUT, HEAD_BYTES, LARGEST_TEXT_BYTES, Source, cut_within_a_number

BEFORE_BYTES = 1000  # the last that were read, by which a file is known again
PACKED = (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")  # gzip, and UTF-8 or UTF-16 with a mark


class Reader(Protocol):
    """Whole lines -> a log. notes: what was repaired or left out · steady: whether a piece of the log reads as it does
    within the whole."""

    notes: list[str]
    steady: bool

    def block(self, block: bytes) -> None:
        """Lines that follow those before; the last of the log may lack its end."""
        ...

    def copy(self) -> Self:
        """A reader that goes on by itself."""
        ...

    def log(self, source: Source) -> Log:
        """What was read; the reader is used up. source: what it was read from; messages are added to it."""
        ...


@dataclass(frozen=True)
class Kept:
    """A reader of the first `end` bytes of a file, and its bytes at the beginning and before `end`."""

    reader: Reader
    end: int
    head: bytes
    before: bytes


class Progress:
    """What was read of each file, for whoever reads them again and again."""

    def __init__(self) -> None:
        self.kept: dict[Path, Kept] = {}
        self.bytes_read = 0


def read(source: Source, begin: Callable[[Source], Reader]) -> Log:
    """The log of a source; with `source.progress`, from where that has come to."""
    followed = _appended(source, begin, source.progress) if source.progress is not None else None
    if followed is not None:
        return _told(followed, source)
    reader = begin(source)
    for block in source.lines():
        reader.block(block)
    return _told(reader, source)


def _told(reader: Reader, source: Source) -> Log:
    log = reader.log(source)
    log.notes = [*source.notes, *log.notes]
    return log


def _appended(source: Source, begin: Callable[[Source], Reader], progress: Progress) -> Reader | None:
    """The reader after the whole file, of which only the new part was read; None if the whole must be read."""
    kept = progress.kept.pop(source.path, None)
    head = source.raw
    if type(source) is not Source or len(head) < HEAD_BYTES or head.startswith(PACKED) or b"\0" in head:
        return None
    if kept is None or kept.head != head or not _goes_on(source.path, kept):
        kept = Kept(begin(source), 0, head, b"")
    reader, end, before, rest = kept.reader, kept.end, kept.before, b""
    for raw in _from(source.path, end):
        progress.bytes_read += len(raw)
        rest += raw
        cut = rest.rfind(b"\n") + 1
        if cut:
            reader.block(rest[:cut])
            end, before, rest = end + cut, rest[:cut][-BEFORE_BYTES:], rest[cut:]
        if b"\0" in raw or len(rest) > BLOCK_BYTES or end > LARGEST_TEXT_BYTES or not reader.steady:
            return None
    progress.kept[source.path] = Kept(reader, end, head, before)
    reader = reader.copy()
    if cut_within_a_number(before, rest):
        source.notes.append(CUT)
    elif rest:
        reader.block(rest)
    return reader if reader.steady else None


def _goes_on(path: Path, kept: Kept) -> bool:
    """Whether what was read is still there."""
    with open(path, "rb") as file:
        file.seek(kept.end - len(kept.before))
        return file.read(len(kept.before)) == kept.before


def _from(path: Path, start: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(BLOCK_BYTES):
            yield block

"""`Source`: a file read in bounded memory, and a plain word for what it is if it cannot be a log.

Gzip is undone on the way (RFC 1952), UTF-16 and byte-order marks become UTF-8, NUL bytes (a disk's holes after a crash)
are left out.
"""

import codecs
import errno
import gzip
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from earnest.errors import UserError
from earnest.files import open_regular
from earnest.messages import Message

if TYPE_CHECKING:
    from earnest.logs.pieces import Progress

HEAD_BYTES = 1 << 16
WIDE_HEAD_BYTES = 4 << 20
MOST_HOLE = 2048  # heads of nothing but NUL bytes that are passed over, 128 MiB
BEGINNING_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
LONGEST_LINE_BYTES = 64 << 20
# assumed: a text log above this is thinned by its owner; binary logs are skipped through instead
LARGEST_TEXT_BYTES = 2 << 30
LARGEST_RATIO = 500  # assumed: text logs shrink 5 to 40 times under gzip, a bomb a thousand times
# colours and titles of a terminal, and steps back: no part of the text
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b\n]{0,200}\x07|[\x08]")
CUT = "the last line is cut short and was left out"
HOLE = "the file goes over into NUL bytes (a disk's hole after a crash?); reading stopped there"
EXPECTED = "a training log: numbers with names, over steps"
FIX = "pass the log that your trainer wrote, or the directory that holds it"
MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive (a .pt checkpoint is one too)",
    b"\x7fELF": "a program",
    b"RIFF": "a WAVE or other RIFF file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"ID3": "an MP3 file",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format 3\0": "an SQLite database, not Trackio's",
    b"\x93NUMPY": "a numpy array",
    b"\x80\x02": "a pickle (never opened: it could run code)",
    b"\x80\x04": "a pickle (never opened: it could run code)",
    b"\x89HDF": "an HDF5 file",
}


@contextmanager
def standard_input() -> Generator[Path, None, None]:
    """What is piped in, as a file for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path, left = Path(folder) / "standard input", LARGEST_TEXT_BYTES + 1
        with open(path, "wb") as file:
            while left > 0 and (block := sys.stdin.buffer.read(min(BLOCK_BYTES, left))):
                file.write(block)
                left -= len(block)
        yield path


class Source:
    """One file or directory; `head` is its beginning, unpacked, and in UTF-8 if it is text.

    notes: what was repaired or left out on reading · messages: what the log says in words · progress: what was read of
    it before, of a log that is followed.
    """

    def __init__(self, path: Path):
        self.path = path
        self.notes: list[str] = []
        self.messages: list[Message] = []
        self.progress: Progress | None = None
        self.is_dir = path.is_dir()

    @property
    def name(self) -> str:
        """The file's name without .gz."""
        return self.path.name.removesuffix(".gz")

    @cached_property
    def raw(self) -> bytes:
        # a log that was emptied while its program wrote on begins with a hole
        raw = next((block for block in islice(self.blocks(HEAD_BYTES), MOST_HOLE) if block.strip(b"\0")), b"")
        if raw.count(b"\n") < 4 and len(raw) == HEAD_BYTES and b"\0" not in raw:  # long lines: thousands of columns
            raw = next(self.blocks(WIDE_HEAD_BYTES), b"")
        return raw

    @property
    def head_is_whole(self) -> bool:
        return len(self.raw) not in (HEAD_BYTES, WIDE_HEAD_BYTES)

    @cached_property
    def head(self) -> bytes:
        return _decoder(self.raw)(self.raw, False).replace(b"\0", b"")

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        """The file's bytes, unpacked, a block at a time."""
        with _opened(self.path) as file:
            magic = file.read(2)
            file.seek(0)
            if magic != b"\x1f\x8b":
                while block := file.read(size):
                    yield block
                return
            packed = gzip.GzipFile(fileobj=file)
            total = 0
            while True:
                try:
                    block = packed.read(size)
                except (OSError, EOFError, zlib.error) as error:
                    if not total:
                        raise UserError(
                            f"{self.path.name} looks like gzip and cannot be unpacked ({error})",
                            EXPECTED,
                            "compress the log again",
                        ) from error
                    self.notes.append(f"the gzip stream ends early or is damaged ({error}); what came before was read")
                    return
                if not block:
                    return
                total += len(block)
                if total > LONGEST_LINE_BYTES and total > LARGEST_RATIO * max(file.tell(), 1):
                    raise UserError(
                        f"{self.path.name} unpacks to over {LARGEST_RATIO} times its size",
                        EXPECTED,
                        "unpack it and pass the log inside",
                    )
                yield block

    def lines(self) -> Iterator[bytes]:
        """Blocks of whole lines in UTF-8; the last block may end without a newline."""
        decode = _decoder(self.raw)
        rest: list[bytes] = []
        total, before = 0, b""
        for raw in self.blocks():
            total += len(raw)
            if total > LARGEST_TEXT_BYTES:
                raise UserError(
                    f"{self.path.name} holds more than {LARGEST_TEXT_BYTES >> 30} GiB of text",
                    f"at most {LARGEST_TEXT_BYTES >> 30} GiB",
                    "thin it, e.g. awk 'NR == 1 || NR % 10 == 0', and pass the result",
                )
            text = decode(raw, False)
            if b"\0" in text:
                clean = text.replace(b"\0", b"")
                if not self.notes:
                    self.notes.append("the file holds NUL bytes (a disk's hole after a crash?); they were left out")
                if len(clean) < len(text) // 2 and len(raw) == BLOCK_BYTES and (before or rest):
                    self.notes[:] = [HOLE]
                    rest.append(clean)
                    break
                text = clean
            cut = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
            if cut:
                whole = b"".join((*rest, memoryview(text)[:cut]))
                before, rest = whole[-1000:], []
                yield whole
            rest.append(text[cut:])
            if sum(map(len, rest)) > LONGEST_LINE_BYTES:
                raise UserError(f"{self.path.name} has a line of over {LONGEST_LINE_BYTES >> 20} MB", EXPECTED, FIX)
        last = b"".join(rest)
        if cut_within_a_number(before, last):
            self.notes.append(CUT)
        elif last:
            yield last

    def whole(self, limit: int = 128 << 20) -> bytes:
        """All of it, for formats that are one document."""
        parts: list[bytes] = []
        total = 0
        for part in self.lines():
            total += len(part)
            if total > limit:
                raise UserError(
                    f"{self.path.name} is a single document of over {limit >> 20} MB",
                    f"at most {limit >> 20} MB",
                    "log one JSON object a line",
                )
            parts.append(part)
        return b"".join(parts)

    @cached_property
    def is_text(self) -> bool:
        return not self.is_dir and self.kind is None

    @cached_property
    def kind(self) -> str | None:
        """What a file is that cannot be a text log: empty, an image, binary, HTML; None for text."""
        if not self.raw:
            return "empty"
        kind = next((word for magic, word in MAGIC.items() if self.raw.startswith(magic)), None)
        if (
            kind is None
            and _controls(self.head if self.raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else self.raw)
            > 0.02
        ):
            kind = "binary, of no known kind"
        if kind is None and self.head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
            kind = "HTML or XML (a page saved in place of the log?)"
        if kind is None and not self.head.strip():
            kind = "blank"
        return kind


class Beginning(Source):
    """The first bytes of a file, as if it were cut there."""

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        return islice(super().blocks(min(size, BEGINNING_BYTES)), 1)


class Joined(Source):
    """Files that follow one another, as one."""

    def __init__(self, first: Path, *others: Path):
        super().__init__(first)
        self.others = others

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        yield from super().blocks(size)
        for path in self.others:
            yield b"\n"
            yield from Source(path).blocks(size)


def cut_within_a_number(before: bytes, last: bytes) -> bool:
    """Whether a line without an end stops within its last number, going by the line before: `1.5e-0` after `1.5e-05`
    would be 1.5."""
    number = rb"(\d+(?:\.\d*)?(?:[eE][-+]?\d*)?)\s*$"
    earlier, now = re.search(number, before), re.search(number, last[-1000:])
    if earlier is None or now is None or not re.search(rb"[.eE]", earlier[1]):
        return False
    exponents = [len(text.lower().partition(b"e")[2]) for text in (earlier[1], now[1])]
    return exponents[1] < exponents[0] or 2 * len(now[1]) < len(earlier[1])


def _controls(data: bytes) -> float:
    """Share of control characters that no text log holds: all except tab, newlines, backspace and escape."""
    text = data.translate(None, bytes(range(0, 8)) + bytes([11, 12, *range(14, 27), *range(28, 32), 127]))
    holes = len(data) - len(data.strip(b"\0"))
    return (len(data) - len(text) - holes) / (len(data) - holes) if holes < len(data) else 1.0


def _decoder(raw: bytes) -> Callable[[bytes, bool], bytes]:
    """(bytes, whether they are the last) -> UTF-8 bytes."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decode = codecs.getincrementaldecoder("utf-16")("replace")
        return lambda data, final: decode.decode(data, final).encode("utf-8", "replace")
    if raw.startswith(codecs.BOM_UTF8):
        decode = codecs.getincrementaldecoder("utf-8-sig")("replace")
        return lambda data, final: decode.decode(data, final).encode()
    return lambda data, final: data


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except PermissionError as error:
        raise UserError(
            f"no permission to read {path}", "a readable file", f"chmod +r {path}, or run as its owner"
        ) from error
    except OSError as error:
        word = "no such file" if error.errno == errno.ENOENT else error.strerror or str(error)
        raise UserError(f"{path}: {word}", "a log file or a directory of logs", "check the path") from error

"""Text of lists: plain or packed by gzip, in UTF-8 or with the mark of UTF-16, which spreadsheets write."""

import codecs
import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from earnest.errors import UserError
from earnest.files import open_regular

MOST_CHARACTERS = 2**28  # of one document: a list of a million clips has 200 MB
MOST_IN_LINE = 2**24  # characters: the words of three hours, each with its times, take a tenth of it


@contextmanager
def opened(path: Path, newline: str | None = None) -> Generator[TextIO, None, None]:
    """A text file. Raises UserError for gzip that is damaged, OSError for a pipe."""
    open_regular(path).close()
    is_packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if is_packed else open(path, "rb") as file:
        try:
            mark = file.read(2)
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(path, error) from error
    encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    with (
        gzip.open(path, "rt", encoding=encoding, newline=newline)
        if is_packed
        else open(path, encoding=encoding, newline=newline) as file
    ):
        try:
            yield file  # type: ignore[misc] - gzip's is one too
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(path, error) from error


def lines_of(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of an opened file. Raises UserError for one that does not end, as a hole of zeros."""
    while line := file.readline(MOST_IN_LINE + 1):
        if len(line) > MOST_IN_LINE:
            raise UserError(
                f"{path} has a line of over {MOST_IN_LINE:,} characters", "a list with a line for each clip", "mend it"
            )
        yield line


def full_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file, without empty lines. Raises UserError for what is no text."""
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(lines_of(file, path), 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeError as error:
        raise unreadable(path, number, error, "text in UTF-8") from error


def text_of(path: Path) -> str:
    """All of a file. Raises UserError for one that is too long to be read at once."""
    with opened(path) as file:
        text = file.read(MOST_CHARACTERS + 1)
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"{path} is longer than {MOST_CHARACTERS >> 20} MiB", "a list of clips", "write one JSON object a line"
        )
    return text


def unreadable(path: Path, line: int, error: Exception, expected: str, fix: str = "mend the file") -> UserError:
    """What to say of a list that does not read on from a line."""
    if isinstance(error, UnicodeDecodeError):
        around = error.object[max(error.start - 20, 0) : error.end + 20].decode("cp1252", "replace")
        way = f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name} (or the encoding that it is in)"
        return UserError(f"{path}, after line {line}: no UTF-8 in {' '.join(around.split())!r}", expected, way)
    return UserError(f"{path}, after line {line}: {error}", expected, fix)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: {error}", "a list packed by gzip", "pack or download it again")

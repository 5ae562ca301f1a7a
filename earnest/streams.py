"""Streams: what is scored. A stream is one loss with its own baseline; nothing else is called so.

A stream is written ``text``, ``audio``, ``total``, ``codebook_3``, or by the name of its part of the loss (``mel``).
`parse` and ``str()`` are the only places that know this spelling.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


class Stream:
    """A `Codebook` or a `Part`."""

    @property
    def is_audio(self) -> bool:
        """Whether the targets are audio codes, as far as the name says."""
        raise NotImplementedError


@dataclass(frozen=True)
class Codebook(Stream):
    """The codes of one codebook, counted from 0."""

    index: int

    @property
    def is_audio(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"codebook_{self.index}"


@dataclass(frozen=True)
class Part(Stream):
    """Any other loss, by its name: of text, of all audio, of one part of a sum, or the sum itself."""

    name: str

    @property
    def is_audio(self) -> bool:
        return self.name.startswith(("audio", "codebook"))

    def __str__(self) -> str:
        return self.name


TEXT, AUDIO = Part("text"), Part("audio")
TOTAL = Part("total")  # the loss of a run as a whole; in a signal's key it has no stream


def parse(text: str) -> Stream:
    """The stream that is written so; any text is one."""
    codebook = re.fullmatch(r"codebook_(0|[1-9]\d*)", text)
    return Codebook(int(codebook[1])) if codebook else Part(text)


def codebooks(count: int) -> list[Codebook]:
    """The streams of a model with so many codebooks."""
    return [Codebook(index) for index in range(count)]


def in_order(streams: Iterable[Stream]) -> list[Stream]:
    """Text first, then by length of the name and the name: codebook_2 stands before codebook_10."""
    return sorted(streams, key=lambda stream: (stream != TEXT, len(str(stream)), str(stream)))

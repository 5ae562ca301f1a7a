"""What a program printed in words beside its numbers: `Message`, counted and quoted by the reader of the log."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["skipped", "overflow", "nan", "memory", "stopped", "failed"]
MEANS: dict[Kind, str] = {
    "skipped": "a step was skipped, as a loss or gradient was not finite",
    "overflow": "half precision overflowed",
    "nan": "something that is not a number was printed, without a name",
    "memory": "the memory was too small",
    "stopped": "the run was stopped from outside",
    "failed": "the program failed",
}


class Place(NamedTuple):
    """Where a message stands: the file if it is not the log itself, and the lines of the first and the last, from
    1."""

    file: str
    first: int
    last: int


@dataclass(frozen=True)
class Message:
    """One kind of message: how often it was printed, where, in which words last (and first, if they were others), and
    whether the log ends with it."""

    kind: Kind
    count: int
    place: Place
    words: str
    at_the_end: bool
    first_words: str = ""

    @property
    def told(self) -> str:
        """In a sentence."""
        file, first, last = self.place
        lines = f"on line {last}" if self.count == 1 else f"{self.count} times, lines {first} to {last}"
        how = "ends with" if self.at_the_end else "says"
        before = f", after {self.first_words!r}" if self.first_words else ""
        return f"{MEANS[self.kind]}: {file or 'the log'} {how} {self.words!r}{before} ({lines})"

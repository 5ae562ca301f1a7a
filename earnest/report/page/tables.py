"""Tables that break no number and no name: each knows how wide it must be, and a narrower page shows it row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTHS = (20, 26, 32, 38, 44, 50, 57, 65, 73, 82, 91, 101, 112, 125, 140, 160)  # in digits; one rule each in `page.css`
LABELS = (6, 9, 12, 15, 20, 26)  # letters of the names of columns, beside the values of a row
GAP = 2.6  # digits between two columns
LETTER, BOLD = 0.86, 0.96  # digits that a letter of a cell, and of a name, takes (measured: DejaVu Sans, which is wide)
WORDS = 20  # letters from which on a column is one of words
PROSE = 24  # letters of a column of words, which may break between words
LONG, BROKEN = 30, 18  # a name of more letters may be broken, and then takes this many


@dataclass(frozen=True)
class Cell:
    """One cell. `kind`: num, name, prose, or drawn (`html` is a picture, `letters` wide)."""

    text: Any = ""
    kind: str = "num"
    html: str = ""
    letters: int = 0

    @property
    def digits(self) -> float:
        """How wide it is if nothing in it breaks."""
        length = self.letters or len(str(self.text))
        if self.kind == "prose":
            length = min(length, PROSE)
        elif length > LONG:
            length = BROKEN
        return length * (BOLD if self.kind == "name" else LETTER)

    @property
    def classes(self) -> str:
        return self.kind + (" long" if self.kind in ("name", "num") and len(str(self.text)) > LONG else "")


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it if `named`."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    named: bool = True
    classes: str = ""
    title: str = ""

    @property
    def digits(self) -> float:
        """How wide it is if nothing breaks."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return sum(
            max([LETTER * len(name), *(cell.digits for cell in cells)]) + GAP
            for name, cells in zip(self.head, columns, strict=True)
        )

    @property
    def fit(self) -> str:
        """The classes that say from which width on it is shown as a table, and how wide its names are if it is not."""
        names = max(map(len, self.head), default=0)
        width = next((width for width in WIDTHS if width >= self.digits), WIDTHS[-1])
        return f"n{width} l{next((label for label in LABELS if label >= names), LABELS[-1])}"


def of_words(head: Sequence[str], rows: Sequence[Sequence[str]], named: bool = True, classes: str = "") -> Table:
    """A table of plain text: a column is one of numbers and names, which do not break, or of words."""
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    kinds = ["num" if length < WORDS else "prose" for length in longest]
    if named:
        kinds[:1] = ["name"]
    cells = [[Cell(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows]
    return Table(head, cells, named, classes)

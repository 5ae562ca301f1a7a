"""Printed tables: lines of numbers alone, below a line of names or without one.

``E    #    LOSS NER  SCORE`` over ``0  200    17.32   0.00`` (spaCy, chainer's PrintReport), names on one line and
values on the next; without names the numbers are column_1, column_2, ... and `nameless` judges which is which.
"""

import re
from itertools import pairwise
from typing import Self

from earnest.logs.nameless import FEWEST_ROWS
from earnest.logs.names import guess

FEWEST_NAMES, MOST_NAMES = 2, 40
LONGEST_NAME = 40
MOSTLY = 0.8  # of the lines, in a table without names (assumed)
GAP = re.compile(r"\s*[|│\t]\s*|\s{2,}|\s+/\s+")  # between cells
NAME = re.compile(r"[#A-Za-z][\w ./#%@()+-]*")
NUMBERS = re.compile(r"(?:[\s|│/,;:%\deE.+-]|\bnan\b|\binf\b)+", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|\b(?:nan|inf)\b", re.IGNORECASE)
CLOCK = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d{2}(?::\d{2})?")
TIME = re.compile(r"\d{1,2}:\d{2}:\d{2}")
SPELLED = {"#": "step", "itn.": "epoch", "itn": "epoch", "e": "epoch"}  # how spaCy calls its counters


class Headed:
    """The names that stand above, with their places in the line; whether the text was a table at all."""

    def __init__(self) -> None:
        self.names: list[tuple[str, int, int]] = []

    def copy(self) -> Self:
        """Reads on by itself."""
        other = type(self)()
        other.names = self.names
        return other

    def words(self, line: str) -> None:
        """A line without a number: the names of the numbers below, if it may be a header."""
        if not line.strip(" \t|+-=─│━┼*"):
            return  # the rule below a header
        line = _without_stamp(line).strip("\n*")
        names, at = list[tuple[str, int, int]](), 0
        for gap in [*GAP.finditer(line), None]:
            name = line[at : gap.start() if gap else len(line)].strip()
            if name:
                start = line.index(name, at)
                names.append((SPELLED.get(name.lower(), name), start, start + len(name)))
            at = gap.end() if gap else at
        proper = all(NAME.fullmatch(name) and len(name) <= LONGEST_NAME for name, *_ in names)
        if proper and FEWEST_NAMES <= len(names) <= MOST_NAMES and any(guess(name) for name, *_ in names):
            self.names = names

    def numbers(self, line: str) -> dict[str, float] | None:
        """A row, if the line holds nothing but numbers: below a header under its names, else numbered."""
        line = _without_stamp(line)
        cells = line.strip(" |").split("|")
        if 0 < len(self.names) < len(cells):  # further cells without a name
            line = " | ".join(cells[: len(self.names)])
        if NUMBERS.fullmatch(line) is None or CLOCK.search(line):
            return None
        found = [(float(match[0]), match.start(), match.end()) for match in NUMBER.finditer(line)]
        if len(found) < FEWEST_NAMES or len(found) > MOST_NAMES:
            return None
        if len(found) == len(self.names):
            return {name: value for (name, *_), (value, *_) in zip(self.names, found, strict=True)}
        if not self.names:
            return {f"column_{number}": value for number, (value, *_) in enumerate(found, 1)}
        return self._below(found)

    def _below(self, found: list[tuple[float, int, int]]) -> dict[str, float] | None:
        """Numbers under their names by their place in the line, as some cells are empty; None if that is not clear."""
        row: dict[str, float] = {}
        for value, start, end in found:
            away = [max(low - end, start - high, 0) for _, low, high in self.names]
            name = self.names[away.index(min(away))][0]
            if name in row:
                return None
            row[name] = value
        return row


def _without_stamp(line: str) -> str:
    """Blanks in place of what a logger prints before a row: date, level, program."""
    stamp, bar, row = line.partition("|")
    return " " * len(stamp) + bar + row if bar and TIME.search(stamp) else line


def has_headed(lines: list[str]) -> bool:
    """Whether a text is a table of this kind: a row below names of which one is known, or eight rows and more of
    numbers alone, of which one counts."""
    headed, rows = Headed(), list[list[float]]()
    for line in lines:
        if not any(map(str.isdigit, line)):
            headed.words(line)
        elif (row := headed.numbers(line)) is not None:
            if headed.names:
                return True
            rows.append(list(row.values()))
    if len(rows) < FEWEST_ROWS or len(rows) < MOSTLY * len([line for line in lines if line.strip()]):
        return False
    return any(all(before < after for before, after in pairwise(column)) for column in zip(*rows, strict=False))

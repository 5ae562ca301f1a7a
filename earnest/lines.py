"""Rows in columns for a terminal, in which no name is cut and no word is broken."""

import re
from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len


def aligned(rows: Sequence[Sequence[str]], width: int, right: Collection[int] = ()) -> Iterator[list[str]]:
    """The cells of every row, padded to columns of at most `width` characters in all, two blanks between.

    A first cell for which there is no room is yielded alone before its row, which then begins with blanks. right: the
    columns that end at the same place.
    """
    others = [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[1:]]
    room = max(width - sum(size + 2 for size in others), 2)
    first = max((cell_len(row[0]) for row in rows if cell_len(row[0]) <= room), default=2)
    for name, *cells in rows:
        if cell_len(name) > first:
            yield [name]
            name = ""
        padded = [
            " " * (size - cell_len(cell)) + cell if column in right else cell + " " * (size - cell_len(cell))
            for column, (cell, size) in enumerate(zip((name, *cells), (first, *others), strict=True))
        ]
        yield [cell + "  " for cell in padded[:-1]] + padded[-1:]


def without_wide_tables(markdown: str, width: int) -> str:
    """The text with a list in place of each table that would have to break words at `width` columns: one item for each
    row, its first cell in bold."""
    return TABLE.sub(lambda found: _as_list(found[0]) if _breaks(found[0], width) else found[0], markdown)


TABLE = re.compile(r"(?:^\|.*\|[ ]*(?:\n|\Z))+", re.MULTILINE)
BAR = re.compile(r"(?<!\\)\|")
MARKS = re.compile(r"[`*\\]")  # of Markdown, which take no room


def _cells(table: str) -> list[list[str]]:
    """The rows of a table, its head first."""
    rows = [[cell.strip() for cell in BAR.split(line.strip())[1:-1]] for line in table.splitlines()]
    return rows[:1] + rows[2:]


def _breaks(table: str, width: int) -> bool:
    """Whether a word is longer than its column. The widest columns are made narrower until all have room (rich)."""
    columns = [[MARKS.sub("", cell) for cell in column] for column in zip(*_cells(table), strict=True)]
    wide = [max(map(cell_len, column)) for column in columns]
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    room, cap = width - 3 * len(columns), max(wide, default=0)
    while cap > 1 and sum(min(each, cap) for each in wide) > room:
        cap -= 1
    return any(word > cap for word in words)


def _as_list(table: str) -> str:
    _, *rows = _cells(table)
    return "".join(f"- **{first}** {' · '.join(cell for cell in rest if cell)}\n" for first, *rest in rows)

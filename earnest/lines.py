"""Rows in columns for a terminal, in which no name is cut."""

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

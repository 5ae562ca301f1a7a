"""Cells of tables as numbers: missing ones, decimal commas, thousands, ``53%``, ``tensor(2.3, device='cuda:0')``."""

import re
from collections.abc import Sequence

MISSING = ["", "null", "NULL", "None", "none", "NA", "N/A", "n/a", "-", "--", "<NA>"]
DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*$")  # 3,14
THOUSANDS = re.compile(r"^\s*[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*$")  # 1,234,567.8
# tensor(2.3, device='cuda:0') · [1.5] · 53 %
WRAPPED = re.compile(
    r"^\s*(?:(?:\w+\.)*(?:tensor|array|float\d*)\(\[?)?\s*([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|NaN|inf|Infinity))\s*%?"
    r"\s*(?:[,\])].*)?$"
)


def is_number(cell: str) -> bool:
    """Whether a cell is a number, or one in wrapping that `numbers_of` takes off."""
    cell = cell.strip()[:200]
    return WRAPPED.match(cell) is not None or DECIMAL_COMMA.match(cell) is not None


def split_plainly(text: str, separator: str) -> list[list[str]]:
    """Lines as cells without regard to quotes, for text that the csv module refuses."""
    return [line.split(separator) for line in text.split("\n") if line]


def numbers_of(cells: Sequence[str | None], name: str, wrapped: dict[str, str]) -> Sequence[float | str | None]:
    """Text cells as numbers, missing ones as None; the cells themselves if most of them hold no number. If numbers of
    the column `name` were wrapped (%, tensor(...), commas), `wrapped[name]` becomes a sentence on it."""
    plain = [None if cell is None or (bare := cell.strip(' "')) in MISSING else bare for cell in cells]
    values = [None if cell is None else _number(cell) for cell in plain]
    lost = [cell for cell, value in zip(plain, values, strict=True) if cell is not None and value is None]
    if not lost:
        return values
    thousands = all(THOUSANDS.match(cell) for cell in lost if any(map(str.isdigit, cell)))  # others rule a line
    if any(map(DECIMAL_COMMA.match, lost)):
        how = "commas read as thousands" if thousands else "decimal commas read as points"
        better = [cell and (cell.replace(",", "") if thousands else cell.replace(",", ".", 1)) for cell in plain]
    else:
        how = "numbers taken out of their wrapping (%, tensor(...)); what holds none was left out"
        better = [cell and (match[1] if (match := WRAPPED.match(cell)) else "") for cell in plain]
    values = [None if cell is None else _number(cell) for cell in better]
    if values.count(None) > 0.5 * len(cells) + 0.5 * plain.count(None):
        return plain
    wrapped[name] = how
    return values


def _number(cell: str) -> float | None:
    """None if the cell is no plain number; Python's underscores (1_000) are none."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None

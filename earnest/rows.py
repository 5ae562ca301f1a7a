"""The rows of a run directory's files: one JSON object a line, read by the megabyte; what is no row becomes a note."""

import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from earnest import records
from earnest.columns import Json, JsonLines, Table, add_columns, newlines
from earnest.facts import MOST
from earnest.records import loads

ROW_WORDS = ("step", "time_s", "event")  # what a row of steps.jsonl holds besides signals
BLOCK_BYTES = 2 << 20  # several copies of a block are held at a time
LARGEST_LINE_BYTES = 64 << 20
MOST_NOTES = 100
MORE = "and more like it"


def blocks(path: Path, notes: list[str]) -> Iterator[bytes]:
    """Whole lines of a file by the megabyte; nothing if it is no file. A line over LARGEST_LINE_BYTES ends it."""
    with open(path, "rb") if path.is_file() else BytesIO() as file:
        while block := file.read(BLOCK_BYTES):
            if not block.endswith(b"\n"):
                block += file.readline(LARGEST_LINE_BYTES)
                if not block.endswith(b"\n") and file.read(1):
                    yield block[: block.rfind(b"\n") + 1]
                    notes.append(
                        f"{path.name} has a line of over {LARGEST_LINE_BYTES >> 20} MB; what came before was read"
                    )
                    return
            yield block


def rows_of(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file; a line that is none, as a kill leaves it behind, becomes a note."""
    lines = 0
    for block in blocks(path, notes):
        yield from objects(block, path.name, lines, notes)
        lines += newlines(block)


def objects(lines: bytes, name: str, before: int, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows among JSON lines, which follow `before` others."""
    for number, line in enumerate(lines.splitlines(), before + 1):
        try:
            row: Json = loads(line)
        except ValueError:
            tell(notes, f"{name}:{number} is not JSON and was left out")
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(row, dict) and isinstance(step, int) and abs(step) < MOST:
            yield row
        else:
            tell(notes, f"{name}:{number} is no row with a step and was left out")


def add_block(table: Table, lines: JsonLines, block: bytes) -> bool:
    """Add a block of rows to a table if it holds nothing but numbers, whole steps and events."""
    frame = lines.frame(block)
    if frame is None or "step" not in frame.columns or frame["step"].null_count():
        return False
    if lines.texts - {"event"} or (lines.nulls and b": null" in block):
        return False
    steps = frame["step"].to_numpy()
    if not ((steps % 1 == 0) & (np.abs(steps) < MOST)).all():
        return False
    add_columns(table, frame)
    return True


class RowSteps(NamedTuple):
    """The steps of all rows, in the order in which they were written; the signals of every row share them."""

    row: np.ndarray
    step: np.ndarray

    def at(self, row: np.ndarray) -> np.ndarray:
        return self.step if row is self.row else self.step[np.searchsorted(self.row, row)]


def numbers_of(row: Mapping[str, Any], notes: list[str]) -> dict[str, float]:
    """The numbers of a row; null is a number that is none."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if value is None:
            numbers[name] = math.nan
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) < MOST):
            numbers[name] = float(value)
        elif name not in ROW_WORDS:
            words = f"{name} of step {row['step']} is {records.shortened(value)}, no number, and was left out"
            tell(notes, words)
    return numbers


def tell(notes: list[str], note: str) -> None:
    """Add a note about a row; after MOST_NOTES a word that there are more."""
    if len(notes) < MOST_NOTES:
        notes.append(note)
    elif notes[-1] != MORE:
        notes.append(MORE)

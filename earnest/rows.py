"""The rows of a run directory's files: one JSON object a line, read by the megabyte; what is no row becomes a note."""

import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from earnest import records
from earnest.columns import Json, JsonLines, Table, add_columns
from earnest.facts import MOST
from earnest.records import loads

ROW_WORDS = ("step", "time_s", "event")  # what a row of steps.jsonl holds besides signals
BLOCK_BYTES = 8 << 20
LARGEST_LINE_BYTES = 64 << 20
MOST_NOTES = 100
MORE = "and more like it"


def blocks(path: Path, notes: list[str]) -> Iterator[bytes]:
    """Whole lines of a file by the megabyte; nothing if it is no file. A line over LARGEST_LINE_BYTES ends it."""
    with open(path, "rb") if path.is_file() else BytesIO() as file:
        rest = b""
        while block := file.read(BLOCK_BYTES):
            whole, end, rest = (rest + block).rpartition(b"\n")
            if end:
                yield whole + end
            if len(rest) > LARGEST_LINE_BYTES:
                notes.append(f"{path.name} has a line of over {LARGEST_LINE_BYTES >> 20} MB; what came before was read")
                return
        if rest:
            yield rest


def rows_of(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file; a line that is none, as a kill leaves it behind, becomes a note."""
    lines = 0
    for block in blocks(path, notes):
        yield from objects(block, path.name, lines, notes)
        lines += block.count(b"\n")


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
    if b": null" in block or block.count(b'": "') != block.count(b'"event": "'):
        return False
    frame = lines.frame(block)
    if frame is None or "step" not in frame.columns or frame["step"].null_count():
        return False
    steps = frame["step"].to_numpy()
    if not ((steps % 1 == 0) & (np.abs(steps) < MOST)).all():
        return False
    add_columns(table, frame)
    return True


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

"""One JSON object a line: any logger's, and W&B's ``wandb-history.jsonl``.

polars reads blocks of well-behaved lines (an order of magnitude faster); a block with NaN, Infinity, changing types
or broken lines goes through the standard library, which takes them.
"""

import json
import re

import numpy as np
import polars as pl

from earnest.logs.log import Log, Table, numbers
from earnest.logs.source import Source

NAME = "jsonl"
# JSON has no NaN and polars reads JSON: these stand for it on the way through (no log holds the largest doubles)
STANDS_FOR = {b"NaN": b"1.7976931348623151e308", b"Infinity": b"1.7976931348623155e308", b"-Infinity": b"-1.7976931348623155e308"}


def claims(source: Source) -> bool:
    if not source.is_text:
        return False
    lines = [line for line in source.head.splitlines() if line.strip()][:5]
    if not source.head_is_whole and len(lines) > 1:
        lines = lines[:-1]
    objects = sum(isinstance(_loads(line), dict) for line in lines)
    return objects > 0 and objects >= len(lines) - 1


def read(source: Source) -> Log:
    table, broken = Table(), [0]
    for block in source.lines():
        frame = _fast(block)
        if frame is None:
            for line in block.splitlines():
                if line.strip():
                    row = _loads(line)
                    if isinstance(row, dict):
                        table.row(numbers(row))
                    else:
                        broken[0] += 1
            continue
        for name, cells in _leaves(frame):
            if cells.null_count() < len(cells):
                table.block(name, _values(cells), cells.is_not_null().to_numpy())
        table.rows += len(frame)
    notes = source.notes
    if broken[0]:
        notes.append(f"{broken[0]} lines are no JSON objects (cut short?) and were left out")
    return Log("wandb history" if "_step" in table.columns() else NAME, table.columns(), notes=notes)


def _loads(line: bytes):
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _fast(block: bytes) -> pl.DataFrame | None:
    if b"NaN" in block or b"Infinity" in block:
        for token, number in STANDS_FOR.items():  # the token first in the pattern: a literal is searched fast
            block = re.sub(rb"%b(?<=[:\s]%b)(?=\s*[,}\]])" % (token, token), number, block)
    try:
        return pl.read_ndjson(block, infer_schema_length=None)
    except BaseException as error:  # polars' panics derive from BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        return None


def _leaves(frame: pl.DataFrame):
    """(name, Float64 cells) of every numeric leaf; nested objects become name/leaf."""
    stack = [(name, frame[name]) for name in reversed(frame.columns)]
    while stack:
        name, cells = stack.pop()
        if isinstance(cells.dtype, pl.Struct):
            stack.extend((f"{name}/{leaf}", cells.struct.field(leaf)) for leaf in reversed([field.name for field in cells.dtype.fields]))
        elif cells.dtype.is_numeric() or cells.dtype == pl.String:
            yield name, cells.cast(pl.Float64, strict=False)


def _values(cells: pl.Series) -> np.ndarray:
    value = cells.fill_null(0.0).to_numpy()
    for token, number in STANDS_FOR.items():
        if (same := value == float(number)).any():
            value = np.where(same, float(token), value)
    return value

"""One JSON object a line: any logger's, and W&B's ``wandb-history.jsonl``.

polars reads blocks of well-behaved lines (an order of magnitude faster); a block with NaN, Infinity, changing types
or broken lines goes through the standard library, which takes them.
"""

import json
import re

import polars as pl

from earnest.logs.format import Format
from earnest.logs.frames import add_frame
from earnest.logs.log import Json, Log, Table, add_row
from earnest.logs.source import Source
from earnest.logs.words import LABELS, LABELS_OF_RUNS

NAME = "jsonl"
NULL_LOSS = re.compile(rb'loss[\w/]*"\s*:\s*null')
# JSON has no NaN and polars reads JSON: these stand for it on the way through (no log holds the largest doubles)
STANDS_FOR = {
    b"NaN": b"1.7976931348623151e308",
    b"Infinity": b"1.7976931348623155e308",
    b"-Infinity": b"-1.7976931348623155e308",
}


def claims(source: Source) -> bool:
    if not source.is_text:
        return False
    lines = [line for line in source.head.splitlines() if line.strip()][:5]
    if not source.head_is_whole and len(lines) > 1:
        lines = lines[:-1]
    objects = sum(isinstance(_loads(line), dict) for line in lines)
    return objects > 0 and objects >= len(lines) - 1


def read(source: Source) -> Log:
    table, broken, nulls = Table(), 0, 0
    for block in source.lines():
        nulls += len(NULL_LOSS.findall(block))
        frame = _fast(block)
        if frame is None:
            for line in block.splitlines():
                if line.strip():
                    row = _loads(line)
                    if isinstance(row, dict):
                        add_row(table, row)
                    else:
                        broken += 1
            continue
        add_frame(table, frame)
    notes = source.notes
    if broken:
        notes.append(f"{broken} lines are no JSON objects (cut short?) and were left out")
    if nulls:
        notes.append(f"{nulls} losses are null and were taken for not logged; some loggers write NaN so")
    columns = table.columns()
    return Log("wandb history" if "_step" in columns else NAME, columns, notes=notes, runs=table.runs)


def _loads(line: bytes) -> Json:
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _fast(block: bytes) -> pl.DataFrame | None:
    """The numeric leaves of a block as Float64 columns, nested objects as name/leaf; None where polars cannot take
    it."""
    odd = b"NaN" in block or b"Infinity" in block
    if odd:
        for token, number in STANDS_FOR.items():  # the token first in the pattern: a literal is searched fast
            block = re.sub(rb"%b(?<=[:\s]%b)(?=\s*[,}\]])" % (token, token), number, block)
    try:
        frame = pl.read_ndjson(block, infer_schema_length=None)
        while nested := [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]:
            frame = frame.unnest(nested, separator="/")
        labels = [
            name
            for name, dtype in frame.schema.items()
            if name.lower() in LABELS or (name.lower() in LABELS_OF_RUNS and dtype == pl.String)
        ]
        numeric = (pl.selectors.numeric() | pl.selectors.string()).exclude(labels)
        frame = frame.select(*labels, numeric.cast(pl.Float64, strict=False))
        back = {float(number): float(token) for token, number in STANDS_FOR.items()}
        return frame.with_columns(pl.selectors.float().replace(back)) if odd else frame
    except BaseException as error:  # polars' panics derive from BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        return None


FORMAT = Format(NAME, "JSONL", 40, claims, read, suffixes=(".jsonl", ".ndjson"))

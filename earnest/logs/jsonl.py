"""One JSON object a line: any logger's, and W&B's ``wandb-history.jsonl``."""

import re

from earnest.columns import Json, JsonLines, Table
from earnest.logs.format import Format
from earnest.logs.log import Log, add_row
from earnest.logs.source import Source
from earnest.logs.words import LABELS_OF_ROWS
from earnest.records import loads

NAME = "jsonl"
NULL_LOSS = re.compile(rb'loss[\w/]*"\s*:\s*null')


def claims(source: Source) -> bool:
    if not source.is_text:
        return False
    lines = [line for line in source.head.splitlines() if line.strip()][:5]
    if not source.head_is_whole and len(lines) > 1:
        lines = lines[:-1]
    objects = sum(isinstance(_loads(line), dict) for line in lines)
    return objects > 0 and objects >= len(lines) - 1


def read(source: Source) -> Log:
    table, broken, nulls = Table(source.notes), 0, 0
    lines = JsonLines(LABELS_OF_ROWS)
    for block in source.lines():
        frame = lines.frame(block)
        nulls += len(NULL_LOSS.findall(block)) if lines.nulls else 0
        if frame is None:
            for line in block.splitlines():
                if line.strip():
                    row = _loads(line)
                    if isinstance(row, dict):
                        add_row(table, row)
                    else:
                        broken += 1
            continue
        from earnest.logs.frames import add_frame

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
        return loads(line.decode("utf-8", "replace"))
    except ValueError:
        return None


FORMAT = Format(NAME, "JSONL", 40, claims, read, suffixes=(".jsonl", ".ndjson"))

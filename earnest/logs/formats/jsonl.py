"""One JSON object a line: any logger's, and W&B's ``wandb-history.jsonl``."""

import re

from earnest.columns import Json, JsonLines, Table
from earnest.logs import pieces
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
    return pieces.read(source, lambda _: Lines())


class Lines:
    """Blocks of JSON lines -> a log. A column that names a row's split or its run is told from all rows."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.table, self.lines = Table(self.notes), JsonLines(LABELS_OF_ROWS)
        self.broken = self.nulls = 0
        self.steady = True

    def copy(self) -> "Lines":
        other = Lines()
        other.table, other.lines = self.table.copy(), self.lines.copy()
        other.notes = other.table.notes
        other.broken, other.nulls, other.steady = self.broken, self.nulls, self.steady
        return other

    def block(self, block: bytes) -> None:
        frame = self.lines.frame(block)
        self.nulls += len(NULL_LOSS.findall(block)) if self.lines.nulls else 0
        if frame is None:
            for line in block.splitlines():
                if line.strip():
                    row = _loads(line)
                    if isinstance(row, dict):
                        self.steady &= LABELS_OF_ROWS.isdisjoint(map(str.lower, row))
                        add_row(self.table, row)
                    else:
                        self.broken += 1
            return
        from earnest.logs.formats.frames import add_frame

        self.steady &= LABELS_OF_ROWS.isdisjoint(map(str.lower, frame.columns))
        add_frame(self.table, frame)

    def log(self, source: Source) -> Log:
        columns = self.table.columns()
        if self.broken:
            self.notes.append(f"{self.broken} lines are no JSON objects (cut short?) and were left out")
        if self.nulls:
            self.notes.append(f"{self.nulls} losses are null and were taken for not logged; some loggers write NaN so")
        name = "wandb history" if "_step" in columns else NAME
        return Log(name, columns, notes=self.notes, runs=self.table.runs)


def _loads(line: bytes) -> Json:
    try:
        return loads(line.decode("utf-8", "replace"))
    except ValueError:
        return None


FORMAT = Format(NAME, "JSONL", 40, claims, read, suffixes=(".jsonl", ".ndjson"))

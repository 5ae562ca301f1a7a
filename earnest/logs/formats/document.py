"""JSON documents: transformers' ``trainer_state.json``, audiocraft's and dora's ``history.json``, a list of rows, a
dictionary of columns.

- transformers: ``log_history`` is a list of rows with ``step``; training and evaluation rows alternate (TrainerState,
  trainer_callback.py).
- dora/flashy: a list with an entry per epoch, ``{"train": {...}, "valid": {...}}`` (flashy/solver.py,
  ``self.history``).
- Keras: ``history.history`` is a dictionary of equally long lists.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earnest.columns import Json, Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.log import Log, add_row
from earnest.logs.source import EXPECTED, FIX, Source
from earnest.records import loads

NAME = "json"


def claims(source: Source) -> bool:
    head = source.head.lstrip() if source.is_text else b""
    if not re.match(rb'\[\s*(?:\{\s*["}]|\])|\{\s*["}]', head):
        return False
    lines = [line for line in head.splitlines()[:3] if line.strip()]
    # not an object a line
    return not (len(lines) > 1 and all(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in lines[:-1]))


def read(source: Source) -> Log:
    text = source.whole().decode("utf-8", "replace")
    try:
        document: Json = loads(text)
    except ValueError:
        document = _salvaged(text)
        source.notes.append("the JSON is damaged or cut short; the rows before the damage were read")
    format, rows, facts = NAME, _rows(document), dict[str, int]()
    if isinstance(document, dict) and isinstance(document.get("log_history"), list):
        format, steps = "trainer_state", document.get("max_steps")
        facts = {"schedule_steps": steps} if isinstance(steps, int) and steps > 0 else {}
    elif any(isinstance(row.get("train"), dict) for row in rows[:3]):
        format = "history"
    if not rows:
        raise UserError(f"{source.path.name} is JSON without rows of numbers", EXPECTED, FIX)
    table, epochs = Table(source.notes), None
    for row in rows:
        add_row(table, row)
    if format == "history" or (format == NAME and not isinstance(document, list)):
        epochs = np.arange(1, table.rows + 1)
        source.notes.append("an entry is an epoch; steps are epochs from 1")
    return Log(format, table.columns(), epochs, notes=source.notes, runs=table.runs, facts=facts)


def _rows(document: Json) -> list[dict[str, Json]]:
    """The rows of a document: its list, the list within it, its lists side by side, or itself."""
    if isinstance(document, dict):
        history = document.get("log_history")
        document = history if isinstance(history, list) else document.get("history", document)
    if isinstance(document, dict):
        columns = {name: cells for name, cells in document.items() if isinstance(cells, list)}
        height = max(map(len, columns.values()), default=0)
        beside = [
            {name: cells[index] for name, cells in columns.items() if index < len(cells)} for index in range(height)
        ]
        return beside or [document]
    return [row for row in document if isinstance(row, dict)] if isinstance(document, list) else []


def _salvaged(text: str) -> Json:
    """The rows of a cut list: every object that is whole, from the first `[` on (from log_history's, if there is
    one)."""
    at = text.find("[", max(text.find('"log_history"'), 0))
    decoder = json.JSONDecoder()
    rows: list[Json] = []
    while at >= 0 and (at := text.find("{", at)) >= 0:
        try:
            row, at = decoder.raw_decode(text, at)
        except ValueError:
            break
        rows.append(row)
    return {"log_history": rows} if '"log_history"' in text else rows


def _last_state(paths: Sequence[Path]) -> Sequence[Path]:
    """The last of one run's states: each repeats the rows before it. The trainer's own state, in the folder above the
    checkpoints, is the last of all."""
    states = [path for path in paths if path.name == "trainer_state.json"]
    return [max(states, key=lambda path: (-len(path.parts), _number_in(path.parent.name)))] if states else paths


def _number_in(text: str) -> int:
    return int(re.sub(r"\D", "", text) or 0)


FORMAT = Format(NAME, "trainer_state.json and other JSON", 90, claims, read, suffixes=(".json",), current=_last_state)

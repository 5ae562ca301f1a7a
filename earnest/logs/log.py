"""`Log`: what a reader hands over, in the log's own words.

A row is one line, record or event of the log, in the order it was written. A reader keeps the cells that are there
and no others, so a value that was not logged never reads as NaN, and a NaN that was logged stays one.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from earnest.columns import Column, Json, Table
from earnest.logs.words import LABELS, LABELS_OF_ROWS, LABELS_OF_RUNS, LABELS_OF_SPLITS, SPLITS, axis_of


@dataclass
class Log:
    """Columns under foreign names.

    step: of each row, if the format says it; else a column does · scale: column -> (factor to our unit, why), if the
    format defines it · runs: of runs side by side, run -> {its name of a column: the column} · facts: those of
    `facts.Facts` that the format itself holds.
    """

    format: str
    columns: dict[str, Column]
    step: np.ndarray | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    scale: dict[str, tuple[float, str]] = field(default_factory=dict[str, tuple[float, str]])
    runs: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def add_row(table: Table, row: dict[str, Json]) -> None:
    """The numbers of one row, in columns named as `frames.add_frame` names them."""
    words = {name.lower(): str(value) for name, value in row.items() if isinstance(value, str | int)}
    cells = numbers(
        {name: value for name, value in row.items() if not (isinstance(value, str) and name.lower() in LABELS_OF_ROWS)}
    )
    label = next((name for name in words if is_label(name, [words[name]], cells)), None)
    if label is not None:
        folder = value_folder(cells)
        cells = {called(name.removeprefix(folder), label, words[label]): value for name, value in cells.items()}
    run = next((words[name] for name in words if name in LABELS_OF_RUNS), None)
    if run is not None:
        cells = {table.of_run(run, name): value for name, value in cells.items() if name.lower() not in LABELS_OF_RUNS}
    table.row(cells)


def is_label(name: str, labels: Collection[str], columns: Iterable[str]) -> bool:
    """Whether a column of text tells splits (train, eval) or, beside a column called value, metrics (train/loss,
    lr)."""
    if name.lower() in LABELS_OF_SPLITS:
        return all(word.lower() in SPLITS for word in labels)
    return name.lower() in LABELS and 0 < len(labels) <= 1000 and any(map(_is_value, columns))


def called(name: str, label: str, word: str | None) -> str:
    """The column of a number in a row whose `label` says `word`: of a split, split/name; of a metric, the metric."""
    if word is None or axis_of(name) or SPLITS.get(word.lower()) == "train":
        return name
    return word if label.lower() not in LABELS_OF_SPLITS and name.lower() == "value" else f"{word}/{name}"


def value_folder(names: Iterable[str]) -> str:
    """The folder of the column called value: data/ in {"name": "loss", "data": {"step": 1, "value": 3.5}}."""
    value = next(filter(_is_value, names), "")
    return value[: value.rfind("/") + 1]


def _is_value(name: str) -> bool:
    return name.lower().rpartition("/")[2] == "value"


def number(value: Json) -> float | None:
    """A cell as a number: JSON numbers, and texts of one ("10.5", "NaN", "-Infinity", "10/600"); None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        share = re.fullmatch(r"(\d{1,15})/\d+", value) if isinstance(value, str) else None
        return float(share[1]) if share else None


def flat(row: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested dictionaries as one: {"train": {"loss": 3}} -> {"train/loss": 3}."""
    leaves: dict[str, Json] = {}
    stack = [(prefix, row)]
    while stack:
        path, node = stack.pop()
        for name, value in node.items():
            if isinstance(value, dict):
                stack.append((f"{path}{name}/", value))
            else:
                leaves[f"{path}{name}"] = value
    return leaves


def numbers(row: dict[str, Json]) -> dict[str, float]:
    """The numeric leaves of a row."""
    cells = ((name, number(value)) for name, value in flat(row).items())
    return {name: value for name, value in cells if value is not None}

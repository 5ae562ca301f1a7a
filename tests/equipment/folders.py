"""Folders of tones, and lists of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

TEXTS = [
    *("the cat sat on the mat", "seven ships sailed", 'he said, "not now", and left', "rain fell all night"),
    *("a small grey bird", "we walked home", "open the door please", "nobody answered", "blue, green and red"),
    *("it was late", "ten to one", "the end"),
]


def tone(path: Path, index: int = 0, rate_hz: int = 8000, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * np.sin(np.arange(rate_hz // 4) * (index + 1) / 10), rate_hz, **options)
    return path


def tones(folder: Path, pattern: str, count: int = 12) -> None:
    for index in range(count):
        tone(folder / pattern.format(index), index)


def lines(path: Path, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def json_lines(path: Path, rows: Iterable[Any]) -> None:
    lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])

"""Small data of our own, in the forms that public trainers read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

TEXTS = ("hello world", "a longer sentence than that", "no", "the bridge should be repaired before the winter")
FRAMES = (14, 9, 20, 12, 17, 11)  # of each clip's codes: unequal


def sound(path: Path, seconds: float, rate_hz: int) -> None:
    """Noise."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate_hz))
    soundfile.write(path, samples.astype(np.float32), rate_hz)


def lines(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def codes(clip: int, codebooks: int, classes: int) -> list[list[int]]:
    """Random codes of a clip, (T, C)."""
    found: list[list[int]] = np.random.default_rng(clip).integers(0, classes, (FRAMES[clip], codebooks)).tolist()
    return found


def text(clip: int) -> str:
    return TEXTS[clip % len(TEXTS)]


def changed(path: Path, **numbers: int) -> None:
    """Set entries of a JSON file, wherever they stand: a configuration made small."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: numbers.get(name, change(one)) for name, one in value.items()}
        return [change(one) for one in value] if isinstance(value, list) else value

    path.write_text(json.dumps(change(json.loads(path.read_text()))))

"""Runs that are killed and continued, and what they wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from earnest.recipes import Recipe

CLOCK = ("step", "time_s", "train/step_s", "train/data_s", "train/memory_bytes")


def kill_and_resume(recipe: Recipe, config: Any, run_dir: Path, step: int) -> None:
    """Train, die at a step, continue to the end."""

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train" and done == step:
            raise Killed

    with pytest.raises(Killed):
        recipe.train(config, run_dir, on_progress=kill)
    recipe.train(config, run_dir, resume=True)


def rows(run_dir: Path) -> dict[int, dict[str, float]]:
    """Step -> every signal that does not measure the machine, as last written."""
    found: dict[int, dict[str, float]] = {}
    for line in (run_dir / "steps.jsonl").read_text().splitlines():
        row = json.loads(line)
        signals = {name: value for name, value in row.items() if name not in CLOCK and name != "event"}
        found.setdefault(row["step"], {}).update(signals)
    return found

"""What the steps of a run are in epochs and in time: the other axes of its charts."""

from typing import Any

import numpy as np

from earnest.run import Run

MOST_POINTS = 400  # of the time at a step; between two of them it is taken to pass evenly


def axes(run: Run) -> dict[str, Any]:
    """``epoch``: steps of one epoch · ``time``: seconds trained at some steps; each if the run tells it."""
    found: dict[str, Any] = {}
    if run.facts.steps_per_epoch:
        found["epoch"] = run.facts.steps_per_epoch
    if run.elapsed is not None and len(run.elapsed.finite) > 1:
        step, seconds = run.elapsed.finite.step, run.elapsed.finite.value
        keep = np.unique(np.linspace(0, len(step) - 1, min(len(step), MOST_POINTS)).round().astype(int))
        if seconds[-1] > seconds[0]:
            found["time"] = {"step": step[keep].tolist(), "seconds": [round(one, 2) for one in seconds[keep].tolist()]}
    return found

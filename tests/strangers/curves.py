"""What the made-up logs are drawn from: a few shapes of curves, and a few ways to write rows down.

A log is a function of a random generator, entered into a table by its name. The generator moves levels and noise, never
the step at which something happens, so that an expectation can name it. What a reader has to see must not hang on one
seed: every log is drawn with several.
"""

import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from earnest.run import Run

Files = dict[str, str | bytes]
Draw = Callable[[np.random.Generator], Files]
Curve = np.ndarray


class Logs(dict[str, Draw]):
    """Name of a log -> the function that draws its files."""

    def add(self, draw: Draw) -> Draw:
        """Decorator: enter a function by its name."""
        self[draw.__name__] = draw
        return draw


def about(rng: np.random.Generator, level: float, share: float = 0.06) -> float:
    """A level that differs from seed to seed by up to this share."""
    return float(level * rng.uniform(1 - share, 1 + share))


def flat(rng: np.random.Generator, points: int, level: float, noise: float) -> Curve:
    return level + noise * rng.standard_normal(points)


def fall(rng: np.random.Generator, points: int, start: float, end: float, noise: float, rate: float = 5.0) -> Curve:
    """An exponential fall from start to end with white noise; `rate` time constants long."""
    return end + (start - end) * np.exp(-np.arange(points) * rate / points) + noise * rng.standard_normal(points)


def ramp(rng: np.random.Generator, points: int, start: float, end: float, noise: float) -> Curve:
    return np.linspace(start, end, points) + noise * rng.standard_normal(points)


def join(*pieces: Curve) -> Curve:
    return np.concatenate(pieces)


def rows(*columns: Iterable[float]) -> Iterator[tuple[float, ...]]:
    return zip(*columns, strict=True)


def csv(names: str, *columns: Iterable[object]) -> str:
    """A table; a float is written with five significant digits, None as nothing."""
    return names + "\n" + "".join(",".join(map(_cell, row)) + "\n" for row in zip(*columns, strict=True))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def every(points: int, interval: int, values: Iterable[float]) -> list[float | None]:
    """A column that is filled in each `interval`-th row only."""
    filled = iter(values)
    return [next(filled) if row % interval == interval - 1 else None for row in range(points)]


def as_table(series: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Signals over steps as a table, an empty cell where a signal has no value."""
    steps = sorted({int(step) for at, _ in series.values() for step in at})
    columns = [dict(zip(map(int, at), value, strict=True)) for at, value in series.values()]
    rows = [
        ",".join([str(step), *(f"{column[step]:.6g}" if step in column else "" for column in columns)])
        for step in steps
    ]
    return "\n".join([",".join(["step", *series]), *rows]) + "\n"


def of_run(run: Run) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The table of a run, and its facts as ``--fact`` takes them."""
    table = as_table({str(key): (series.step, series.value) for key, series in run.series.items()})
    return table, tuple((name, json.dumps(value)) for name, value in run.facts.known().items())

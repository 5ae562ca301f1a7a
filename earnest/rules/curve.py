"""`Curve`: one signal as the rules read it, with the questions that rules ask of a series."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from earnest.run import Run, Series
from earnest.signals import Key


class Stretch(NamedTuple):
    """Neighbouring points that all meet a condition: first and last step, the worst value, the number of points."""

    start: int
    stop: int
    worst: float
    points: int


@dataclass(frozen=True)
class Curve:
    """One signal over steps. `step` is strictly increasing; `value` may hold NaN and infinities."""

    key: Key
    step: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    @property
    def stream(self) -> str | None:
        return self.key.stream

    @cached_property
    def finite(self) -> "Curve":
        keep = np.isfinite(self.value)
        return self if keep.all() else self.where(keep)

    def where(self, keep: np.ndarray) -> "Curve":
        return Curve(self.key, self.step[keep], self.value[keep])

    def since(self, step: int) -> "Curve":
        return self.where(self.step >= step)

    def tail(self, share: float, at_least: int = 1) -> "Curve":
        """The last `share` of the finite points, but no fewer than `at_least` (or all there are)."""
        finite = self.finite
        count = min(len(finite), max(at_least, round(share * len(finite))))
        return Curve(self.key, finite.step[len(finite) - count :], finite.value[len(finite) - count :])

    def head(self, count: int) -> "Curve":
        finite = self.finite
        return Curve(self.key, finite.step[:count], finite.value[:count])

    @cached_property
    def binned(self) -> "Curve":
        """At most 256 means of neighbouring finite points: keeps the trend, loses no level, and makes any length
        cheap."""
        finite = self.finite
        if len(finite) <= 256:
            return finite
        edges = np.linspace(0, len(finite), 257).astype(int)
        counts = np.diff(edges)
        means = np.add.reduceat(finite.value, edges[:-1]) / counts
        return Curve(self.key, finite.step[edges[1:] - 1], means)

    def runs(self, condition: np.ndarray, at_least: int = 1, worst=np.max) -> Iterator[Stretch]:
        """Stretches of at least `at_least` neighbouring points that meet the condition."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], condition.astype(np.int8), [0]])))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if stop - start >= at_least:
                yield Stretch(
                    int(self.step[start]),
                    int(self.step[stop - 1]),
                    float(worst(self.value[start:stop])),
                    int(stop - start),
                )

    def runs_below(self, level: float, at_least: int = 1) -> Iterator[Stretch]:
        return self.runs(self.value < level, at_least, np.min)

    def runs_above(self, level: float, at_least: int = 1) -> Iterator[Stretch]:
        return self.runs(self.value > level, at_least, np.max)

    def rows(self, start: int | None = None, stop: int | None = None, most: int = 6) -> list[dict[str, Any]]:
        """Evidence: at most `most` points, evenly chosen, from step `start` to step `stop`."""
        keep = np.flatnonzero((self.step >= (start or 0)) & (self.step <= (self.last_step if stop is None else stop)))
        chosen = (
            keep[np.unique(np.linspace(0, len(keep) - 1, min(most, len(keep))).round().astype(int))]
            if len(keep)
            else keep
        )
        name = str(self.key)
        return [{"step": int(self.step[i]), name: float(self.value[i])} for i in chosen]

    @property
    def last_step(self) -> int:
        return int(self.step[-1]) if len(self) else 0


def curve(run: Run, split: str, name: str, stream: str | None = None) -> Curve | None:
    series: Series | None = run.series.get(str(Key(split, name, stream)))
    return (
        Curve(Key(split, name, stream), np.asarray(series.step), np.asarray(series.value, dtype=float))
        if series is not None
        else None
    )

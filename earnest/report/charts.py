"""Line charts as plain numbers and SVG paths; ``page.html`` draws them.

A series longer than `BINS` is told by its bins: a line through their means inside a band from lowest to
highest. So a million steps cost as much as a hundred, and no spike is ever dropped.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from earnest.report import view
from earnest.rules.finding import Baseline
from earnest.run import Series, Values

Scale = Callable[[ArrayLike], Values]  # steps or values -> places in the drawing
WIDTH, HEIGHT = 400, 210  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 16, 24  # margins
LETTER, LONGEST_LABEL = (
    6.2,
    26,
)  # a baseline's name stands in the right margin: width of its letters, and how many at most
BINS = 120
LABEL_GAP = 12.5  # least distance of two baseline names
STROKES = {
    "uniform": 0,
    "unigram": 1,
    "bigram": 2,
}  # a baseline is drawn the same way in every chart: solid, dashed, dotted
ROBUST = 3.0  # assumed: values beyond this times the range of the middle 96% go off the scale, and the page says so


@dataclass
class Line:
    """One series, drawn: `path` through the means, `band` from lowest to highest, `points` for the read-out."""

    name: str
    hue: int
    path: str
    band: str
    points: dict[str, list[float]]
    dots: list[tuple[float, float]]
    lost: list[float]
    last: tuple[int, float]


@dataclass
class Rung:
    """A baseline, drawn: height of its line, top and height of its interval, height of its name."""

    label: str
    y: float
    band: tuple[float, float] | None
    label_y: float
    stroke: int


@dataclass
class Chart:
    """Everything the page needs to draw one chart."""

    title: str
    unit: str
    lines: list[Line]
    rungs: list[Rung]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    said: list[str] = field(default_factory=list[str])
    verdict: str | None = None
    window: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def latest(self) -> str:
        """The last value of every line, in words."""
        return " · ".join(
            f"{line.name} {view.number(line.last[1])} at step {view.number(line.last[0])}" for line in self.lines
        )

    @property
    def described(self) -> str:
        """The chart in words, for those who do not see it."""
        rungs = ", ".join(rung.label for rung in self.rungs)
        return f"{self.title} over steps: {self.latest}" + (f"; baselines: {rungs}" if rungs else "")

    @property
    def data(self) -> dict[str, Any]:
        """What the read-out script needs: where steps lie, and the values of every line."""
        return {**self.window, "lines": [{"name": line.name, **line.points} for line in self.lines]}


def chart(
    title: str,
    series: dict[str, Series],
    last_step: int,
    unit: str = "",
    ladder: Sequence[Baseline] = (),
    marks: Sequence[tuple[int, str]] = (),
    verdict: str | None = None,
    may_log: bool = False,
    hues: Sequence[str] = (),
) -> Chart | None:
    """Draw named series over steps 0..last_step; None where they hold no point at all."""
    hue = {name: hues.index(name) if name in hues else index for index, name in enumerate(series)}
    series = {name: one for name, one in sorted(series.items(), key=lambda item: hue[item[0]]) if len(one)}
    finite = [one.finite.value for one in series.values() if len(one.finite)]
    if not series:
        return None
    ladder = [rung for rung in ladder if math.isfinite(rung.value)]
    low, high, log, said = _range(
        np.concatenate(finite) if finite else np.zeros(0), [rung.value for rung in ladder], may_log
    )
    first_step = min(0, *(int(one.step[0]) for one in series.values()))
    span = max(last_step - first_step, 1)
    right = WIDTH - max([RIGHT, *(len(_label(rung)) * LETTER + 8 for rung in ladder)])

    def x(step: ArrayLike) -> Values:
        return LEFT + (np.asarray(step, float) - first_step) / span * (right - LEFT)

    def y(value: ArrayLike) -> Values:
        scaled = [np.log10(np.maximum(edge, low)) if log else edge for edge in (np.asarray(value, float), low, high)]
        return np.clip(
            HEIGHT - BOTTOM - (scaled[0] - scaled[1]) / (scaled[2] - scaled[1]) * (HEIGHT - TOP - BOTTOM),
            TOP,
            HEIGHT - BOTTOM,
        )

    for name, one in series.items():
        lost = one.step[~np.isfinite(one.value)]
        if len(lost):
            said.append(f"{name}: {len(lost):,} of {len(one):,} values are not finite, the first at step {lost[0]:,}")
    return Chart(
        title,
        unit,
        [_line(name, min(hue[name], 3), one, x, y) for name, one in series.items()],
        _rungs(ladder, y),
        [(float(x(tick)), _short(tick)) for tick in _ticks(first_step, first_step + span, 4) if tick == int(tick)],
        [(float(y(tick)), _short(tick)) for tick in (_decades(low, high) if log else _ticks(low, high, 4))],
        [(float(x(step)), label) for step, label in marks if first_step <= step <= first_step + span],
        said,
        verdict,
        {
            "left": LEFT,
            "right": right,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
            "first": first_step,
            "last": first_step + span,
        },
    )


def binned(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Finite values -> (step, mean, lowest, highest) of at most `BINS` equal stretches of steps."""
    step, value = series.step, series.value
    if len(step) <= BINS:
        return step, value, value, value
    edges: Values = np.linspace(int(step[0]), int(step[-1]), BINS, endpoint=False)
    starts = np.unique(np.searchsorted(step, edges))  # a stretch without a point is no bin
    counts = np.diff(np.append(starts, len(step)))
    centre = (np.add.reduceat(step.astype(float), starts) / counts).round().astype(np.int64)
    return (
        centre,
        np.add.reduceat(value, starts) / counts,
        np.minimum.reduceat(value, starts),
        np.maximum.reduceat(value, starts),
    )


def _line(name: str, hue: int, series: Series, x: Scale, y: Scale) -> Line:
    step, mean, lowest, highest = binned(series.finite)
    xs, is_binned = x(step), len(series.finite) > BINS
    edge = [*zip(xs, y(highest), strict=True), *zip(xs[::-1], y(lowest)[::-1], strict=True)] if is_binned else []
    points = {"step": step.tolist(), "mean": _rounded(mean)} | (
        {"low": _rounded(lowest), "high": _rounded(highest)} if is_binned else {}
    )
    dots = (
        [(round(float(px), 1), round(float(py), 1)) for px, py in zip(xs, y(mean), strict=True)]
        if len(step) <= 30
        else []
    )
    lost = np.unique(x(series.step[~np.isfinite(series.value)]).round())
    last = (int(series.step[-1]), float(series.value[-1]))
    return Line(
        name,
        hue,
        _path(zip(xs, y(mean), strict=True)),
        _path(edge) + "Z" if edge else "",
        points,
        dots,
        lost.tolist(),
        last,
    )


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "".join(f"{'L' if index else 'M'}{px:.1f} {py:.1f}" for index, (px, py) in enumerate(points))


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _range(values: np.ndarray, rungs: list[float], may_log: bool) -> tuple[float, float, bool, list[str]]:
    """Lowest and highest value to draw, whether on a log scale, and a word where values lie beyond."""
    if not len(values):
        values = np.array(rungs or [0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if may_log and min([low, *rungs]) > 0 and high / low > 50:
        low, high = min([low, *rungs]), max([high, *rungs])
        return low / 1.1, high * 1.1, True, ["log scale"]
    said: list[str] = []
    usual_low, usual_high = np.percentile(values, [2, 98]) if len(values) > 50 else (low, high)
    top = max([usual_low + (usual_high - usual_low) * ROBUST, *rungs])
    if high > top > low:
        said.append(f"highest value {view.number(high)} is off the scale")
        high = top
    low, high = min([low, *rungs]), max([high, *rungs])
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin, False, said


def _rungs(ladder: Sequence[Baseline], y: Scale) -> list[Rung]:
    """Baselines from top to bottom, their names pushed apart where they would overlap."""
    rungs: list[Rung] = []
    for rung in sorted(ladder, key=lambda one: -one.value):
        height = float(y(rung.value))
        band = None
        if rung.interval and all(map(math.isfinite, rung.interval)):
            top, bottom = float(y(rung.interval[1])), float(y(rung.interval[0]))
            band = (top, max(bottom - top, 0.0))
        label_y = max(height + 3.5, rungs[-1].label_y + LABEL_GAP) if rungs else height + 3.5
        rungs.append(Rung(_label(rung), height, band, label_y, STROKES.get(rung.name, 0)))
    overflow = rungs[-1].label_y - (HEIGHT - BOTTOM + 4) if rungs else 0
    for back, rung in enumerate(reversed(rungs)):  # the lowest name must not leave the drawing: push the pile up again
        rung.label_y = (
            min(rung.label_y, rungs[-1].label_y - max(overflow, 0) - back * LABEL_GAP) if overflow > 0 else rung.label_y
        )
    return rungs


def _label(rung: Baseline) -> str:
    name, value = view.line(rung.name), view.number(rung.value)
    room = LONGEST_LABEL - len(value) - 1
    return f"{name if len(name) <= room else name[: room - 1] + '…'} {value}"


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between low and high."""
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    size *= next(factor for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)
    return [round(index * size, 12) for index in range(math.ceil(low / size), math.floor(high / size) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _short(value: float) -> str:
    """A tick's name: 1.2M, 20k, 0.5, 3e-4."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return view.number(int(value) if value == int(value) else value)


@dataclass
class Ladder:
    """A verdict as a picture: where the value lies among its baselines, higher to the right."""

    rungs: list[tuple[float, str, int, tuple[float, float] | None]]
    value: float | None


def ladder(value: float | None, baselines: Sequence[Baseline], width: float = 220) -> Ladder | None:
    """Draw a verdict's ladder; None where there is no baseline to compare with."""
    baselines = sorted((rung for rung in baselines if math.isfinite(rung.value)), key=lambda rung: -rung.value)
    if not baselines:
        return None
    value = value if value is not None and math.isfinite(value) else None
    drawn = [rung.value for rung in baselines] + ([value] if value is not None else [])
    span = max(drawn) - min(drawn) or abs(drawn[0]) or 1.0

    def x(position: float) -> float:
        return round(min(max((position - min(drawn)) / span, -0.08), 1.08) * (width - 40) + 20, 1)

    rungs: list[tuple[float, str, int, tuple[float, float] | None]] = []
    for rung in baselines:
        known = rung.interval and all(map(math.isfinite, rung.interval))
        band = (x(rung.interval[0]), x(rung.interval[1]) - x(rung.interval[0])) if rung.interval and known else None
        rungs.append((x(rung.value), view.baseline(rung), STROKES.get(rung.name, 0), band))
    return Ladder(rungs, x(value) if value is not None else None)

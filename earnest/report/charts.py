"""Line charts as plain numbers and SVG paths; ``page/macros.html`` draws them, and ``page/page.js`` draws them large.

A series longer than `BINS` is drawn as its bins: a line through their means inside a band from lowest to
highest. So a million steps cost as much as a hundred, and no spike is ever dropped. Beside the drawing the page holds
the points themselves, or more bins of a series that is too long, for whoever zooms in.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earnest.errors import fault
from earnest.report import view
from earnest.rules.finding import Baseline
from earnest.run import Series, Values

WIDTH, HEIGHT = 400, 210  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 16, 24  # margins
LARGEST = 1e300  # of a value that is drawn
LETTER, LONGEST_LABEL = 6.2, 26  # a baseline's name stands in the right margin: width of its letters, most of them
BINS = 120
HUES = 8  # colours of lines in page.css; the last is shared by all further lines
MOST_DOTS = 30  # points of a line that are few enough to draw each
LABEL_GAP = 12.5  # least distance of two baseline names
STROKES = {"uniform": 0, "unigram": 1, "bigram": 2}  # each the same in every chart: solid, dashed, dotted
ROBUST = 3.0  # assumed: values beyond this times the range of the middle 96% go off the scale, and the page says so


Scale = Callable[[ArrayLike], Values]  # steps or values -> places in the drawing


@dataclass
class Line:
    """One series, drawn: `path` through the means, `band` from lowest to highest; `points` as the page holds them."""

    name: str
    hue: int
    path: str
    band: str
    points: dict[str, Any]
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
    of: Baseline


NO_SCALE: dict[str, Any] = {"low": 0, "high": 1, "log": False, "marks": []}
WINDOW: dict[str, float] = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}


@dataclass
class Chart:
    """Everything the page needs to draw one chart."""

    title: str
    unit: str
    lines: list[Line]
    rungs: list[Rung]
    x_ticks: list[tuple[float, str, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    said: list[str] = field(default_factory=list[str])
    verdict: str | None = None
    window: dict[str, float] = field(default_factory=dict[str, float])
    scale: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def latest(self) -> str:
        """The last value of every line, in words."""
        return " · ".join(
            f"{line.name} {view.number(line.last[1])} at step {view.number(line.last[0])}" for line in self.lines
        )

    @property
    def described(self) -> str:
        """The chart in words, for readers who cannot see it."""
        rungs = ", ".join(rung.label for rung in self.rungs)
        return f"{self.title} over steps: {self.latest}" + (f"; baselines: {rungs}" if rungs else "")

    @property
    def data(self) -> dict[str, Any]:
        """What the script reads out and draws large: the window, the points of every line, baselines and marks."""
        rungs = [
            {"label": rung.label, "value": rung.of.value, "band": _finite(rung.of.interval), "stroke": rung.stroke}
            for rung in self.rungs
        ]
        lines = [{"name": line.name, "hue": line.hue, **line.points} for line in self.lines]
        return {"title": self.title, "unit": self.unit, **self.window, **self.scale, "lines": lines, "rungs": rungs}


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
    most: int = BINS,
) -> Chart | None:
    """Draw named series over steps 0..last_step; None if they hold no point at all. What cannot be drawn is told in its
    place. most: points of one line that the page holds beside the drawing."""
    try:
        with np.errstate(all="ignore"):
            return _chart(title, series, last_step, unit, ladder, marks, verdict, may_log, hues, most)
    except Exception as error:
        window = WINDOW | {"first": 0, "last": 1}
        return Chart(title, unit, [], [], [], [], [], [fault(error)], verdict, window, NO_SCALE)


def _chart(
    title: str,
    series: dict[str, Series],
    last_step: int,
    unit: str,
    ladder: Sequence[Baseline],
    marks: Sequence[tuple[int, str]],
    verdict: str | None,
    may_log: bool,
    hues: Sequence[str],
    most: int,
) -> Chart | None:
    hue = {name: hues.index(name) if name in hues else index for index, name in enumerate(series)}
    series = {name: one for name, one in sorted(series.items(), key=lambda item: hue[item[0]]) if len(one)}
    series = {name: _drawable(one) for name, one in series.items()}
    finite = [one.finite.value for one in series.values() if len(one.finite)]
    if not series:
        return None
    ladder = [rung for rung in ladder if abs(rung.value) <= LARGEST]
    values = np.concatenate(finite) if finite else np.zeros(0)
    low, high, log, notes = _range(values, [rung.value for rung in ladder], may_log)
    first = min(0, *(int(one.step[0]) for one in series.values()))
    last = first + max(last_step - first, 1)
    right = WIDTH - max([RIGHT, *(len(_label(rung)) * LETTER + 8 for rung in ladder)])
    x, y = _across(first, last, right), _upwards(low, high, log)
    notes += [words for name, one in series.items() for words in _lost(name, one)]
    steps = [tick for tick in _ticks(first, last, 4) if tick == int(tick)]
    return Chart(
        title,
        unit,
        [_line(name, min(hue[name], HUES - 1), one, x, y, most) for name, one in series.items()],
        _rungs(ladder, y),
        [_step_tick(float(x(tick)), _short(tick)) for tick in steps],
        [(float(y(tick)), _short(tick)) for tick in (_decades(low, high) if log else _ticks(low, high, 4))],
        [(float(x(step)), label) for step, label in marks if first <= step <= last],
        notes,
        verdict,
        WINDOW | {"right": right, "first": first, "last": last},
        {"low": low, "high": high, "log": log, "marks": [[step, label] for step, label in marks]},
    )


def _across(first: int, last: int, right: float) -> Scale:
    return lambda step: LEFT + (np.asarray(step, float) - first) / (last - first) * (right - LEFT)


def _upwards(low: float, high: float, log: bool) -> Scale:
    def y(value: ArrayLike) -> Values:
        scaled = [np.log10(np.maximum(edge, low)) if log else edge for edge in (np.asarray(value, float), low, high)]
        share = (scaled[0] - scaled[1]) / (scaled[2] - scaled[1])
        return np.clip(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), TOP, HEIGHT - BOTTOM)

    return y


def _lost(name: str, series: Series) -> list[str]:
    lost = series.step[~np.isfinite(series.value)]
    words = f"{name}: {len(lost):,} of {len(series):,} values are not finite"
    return [f"{words}, the first at step {lost[0]:,}"] if len(lost) else []


def _step_tick(x: float, name: str) -> tuple[float, str, str]:
    """Where the label of a step is drawn: centred below its tick, or ending at the edge of the drawing."""
    half = len(name) * LETTER / 2
    return (WIDTH - 2, name, "end") if x + half > WIDTH - 2 else (x, name, "middle")


def _drawable(series: Series) -> Series:
    """The series with finite values of at most LARGEST: the distance of two that are larger may be infinite."""
    value = series.value
    beyond = np.isfinite(value) & (np.abs(value) > LARGEST)
    return Series(series.step, np.where(beyond, np.copysign(LARGEST, value), value), series.key)


def binned(series: Series, bins: int = BINS) -> tuple[Any, Any, Any, Any]:
    """Finite values -> (step, mean, lowest, highest) of at most `bins` equal stretches of steps."""
    step, value = series.step, series.value
    if len(step) <= bins:
        return step, value, value, value
    edges: Values = np.linspace(int(step[0]), int(step[-1]), bins, endpoint=False)
    starts = np.unique(np.searchsorted(step, edges))  # a stretch without a point is no bin
    counts = np.diff(np.append(starts, len(step)))
    centre = (np.add.reduceat(step.astype(float), starts) / counts).round().astype(np.int64)
    return (
        centre,
        np.add.reduceat(value, starts) / counts,
        np.minimum.reduceat(value, starts),
        np.maximum.reduceat(value, starts),
    )


def _line(name: str, hue: int, series: Series, x: Scale, y: Scale, most: int) -> Line:
    step, mean, lowest, highest = binned(series.finite)
    xs, is_binned = x(step), len(series.finite) > BINS
    edge = [*zip(xs, y(highest), strict=True), *zip(xs[::-1], y(lowest)[::-1], strict=True)] if is_binned else []
    few = zip(xs, y(mean), strict=True) if len(step) <= MOST_DOTS else ()
    lost = np.unique(x(series.step[~np.isfinite(series.value)]).round())
    return Line(
        name,
        hue,
        _path(zip(xs, y(mean), strict=True)),
        _path(edge) + "Z" if edge else "",
        points(series, most),
        [(round(float(px), 1), round(float(py), 1)) for px, py in few],
        lost.tolist(),
        (int(series.step[-1]), float(series.value[-1])),
    )


def points(series: Series, most: int) -> dict[str, Any]:
    """The points of a series, null for what is no finite number; of more than `most` the bins that take their room."""
    if len(series) <= max(most, BINS):
        return {"step": _steps(series.step), "value": _rounded(series.value)}
    step, mean, lowest, highest = binned(series.finite, max(most // 4, BINS))
    values = {"mean": _rounded(mean), "low": _rounded(lowest), "high": _rounded(highest)}
    return {"step": _steps(step), **values, "of": len(series)}


def _steps(step: NDArray[np.int64]) -> list[int] | dict[str, int]:
    """Steps as a list, or by their distance if it is always the same."""
    distances = np.diff(step)
    if len(step) > 2 and (distances == distances[0]).all():
        return {"from": int(step[0]), "by": int(distances[0]), "count": len(step)}
    return step.tolist()


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "".join(f"{'L' if index else 'M'}{px:.1f} {py:.1f}" for index, (px, py) in enumerate(points))


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _finite(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval if interval and all(map(math.isfinite, interval)) else None


def _range(values: np.ndarray, rungs: list[float], may_log: bool) -> tuple[float, float, bool, list[str]]:
    """Lowest and highest value to draw, whether on a log scale, and a word where values lie beyond."""
    if not len(values):
        values = np.array(rungs or [0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if may_log and min([low, *rungs]) > 0 and high / low > 50:
        low, high = min([low, *rungs]), max([high, *rungs])
        return low / 1.1, high * 1.1, True, ["log scale"]
    notes: list[str] = []
    usual_low, usual_high = np.percentile(values, [2, 98]) if len(values) > 50 else (low, high)
    top = max([usual_low + (usual_high - usual_low) * ROBUST, *rungs])
    if high > top > low:
        notes.append(f"highest value {view.number(high)} is off the scale")
        high = top
    low, high = min([low, *rungs]), max([high, *rungs])
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin, False, notes


def _rungs(ladder: Sequence[Baseline], y: Scale) -> list[Rung]:
    """Baselines from top to bottom, their names pushed apart where they would overlap."""
    rungs: list[Rung] = []
    for rung in sorted(ladder, key=lambda one: -one.value):
        height = float(y(rung.value))
        band = None
        if known := _finite(rung.interval):
            top, bottom = float(y(known[1])), float(y(known[0]))
            band = (top, max(bottom - top, 0.0))
        label_y = max(height + 3.5, rungs[-1].label_y + LABEL_GAP) if rungs else height + 3.5
        rungs.append(Rung(_label(rung), height, band, label_y, STROKES.get(rung.name, 0), rung))
    overflow = rungs[-1].label_y - (HEIGHT - BOTTOM + 4) if rungs else 0
    for back, rung in enumerate(reversed(rungs)):  # the lowest name must not leave the drawing: push the pile up again
        rung.label_y = (
            min(rung.label_y, rungs[-1].label_y - max(overflow, 0) - back * LABEL_GAP) if overflow > 0 else rung.label_y
        )
    return rungs


def _label(rung: Baseline) -> str:
    words = view.named(rung)
    name, _, value = words.rpartition(" ")
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
        known = _finite(rung.interval)
        band = (x(known[0]), x(known[1]) - x(known[0])) if known else None
        rungs.append((x(rung.value), view.baseline(rung), STROKES.get(rung.name, 0), band))
    return Ladder(rungs, x(value) if value is not None else None)

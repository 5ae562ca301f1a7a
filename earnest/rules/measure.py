"""What a loss does: where it stands now, since when, whether it is flat, falls, rises again, or is nothing at all."""

import math
from dataclasses import dataclass

import numpy as np

from earnest.quantiles import median
from earnest.rules.finding import Baseline
from earnest.rules.statistics import boundary, effective_size, mean_interval, noise, trend
from earnest.run import Mask, Series, Values
from earnest.streams import TEXT

# Above chance by this share is worse than chance, not a fresh head's overconfidence (assumed; a fresh wide head starts
# within 0.3 nats, 4 % of ln 1026).
WORSE = 0.04
# Above this a mean cross-entropy is worse than chance in any vocabulary: 440,000 ids (assumed; the largest in use have
# some 260,000).
HIGHEST_CHANCE = 13.0
# Where a difference of baselines is this small, as a share, it teaches nothing (assumed).
EQUAL = 0.005


@dataclass(frozen=True)
class Measure:
    """The value that a verdict is about: its interval, where it was read, and the series behind it."""

    value: float
    interval: tuple[float, float] | None
    source: str
    series: Series | None

    @property
    def low(self) -> float:
        return self.interval[0] if self.interval else self.value

    @property
    def high(self) -> float:
        return self.interval[1] if self.interval else self.value

    @property
    def first_step(self) -> int | None:
        return int(self.series.step[0]) if self.series is not None and len(self.series) else None

    def is_below(self, rung: Baseline) -> bool:
        """Below a baseline by more than the interval and `EQUAL`."""
        return self.high < rung.value * (1 - EQUAL)


def end_of(series: Series, source: str = "training") -> Measure:
    """The mean of the end of a series, with an interval that respects autocorrelation."""
    value, interval = mean_interval(last_points(series).value)
    return Measure(value, interval, source, series)


def last_points(series: Series) -> Series:
    """The last tenth: eight points for an interval, but no more than a third of a short log."""
    return series.tail(0.1, at_least=max(3, min(8, len(series.finite) // 3)))


def last_of(series: Series, source: str) -> Measure:
    """The last value, give or take twice the noise from point to point: for evaluations, which are few."""
    last, half = float(series.finite.value[-1]), 2 * noise(series.finite.value)
    return Measure(last, (last - half, last + half) if half else None, source, series)


FEWEST_POINTS = 8  # of a series whose course is told (assumed)
FIRST_SCALE = 65_536  # where the loss scale of half precision begins, in most trainers, or comes down to
STRETCHES = 10
FELL = 0.1  # share by which others have fallen beside what stands still (assumed)


@dataclass(frozen=True)
class Course:
    """A series as the levels (means) of at most `STRETCHES` stretches: where it began, its best, where it is now.

    error: of a level, from how points scatter within a stretch and how levels wander. since: the step at which the best
    stretch ends. falls: whether a fall can be believed, however small beside the error of a level. flat_since: the
    step from which on it stands still, in the first half of the stretches; None if it moves later too.
    """

    levels: Values
    error: float
    since: int
    points: int
    falls: bool
    flat_since: int | None

    @property
    def start(self) -> float:
        return float(self.levels[0])

    @property
    def best(self) -> float:
        return float(self.levels.min())

    @property
    def end(self) -> float:
        return float(self.levels[-1])

    @property
    def never_moved(self) -> bool:
        """No level differs from the first by more than half a percent of it, or than four errors if these are small
        and no fall can be believed (assumed)."""
        return _still(self.levels, 0.0 if self.falls else self.error)

    @property
    def never_moved_after_the_start(self) -> bool:
        """The same of all levels but the first, which may be higher."""
        return self.never_moved or (self.flat_since is not None and _still(self.levels[1:], 0.0))

    @property
    def settled_at_once(self) -> bool:
        """After the first of ten stretches nothing moved, and that one is within 2 % of the rest (assumed)."""
        near = abs(self.start - self.levels[1]) < 0.02 * abs(self.levels[1])
        return len(self.levels) == STRETCHES and bool(near) and self.never_moved_after_the_start

    @property
    def gets_worse(self) -> bool:
        """The end is above the best stretch by more than 2 % of it, a tenth of what had been gained and four errors,
        and so are at least the last two levels (assumed; healthy runs wander by less)."""
        best = int(self.levels.argmin())
        rise = max(0.02 * abs(self.best), 0.1 * (self.start - self.best), 4 * self.error)
        return best < len(self.levels) - 2 and bool((self.levels[-2:] - self.best > rise).all())

    @property
    def in_words(self) -> str:
        """What can be said of it without any baseline."""
        if self.never_moved:
            return f"{self.start:.4g} from the first of {self.points} values to the last: it has not moved"
        if self.gets_worse:
            return f"{self.end:.4g}, above its best of {self.best:.4g} at step {self.since}"
        if self.end < self.start:
            flat = f", flat since step {self.flat_since}" if self.flat_since is not None else ""
            return f"fell from {self.start:.4g} to {self.end:.4g}{flat}"
        return f"{self.end:.4g}, after {self.start:.4g} at first"


def _still(levels: Values, error: float) -> bool:
    """No level differs from the first by more than half a percent of it, or than four errors if these are small."""
    within = max(0.005 * abs(levels[0]), min(4 * error, 0.02 * abs(levels[0])))
    return bool((np.abs(levels - levels[0]) <= within).all())


def course(series: Series | None) -> Course | None:
    """How a series went, if it has points enough."""
    if series is None or len(series.finite) < FEWEST_POINTS:
        return None
    values, step = series.finite.value, series.finite.step
    stretches = np.array_split(values, min(STRETCHES, len(values) // 4 + 2))
    levels = np.array([stretch.mean() for stretch in stretches])
    errors = [stretch.std() / math.sqrt(effective_size(stretch)) for stretch in stretches]
    # a loss also wanders from stretch to stretch, by more than its points scatter within one
    error = max(median(errors), noise(levels), noise(values) / math.sqrt(min(map(len, stretches))))
    steps = np.array_split(step, len(stretches))
    since = int(steps[int(levels.argmin())][-1])
    falls = trend(series.binned.value).falls
    flat = next((k for k in range(1, len(levels) // 2 + 1) if _still(levels[k:], 0.0)), None)
    if flat is not None and trend(np.concatenate(stretches[flat:])).falls:
        flat = None
    return Course(levels, error, since, len(values), falls, None if flat is None else int(steps[flat][0]))


def order_of_clips(series: Series | None, steps_per_epoch: int | None) -> int | None:
    """The step at which the last epoch of a training loss began, if that epoch began higher than the one before ended,
    does not rise, and lies below that one at equal places: clips are taken in an order, and nothing has got worse."""
    length = steps_per_epoch or 0
    if length < 2 or series is None or not len(series.finite):
        return None
    values = series.finite
    first = int(values.step[0])
    begins = first + (int(values.last_step) - first) // length * length
    this, last = values.since(begins), values.where((values.step >= begins - length) & (values.step < begins))
    if len(this) < 3 or len(last) < 6 or int(last.step[0]) - (begins - length) > 0.1 * length:
        return None
    third, part = max(3, len(last) // 3), max(1, len(this) // 3)
    steps_up = median(this.value[:third]) > median(last.value[-third:])
    goes_on = median(this.value[-part:]) <= median(this.value[:part])
    before = np.interp(this.step - length, last.step, last.value)
    return begins if steps_up and goes_on and float(np.mean(this.value)) < float(np.mean(before)) else None


def outlier_of_a_mean(value: Values) -> bool:
    """Whether the one rise of a series is a single value in a running mean since its first row: with the mean undone,
    n m_n - (n-1) m_(n-1), all that follows it is where the values before were."""
    at = int(np.argmax(np.diff(value))) + 1 if len(value) > 3 else 0
    if not 1 < at < len(value) - 2:
        return False
    single = np.diff(np.arange(1, len(value) + 1) * value, prepend=0.0)
    back = single[at + 1 :].max() < value[at:].min() and median(single[at + 1 :]) <= single[:at].max()
    return bool(back and (np.diff(value[at:]) < 0).all())


def flipped(series: Series) -> Series:
    """What is better if higher, as what is better if lower."""
    return Series(series.step, -series.value, series.key)


def degenerate(series: Series | None) -> tuple[int, str] | None:
    """Since when a loss is nothing, and in words: never a number, exactly 0, or no longer a number."""
    if series is None:
        return None
    if not len(series):
        return 0, "logged, but without a single value"
    last = series.value[-min(3, len(series)) :]
    if not np.isfinite(last).any():
        since = int(series.step[start_of_last(~np.isfinite(series.value))])
        return since, f"not a number since step {since}"
    since = zero_since(series)
    if since is None:
        return None
    return since, f"exactly 0 since step {since}: nothing was scored, or a NaN was logged as 0"


def zero_since(series: Series) -> int | None:
    """The step since which a loss is exactly 0 and did not get there by itself, or None.

    A loss that never was more than its last printed digit is rounded to 0, and so is one that had fallen to a
    thousandth of its start (assumed): in fp32 a cross-entropy below 1e-7
    nats cannot be told from 0, and constant targets reach that.
    """
    values = series.finite
    if not len(values) or values.value[-2:].any():
        return None
    before = values.value[: np.argmax(values.value == 0)]  # not of the last stretch: one odd batch may interrupt zeros
    faded = len(before) > 1 and abs(before[-1]) <= 1e-3 * abs(before[0])
    rounded = len(before) > 0 and np.abs(before).max() < 1.5 * printed_unit(values.value)  # 0.0001, then 0.0000
    return None if faded or rounded else int(values.step[start_of_last(values.value == 0)])


def is_off(series: Series) -> bool:
    """A part of a sum that is 0 in every row: not started, or without weight. A loss of tokens or a total is never
    off."""
    part = series.stream is not None and series.stream != TEXT and not series.stream.is_audio
    return part and len(series.finite) > 0 and not series.finite.value.any()


COARSE = 0.02  # a last printed digit worth more than this share of a value hides what it does (assumed)


def printed_unit(value: Values) -> float:
    """What the last printed decimal of some numbers is worth: 0.001 if all have three decimals or fewer."""
    finite = value[np.isfinite(value)]
    return 10.0 ** -next((d for d in range(9) if all(_has_decimals(part, d) for part in (finite[:100], finite))), 9)


def _has_decimals(value: Values, most: int) -> bool:
    return np.allclose(value, np.round(value, most), rtol=0, atol=1e-12)


def start_of_last(condition: Mask) -> int:
    """Index at which the stretch of True that reaches the end begins."""
    wrong = np.flatnonzero(~condition)
    return int(wrong[-1]) + 1 if len(wrong) else 0


def since_below(series: Series | None, level: float) -> int | None:
    """The step from which a series stayed below a level (as binned means)."""
    return None if series is None else _since(series.binned, series.binned.value < level)


def since_above(series: Series | None, level: float) -> int | None:
    """The step from which a series stayed above a level (as binned means)."""
    return None if series is None else _since(series.binned, series.binned.value > level)


def _since(binned: Series, condition: Mask) -> int | None:
    start = start_of_last(condition)
    return int(binned.step[start]) if start < len(binned) else None


def began_above(series: Series | None, chance: Baseline, run_frac: float = 0.2) -> tuple[int, float] | None:
    """Last step and mean of a start clearly above chance that lasted at least `run_frac` of the run and `FEWEST_POINTS`
    points, else None.

    A fresh wide head also starts above chance but falls to it within a few steps: that is benign and is not reported.
    """
    if series is None or len(series.binned) < 2:
        return None
    binned = series.binned
    above = binned.value > chance.value * (1 + WORSE)
    if not above[0]:
        return None
    count = int(np.argmin(above)) if not above.all() else len(above)
    until, first = int(binned.step[count - 1]), int(binned.step[0])
    if count < min(FEWEST_POINTS, len(binned)) or until - first < run_frac * (binned.last_step - first):
        return None
    return until, float(binned.value[:count].mean())


def is_flat(series: Series | None, gained: float) -> bool:
    """The last third moves by less than 1 % of what was gained, on at least 12 points, without a fall that can be
    believed."""
    if series is None or gained <= 0:
        return False
    end = series.binned.value[-max(12, len(series.binned) // 3) :]
    if len(end) < 12:
        return False
    found = trend(end)
    return abs(found.change) < 0.01 * gained and not found.falls


def rising_since(evaluated: Series | None, scale: float) -> tuple[int, float] | None:
    """Step of the lowest evaluation and the rise since, if evaluations clearly rise after it: at least 4 of them.

    The lowest point is chosen by looking, so the trend is asked of the points after it only. Few points: every one must
    be above the minimum by 4 times the noise, and their order must be rising; `scale` is what a real rise is measured
    by.
    """
    if evaluated is None or len(evaluated.binned) < 5:
        return None
    value, step = evaluated.binned.value, evaluated.binned.step
    lowest = int(np.argmin(value))
    after = value[lowest + 1 :]
    if len(after) < 4:
        return None
    found = trend(after)
    rise = float(np.mean(after[-2:]) - value[lowest])
    scatter = min(noise(value), noise(value[lowest:])) if len(after) >= FEWEST_POINTS else noise(value)
    clear = after[len(after) // 2 :].min() > value[lowest] + 4 * scatter  # not of the first fall, if there are enough
    # one-sided 5 % for 4 points in order (exact 1/24), and the anytime boundary once there are points enough to reach
    # it
    ordered = found.z > min(boundary(found.points), 0.55 * math.sqrt(found.points) + 0.5)
    # the correction for autocorrelation leaves nothing of a rise as smooth as a ramp; its levels show that
    went = course(evaluated)
    ordered = ordered or (went is not None and went.gets_worse)
    return (int(step[lowest]), rise) if clear and ordered and rise > 0.02 * scale else None


def falling(series: Series | None) -> bool:
    """The second half lies below the first by more than the noise."""
    if series is None or len(series.binned) < 4:
        return False
    value = series.binned.value
    half = len(value) // 2
    return median(value[half:]) < median(value[:half]) - noise(value) / math.sqrt(half)

"""A total and the parts that it is the sum of: `Parts`. Which part is most of it, and which one makes it rise?"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earnest.quantiles import median
from earnest.rules.gan import ADVERSARIAL, DISCRIMINATOR, FEATURES
from earnest.run import Series
from earnest.streams import TEXT, Part, Stream

GENERATOR = Part("loss_g")
ADVERSARIES: set[Stream] = {*ADVERSARIAL, *FEATURES, *DISCRIMINATOR}
MAY_STAND: set[Stream] = {*ADVERSARIES, Part("commitment"), Part("kl")}  # they hold a balance, and need not fall
EXPLODED = 100.0  # times its level before: no loss of a healthy run rises so far (assumed)
SWAMPED, ROSE = 0.9, 3.0  # share of all parts that swamps a total, which has risen by this factor (assumed)


@dataclass(frozen=True)
class Swamped:
    """A part that grew until it was nearly all of the total: since which step, from and to which level, its share of
    all parts, and the parts that got worse since."""

    stream: Stream
    since: int
    before: float
    now: float
    share: float
    harmed: tuple[Stream, ...]

    @property
    def set_in(self) -> bool:
        """Whether it was 0 before: it was switched on, and has not grown."""
        return self.before == 0


@dataclass(frozen=True)
class Parts:
    """The losses of a run by stream: the total (None), a generator's total, and what they are made of."""

    losses: Mapping[Stream | None, Series]

    @cached_property
    def total(self) -> Series | None:
        """The total, or the generator's if that is what is logged."""
        found = self.losses.get(None) or self.losses.get(GENERATOR)
        return found if found is not None and len(found.finite) else None

    @cached_property
    def parts(self) -> dict[Stream, Series]:
        """The losses that the total may be the sum of, by stream. Codebooks are left out, as the audio loss is their
        mean, and so are discriminators' losses."""
        return {
            stream: series
            for stream, series in self.losses.items()
            if stream
            and stream != GENERATOR
            and stream not in DISCRIMINATOR
            and (stream == TEXT or not stream.is_audio)
            and len(series.finite)
        }

    @cached_property
    def at_the_end(self) -> dict[Stream, float]:
        """The size of each part at the end."""
        return {stream: abs(_end(series)) for stream, series in self.parts.items()}

    def share(self, stream: Stream) -> float:
        """A part's size at the end as a share of all parts, unweighted; 1 if nothing is known of the others."""
        total = sum(self.at_the_end.values())
        return self.at_the_end[stream] / total if stream in self.at_the_end and total > 0 else 1.0

    @cached_property
    def swamped(self) -> Swamped | None:
        """The part that makes the total rise by `ROSE` and more, and is nearly all of it."""
        if self.total is None or len(self.total.finite) < 2 or len(self.parts) < 2:
            return None
        stream = max(self.parts, key=self.share)
        value, step = self.parts[stream].finite.value, self.parts[stream].finite.step
        if self.share(stream) < SWAMPED or len(value) < 2:
            return None
        before, now = float(np.abs(value[: max(1, len(value) // 5)]).max()), self.at_the_end[stream]
        grown = now > EXPLODED * before
        if not grown or (before == 0 and stream in ADVERSARIES):  # an adversary that sets in is meant to
            return None
        above = np.abs(value) > (3 * before if before else 0.01 * now)
        onset = int(step[int(np.argmax(above))])
        earlier = self.total.finite.where(self.total.finite.step < onset).value
        if not len(earlier) or _end(self.total) < ROSE * float(np.abs(earlier).max()):
            return None
        others = {other: series.finite for other, series in self.parts.items() if other != stream}
        harmed = tuple(other for other, series in others.items() if _got_worse(series, onset))
        return Swamped(stream, onset, before, now, self.share(stream), harmed)

    def explained_by_a_part(self, series: Series) -> bool:
        """Whether a loss is the total that a part swamps, or that part itself."""
        swamped = self.swamped
        return swamped is not None and series.stream in (None, GENERATOR, swamped.stream)


def _end(series: Series) -> float:
    """The median of the last tenth; the last value of a short log."""
    value = series.finite.value
    return median(value[-max(1, len(value) // 10) :])


def _got_worse(series: Series, onset: int) -> bool:
    """Whether a part is a quarter higher after a step than right before it (assumed)."""
    before, after = series.where(series.step < onset).value, series.since(onset).value
    few = max(1, min(5, len(before)))
    return len(before) > 0 and len(after) > 0 and median(after) > 1.25 * median(before[-few:]) > 0

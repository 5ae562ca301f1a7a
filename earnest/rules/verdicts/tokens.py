"""The verdict of a stream of tokens: a list of named steps, the first of which that has an answer gives the verdict."""

import math
from collections.abc import Callable

import numpy as np

from earnest.rules.finding import Baseline, Verdict, Word
from earnest.rules.measure import (
    EQUAL,
    WORSE,
    Measure,
    began_above,
    degenerate,
    end_of,
    falling,
    is_flat,
    rising_since,
    since_above,
    since_below,
)
from earnest.rules.statistics import trend
from earnest.rules.streams import StreamView

# If the label histogram is unknown, a cross-entropy within this share of ln V says nothing (assumed: label frequencies
# alone give neural codecs some 2-12 %, and a natural language some 30-40 %).
FREQUENCIES_AUDIO, FREQUENCIES_TEXT = 0.15, 0.30
# Within it and no histogram: at chance (assumed; a real run at 2-5 % below chance had learnt nothing).
NEAR_CHANCE = 0.06


def judge(view: StreamView) -> Verdict:
    """The verdict of a stream of tokens."""
    return next(verdict for step in STEPS if (verdict := step(view)))


def _verdict(
    view: StreamView, word: Word, why: str, since: int | None = None, baseline: Baseline | None = None
) -> Verdict:
    value = view.now.value if view.now else None
    baseline = baseline or view.rung("uniform")
    return Verdict(view.stream, word, value, "nats", baseline, since, why, view.rungs)


def is_nothing(view: StreamView) -> Verdict | None:
    """Degenerate: the loss is not a number, or exactly 0; that of evaluation if there is no other."""
    broken = degenerate(view.train) if view.train is not None else degenerate(view.evaluated)
    if not broken:
        return None
    value = float(view.any.value[-1]) if view.any else None
    baseline = view.rung("uniform")
    return Verdict(view.stream, "degenerate", value, "nats", baseline, broken[0], broken[1], view.rungs)


def has_no_target(view: StreamView) -> Verdict | None:
    """Degenerate: nothing was counted, so that there is no loss."""
    if view.now is not None and view.held_out.counted != 0:
        return None
    why, baseline = "no target of this stream was counted", view.rung("uniform")
    return Verdict(view.stream, "degenerate", None, "nats", baseline, None, why, view.rungs)


def has_no_level(view: StreamView) -> Verdict | None:
    """Cannot judge: no mean per target, or of no known vocabulary."""
    if view.is_printed_divided:
        return _printed_divided(view)
    if view.rung("uniform"):
        return None
    door = view.no_mean or f"vocabulary size unknown, pass {view.vocabulary_fact}"
    if view.course is None:
        return _verdict(view, "cannot-judge", door)
    return _verdict(view, direction(view) or "cannot-judge", f"{view.went}; {door}", since(view))


def _printed_divided(view: StreamView) -> Verdict:
    """The verdict of a loss that is printed divided by unknown accumulation steps: only its fall, relative to its
    start, can be judged, and only if it began at chance or below (assumed)."""
    now, started = _now(view), float(view.train.head(3).value.max()) if view.train else 0.0
    door = "training is printed divided by the accumulation steps: --fact accumulation_steps=..."
    worse, share = direction(view), now.value / started if started > 0 else 1.0
    if worse or view.chance is None or share >= 1 - FREQUENCIES_TEXT:
        return _verdict(view, worse or "cannot-judge", door, since(view))
    why = f"fell from {started:.3f} to {now.value:.3f}, which is learning if it began at chance or below; {door}"
    return _verdict(view, "learning", why)


def is_memorising(view: StreamView) -> Verdict | None:
    """Training far below held-out while held-out stalls or rises."""
    now, train, evaluated = _now(view), view.train, view.evaluated
    if now.source == "training" or train is None or not len(train.finite) or view.unit == "divided":
        return None
    reference, trained = min(view.rungs, key=lambda rung: rung.value), end_of(train).value
    if trained >= min(now.value, reference.value):
        return None
    where = "held out" if now.source == "held out" else "in evaluation"
    seen = f"training {trained:.2f} nats against {now.value:.2f} {where}"
    uniform = _uniform(view)
    rising = rising_since(evaluated, uniform)
    if rising and rising[1] > 0.25 * max(uniform - (now.value - rising[1]), 0.1 * uniform) and falling(train):
        why = f"{seen}, which has risen by {rising[1]:.2f} since step {rising[0]}"
        return _verdict(view, "memorising", why, rising[0], reference)
    means = evaluated.binned.value if evaluated is not None else np.zeros(0)
    stalled = len(means) < 4 or trend(means[-max(4, len(means) // 3) :]).z > -1
    # more than twice as far below the baseline in training as held out (assumed)
    apart = reference.value - trained > 2 * max(reference.value - now.value, 0) and now.value - trained > 0.15 * uniform
    if not (stalled and apart):
        return None
    lowest = None
    if evaluated is not None and len(evaluated.finite):
        lowest = int(evaluated.finite.step[np.argmin(evaluated.finite.value)])
    return _verdict(view, "memorising", seen, rising[0] if rising else lowest, reference)


def is_too_good(view: StreamView) -> Verdict | None:
    """Degenerate: lower than anything real, so that the target must be among the inputs."""
    now, level = _now(view), view.too_good
    if not level or now.value >= level:
        return None
    choices = f"{math.exp(now.value):.2f} choices per target"
    why = f"{_in_words(view)} are {choices}: nothing real is that predictable, so the target reaches the input"
    return _verdict(view, "degenerate", why, since_below(now.series, level))


def is_getting_worse(view: StreamView) -> Verdict | None:
    """Below chance, and above its own best."""
    if view.course is None or direction(view) != "getting-worse":
        return None
    return _verdict(view, "getting-worse", view.went, since(view))


def is_above_chance(view: StreamView) -> Verdict | None:
    now, uniform = _now(view), _uniform(view)
    if now.low <= uniform * (1 + WORSE):
        return None
    why = f"{_in_words(view)} are above the {uniform:.3f} of a uniform guess"
    return _verdict(view, "worse-than-chance", why, since_above(now.series, uniform))


def against_joint(view: StreamView) -> Verdict | None:
    """In a joint vocabulary: below a guess among all ids, and not below one among those that may follow."""
    now, uniform, part = _now(view), view.rung("uniform"), view.audio_part
    if view.rung("unigram") or uniform is None or part is None:
        return None
    if now.value > (1 - NEAR_CHANCE) * uniform.value or now.value <= (1 - NEAR_CHANCE) * part.value:
        return None
    why = f"{_in_words(view)} are below the {uniform.value:.3f} of all ids, and no better than knowing which may follow"
    since = since_below(now.series, (1 - NEAR_CHANCE) * uniform.value)
    return _verdict(view, "unigram-only", f"{why}, {_short(part.value)}", since, part)


def against_uniform(view: StreamView) -> Verdict | None:
    """Beside a uniform guess alone, if the label frequencies are unknown: then a little below it says nothing. In a
    joint vocabulary it is a guess among the ids that may follow, which any model soon knows."""
    now, chance = _now(view), view.rung("uniform")
    uniform = (view.audio_part if view.audio_part and now.value < view.audio_part.value else None) or chance
    if view.rung("unigram") or uniform is None or chance is None:
        return None
    share_below = 1 - now.value / uniform.value
    limit = FREQUENCIES_AUDIO if view.is_audio else FREQUENCIES_TEXT
    if share_below <= limit and (above := began_above(view.any, chance)):
        for_long = f"after {above[1]:.2f} nats until step {above[0]}: above the {uniform.value:.3f} of a uniform guess"
        start = int(view.any.step[0]) if view.any else None
        return _verdict(view, "worse-than-chance", f"{_in_words(view)}, {for_long} for that long", start)
    if share_below <= NEAR_CHANCE:
        below = f"{share_below:.1%} below" if share_below > 0 else f"{-share_below:.1%} above"
        return _verdict(view, "at-chance", f"{_in_words(view)} are {below} chance, {uniform.value:.3f}", now.first_step)
    share = f"{_in_words(view)} are {share_below:.0%} below chance"
    if share_below <= limit:
        why = f"{share}, which label frequencies alone may give; pass label_counts or a held-out probe"
        return _verdict(view, "cannot-judge", why)
    why = f"{share}, {uniform.value:.3f}; the label frequencies are unknown"
    return _verdict(view, _progress(view), why, since_below(now.series, (1 - limit) * uniform.value))


def against_frequencies(view: StreamView) -> Verdict | None:
    """Not below the label frequencies: at chance, or these alone were learnt."""
    now, uniform, unigram = _now(view), view.rung("uniform"), view.rung("unigram")
    # A paired interval is narrower than that of the nats themselves: what lies below the unigram is not at chance.
    if uniform is None or unigram is None or view.is_below(unigram):
        return None
    even = unigram.value >= uniform.value * (1 - EQUAL)
    if even:
        why = f"{_in_words(view)}: chance is {uniform.value:.3f}, and the labels are evenly spread"
        return _verdict(view, "at-chance", why, now.first_step)
    if not view.is_below(uniform):
        why = f"{_in_words(view)} are not below chance, {uniform.value:.3f}"
        return _verdict(view, "at-chance", why, now.first_step)
    why = f"{_in_words(view)} are no better than the label frequencies, {_short(unigram.value)}"
    return _verdict(view, "unigram-only", why, since_below(now.series, uniform.value), unigram)


def is_learning(view: StreamView) -> Verdict | None:
    """Below the label frequencies, and perhaps below the previous frame."""
    now, unigram, bigram = _now(view), view.rung("unigram"), view.rung("bigram")
    best = bigram if bigram and view.is_below(bigram) else unigram
    if best is None:
        return None
    why = f"{_in_words(view)}, below the {best.name} baseline of {_short(best.value)}"
    if bigram and best is unigram:
        why += f", not yet below the bigram of {_short(bigram.value)}"
    return _verdict(view, _progress(view), why, since_below(now.series, best.value), best)


STEPS: tuple[Callable[[StreamView], Verdict | None], ...] = (
    is_nothing,
    has_no_target,
    has_no_level,
    is_memorising,
    is_too_good,
    is_above_chance,
    is_getting_worse,
    against_joint,
    against_uniform,
    against_frequencies,
    is_learning,
)


def direction(view: StreamView) -> Word | None:
    """What its course alone says, against its own levels; a loss near 0 has no level to be worse than."""
    if view.course is None or view.course.best <= 0:
        return None
    return "never-moved" if view.course.never_moved else "getting-worse" if view.course.gets_worse else None


def since(view: StreamView) -> int | None:
    """The step of its best stretch, if it has got worse since."""
    return view.course.since if view.course and direction(view) == "getting-worse" else None


def _progress(view: StreamView) -> Word:
    """Converged if it is flat beside what the run itself has gained."""
    if len(view.any.finite if view.any else ()) < 3 and _now(view).source != "held out":
        return "cannot-judge"  # a row or two show a level, and no direction
    now, gained = _now(view), view.course.start - view.course.end if view.course else 0.0
    if direction(view) == "never-moved":
        return "never-moved"
    return "converged" if is_flat(now.series, min(gained, _uniform(view) - now.value)) else "learning"


def _in_words(view: StreamView) -> str:
    now = _now(view)
    return f"{now.source} {_short(now.value)} nats"


def _short(nats: float) -> str:
    """Three decimals; two digits of what these would round to 0."""
    return f"{nats:.3f}" if abs(nats) >= 0.0005 else f"{nats:.2g}"


def _now(view: StreamView) -> Measure:
    assert view.now is not None, "an earlier step has judged a stream without a value"
    return view.now


def _uniform(view: StreamView) -> float:
    uniform = view.rung("uniform")
    assert uniform is not None, "an earlier step has judged a stream without a vocabulary"
    return uniform.value

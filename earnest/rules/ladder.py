"""The chance ladder: is each stream learning, against what a predictor that has learnt nothing would score?

A cross-entropy is compared, in this order, with a uniform guess over the ids that can occur, with the label frequencies
(unigram) and with the previous frame (bigram). Other losses have baselines of their own: a hinge discriminator 2, a
cosine distillation the constant mean vector. A stream without a known baseline is not judged: the verdict says which
fact is missing.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from earnest.probes.results import HeldOutStream
from earnest.rules.finding import Baseline, Verdict, Word
from earnest.rules.statistics import boundary, mean_interval, miller_madow, noise, trend
from earnest.run import Run, Series
from earnest.signals import Key
from earnest.streams import AUDIO, TEXT, TOTAL, Part, Stream, in_order

# Practical equivalence with a baseline, as a share of it (assumed): below it a difference may be real but teaches
# nothing.
EQUAL = 0.005
# Above chance by this share is worse than chance, not a fresh head's overconfidence (assumed; a fresh wide head starts
# within 0.3 nats, 4 % of ln 1026).
WORSE = 0.04
# Where the label histogram is unknown, a cross-entropy within this share of ln V says nothing (assumed: label
# frequencies alone give neural codecs some 2-12 %, and a natural language some 30-40 %).
FREQUENCIES_AUDIO, FREQUENCIES_TEXT = 0.15, 0.30
NEAR_CHANCE = (
    0.06  # within it and no histogram: at chance (assumed; a real run at 2-5 % below chance had learnt nothing)
)
# Audio codes are never this predictable on unseen data, as a share of ln V: 0.35 nats of 6.93. Lowest believable report
# known: 0.96 nats, on silence-heavy sound effects (audiocraft#447).
TOO_GOOD = 0.05
# The same for text without audio beside it, in nats (assumed: supervised answers reach 0.1, constant ones 0.01).
TOO_GOOD_TEXT = 0.02
# The constant-mean baseline of 1 - cos, 1 - sqrt(r) with r the energy share of the mean: calculated for r = 0.10
# (WavLM-large features) and r = 0.85 (Qwen3 hidden states); assumed for a run that does not measure its own (probe
# "baselines").
CONSTANT_MEAN: dict[Stream, float] = {Part("wavlm"): 0.683, Part("llm"): 0.078}
DISCRIMINATOR = (Part("loss_d"), Part("discriminator"))
ADVERSARIAL, FEATURES = (Part("adv_g"), Part("adversarial")), (Part("feat"), Part("features"))
UNBOUNDED: dict[Stream, str] = {
    **dict.fromkeys(ADVERSARIAL, "-E D(fake) has no baseline and may be negative: judge the gap D(real) - D(fake)"),
    **dict.fromkeys(
        FEATURES,
        "feature matching is in units of the discriminator's own activations: judge it by the discriminator and by ear",
    ),
    Part("loss_g"): "a weighted sum has no baseline: judge its parts",
    Part("commitment"): "commitment has no baseline but 0: judge codebook usage and reconstruction",
}


@dataclass(frozen=True)
class Measure:
    """What a verdict is about: the value now, its interval, where it was read, and the curve behind it."""

    value: float
    interval: tuple[float, float] | None
    source: str
    curve: Series | None

    @property
    def low(self) -> float:
        return self.interval[0] if self.interval else self.value

    @property
    def high(self) -> float:
        return self.interval[1] if self.interval else self.value


def vocabulary(run: Run, stream: Stream) -> int | None:
    """How many ids can occur as a target; a total that stands alone is taken for audio, or for text where only that
    vocabulary is known."""
    text, audio = run.facts.text_vocab, run.facts.audio_vocab
    size = text if stream == TEXT else audio if stream.is_audio else (audio or text) if stream == TOTAL else None
    return int(size) if size and float(size) > 1 else None


def too_good(run: Run, stream: Stream) -> float | None:
    """The level in nats below which a loss of this stream is not believed, or None where every level is.

    Text beside audio is not judged: for plain speech synthesis its targets are constants (4e-7 nats in higgs-audio#94).
    Where nearly all targets are one id, their unigram entropy is as low by itself, so half of that (assumed) bounds the
    level. So does the bigram's where the alignment probe has seen that labels are shifted; labels that are not make it
    0.
    """
    size = vocabulary(run, stream)
    if stream.is_audio or (stream == TOTAL and run.facts.audio_vocab):
        traced = (run.probes.alignment or {}).get(stream)
        trusted = ("unigram", "bigram") if traced and traced.offset == traced.expected else ("unigram",)
        return min(
            [
                TOO_GOOD * math.log(size or 1024),
                *(0.5 * rung.value for rung in rungs(run, stream) if rung.name in trusted),
            ]
        )
    return (
        TOO_GOOD_TEXT
        if size and stream in (TEXT, TOTAL) and not any(other.is_audio for other in token_streams(run))
        else None
    )


def held_out(run: Run, stream: Stream) -> HeldOutStream:
    """What the probe ``held_out`` measured of a stream."""
    probe = run.probes.held_out
    return (probe.streams.get(stream) if probe else None) or HeldOutStream()


def token_curve(run: Run, split: str, stream: Stream | None) -> Series | None:
    """The cross-entropy of a token stream; a plain loss of that stream is taken for it. `total` is the loss without a
    stream."""
    stream = None if stream == TOTAL else stream
    return run.get(split, "ce_nats", stream) or run.get(split, "loss", stream)


def token_streams(run: Run) -> list[Stream]:
    """Streams of tokens: those with a cross-entropy, and text and audio where only a loss is logged, text first; else a
    total that stands alone."""
    found = set(run.probes.held_out.streams if run.probes.held_out else ())
    for _, name, stream in run.series:
        if stream and (name == "ce_nats" or (name == "loss" and (stream == TEXT or stream.is_audio))):
            found.add(stream)
    if (
        not found
        and not any(key.stream for key in run.series if key.name == "loss")
        and token_curve(run, "train", TOTAL)
    ):
        return [TOTAL]
    return in_order(found)


def verdicts(run: Run) -> list[Verdict]:
    """One verdict per stream: tokens first, then the other losses, then a total that stands alone."""
    tokens = token_streams(run)
    others = [key.stream for key in run.series if key[:2] == ("train", "loss")]
    result = [judge_tokens(run, stream) if stream != TOTAL else judge_total(run, stream) for stream in tokens]
    result += [judge_other(run, stream) for stream in others if stream and stream not in tokens]
    if (
        tokens
        and TOTAL not in tokens
        and len(result) == len(tokens)
        and all(one.verdict in ("at-chance", "worse-than-chance") for one in result)
    ):
        total = token_curve(run, "train", TOTAL)
        at_sum = _at_sum_of_chances(run, total) if total is not None and len(total.finite) else None
        result += [at_sum] if at_sum else []
    return result


def degenerate(series: Series | None) -> tuple[int, str] | None:
    """Since when, and in words, a loss is nothing: never a number, exactly 0, or no longer a number."""
    if series is None:
        return None
    if not len(series):
        return 0, "logged, but without a single value"
    last = series.value[-min(3, len(series)) :]
    if not np.isfinite(last).any():
        since = int(series.step[_start_of_last(~np.isfinite(series.value))])
        return since, f"not a number since step {since}"
    since = zero_since(series)
    return (
        None
        if since is None
        else (since, f"exactly 0 since step {since}: nothing was scored, or a NaN was logged as 0")
    )


def zero_since(series: Series) -> int | None:
    """The step since which a loss is exactly 0 and did not get there by itself, or None.

    A loss that had fallen to a thousandth of its start (assumed) is rounded to 0: in fp32 a cross-entropy below 1e-7
    nats cannot be told from 0, and constant targets reach that.
    """
    values = series.finite
    if not len(values) or values.value[-2:].any():
        return None
    before = values.value[: np.argmax(values.value == 0)]  # not of the last stretch: one odd batch may interrupt zeros
    faded = len(before) > 1 and abs(before[-1]) <= 1e-3 * abs(before[0])
    return None if faded else int(values.step[_start_of_last(values.value == 0)])


def _start_of_last(condition: np.ndarray) -> int:
    """Index at which the stretch of True that reaches the end begins."""
    wrong = np.flatnonzero(~condition)
    return int(wrong[-1]) + 1 if len(wrong) else 0


def measure(run: Run, stream: Stream) -> Measure | None:
    """Where the stream stands: held-out probe, else the last evaluations, else the end of training."""
    held = held_out(run, stream)
    train, evaluated = token_curve(run, "train", stream), token_curve(run, "eval", stream)
    if held.ce_nats is not None and math.isfinite(held.ce_nats):
        return Measure(held.ce_nats, held.interval, "held out", evaluated or train)
    for series, source, share in ((evaluated, "evaluation", 0.0), (train, "training", 0.1)):
        if series is not None and len(series.finite):
            return series_measure(series, source, share)
    return None


def series_measure(series: Series, source: str, share: float = 0.1) -> Measure:
    """The mean of the end of a series, with an interval that respects autocorrelation."""
    if share == 0.0:
        last = series.finite.value[-1]
        half = 2 * noise(series.finite.value)
        return Measure(float(last), (last - half, last + half) if half else None, source, series)
    few = max(
        3, min(8, len(series.finite) // 3)
    )  # eight points for an interval, but no more than a third of a short log
    value, interval = mean_interval(series.tail(share, at_least=few).value)
    return Measure(value, interval, source, series)


def rungs(run: Run, stream: Stream) -> list[Baseline]:
    """The baselines of a token stream that are known, highest first."""
    held = held_out(run, stream)
    counts = (run.facts.label_counts or {}).get(stream)
    size = vocabulary(run, stream)
    found: list[Baseline] = []
    if held.uniform_nats is not None:
        found.append(Baseline("uniform", held.uniform_nats))
    elif size:
        found.append(Baseline("uniform", math.log(size)))
    if held.unigram_nats is not None:
        found.append(Baseline("unigram", held.unigram_nats))
    elif counts and sum(counts.values()):
        found.append(Baseline("unigram", miller_madow(counts)))
    if held.bigram_nats is not None:
        found.append(Baseline("bigram", held.bigram_nats))
    return found


def _is_below(run: Run, stream: Stream, rung: Baseline, now: Measure) -> bool:
    """Below a rung by more than the interval: the paired one where clips were compared, else that of the series."""
    gap = held_out(run, stream).gaps.get(rung.name)
    if gap and now.source == "held out":
        return gap[2] < 0
    return now.high < rung.value * (1 - EQUAL)


def judge_tokens(run: Run, stream: Stream) -> Verdict:
    """The verdict of a stream of tokens."""
    ladder = rungs(run, stream)
    uniform = ladder[0] if ladder and ladder[0].name == "uniform" else None
    train, evaluated = token_curve(run, "train", stream), token_curve(run, "eval", stream)

    def verdict(
        word: Word, why: str, value: float | None, baseline: Baseline | None = uniform, since: int | None = None
    ) -> Verdict:
        return Verdict(stream, word, value, "nats", baseline, since, why, ladder)

    if broken := degenerate(train) or degenerate(evaluated):
        value = (train or evaluated).value[-1] if len(train or evaluated or ()) else None  # type: ignore[union-attr]
        return verdict("degenerate", broken[1], value, since=broken[0])
    now = measure(run, stream)
    if now is None or held_out(run, stream).counted == 0:
        return verdict("degenerate", "no target of this stream was counted", None)
    if uniform is None:
        fact = "audio_vocab" if stream.is_audio else "text_vocab" if stream == TEXT else "audio_vocab=... or text_vocab"
        return verdict("cannot-judge", f"vocabulary size unknown, pass --fact {fact}=...", now.value)

    reference = min(ladder, key=lambda rung: rung.value)
    where = f"{now.source} {now.value:.3f} nats"
    remembered = memorising(run, stream, train, evaluated, now, ladder)
    if remembered:
        return verdict("memorising", remembered[1], now.value, reference, remembered[0])
    if (level := too_good(run, stream)) and now.value < level:
        why = f"{where} are {math.exp(now.value):.2f} choices per target: nothing real is that predictable, so the target reaches the input"
        return verdict("degenerate", why, now.value, since=_since_below(now.curve, level))
    if now.low > uniform.value * (1 + WORSE):
        return verdict(
            "worse-than-chance",
            f"{where} are above the {uniform.value:.3f} of a uniform guess",
            now.value,
            since=_since_above(now.curve, uniform),
        )

    share_below = 1 - now.value / uniform.value
    known = {rung.name: rung for rung in ladder}
    if "unigram" not in known:
        start = train or evaluated
        limit = (
            FREQUENCIES_AUDIO if stream.is_audio or (stream == TOTAL and run.facts.audio_vocab) else FREQUENCIES_TEXT
        )
        if share_below <= limit and (above := began_above_chance(start, uniform)):
            why = f"{where}, after {above[1]:.2f} nats until step {above[0]}: above the {uniform.value:.3f} of a uniform guess for that long"
            return verdict("worse-than-chance", why, now.value, since=int(start.step[0]) if start else None)
        if share_below <= NEAR_CHANCE:
            return verdict(
                "at-chance",
                f"{where} are {_percent(share_below)} chance, {uniform.value:.3f}",
                now.value,
                since=_first_step(now),
            )
        if share_below <= limit:
            why = f"{where} are {share_below:.0%} below chance, which label frequencies alone may give; pass label_counts or a held-out probe"
            return verdict("cannot-judge", why, now.value)
        word: Word = "converged" if is_flat(now.curve, uniform.value - now.value) else "learning"
        why = f"{where} are {share_below:.0%} below chance, {uniform.value:.3f}; the label frequencies are unknown"
        return verdict(word, why, now.value, since=_since_below(now.curve, (1 - limit) * uniform.value))

    # A paired interval is narrower than that of the nats themselves: what lies below the unigram is not at chance.
    below_unigram = _is_below(run, stream, known["unigram"], now)
    if (
        not below_unigram
        and not _is_below(run, stream, uniform, now)
        and known["unigram"].value < uniform.value * (1 - EQUAL)
    ):
        return verdict(
            "at-chance", f"{where} are not below chance, {uniform.value:.3f}", now.value, since=_first_step(now)
        )
    if not below_unigram:
        if known["unigram"].value >= uniform.value * (1 - EQUAL):
            return verdict(
                "at-chance",
                f"{where}: chance is {uniform.value:.3f}, and the labels are evenly spread",
                now.value,
                since=_first_step(now),
            )
        why = f"{where} are no better than the label frequencies, {known['unigram'].value:.3f}"
        return verdict("unigram-only", why, now.value, known["unigram"], _since_below(now.curve, uniform.value))
    best = known["unigram"]
    if "bigram" in known and _is_below(run, stream, known["bigram"], now):
        best = known["bigram"]
    word = "converged" if is_flat(now.curve, uniform.value - now.value) else "learning"
    why = f"{where}, below the {best.name} baseline of {best.value:.3f}"
    if best.name == "unigram" and "bigram" in known:
        why += f", not yet below the bigram of {known['bigram'].value:.3f}"
    return verdict(word, why, now.value, best, _since_below(now.curve, best.value))


def _percent(share_below: float) -> str:
    return f"{share_below:.1%} below" if share_below > 0 else f"{-share_below:.1%} above"


def _first_step(now: Measure) -> int | None:
    return int(now.curve.step[0]) if now.curve is not None and len(now.curve) else None


def _since_below(series: Series | None, level: float) -> int | None:
    """The step from which a series stayed below a level (as binned means)."""
    if series is None or not len(series.binned):
        return None
    start = _start_of_last(series.binned.value < level)
    return int(series.binned.step[start]) if start < len(series.binned) else None


def _since_above(series: Series | None, uniform: Baseline) -> int | None:
    if series is None or not len(series.binned):
        return None
    start = _start_of_last(series.binned.value > uniform.value)
    return int(series.binned.step[start]) if start < len(series.binned) else None


def began_above_chance(series: Series | None, uniform: Baseline, run_frac: float = 0.2) -> tuple[int, float] | None:
    """Last step and mean of a start clearly above chance that lasted at least `run_frac` of the run and of 250 steps,
    else None.

    A fresh wide head also starts above chance but falls to it within a few steps: that is benign and is not reported.
    """
    if series is None or len(series.binned) < 2:
        return None
    binned = series.binned
    above = binned.value > uniform.value * (1 + WORSE)
    if not above[0]:
        return None
    count = int(np.argmin(above)) if not above.all() else len(above)
    until = int(binned.step[count - 1])
    lasted = until - int(binned.step[0])
    if lasted < run_frac * max(250, (binned.last_step - int(binned.step[0]))):
        return None
    return until, float(binned.value[:count].mean())


def is_flat(series: Series | None, gained: float) -> bool:
    """The last third moves by less than 1 % of what was gained, on at least 12 points, without a trend that can be
    believed."""
    if series is None or gained <= 0:
        return False
    end = series.binned.value[-max(12, len(series.binned) // 3) :]
    if len(end) < 12:
        return False
    found = trend(end)
    return abs(found.change) < 0.01 * gained and not (found.z < -boundary(found.points))


def rising_since(evaluated: Series | None, scale: float) -> tuple[int, float] | None:
    """Step of the lowest evaluation and the rise since, where evaluations clearly rise after it: at least 4 of them.

    The lowest point is chosen by looking, so the trend is asked of the points after it only. Few points: every one must
    stand above the minimum by 4 times the noise, and their order must be rising; `scale` is what a real rise is
    measured by.
    """
    if evaluated is None or len(evaluated.binned) < 5:
        return None
    value, step = evaluated.binned.value, evaluated.binned.step
    lowest = int(np.argmin(value))
    after = value[lowest + 1 :]
    if len(after) < 4:
        return None
    found = trend(after)
    sigma = noise(value)
    rise = float(np.mean(after[-2:]) - value[lowest])
    clear = after[len(after) // 2 :].min() > value[lowest] + 4 * sigma
    # one-sided 5 % for 4 points in order (exact 1/24), and the anytime boundary once there are points enough to reach
    # it
    ordered = found.z > min(boundary(found.points), 0.55 * math.sqrt(found.points) + 0.5)
    return (int(step[lowest]), rise) if clear and ordered and rise > 0.02 * scale else None


def memorising(
    run: Run, stream: Stream, train: Series | None, evaluated: Series | None, now: Measure, ladder: list[Baseline]
) -> tuple[int | None, str] | None:
    """Training far below held-out while held-out stalls or rises; since when, and in words."""
    if now.source == "training" or train is None or not len(train.finite):
        return None
    uniform, reference = ladder[0].value, min(rung.value for rung in ladder)
    trained = series_measure(train, "training")
    seen = f"training {trained.value:.2f} nats against {now.value:.2f} {'held out' if now.source == 'held out' else 'in evaluation'}"
    if trained.value >= min(now.value, reference):
        return None
    rising = rising_since(evaluated, uniform)
    if rising and rising[1] > 0.25 * max(uniform - (now.value - rising[1]), 0.1 * uniform) and falling(train):
        return rising[0], f"{seen}, which has risen by {rising[1]:.2f} since step {rising[0]}"
    stalled = (
        evaluated is None
        or len(evaluated.binned) < 4
        or trend(evaluated.binned.value[-max(4, len(evaluated.binned) // 3) :]).z > -1
    )
    # more than twice as far below the baseline in training as held out (assumed)
    if (
        stalled
        and reference - trained.value > 2 * max(reference - now.value, 0)
        and now.value - trained.value > 0.15 * uniform
    ):
        lowest = (
            int(evaluated.finite.step[np.argmin(evaluated.finite.value)])
            if evaluated is not None and len(evaluated.finite)
            else None
        )
        return (rising[0] if rising else lowest), seen
    return None


def falling(series: Series | None) -> bool:
    """The second half lies below the first by more than the noise."""
    if series is None or len(series.binned) < 4:
        return False
    value = series.binned.value
    half = len(value) // 2
    return float(np.median(value[half:])) < float(np.median(value[:half])) - noise(value) / math.sqrt(half)


def judge_other(run: Run, stream: Stream) -> Verdict:
    """The verdict of a loss that is not a cross-entropy of tokens."""
    series = run.get("train", "loss", stream)
    measured = (run.probes.baselines or {}).get(stream) or {}
    ladder = sorted((Baseline(name, float(value)) for name, value in measured.items()), key=lambda rung: -rung.value)
    if broken := degenerate(series):
        return Verdict(stream, "degenerate", None, "", None, broken[0], broken[1], ladder)
    assert series is not None
    now = series_measure(series, "training")
    if stream in DISCRIMINATOR:
        return judge_discriminator(run, stream, now)
    note = ""
    if not ladder and stream in CONSTANT_MEAN:
        ladder = [Baseline("constant mean", CONSTANT_MEAN[stream])]
        note = " (assumed: calculated for such features; the run does not measure its own)"
    if not ladder:
        why = UNBOUNDED.get(
            stream, "its baseline is unknown: log a probe `baselines` (silence, mean frame or constant mean) beside it"
        )
        return Verdict(stream, "cannot-judge", now.value, "", None, None, why, [])
    lowest = ladder[-1]
    # 3 % of the baseline if measured; 5 % if assumed, which is how far the two calculated baselines lie from the values
    # reported
    margin = (0.05 if note else 0.03) * abs(lowest.value)
    if now.low > lowest.value + margin:
        word, relation = "worse-than-chance", "above"
    elif now.high >= lowest.value - margin:
        word, relation = "at-chance", "on"
    else:
        word, relation = ("converged" if is_flat(series, lowest.value - now.value) else "learning"), "below"
    why = f"{now.value:.3f} is {relation} the {lowest.name} baseline of {lowest.value:.3f}{note}"
    return Verdict(
        stream,
        word,
        now.value,
        "",
        lowest,
        _first_step(now) if relation != "below" else _since_below(series, lowest.value),
        why,
        ladder,
    )


def discriminator_gap(run: Run) -> Series | None:
    """D(real) - D(fake) over steps: as logged, else from the hinge loss, 2 - loss_d, which holds while |D| < 1."""
    gaps = []
    for real in [series for key, series in run.series.items() if key[:2] == ("train", "d_real")]:
        fake = run.get("train", "d_fake", real.stream)
        if fake is not None:
            steps, i, j = np.intersect1d(real.step, fake.step, return_indices=True)
            gaps.append((steps, real.value[i] - fake.value[j]))
    if gaps and all(len(steps) == len(gaps[0][0]) for steps, _ in gaps):
        return Series(gaps[0][0], np.mean([gap for _, gap in gaps], axis=0), Key("train", "d_gap"))
    for stream in DISCRIMINATOR:
        if loss := run.get("train", "loss", stream):
            return Series(loss.step, 2 - loss.value, Key("train", "d_gap"))
    return None


def is_hinge(run: Run) -> bool:
    return run.facts.gan_loss in (None, "hinge")


def judge_discriminator(run: Run, stream: Stream, now: Measure) -> Verdict:
    """A hinge discriminator scores exactly 2 where it sees no difference, and 0 where it separates everything."""
    chance = Baseline("no difference seen", 2.0)

    def verdict(word: Word, why: str, since: int | None = None) -> Verdict:
        return Verdict(stream, word, now.value, "", chance, since, why, [chance])

    if not is_hinge(run):
        return Verdict(
            stream,
            "cannot-judge",
            now.value,
            "",
            None,
            None,
            f"a {run.facts.gan_loss} discriminator: only hinge is judged",
            [],
        )
    gap = 2 - now.value
    if now.value < 0.05:
        return verdict(
            "degenerate",
            f"{now.value:.3f}: real and generated audio are told apart without exception",
            _since_below(now.curve, 0.05),
        )
    if now.low > 2.1:
        return verdict(
            "worse-than-chance",
            f"{now.value:.3f}, above the 2 of a discriminator that sees no difference (taken for hinge)",
        )
    if now.value > 1.95:
        return verdict(
            "at-chance",
            f"{now.value:.3f} is a gap D(real) - D(fake) of {gap:.3f}: it sees no difference (taken for hinge)",
            _first_step(now),
        )
    return verdict(
        "learning", f"{now.value:.3f}, below the 2 of a discriminator that sees no difference (taken for hinge)"
    )


def _sums_of_chances(run: Run) -> dict[str, float]:
    """Totals that streams at chance add up to."""
    text, audio, codebooks = vocabulary(run, TEXT), vocabulary(run, AUDIO), run.facts.codebooks or 1
    sums = {}
    if text and audio:
        sums["sum of the chances of text and audio"] = math.log(text) + math.log(audio)
    if audio and codebooks > 1:
        sums[f"sum of the chances of {codebooks} codebooks"] = codebooks * math.log(audio)
    if text and audio and codebooks > 1:
        sums[f"sum of the chances of text and {codebooks} codebooks"] = math.log(text) + codebooks * math.log(audio)
    return sums


def _at_sum_of_chances(run: Run, total: Series) -> Verdict | None:
    now = series_measure(total, "training")
    for words, chance in _sums_of_chances(run).items():
        if abs(now.value / chance - 1) < NEAR_CHANCE:
            rung = Baseline(words, chance)
            return Verdict(
                TOTAL,
                "at-chance",
                now.value,
                "nats",
                rung,
                _first_step(now),
                f"{now.value:.2f} nats are the {words}, {chance:.2f}",
                [rung],
            )
    return None


def judge_total(run: Run, stream: Stream) -> Verdict:
    """A loss without a stream, alone in its log: a sum of chances is recognised; else it is taken for the mean of the
    vocabulary that is known."""
    total = token_curve(run, "train", stream)
    assert total is not None
    if not len(total.finite):
        return judge_tokens(run, stream)
    if at_sum := _at_sum_of_chances(run, total):
        return at_sum
    start, now = float(total.head(3).value.mean()), series_measure(total, "training")
    for words, chance in _sums_of_chances(run).items():
        if (
            abs(start / chance - 1) < 0.1
        ):  # it began as that sum: judged against it (assumed: heads start within 4 % of chance)
            above, learnt = now.low > chance * (1 + WORSE), now.value < (1 - FREQUENCIES_TEXT) * chance
            word: Word = "worse-than-chance" if above else "learning" if learnt else "cannot-judge"
            why = f"{now.value:.2f} nats, after a start at the {words}, {chance:.2f}; log the streams apart to see which one learns"
            return Verdict(
                stream, word, now.value, "nats", Baseline(words, chance), None, why, [Baseline(words, chance)]
            )
    verdict = judge_tokens(run, stream)
    text, audio = vocabulary(run, TEXT), vocabulary(run, AUDIO)
    if verdict.baseline is None:
        return verdict
    why = f"taken for the mean cross-entropy of {'audio' if audio else 'text'} targets: {verdict.why}"
    if text and audio:
        joint = math.log(text + audio)
        why += f"; chance over the joint vocabulary is {joint:.3f}, of which {joint - math.log(audio):.2f} only choose audio"
    return replace(verdict, why=why)

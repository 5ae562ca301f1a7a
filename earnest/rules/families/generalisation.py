"""Family E, training beside held-out: overfitting, memorising, stair steps."""

import math
from collections.abc import Mapping

import numpy as np

from earnest.probes.results import HeldOut
from earnest.profiles import built_on
from earnest.quantiles import median
from earnest.rules.catalogue import RULES, Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG, WEAK
from earnest.rules.families.evaluation import OF_TOKENS, all_sets_rise, held_out_sets
from earnest.rules.finding import Severity
from earnest.rules.measure import FEWEST_POINTS, HIGHEST_CHANCE, course, degenerate, end_of, falling, rising_since
from earnest.rules.needs import (
    AllJudged,
    AllSeries,
    EvaluatedLosses,
    Fact,
    Loss,
    LossInBothSplits,
    PlainLosses,
    Probe,
    Tokens,
)
from earnest.rules.streams import FROM_SCRATCH, TOO_GOOD_TEXT
from earnest.run import Series
from earnest.signals import Key
from earnest.streams import TEXT

FEW_CLIPS = 20  # below, a held-out loss has a direction, but hardly a value (assumed)
GAP = 0.25  # of what training gained (assumed; a healthy language model stays below a tenth)
# Fewer evaluations are judged by size: by this factor above training, or the other if there is only one (assumed).
FEWEST_EVALUATIONS, APART, BEYOND_DOUBT = 5, 1.5, 5.0
# Twenty times is no gap of a healthy run, nor is three times beside a held-out loss that is past its best (assumed).
MEMORISED, FAR, PAST_ITS_BEST, FAR_PAST = 20.0, 3.0, 0.03, 0.05
FEWEST_TO_OVERFIT, AT_ONCE = 5, 7 / 6  # evaluations of a trend, and by what fewer must rise (assumed)
ABOVE_ZERO = 0.5  # nats held out, beside a training loss that is printed as 0 (assumed)
EPOCHS = 3  # boundaries at which a loss must drop (assumed)


@rule("E101", "warning", points=3, explains=("D204", "E107"))
def overfitting(
    loss: LossInBothSplits,
    judged: AllJudged | None,
    held_out_clips: Fact[int] | None,
    losses: EvaluatedLosses | None,
    trained: PlainLosses | None,
) -> Answers:
    """The held-out loss rises while the training loss falls.

    ## What it sees
    After its minimum the held-out loss rises over at least four evaluations, by more than its noise and 2 % of chance
    (1 % of its lowest value if that is unknown), while the training loss still falls, or is not in the log at all.
    In fewer than eight evaluations also: from the lowest on each is above the one before, twice or more, the last by a
    sixth above all until the lowest, and the training loss falls from each to the next, by a third in all.

    - of several held-out sets beside a training loss without parts: all of them, told once
    - a note if that is a part of a total that does not rise, or a rise by less than a twentieth (a tenth if it is
      smooth)
    ## Likely causes
    - few clips, many passes: the model memorises them
    - fixed crops: the same frames in every epoch
    - no dropout, or a learning rate that is still high late in the run
    ## Next probe
    Generate from the checkpoint with the lowest held-out loss and from the last, same prompts and seeds, and listen.
    ## Fix
    Keep the checkpoint at the minimum; take random windows, more clips, or fewer epochs.
    ## References
    Prechelt 1998, "Early Stopping - But When?".
    """
    evaluated, train = loss.evaluated, loss.train
    sets = held_out_sets(losses or {}, trained or {})
    if evaluated.stream in sets:
        yield Looked()
        yield from all_sets_rise(sets, evaluated, trained or {})
        return
    view = next((one.view for one in judged or () if one.stream == evaluated.stream), None)
    chance = view.chance if view else None
    scale = chance.value if chance else 0.5 * abs(float(evaluated.finite.value.min()))
    smooth, rising = False, rising_since(evaluated, scale)
    went = course(evaluated)
    if rising is None and went is not None and went.best > 0 and went.gets_worse:  # a rise too smooth for a trend test
        smooth, rising = True, (went.since, went.end - went.best)
    if rising is None and went is None:
        yield from _overfits_in_few(evaluated, train)
        return
    if rising and train is None and not _must_fall(evaluated):
        yield TooEarly(f"train/{evaluated.key.name} beside {evaluated.key}, which rises")
        return
    yield Looked()
    if rising and (train is None or falling(train.since(rising[0]))):
        words = f"{evaluated.finite.value.min():.3f} at step {rising[0]}, {evaluated.finite.value[-1]:.3f} now"
        if evaluated.finite.value[-1] > evaluated.finite.value[0]:
            words += f", above its first value of {evaluated.finite.value[0]:.3f}"
        words += "" if train else "; no training loss is in the log to compare with"
        if held_out_clips is not None and held_out_clips < FEW_CLIPS:
            clips = f"{held_out_clips} held-out clip{'s' if held_out_clips > 1 else ''}"
            words += f" ({clips}: trust the direction, not the value)"
        rise = rising[1] / max(abs(float(evaluated.finite.value.min())), 1e-9)
        mild = rise < (0.1 if smooth else 0.05) or _part_only(evaluated, losses)
        odds = STRONG if train else FAIR
        yield Evidence(rising[0], words, odds, evaluated.rows(), severity="note" if mild else None)


def _overfits_in_few(evaluated: Series, train: Series | None) -> Answers:
    """Few evaluations, too few for a trend: twice and more in order above the lowest, while the training loss falls."""
    held, taught = evaluated.finite.value, train.finite.value if train is not None else np.zeros(0)
    if not 3 <= len(taught) <= len(held) + 1:
        yield Looked() if len(held) >= FEWEST_TO_OVERFIT else TooEarly(f"{FEWEST_TO_OVERFIT} points of {evaluated.key}")
        return
    yield Looked()
    best, step = int(held.argmin()), evaluated.finite.step
    rises = (
        len(held) > best + 2 and (np.diff(held[best:]) > 0).all() and held[-1] > AT_ONCE * held[: best + 1].max() > 0
    )
    if rises and (np.diff(taught) < 0).all() and taught[-1] < taught[0] / 1.5 and _must_fall(evaluated):
        words = f"{held[best]:.3f} at step {int(step[best])}, {held[-1]:.3f} now"
        words += f", above its first value of {held[0]:.3f}" if held[-1] > held[0] else ""
        yield Evidence(int(step[best]), f"{words}; seen in {len(held)} rows only", FAIR, evaluated.rows())


def _must_fall(evaluated: Series) -> bool:
    """Whether it is a loss of tokens or a total: others, such as an adversary's, may rise."""
    stream = evaluated.stream
    return stream is None or stream == TEXT or stream.is_audio


def _part_only(evaluated: Series, losses: EvaluatedLosses | None) -> bool:
    """Whether it is a part of a loss whose held-out total does not get worse."""
    total = course((losses or {}).get(None))
    return evaluated.stream is not None and total is not None and not total.gets_worse


@rule("E107", "note", points=1)
def held_out_far_above_training(loss: LossInBothSplits, series: AllSeries | None) -> Answers:
    """The held-out loss has stopped falling far above the training loss, which falls on.

    ## What it sees
    At the end the two are further apart than at the first evaluation, by more than a quarter of what training has
    gained since then and a tenth of the held-out loss. With fewer than five evaluations, or few training rows: each
    held-out loss is more than 1.5 times the training loss beside it, or 5 times if there is only one.

    - a note in general, and always of a part of a loss
    - a warning if the held-out loss is more than 20 times the training loss (with enough rows: and past its lowest
      level); or more than 3 times, 5 % past its lowest level, while no error rate or accuracy has improved since
    ## Likely causes
    - the training clips are being memorised: few clips, many passes
    - training and held-out clips differ: other speakers, another recording, another text form
    ## Next probe
    Score some training clips in the way the held-out ones are scored (no dropout, no masking): is the gap still there?
    ## Fix
    More clips, fewer passes, or stop where the held-out loss stopped.
    ## References
    earnest's own; no publication known.
    """
    evaluated, train = loss.evaluated.finite, loss.train.finite if loss.train is not None else None
    if train is not None and len(train) and (len(evaluated) < FEWEST_EVALUATIONS or len(train) < FEWEST_POINTS):
        yield Looked()
        yield from _far_apart(evaluated, train)
        return
    if train is None or len(train) < FEWEST_POINTS:
        yield TooEarly(f"{FEWEST_POINTS} points of train/{evaluated.key.name} beside {evaluated.key}")
        return
    yield Looked()
    beside = np.interp(evaluated.step, train.binned.step, train.binned.value)
    gap, gained = evaluated.value - beside, float(beside[0] - beside[-1])
    end = median(gap[-2:])
    grown = end - max(0.0, median(gap[:2]))
    if gained > 0 and beside[-1] > 0 and grown > GAP * gained and grown > 0.1 * evaluated.value[-1]:
        apart = int(evaluated.step[int(np.argmax(gap > 0.5 * end))])
        words = f"{evaluated.value[-1]:.2f} held out beside {beside[-1]:.2f} in training, a gap since step {apart}"
        level = np.convolve(evaluated.value, np.ones(3) / 3, "valid")
        past = float(level[-1] / level.min() - 1) if level.min() > 0 else 0.0
        if past > PAST_ITS_BEST:
            words += f", and {past:.0%} above its lowest level"
        times, lowest = float(evaluated.value[-1] / beside[-1]), int(evaluated.step[int(level.argmin()) + 1])
        harms = times > FAR and past > FAR_PAST and not _output_improves(series or {}, lowest)
        by_heart = times > MEMORISED and past > PAST_ITS_BEST
        severity: Severity | None = "warning" if (harms or by_heart) and _must_fall(evaluated) else None
        yield Evidence(apart, words, FAIR, evaluated.rows(apart), severity=severity)


def _output_improves(series: Mapping[Key, Series], since: int) -> bool:
    """Whether an error rate or an accuracy of evaluation is better at the end than it was at a step, by a fiftieth."""
    for key, one in series.items():
        if key.split == "eval" and key.name in ("error_frac", "accuracy_frac") and len(one.since(since).finite) > 1:
            value = one.since(since).finite.value
            better = value[0] - value[-1] if key.name == "error_frac" else value[-1] - value[0]
            if better > 0.02 * abs(value[0]):
                return True
    return False


def _far_apart(evaluated: Series, train: Series) -> Answers:
    """By size: every evaluation from the first training loss on is far above the training loss beside it."""
    since = evaluated.since(int(train.step[0]))
    beside = np.interp(since.step, train.step, train.value)
    by = APART if len(since) > 1 else BEYOND_DOUBT
    if len(since) == 1:  # of one evaluation, no matter which training loss happened to stand beside it
        beside = np.maximum(beside, median(train.value))
    least = np.where(beside > 0, by * beside, ABOVE_ZERO)  # a perplexity of 1.00 is a loss of 0
    if len(since) and (beside >= 0).all() and (since.value > least).all():
        rows = "a single row" if len(since) == 1 else f"{len(since)} rows only"
        words = f"{since.value[-1]:.4g} held out beside {beside[-1]:.4g} in training, seen in {rows}"
        causes: list[str] | None = None
        severity: Severity | None = None
        if since.value[-1] > MEMORISED * beside[-1]:
            causes, severity = [*RULES["E107"].causes, "or another unit: a sum beside a mean"], "warning"
        yield Evidence(int(since.step[0]), words, FAIR, since.rows(), severity=severity, causes=causes)


@rule("E112", "warning")
def training_loss_is_next_to_nothing(tokens: Tokens, series: AllSeries | None, trainer: Fact[str] | None) -> Answers:
    """The training loss is next to nothing, and no held-out loss shows what that is worth.

    ## What it sees
    No vocabulary is known. A loss that is a cross-entropy by the accuracy beside it, by its trainer, or by a start
    between 4 and 13 falls below 0.02 and a fiftieth of its start. No evaluation is in the log, or one that is as low,
    which is a note.
    ## Likely causes
    - a few clips or texts, known by heart after many passes; one batch, trained on again and again
    - copying: the labels are not shifted, or the answer stands in the input
    - the targets are a few templates, so that nothing is left to predict
    ## Next probe
    Score clips recorded after the training set: as low means a leak or constant targets, far higher means by heart.
    ## Fix
    Hold out clips and evaluate them; check the shift (`logits[:, :-1]` against `labels[:, 1:]`).
    ## References
    Zhang et al. 2017, "Understanding deep learning requires rethinking generalization": random labels reach 0 too.
    """
    view, train = tokens.view, tokens.view.train
    if train is None or view.vocabulary or len(train.finite) < FEWEST_POINTS:
        yield TooEarly(f"{FEWEST_POINTS} points of a training loss")
        return
    yield Looked()
    start, end = view.start or 0.0, end_of(train).value
    rated = any(key.name == "accuracy_frac" for key in series or ())
    is_entropy = rated or built_on(trainer, OF_TOKENS) or FROM_SCRATCH < start < HIGHEST_CHANCE
    if not is_entropy or view.no_mean or degenerate(train) or not 0 <= end < min(TOO_GOOD_TEXT, TOO_GOOD_TEXT * start):
        return
    if view.only_in_training(TOO_GOOD_TEXT):
        return
    words = f"{end:.2g}, {math.exp(end):.3f} choices per target, after {start:.3g} at first"
    if view.evaluated is not None and view.has_evaluation:
        words += f", and {view.evaluated.finite.value[-1]:.2g} in evaluation"
    since = int(train.finite.step[int(np.argmax(train.finite.value < TOO_GOOD_TEXT))])
    severity: Severity | None = "note" if view.has_evaluation or start < FROM_SCRATCH else None
    yield Evidence(since, words, FAIR, train.rows(), view.stream, severity)


@rule("E102", "warning", explains=("D204", "E101", "E107", "E204"))
def training_clips_memorised(tokens: Tokens) -> Answers:
    """The training clips are known by heart.

    ## What it sees
    The training loss is more than twice as far below the baseline as the held-out loss, which stalls or rises. A note
    if that costs nothing: the held-out loss is below every baseline, and no more than 2 % of chance above its lowest
    value.
    ## Likely causes
    - too few clips for the number of parameters and epochs
    - deterministic crops: every epoch shows the same frames
    ## Next probe
    Compare distinct crops per clip with what random windows would give; generate a held-out text and look for a
    training clip in it.
    ## Fix
    Random windows, more data, dropout or LoRA instead of all weights; stop at the lowest held-out loss.
    ## References
    rubin-labs/dia-finetuning-stereo 2025-11-24: 40 clips, loss 0.02, held-out 9 to 11, demos noise.
    """
    view, verdict = tokens.view, tokens.verdict
    if view.evaluated is None and view.held_out.ce_nats is None:
        yield TooEarly(f"eval/ce_nats or eval/loss of {tokens.stream}, or the probe held_out")
        return
    if verdict.verdict != "memorising":
        yield TooEarly(view.vocabulary_fact) if verdict.baseline is None else Looked()
        return
    values = view.evaluated.finite.value if view.evaluated is not None else np.zeros(0)
    known = [rung.value for rung in verdict.ladder]
    if len(values) >= 3 and values[-1] <= values.min() + 0.02 * max(known) and values[-1] < min(known):
        words = f"{verdict.why}, no worse than its lowest, {values.min():.2f}"
        yield Evidence(verdict.since_step, words, STRONG, severity="note")
    else:
        yield Evidence(verdict.since_step, verdict.why, STRONG)


@rule("E202", "note")
def many_parameters_and_no_validation(
    trainable_parameters: Fact[int],
    train_targets: Fact[int],
    held_out: Probe[HeldOut] | None,
    series: AllSeries | None,
) -> Answers:
    """Far more parameters than targets, and nothing held out to show whether that hurts.

    ## What it sees
    More than 50 trainable parameters per counted target of an epoch, and neither an evaluation nor a held-out probe.
    ## Likely causes
    - the whole head or backbone is trained on a few clips
    ## Next probe
    Hold out 5 % of the clips and evaluate.
    ## Fix
    Evaluate on held-out clips; train adapters or an audio-only head.
    ## References
    SLM-MoT's analysis calls 334 M parameters on at most 5 M tokens a low risk; the ratio of 50 is assumed.
    """
    yield Looked()
    measured = held_out or any(key.split == "eval" for key in series or ())
    if train_targets and trainable_parameters > 50 * train_targets and not measured:
        words = f"{trainable_parameters:,.0f} parameters for {train_targets:,.0f} targets, and no evaluation"
        rows = [{"trainable_parameters": trainable_parameters, "train_targets": train_targets}]
        yield Evidence(0, words, STRONG, rows)


@rule("E204", "note", points=60)
def stair_steps(series: Loss, steps_per_epoch: Fact[int], evaluated: EvaluatedLosses | None) -> Answers:
    """The training loss drops at every epoch boundary: clips are remembered.

    ## What it sees
    At three or more epoch boundaries the loss drops by at least four times the error of its mean, most of the whole
    fall happens there, and no evaluation falls along.
    ## Likely causes
    - the model remembers each clip from the pass before
    ## Next probe
    Evaluate on clips never seen.
    ## Fix
    Nothing, as long as a held-out loss falls; else fewer epochs or more data.
    ## References
    Howard & Whitaker, fast.ai 2023, "Can LLMs learn from a single example?".
    """
    values = series.finite
    # a step has to be larger than the fall inside the epochs; two or three steps while validation falls are normal
    drops: list[tuple[int, float]] = []
    sure = 0
    for epoch in range(1, int(values.step[-1] // steps_per_epoch) + 1):
        boundary, quarter = epoch * steps_per_epoch, steps_per_epoch / 4
        before = values.value[(values.step > boundary - quarter) & (values.step <= boundary)]
        after = values.value[(values.step > boundary) & (values.step <= boundary + quarter)]
        if len(before) < 4 or len(after) < 4:
            continue
        drop = float(before.mean() - after.mean())
        drops.append((boundary, drop))
        sure += int(drop > 4 * math.sqrt(before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after)))
    if len(drops) < EPOCHS:
        yield TooEarly(f"{EPOCHS} epochs with 4 points of {series.key} in their first and last quarter")
        return
    yield Looked()
    fall, total = float(values.value[:4].mean() - values.value[-4:].mean()), sum(drop for _, drop in drops)
    held_out = (evaluated or {}).get(series.stream)
    if sure >= EPOCHS and fall > 0 and total > 0.5 * fall and not falling(held_out):
        mean = total / len(drops)
        words = f"{sure} of {len(drops)} epoch boundaries drop, by {mean:.2f} on average"
        rows = [{"step": step, "drop": drop} for step, drop in drops[:6]]
        yield Evidence(drops[0][0], words, WEAK if held_out is None else FAIR, rows)

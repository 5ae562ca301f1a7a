"""Family B, verdicts: is anything learned?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from earnest.probes.results import Conditioning, NullInput
from earnest.quantiles import median
from earnest.rules.catalogue import RULES, Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.families.starts import guessed_classes
from earnest.rules.finding import Verdict
from earnest.rules.measure import began_above, falling
from earnest.rules.needs import AllJudged, AllSeries, LastStep, PerStream, Probe, Signal, Tokens
from earnest.rules.statistics import trend
from earnest.rules.streams import StreamView
from earnest.rules.verdicts import Judged
from earnest.run import Series, Values
from earnest.signals import Key
from earnest.streams import TOTAL, Part

# Steps and points before "nothing learnt" may be said (assumed: longer than a usual warm-up's first part; a healthy
# small run leaves ln V within tens of steps).
EARLY_STEPS, EARLY_POINTS = 100, 5
FEWEST_GUESSES = 3  # rows at chance, of loss and of accuracy (assumed)
EARLY_ROWS = 40  # instead of steps in a log that does not count them: a row is some steps, or an epoch (assumed)
# Learning rate that is far too high for Adam, which moves every weight by about its rate at first (assumed: published
# token models use 1e-5 to 1e-3).
FAR_TOO_HIGH = 0.01
TRY_LOWER_RATE = (
    "Train the same steps again at a hundredth of the learning rate: a loss that then falls was held up by the rate."
)
LOWER_RATE = "Divide the learning rate by 100, warm up over the first steps, and clip the gradient norm at 1."
HARDLY = 1e-6  # of the weights' norm, a step's update (C103)
RAISE_RATE = (
    "Raise the learning rate, or the limit that the gradient is clipped at, until a step changes 1e-3 of the weights."
)
STALLED_STEPS = 2000  # within them real training still falls (assumed)
FREQUENCIES = "--fact label_counts=... or the probe held_out"
ALL = Part("all")  # of the probe null_input: all streams together


def _unjudged(one: Judged) -> str | None:
    """What a verdict lacks, or None if the stream is judged."""
    if one.verdict.verdict == "degenerate" and one.verdict.baseline is None:
        return f"a loss of {one.stream} that is a number and not 0"
    return one.view.vocabulary_fact if one.verdict.baseline is None else None


def _too_early(view: StreamView, last_step: int) -> str | None:
    """Why a stream cannot be called stuck yet, or None."""
    series = view.any
    if series is None or len(series.finite) < EARLY_POINTS:
        return f"{EARLY_POINTS} points of {view.stream} (it has {len(series.finite) if series is not None else 0})"
    counted = view.run.counts_steps or len(series.finite) < EARLY_ROWS
    if last_step < EARLY_STEPS and counted and not view.rows_are_epochs:
        return f"{EARLY_STEPS} steps (it has {last_step})"
    found = trend(series.binned.value[-max(EARLY_POINTS, len(series.binned) // 2) :])
    if found.falls and -found.change > 0.02 * abs(series.finite.value[-1]):
        return f"the end of a fall that is under way ({series.key} still falls)"
    return None


def _evidence(one: Judged, rate_too_high: list[str] | None = None) -> Evidence:
    """rate_too_high: the causes, if the learning rate comes first among them; what to try and to mend is the rate
    then."""
    series, verdict = one.view.any, one.verdict
    rows = series.rows() if series is not None else []
    evidence = Evidence(verdict.since_step, verdict.why, STRONG, rows, one.stream)
    if rate_too_high is None:
        return evidence
    return replace(evidence, causes=rate_too_high, next_probe=TRY_LOWER_RATE, fix=LOWER_RATE)


@rule("B101", "critical", explains=("B102", "B107", "B110"))
def worse_than_chance(tokens: Tokens, last_step: LastStep) -> Answers:
    """A stream scores worse than a uniform guess.

    ## What it sees
    The cross-entropy lies above ln V by more than 4 % and its interval. A note within the first steps, in which a fresh
    head settles.
    ## Likely causes
    - labels aligned with the wrong position: a model that is confident and systematically wrong
    - pretrained weights that were not loaded, or loaded into another vocabulary
    - a learning rate so high that the model is confident of noise; or a sum logged as a mean
    - a head initialised far too wide, early in the run
    ## Next probe
    Score the untrained checkpoint on ten clips with labels shifted by 0, 1 and 2: the right shift gives the lowest
    loss, far below chance.
    ## Fix
    Shift once (`logits[:, :-1]` against `labels[:, 1:]`); then check that every pretrained key was loaded.
    ## References
    Measured: a perfect next-token model scored with unshifted labels gives 10.39 nats where aligned gives 2.97 and
    chance is 6.21.
    """
    view, verdict = tokens.view, tokens.verdict
    if unjudged := _unjudged(tokens):
        yield TooEarly(unjudged)
    elif verdict.verdict != "worse-than-chance" or verdict.baseline is None:
        yield Looked()
    elif (early := _too_early(view, last_step)) and not began_above(view.any, verdict.baseline):
        words = f"{verdict.why}; it may be too early, as this is judged after {early}"
        yield Evidence(verdict.since_step, words, FAIR, stream=tokens.stream, severity="note")
    else:
        began_at_chance = view.any is not None and view.any.finite.value[0] < verdict.baseline.value * 1.05
        too_high = ["a learning rate far too high: the loss began at chance and rose", *RULES["B101"].causes]
        yield _evidence(tokens, too_high if began_at_chance else None)


@rule("B102", "critical", explains=("B104", "B110"))
def nothing_learnt(
    tokens: Tokens, last_step: LastStep, learning_rate: Signal | None, update_frac: PerStream | None
) -> Answers:
    """A stream is still at chance.

    ## What it sees
    The cross-entropy is within its interval of ln V, after at least 100 steps, and does not fall.
    ## Likely causes
    - no gradient reaches what should learn this stream: frozen, detached, or not given to the optimizer
    - inputs or conditions of this stream are dropped on the way into the model
    - the learning rate is far too low; or the data are noise
    ## Next probe
    Overfit one batch of two clips at ten times the learning rate: a loss that still stays at ln V means that the
    gradient does not arrive.
    ## Fix
    List the parameters with a gradient after one backward pass, and give the optimizer exactly those with
    requires_grad.
    ## References
    codeman911/higgs-audio: text 11.5-12.3 and audio 6.6-6.8 were called "both are learning"; chance is 11.76 and 6.93.
    """
    if unjudged := _unjudged(tokens):
        yield TooEarly(unjudged)
    elif tokens.verdict.verdict != "at-chance":
        yield Looked()
    elif early := _too_early(tokens.view, last_step):
        yield TooEarly(early)
    else:
        rate = _highest(learning_rate)
        too_high: list[str] | None = None
        moves = max((float(np.median(one.tail(0.5).value)) for one in (update_frac or {}).values()), default=None)
        if moves is not None and moves < HARDLY:
            cause = f"each step changes the weights by {moves:.1e} of them: the learning rate or a clipping limit"
            yield replace(_evidence(tokens), causes=[cause, *RULES["B102"].causes[:-1]], fix=RAISE_RATE)
            return
        if rate and rate > FAR_TOO_HIGH:
            others = RULES["B102"].causes[:-1]  # the last says that the rate is too low, or the data are noise
            too_high = [f"the learning rate: {rate:.2g} is far too high for Adam", *others, "the data are noise"]
        yield _evidence(tokens, too_high)


@rule("B113", "warning", explains=("B104",))
def guess_among_classes(judged: AllJudged, series: AllSeries) -> Answers:
    """Loss and accuracy agree that nothing is known of the targets: a uniform guess among a few classes.

    ## What it sees
    Without a known vocabulary, in three rows or more, which are epochs or span 100 steps; of the held-out set if one is
    evaluated, whatever training does:

    - the lowest value of the loss is within 0.3 % of ln k, for a k from 2 to 30 or that of a familiar vocabulary
    - the accuracy beside it is between half of 1/k and one and a half times that, in the median
    ## Likely causes
    - the labels do not belong to the inputs: another order of files, or a shuffle of one of the two
    - no gradient reaches what is trained, or the learning rate is far too high or too low
    - training falls: its clips are known by heart, and nothing in them tells of others
    ## Next probe
    Train on twenty examples until they are known by heart; then look at ten inputs with their labels by eye.
    ## Fix
    Pair inputs and labels anew, and check that the loss of one batch falls to nothing in a hundred steps.
    ## References
    Jensen's inequality: the mean of -ln p is at least -ln of the mean p, so whoever knows more has an accuracy above
    exp(-loss).
    """
    looked = False
    for view in (one.view for one in judged if one.is_tokens or one.stream == TOTAL):
        held_out = view.evaluated
        loss = held_out if held_out is not None and len(held_out.finite) >= FEWEST_GUESSES else view.train
        right = series.get(Key(loss.key.split, "accuracy_frac", loss.stream)) if loss is not None else None
        if loss is None or right is None or view.chance is not None or len(loss.finite) < FEWEST_GUESSES:
            continue
        span = loss.last_step - int(loss.step[0])
        if not view.run.counts_epochs and not view.rows_are_epochs and span < EARLY_STEPS:
            continue
        looked = True
        lowest, accuracy = float(loss.finite.value.min()), median(right.finite.value)
        classes = guessed_classes(lowest)
        if classes is not None and 0.5 < accuracy * classes < 1.5:
            words = f"{loss.key} is never below {lowest:.4g} in {len(loss.finite)} rows, which is ln {classes}, "
            words += f"beside an accuracy of {accuracy:.3g}: a guess among {classes}"
            if view.train is not None and loss is not view.train and falling(view.train):
                words += f"; training falls to {view.train.finite.value[-1]:.4g}"
            yield Evidence(int(loss.finite.step[0]), words, STRONG, loss.rows(), view.stream)
    yield Looked() if looked else TooEarly(f"{FEWEST_GUESSES} epochs of a loss with an accuracy beside it")


@rule("B103", "warning", explains=("B104",))
def only_label_frequencies(tokens: Tokens, last_step: LastStep) -> Answers:
    """A stream has learnt how often each label occurs, and nothing else.

    ## What it sees
    The cross-entropy lies on the unigram baseline: below chance, but not below the label frequencies, and it does not
    fall. In a joint vocabulary of text and audio also: on a uniform guess among the ids that may follow.
    ## Likely causes
    - the model cannot see its context: history masked out, positions broken, or condition not connected
    - the codes are noise given what the model sees (dummy data, a codec at the wrong sample rate)
    - it is early: deeper codebooks stay here longest
    ## Next probe
    Compare with the bigram baseline of the data: if that is no lower either, the data are noise; if it is lower, the
    model does not see its context.
    ## Fix
    Check the attention mask over past frames and the learning rate of the audio layers; train longer only if the loss
    still falls.
    ## References
    earnest's own; no publication known.
    """
    if unjudged := _unjudged(tokens):
        yield TooEarly(unjudged)
    elif tokens.view.rung("unigram") is None and tokens.view.audio_part is None:
        yield TooEarly(FREQUENCIES)
    elif tokens.verdict.verdict != "unigram-only":
        yield Looked()
    elif early := _too_early(tokens.view, last_step):
        yield TooEarly(early)
    else:
        yield _evidence(tokens)


@rule("B104", "note")
def stalled_near_chance(
    tokens: Tokens, judged: AllJudged, last_step: LastStep, learning_rate: Signal | None
) -> Answers:
    """The loss fell a little and stopped, close to chance.

    ## What it sees
    The loss of a token stream fell at first, the last third moves by less than 2 % of what was gained, and what is left
    is within 30 % of chance; whether that is the data's floor is not known, because the label frequencies are not. Only
    within the first 2000 steps, in which real training still falls, and only if no other stream is well below chance.
    ## Likely causes
    - the floor of the data: noise or dummy audio has an entropy that no learning rate lowers
    - a running mean since step 0 is logged, which flattens any curve
    - a learning rate too low for what is trained
    ## Next probe
    First measure the data's floor: unigram and bigram entropy of the labels. Only if the loss is above it, repeat 100
    steps at five times the learning rate.
    ## Fix
    Replace dummy data, log the mean of the last steps instead of since the start, then raise the learning rate
    fivefold.
    ## References
    Harrolee/SLM-MoT TRAINING_ANALYSIS.md: 5.75 on random audio, read against 11.6.
    """
    verdict, series = tokens.verdict, tokens.view.train
    if unjudged := _unjudged(tokens):
        yield TooEarly(unjudged)
        return
    learns = any(one.is_tokens and _share_of_chance(one.verdict) < 0.7 for one in judged)
    if last_step > STALLED_STEPS or learns or not _may_be_stalled(verdict):
        yield Looked()
        return
    if series is None or len(series.finite) < 4:
        yield TooEarly(f"4 points of {tokens.stream}")
        return
    yield Looked()
    value, left = series.binned.value, _share_of_chance(verdict)
    third = value[-max(2, len(value) // 3) :]
    gained = float(value[0] - third.mean())
    still = float(np.ptp(third)) < 0.02 * gained + 3 * _step_noise(third) and abs(trend(third).change) < 0.02 * gained
    if gained > 0.05 * value[0] and still and left > 0.7 and verdict.baseline is not None:
        chance = f"{1 - left:.0%} below chance ({verdict.baseline.value:.3f})"
        words, since = f"{verdict.value:.2f} nats since the last third, {chance}", int(series.binned.step[-len(third)])
        probe, rate = None, _highest(learning_rate)
        if rate:
            measure = "First measure the data's floor: unigram and bigram entropy of the labels."
            probe = f"{measure} Only if the loss is above it, repeat 100 steps at lr={5 * rate:.0e}, "
            probe += f"five times {rate:.0e}."
        yield Evidence(since, words, FAIR, series.rows(), next_probe=probe)


def _may_be_stalled(verdict: Verdict) -> bool:
    """Whether nothing but a uniform guess is known to compare with."""
    uniform = verdict.baseline is not None and verdict.baseline.name == "uniform"
    no_frequencies = all(rung.name != "unigram" for rung in verdict.ladder)
    return verdict.verdict in ("learning", "converged", "cannot-judge") and uniform and no_frequencies


def _share_of_chance(verdict: Verdict) -> float:
    """The loss as a share of its baseline; 1 if one of the two is not known."""
    return verdict.value / verdict.baseline.value if verdict.value and verdict.baseline else 1.0


def _step_noise(value: Values) -> float:
    return float(np.abs(np.diff(value)).mean()) if len(value) > 3 else 0.0


def _highest(learning_rate: Series | None) -> float | None:
    if learning_rate is None or not len(learning_rate.finite):
        return None
    return float(learning_rate.finite.value.max())


@rule("B106", "warning")
def condition_ignored(
    conditioning: Probe[Mapping[str, Conditioning]] | None,
    null_input: Probe[NullInput] | None,
    judged: AllJudged | None,
) -> Answers:
    """A condition makes no difference to the loss.

    ## What it sees
    The conditioning probe: permuting text or reference within the batch changes the cross-entropy by nothing that its
    interval excludes, in a model that predicts audio, in the mean of its codebooks, better than the previous frame
    alone would.
    ## Likely causes
    - the condition does not reach the model (mask, cross-attention, dropped key)
    - the data do not need it: one speaker, or a text that the history already tells
    - it is early: conditions are used last
    ## Next probe
    Feed an empty condition, and check that its embeddings receive a gradient.
    ## Fix
    Trace the condition from batch to attention; do not mask it at the positions that are scored.
    ## References
    earnest's own; no publication known.
    """
    gap = null_input.gaps.get(ALL) if null_input else None
    if not conditioning and not gap:
        yield TooEarly("the probe conditioning or null_input")
        return
    audio = [one for one in judged or () if one.stream.is_audio]
    if audio and not _beats_history(audio):
        yield TooEarly("audio below the bigram baseline: what was just said is learnt first, conditions last")
        return
    yield Looked()
    for name, seen in (conditioning or {}).items():
        low, high = seen.interval
        if low <= 0:
            words = f"permuting the {name} changes the loss by {seen.delta_nats:+.3f} nats [{low:.3f}, {high:.3f}]"
            yield Evidence(seen.step, words, STRONG, [{"condition": name, "delta_nats": seen.delta_nats}])
    if gap and null_input and not conditioning and gap[1] <= 0:
        words = f"leaving the text out changes the loss by {gap[0]:+.3f} nats [{gap[1]:.3f}, {gap[2]:.3f}]"
        yield Evidence(null_input.step, words, STRONG, [{"condition": "text", "delta_nats": gap[0]}])


def _beats_history(audio: Sequence[Judged]) -> bool:
    """One stream is learning and has no baseline left above it, and all that have a bigram baseline are below theirs
    in the mean: that of a deep codebook, whose pairs are rare, is soon beaten without any use of what came before."""
    verdicts = [one.verdict for one in audio]
    pairs = [(one.value, rung.value) for one in verdicts for rung in one.ladder if rung.name == "bigram"]
    gaps = [value - rung for value, rung in pairs if value is not None]
    return any(map(_past_every_baseline, verdicts)) and sum(gaps) <= 0


def _past_every_baseline(verdict: Verdict) -> bool:
    lowest = next((rung for rung in verdict.ladder if rung.name == "bigram"), verdict.baseline)
    return verdict.verdict in ("learning", "converged", "memorising") and verdict.baseline == lowest

"""Family B: is anything learned? The rules that read the verdicts of the chance ladder."""

import math

import numpy as np

from earnest.rules.catalogue import RULES, Evidence, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.ladder import began_above_chance, measure, rungs, token_curve, token_streams
from earnest.rules.statistics import boundary, trend
from earnest.streams import TEXT

# Steps and points before "nothing learnt" may be said (assumed: longer than a usual warm-up's first part; a healthy
# small run leaves ln V within tens of steps).
EARLY_STEPS, EARLY_POINTS = 100, 5
STALLED_PROBE = "First measure the data's floor: unigram and bigram entropy of the labels. Only if the loss is above it, repeat 100 steps {}."


def _too_early(run, stream):
    """A reason why a stream cannot be called stuck yet, or None; and its curve."""
    series = token_curve(run, "train", stream) or token_curve(run, "eval", stream)
    if series is None or len(series.finite) < EARLY_POINTS:
        return f"{EARLY_POINTS} points of {stream} (it has {len(series.finite) if series is not None else 0})", series
    if run.last_step < EARLY_STEPS:
        return f"{EARLY_STEPS} steps (it has {run.last_step})", series
    found = trend(series.binned.value[-max(EARLY_POINTS, len(series.binned) // 2) :])
    if found.z < -boundary(found.points) and -found.change > 0.02 * abs(series.finite.value[-1]):
        return f"the end of a fall that is under way ({series.key} still falls)", series
    return None, series


@rule("B101", needs=["verdicts", "run"], severity="critical", explains=("B102", "B107"))
def worse_than_chance(verdicts, run):
    """A stream scores worse than a uniform guess.

    ## What it sees
    The cross-entropy lies above ln V by more than 4 % and its interval, beyond the first steps in which a fresh head
    settles.
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
    for verdict in verdicts:
        if verdict.verdict == "worse-than-chance" and verdict.unit == "nats":
            early, series = _too_early(run, verdict.stream)
            if early and not (series is not None and verdict.baseline and began_above_chance(series, verdict.baseline)):
                yield TooEarly(early)
            else:
                causes = None
                if series is not None and verdict.baseline and series.finite.value[0] < verdict.baseline.value * 1.05:
                    causes = ["a learning rate far too high: the loss began at chance and rose", *RULES["B101"].causes]
                yield Evidence(
                    verdict.since_step,
                    verdict.why,
                    STRONG,
                    series.rows() if series is not None else [],
                    verdict.stream,
                    causes=causes,
                )


@rule("B102", needs=["verdicts", "run"], severity="critical", explains=("B104",))
def nothing_learnt(verdicts, run):
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
    for verdict in verdicts:
        if verdict.verdict == "at-chance" and verdict.unit == "nats":
            early, series = _too_early(run, verdict.stream)
            if early:
                yield TooEarly(early)
            else:
                rate, causes = series_rate(run), None
                if (
                    rate and rate > 0.01
                ):  # Adam moves every weight by about its rate at first; published token models use 1e-5 to 1e-3
                    causes = [f"the learning rate: {rate:.2g} is far too high for Adam", *RULES["B102"].causes]
                yield Evidence(
                    verdict.since_step,
                    verdict.why,
                    STRONG,
                    series.rows() if series is not None else [],
                    verdict.stream,
                    causes=causes,
                )


@rule("B103", needs=["verdicts", "run"], severity="warning", explains=("B104",))
def only_label_frequencies(verdicts, run):
    """A stream has learnt how often each label occurs, and nothing else.

    ## What it sees
    The cross-entropy lies on the unigram baseline: below chance, but not below the label frequencies, and it does not
    fall.
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
    for verdict in verdicts:
        if verdict.verdict == "unigram-only":
            early, series = _too_early(run, verdict.stream)
            if early:
                yield TooEarly(early)
            else:
                yield Evidence(
                    verdict.since_step, verdict.why, STRONG, series.rows() if series is not None else [], verdict.stream
                )


@rule("B104", needs=["run", "verdicts"], severity="note")
def stalled_near_chance(run, verdicts):
    """The loss fell a little and stopped, close to chance.

    ## What it sees
    The loss of a token stream fell at first, the last third moves by less than 2 % of what was gained, and what is left
    is within 30 % of chance; whether that is the data's floor is not known, because the label frequencies are not. Only
    within the first 2000 steps, where real training still falls, and only if no other stream is well below chance.
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
    if run.last_step > 2000 or any(
        one.unit == "nats" and one.baseline and one.value and one.value < 0.7 * one.baseline.value for one in verdicts
    ):
        return
    for verdict in verdicts:
        if (
            verdict.unit != "nats"
            or verdict.verdict not in ("learning", "converged", "cannot-judge")
            or verdict.baseline is None
            or verdict.baseline.name != "uniform"
        ):
            continue
        if any(rung.name == "unigram" for rung in verdict.ladder) or verdict.value is None:
            continue
        series = token_curve(run, "train", verdict.stream)
        if series is None or len(series.finite) < 4:
            yield TooEarly(f"4 points of {verdict.stream}")
            continue
        value = series.binned.value
        third = value[-max(2, len(value) // 3) :]
        gained = float(value[0] - third.mean())
        left = verdict.value / verdict.baseline.value
        if (
            gained > 0.05 * value[0]
            and float(np.ptp(third)) < 0.02 * gained + 3 * _tail_noise(third)
            and abs(trend(third).change) < 0.02 * gained
            and left > 0.7
        ):
            rate = series_rate(run)
            probe = STALLED_PROBE.format(f"at lr={5 * rate:.0e}, five times {rate:.0e}") if rate else None
            yield Evidence(
                int(series.binned.step[-len(third)]),
                f"{verdict.value:.2f} nats since the last third, {1 - left:.0%} below chance ({verdict.baseline.value:.3f})",
                FAIR,
                series.rows(),
                verdict.stream,
                next_probe=probe,
            )


def _tail_noise(value):
    return float(np.abs(np.diff(value)).mean()) if len(value) > 3 else 0.0


def series_rate(run):
    """The largest learning rate seen, or None."""
    series = run.get("train", "learning_rate")
    return float(series.finite.value.max()) if series is not None and len(series.finite) else None


@rule("B105", needs=["ce_nats|loss"], severity="note", points=200, explains=("B104",))
def running_mean_logged(series):
    """What is logged is a mean since the start, not the loss of the last steps.

    ## What it sees
    The step-to-step noise shrinks like 1/n over the whole run, undoing the mean, n m_n - (n-1) m_(n-1), gives noise of
    constant size, and the total n m_n never falls: a loss that itself falls by orders of magnitude, as in memorising,
    loses its noise too, but not so.
    ## Likely causes
    - the loop prints total_loss / steps, with a total that is never reset
    - a progress bar's average is logged
    ## Next probe
    Log the loss of the step itself beside it for fifty steps.
    ## Fix
    Reset the sum at every log line, or use an exponential mean over the last hundred steps.
    ## References
    SLM-MoT prints a cumulative mean: it always looks like a plateau.
    """
    values = series.finite.where(np.arange(len(series.finite)) % (1 + len(series.finite) // 4096) == 0)
    total = values.step * values.value
    undone = np.diff(total) / np.diff(values.step)
    if (total < 0.98 * np.maximum.accumulate(total)).any():  # 2 %: steps may be counted from 0 or 1 (assumed)
        return
    (power, error), (undone_power, _) = (
        _noise_power(values.step[1:], values.value[1:]),
        _noise_power(values.step[1:], undone),
    )
    # a running mean has power -1 and an undone noise of one size; others have 0 (cuts assumed; 2.5 errors from -0.35)
    if -1.4 < power < -0.6 and power + 2.5 * error < -0.35 and abs(undone_power) < 0.4:
        yield Evidence(
            int(values.step[0]), f"its noise shrinks as n^{power:.2f}: a mean since the start", FAIR, series.rows()
        )


def _noise_power(step, value):
    """Power p, and its error, with which the noise goes as step^p: medians of second differences, in bins even in log
    step."""
    size = np.abs(value[2:] - 2 * value[1:-1] + value[:-2])
    bins = np.array_split(
        np.arange(len(size)), np.searchsorted(step[1:-1], np.geomspace(step[len(size) // 20], step[-1], 13)[1:-1])
    )
    bins = [one for one in bins[1:] if len(one) >= 8 and np.median(size[one]) > 0]
    if len(bins) < 4:
        return 0.0, 1.0
    x = np.array([np.log(step[1:-1][one]).mean() for one in bins])
    y = np.array([np.log(np.median(size[one])) for one in bins])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt((rest @ rest) / (len(bins) - 2) / (x @ x)))


def _beats_history(verdict):
    """Learning, and below the bigram baseline where that is known."""
    lowest = next((rung for rung in verdict.ladder if rung.name == "bigram"), verdict.baseline)
    return verdict.verdict in ("learning", "converged", "memorising") and verdict.baseline == lowest


@rule("B106", needs=["probe:conditioning", "verdicts?"], severity="warning")
def condition_ignored(conditioning, verdicts):
    """A condition makes no difference to the loss.

    ## What it sees
    The conditioning probe: permuting text or reference within the batch changes the cross-entropy by nothing that its
    interval excludes, in a model that predicts audio better than the previous frame alone would.
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
    audio = [verdict for verdict in verdicts or () if verdict.stream.is_audio]
    if audio and not any(map(_beats_history, audio)):
        yield TooEarly("an audio stream below the bigram baseline: what was just said is learnt first, conditions last")
        return
    for name, seen in conditioning.items():
        low, high = seen.interval
        if low <= 0 <= high or high < 0:
            yield Evidence(
                seen.step,
                f"permuting the {name} changes the loss by {seen.delta_nats:+.3f} nats [{low:.3f}, {high:.3f}]",
                STRONG,
                [{"condition": name, "delta_nats": seen.delta_nats}],
            )


@rule("B107", needs=["run"], severity="warning", explains=("B102",))
def pretrained_weights_have_no_effect(run):
    """A model said to be pretrained starts at chance on text.

    ## What it sees
    The run starts from pretrained weights, yet the first text loss is within 10 % of a uniform guess or above it.
    ## Likely causes
    - checkpoint keys did not match and the layers stayed random (strict=False)
    - the text head was left out of the checkpoint (use_text_head) or its vocabulary differs
    - labels are misaligned, so a good model scores badly
    ## Next probe
    List the missing and unexpected keys when loading; score plain text with the loaded backbone.
    ## Fix
    Load strictly, or print what was not loaded and refuse to start.
    ## References
    HiggsAudioV2 loads without text head unless use_text_head=True, and warns once.
    """
    if not run.facts.pretrained:
        return
    series, ladder = token_curve(run, "train", TEXT), rungs(run, TEXT)
    if series is None or not ladder or len(series.finite) < 3 or series.finite.step[0] > 20:
        return
    first = float(series.head(3).value.mean())
    if first > 0.9 * ladder[0].value:
        yield Evidence(
            int(series.step[0]),
            f"text starts at {first:.2f} nats, chance is {ladder[0].value:.2f}",
            FAIR,
            series.rows(),
            TEXT,
        )


@rule("B108", needs=["run"], severity="note")
def start_far_above_chance(run):
    """A stream starts far above chance and takes long to come down.

    ## What it sees
    The first audio loss exceeds ln V by more than 0.3 nats, and after a tenth of the run (and 50 steps) it still does.
    ## Likely causes
    - the output head is initialised too wide, or attention logits are too large (no 1/sqrt(d))
    - the logits of another vocabulary are compared with these labels
    ## Next probe
    Print the standard deviation of the logits at step 0: about 0 gives ln V, 1 adds half a nat.
    ## Fix
    Initialise the head with std 0.02 / sqrt(width) or zero, and scale attention by 1/sqrt(head_dim).
    ## References
    Karpathy, "A Recipe for Training Neural Networks" (2019): verify the loss at init. Dia from scratch: scale 1.0 gives
    logits of std 9.3.
    """
    for stream in token_streams(run):
        ladder, series = rungs(run, stream), token_curve(run, "train", stream)
        if not stream.is_audio or not ladder or series is None or len(series.finite) < 5:
            continue
        if series.finite.value[0] > ladder[0].value + 0.3 and (above := began_above_chance(series, ladder[0])):
            now = measure(run, stream)
            if now is not None and now.value < ladder[0].value:
                yield Evidence(
                    int(series.step[0]),
                    f"{series.finite.value[0]:.2f} nats at first, {ladder[0].value:.2f} is chance, above it until step {above[0]}",
                    FAIR,
                    series.rows(),
                    stream,
                )


@rule("B109", needs=["run"], severity="warning", explains=("B101", "B108"))
def loss_is_a_sum(run):
    """A loss is a sum where a mean is meant.

    ## What it sees
    The first loss of an audio stream is a whole multiple of ln V: the number of codebooks, or of accumulated
    micro-batches.
    ## Likely causes
    - per-codebook losses are added, not averaged (HiggsAudioV2ForConditionalGeneration does so: 8 x 6.933 = 55.47)
    - the loss is summed over micro-batches and not divided by what counts
    ## Next probe
    Divide by the number found and compare with ln V again; run the same batch with accumulation 1 and k.
    ## Fix
    Divide by the counted targets of the whole step; log a mean per codebook.
    ## References
    transformers 4.46 gradient-accumulation fix.
    """
    names = {"codebooks": run.facts.codebooks, "accumulated micro-batches": run.facts.accumulation_steps}
    for stream in token_streams(run):
        ladder, series = rungs(run, stream), token_curve(run, "train", stream)
        if not stream.is_audio or not ladder or series is None or not len(series.finite) or run.facts.pretrained:
            continue
        ratio = float(series.finite.value[0]) / ladder[0].value
        for words, factor in names.items():
            if factor and factor > 1 and abs(ratio / factor - 1) < 0.03:
                yield Evidence(
                    int(series.finite.step[0]),
                    f"it starts at {series.finite.value[0]:.2f} = {factor} x {ladder[0].value:.3f}: summed over {factor} {words}",
                    STRONG,
                    series.rows(),
                    stream,
                )
                break
        if not math.isfinite(ratio):
            return

"""Family D, the loss and the gradient norm: not numbers, exactly 0, diverged, spiking, stepped up."""

import re

import numpy as np

from earnest.quantiles import median, medians, quantile
from earnest.rules.catalogue import RULES, Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.gan import ADVERSARIAL, DISCRIMINATOR, is_adversarial
from earnest.rules.measure import FEWEST_POINTS, falling, is_off, order_of_clips, outlier_of_a_mean, zero_since
from earnest.rules.needs import AllJudged, Fact, LastStep, Loss, PlainLosses, Signal
from earnest.rules.parts import ADVERSARIES, EXPLODED, MAY_STAND, Parts
from earnest.rules.statistics import noise, page_hinkley, spikes, trend
from earnest.run import Series, Values
from earnest.streams import TEXT, TOTAL, Part, Stream

COMMITMENT = Part("commitment")
# Losses that may rise in a healthy run: the other player got better, or the latent grew (AudioDec#8, #32, #33,
# ParallelWaveGAN#313). Beside a discriminator that is every loss but those of reconstruction.
MAY_RISE: set[Stream] = {*ADVERSARIES, COMMITMENT, *map(Part, ("loss_g", "codebook", "vq"))}
RECONSTRUCTION = re.compile("mel|stft|spec|wave|recon|l1|l2|mse|time")
PARTS_THAT_MAY_RISE = ("window", "scale", "stft_", "d_")  # how names of single discriminators' parts begin


def _may_rise(series: Series, losses: PlainLosses | None) -> bool:
    """An adversarial loss, a loss in the discriminator's units, or a total that has such parts; unless it exploded. A
    total that one part swamps is told with that part (D206)."""
    if Parts(losses or {}).explained_by_a_part(series):
        return True
    stream = series.stream
    played = any(part in ADVERSARIES or is_adversarial(part) for part in losses or {})
    level = float(series.binned.value[-1]) if len(series.binned) else 0.0
    exploded = not is_adversarial(stream) and level > EXPLODED * abs(float(series.head(3).value.max()))
    if stream in MAY_RISE or is_adversarial(stream) or str(stream or "").startswith(PARTS_THAT_MAY_RISE):
        return not exploded
    if not stream:
        parts = losses or {}
        return any(part in MAY_RISE - {COMMITMENT} or is_adversarial(part) for part in parts) and not exploded
    return played and not RECONSTRUCTION.search(str(stream)) and not exploded


def _adversary_starts(losses: PlainLosses | None, step: int, last_step: int) -> bool:
    """Whether the discriminator starts at about this step: reconstruction may jump then, and settle higher."""
    parts = [(losses or {}).get(part) for part in (*ADVERSARIAL, *DISCRIMINATOR)]
    firsts = [int(part.step[0]) for part in parts if part is not None and len(part)]
    return any(abs(step - first) <= max(20, 0.05 * last_step) and first > 0.01 * last_step for first in firsts)


@rule("D101", "critical", points=0, explains=("C101", "D103", "D201"))
def loss_not_a_number(series: Loss, grad_norm: Signal | None) -> Answers:
    """The loss is NaN or infinite.

    ## What it sees
    Values that are not finite: the last one, or more than 1 % of all.
    ## Likely causes
    - divergence: the gradient norm grew before it (see the lead-up in the evidence)
    - a batch without a counted target: a mean over nothing
    - half precision: an overflow in attention or in the loss; a row that is fully masked
    ## Next probe
    Re-run the step before the first NaN in float32 with `torch.autograd.set_detect_anomaly(True)`, on that batch alone.
    ## Fix
    Skip batches without targets; compute the loss in float32; if the gradient norm grew first, divide the learning rate
    by 3.
    ## References
    Cross-entropy over an empty batch is NaN.
    """
    bad = ~np.isfinite(series.value)
    if not len(bad):
        yield TooEarly(f"a value of {series.key}, finite or not")
        return
    yield Looked()
    if not (bad[-1] or bad.mean() > 0.01):
        return
    first = int(np.argmax(bad))
    onset = int(series.step[first])
    words, causes = f"{series.value[first]} first at step {onset}", None
    if bad.all():
        words = "never a number"
        causes = [
            "every batch is without a counted target, or the inputs are dropped: a mean over nothing is NaN",
            "half precision overflows from the first step on",
        ]
    elif grad_norm is not None:
        before = grad_norm.finite.where(grad_norm.finite.step < onset).value
        if len(before) >= 20 and before[-3:].max() > 5 * median(before):
            words += f", after the gradient norm rose from {median(before):.3g} to {before[-3:].max():.3g}"
    yield Evidence(onset, words, EXACT, series.rows(int(series.step[max(0, first - 4)]), onset), causes=causes)


@rule("D102", "critical", explains=("C101", "C301"))
def loss_exactly_zero(series: Loss, grad_norm: Signal | None, losses: PlainLosses | None) -> Answers:
    """The loss is exactly 0.

    ## What it sees
    The last two logged values or more are 0 to the last digit, or the only one (a warning). A model that predicts well
    scores a small number first: a loss that had fallen to a thousandth of its start before it became 0 is rounded, and
    not reported. A part of a sum that is 0 in every row is off, unless all parts are.
    ## Likely causes
    - inputs or labels are dropped by a wrapper: the logits are empty and a guard returns 0
    - all labels are masked
    - NaN hidden by the logging (transformers' logging_nan_inf_filter shows 0)
    ## Next probe
    Print the shape of the logits and the number of counted targets of one batch.
    ## Fix
    Pass the audio inputs and labels through the wrapper (remove_unused_columns=False), and set
    logging_nan_inf_filter=False.
    ## References
    axolotl#1706, transformers#31997, higgs-audio forks (logits [0, 8, 1026]).
    """
    yield Looked()
    start = zero_since(series)
    all_off = all(map(is_off, (losses or {"": series}).values()))
    if start is None or series.stream in ADVERSARIAL or (is_off(series) and not all_off):
        return
    words, causes = "exactly 0", None
    if grad_norm is not None and not np.isfinite(grad_norm.since(start).value).all():
        words += ", with a gradient norm that is NaN"
        causes = ["a NaN loss that the logging shows as 0: the gradient norm is NaN", "half precision overflows"]
    severity: Severity | None = "warning" if len(series.finite) < 2 else None
    yield Evidence(
        start, words, EXACT if severity is None else FAIR, series.rows(start), severity=severity, causes=causes
    )


@rule("D103", "critical", points=0, explains=("D201",))
def gradient_not_a_number(grad_norm: Signal, judged: AllJudged | None, loss_scale: Signal | None) -> Answers:
    """The gradient norm is NaN or infinite.

    ## What it sees
    More than 2 % of the gradient norms, or the last three, are not finite. While the loss falls they are steps that
    mixed precision skips, a note: infinite ones, and NaN beside a loss scale that has not collapsed. A warning if only
    the last of a few rows is NaN.
    ## Likely causes
    - an operation with an infinite derivative: sqrt or norm at 0, log of 0, a fully masked attention row
    - the loss scale of float16 is too high (a few at the start are normal)
    ## Next probe
    Find the first parameter with a NaN gradient in backward order.
    ## Fix
    Add an epsilon inside sqrt and log; use bfloat16; skip such steps and count them.
    ## References
    earnest's own; no publication known.
    """
    bad = ~np.isfinite(grad_norm.value)
    if not len(bad):
        yield TooEarly(f"a value of {grad_norm.key}, finite or not")
        return
    yield Looked()
    if bad[-3:].all() or (bad.mean() > 0.02 and bad.sum() > 5):
        words = f"not a number in {bad.mean():.0%} of the logged steps"
        falls = any(falling(one.view.train) for one in judged or () if one.is_tokens or one.stream == TOTAL)
        scaled = _is_healthy(loss_scale)
        skipped = (falls and (bool(np.isinf(grad_norm.value[bad]).all()) or scaled)) or (scaled and len(bad) < 3)
        severity: Severity | None = "note" if skipped else None
        yield Evidence(int(grad_norm.step[np.argmax(bad)]), words, EXACT, grad_norm.rows(), severity=severity)
    elif np.isnan(grad_norm.value[-1]) and len(bad) < FEWEST_POINTS and not _is_healthy(loss_scale):
        words = f"not a number in the last of {len(bad)} rows, at step {grad_norm.last_step}"
        yield Evidence(int(grad_norm.last_step), words, FAIR, grad_norm.rows(), severity="warning")


def _is_healthy(loss_scale: Series | None) -> bool:
    """Whether mixed precision's loss scale is at work: at 1 or more, and not below a hundredth of its height
    (assumed)."""
    values = loss_scale.finite.value if loss_scale is not None else np.zeros(0)
    return len(values) > 0 and bool(values[-1] >= max(1.0, 0.01 * values.max()))


@rule("D201", "critical", points=10, explains=("B101", "B102", "D204", "D205", "D301"))
def diverged(
    series: Loss,
    losses: PlainLosses | None,
    last_step: LastStep,
    grad_norm: Signal | None,
    learning_rate: Signal | None,
    steps_per_epoch: Fact[int] | None,
) -> Answers:
    """The training loss rises and does not come back.

    ## What it sees
    The end lies above the best level by more than a third of what had been gained, 15 % of the level and eight times
    the noise, and nearly all of its points above nearly all of the best ones. Or the first value was the best by a
    third. A spike that returns, and adversarial losses, which may rise, are left alone; so is a part that rises by
    less than half of what the total has fallen; and an epoch that begins higher than the last one ended, but lower
    than that one began.
    ## Likely causes
    - the learning rate is too high, most often at the end of the warm-up
    - a bad batch or a broken resume threw the optimizer's state off
    - attention logits grow without bound (no 1/sqrt(d), no normalisation)
    ## Next probe
    Restart from the checkpoint before the onset with a third of the learning rate; if it diverges at the same data,
    look at that data.
    ## Fix
    Divide the learning rate by 3, lengthen the warm-up, clip at 1.
    ## References
    Page (1954) for the onset; Wortsman et al. 2023 "Small-scale proxies for large-scale Transformer training
    instabilities".
    """
    yield Looked()
    if _may_rise(series, losses) or _is_outweighed(series, losses) or outlier_of_a_mean(series.finite.value):
        return
    first, rest = float(series.finite.value[0]), series.finite.value[1:]
    later = median(rest[-max(3, len(rest) // 5) :])
    # a divergence is near 0 before anything is encoded
    if later > 1.5 * first > 0 and quantile(rest, 0.05) > 1.5 * first and series.stream not in MAY_STAND:
        words = f"{first:.3g} at first, {median(rest):.3g} in the median ever after"
        yield Evidence(int(series.finite.step[1]), words, STRONG, series.rows())
        return
    value, step = series.binned.value, series.binned.step
    width = max(3, len(value) // 20)
    level = medians(np.lib.stride_tricks.sliding_window_view(value, width))
    best = int(np.argmin(level))
    # the last fifth of the bins, and of the points as logged: an end that is still up, not the middle of a spike that
    # returns
    end = value[-max(3, len(value) // 5) :]
    if len(value) - best - width < len(end):
        return
    lowest = float(level[best])
    gained = max(median(value[:width]) - lowest, 0.0)
    scale = max(gained, 0.05 * abs(lowest))  # a loss that never fell has gained nothing to lose
    rise = min(median(end), median(series.finite.value[-3:])) - lowest
    apart = quantile(end, 0.05) > quantile(value[best : best + width], 0.95)
    # the noise, and the slow wandering of the level around its best; the steep first fall, if it is near, is neither
    around = value[max(0, best - 3 * width) : best + width]
    sigma = max(noise(value[: best + width]), 0.5 * (quantile(around, 0.75) - quantile(around, 0.25)) / 1.35)
    if not (apart and rise > scale / 3 and rise > 0.15 * abs(lowest) and rise > 8 * sigma):
        return
    shifted = page_hinkley(value[best:], max(sigma, 0.02 * scale))
    onset = int(step[best + (shifted if shifted is not None else width)])
    if not _adversary_starts(losses, onset, last_step) and order_of_clips(series, steps_per_epoch) is None:
        words = f"{lowest:.3g} at best, {median(end):.3g} now, since step {onset}"
        words += _rate_at(onset, learning_rate) + _norm_around(onset, grad_norm)
        yield Evidence(onset, words, STRONG, series.rows(int(step[best])))


def _is_outweighed(series: Series, losses: PlainLosses | None) -> bool:
    """Whether a part of the loss rises by less than half of what the total has fallen: a price that was paid."""
    total, values = (losses or {}).get(None), series.finite.value
    if not series.stream or series.stream == TEXT or series.stream.is_audio or total is None or len(total.finite) < 6:
        return False
    fall = float(total.head(3).value.mean() - median(total.tail(0.1, at_least=3).value))
    rise = float(median(values[-max(3, len(values) // 10) :]) - values.min())
    return fall > 0 and rise < 0.5 * fall


def _rate_at(onset: int, learning_rate: Series | None) -> str:
    """Words for the summary if the learning rate had just reached its peak, else an empty text."""
    if learning_rate is None or len(learning_rate) <= 3:
        return ""
    peak, before = learning_rate.value.max(), learning_rate.where(learning_rate.step <= onset).value
    if len(before) and before[-1] >= 0.95 * peak > 2 * learning_rate.value[0]:
        return f", as the learning rate reached {peak:.2g}"
    return ""


def _norm_around(onset: int, grad_norm: Series | None) -> str:
    """Words for the summary if the gradient norm rose with the loss, else an empty text."""
    if grad_norm is None or len(grad_norm.finite) <= 10:
        return ""
    finite = grad_norm.finite
    before, after = finite.where(finite.step < onset).value, finite.since(onset).value
    if len(before) > 5 and len(after) > 2 and median(after) > 3 * median(before):
        return f"; gradient norm {median(before):.3g} before, {median(after):.3g} after"
    return ""


@rule("D202", "warning", points=50)
def loss_spikes_again_and_again(series: Loss, losses: PlainLosses | None) -> Answers:
    """The loss spikes so often that spikes are part of the training.

    ## What it sees
    More than 2 % of the logged steps, and at least 5 separate ones, lie above the local median by more than 8 robust
    standard deviations and by a tenth of the loss, and rise above what was reached before by a twentieth of the whole
    fall. Single spikes that return are normal and are left alone, and so is a first fall to a fifth of the start.
    ## Likely causes
    - some clips are broken: wrong sample rate, silence, labels of another clip
    - the learning rate or Adam's beta2 (0.999 with rare large gradients) is too high
    ## Next probe
    List the clips in the spiking batches; the same names again mean data, different ones mean the optimizer.
    ## Fix
    Remove those clips, or lower beta2 to 0.95 and clip at 1.
    ## References
    Chowdhery et al. 2022 (PaLM), section 5.1: spikes, and skipping the batches around them.
    """
    yield Looked()
    if _may_rise(series, losses):
        return
    values = _after_first_fall(series.finite)
    found = spikes(values.value)
    if len(found):
        lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], values.value[:-1]]))
        # a twentieth of the whole fall (assumed): at the floor of a text of constants, a doubling means nothing
        worth = 0.05 * (median(series.finite.value[:3]) - float(values.value.min()))
        found = found[(values.value - np.maximum(lowest_before + worth, 1.1 * median(values.value)))[found] > 0]
    separate = 1 + int((np.diff(found) > 3).sum()) if len(found) else 0
    if separate >= 5 and len(found) > 0.02 * len(values):
        words = f"{separate} spikes in {len(values)} logged steps"
        rows = [{"step": int(values.step[i]), str(series.key): float(values.value[i])} for i in found[:6].tolist()]
        yield Evidence(int(values.step[found[0]]), words, FAIR, rows)


def _after_first_fall(values: Series) -> Series:
    """What follows once a loss that falls to a fifth of its start and less has come within twice its later level."""
    later = median(values.value[len(values) // 2 :])
    if later <= 0 or values.value[: max(3, len(values) // 20)].max() < 5 * later:
        return values
    return values.since(int(values.step[int(np.argmax(values.value <= 2 * later))]))


@rule("D203", "warning", points=30, explains=("D201", "D204"))
def loss_stepped_up(
    series: Loss, losses: PlainLosses | None, last_step: LastStep, steps_per_epoch: Fact[int] | None
) -> Answers:
    """The loss jumped to a higher level between two steps and goes on from there.

    ## What it sees
    A jump up by more than ten times the noise and a tenth of the loss, to a level below that of the start, after which
    the loss is as calm as before and falls again. At the beginning of an epoch it is the order of the clips, first of
    all.
    ## Likely causes
    - a resume that lost the optimizer's state, the schedule or the data order
    - other data or another mask from there on; a phase with other loss weights
    ## Next probe
    Compare configuration, learning rate and data order before and after that step; evaluate the checkpoint from before
    it.
    ## Fix
    Save and restore optimizer, schedule and random state together with the weights.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    values, step, width = series.finite.value, series.finite.step, 10
    if _may_rise(series, losses):
        return
    level = np.convolve(values, np.ones(width) / width, "valid")
    jump = level[width:] - level[:-width]  # level after minus level before, around index i + width
    at = int(np.argmax(jump))
    before, after = values[at : at + width], values[at + width : at + 2 * width]
    rise = float(median(after) - median(before))
    stays = after.min() > before.max() and median(values[-width:]) > level[at]
    if not stays or not rise > 0.1 * abs(level[at]):
        return  # before anything is asked of all values, which costs more
    sigma = noise(values)
    elsewhere = jump[np.abs(np.arange(len(jump)) - at) > width]
    # how far levels rise anyway: autocorrelation included
    usual = quantile(elsewhere, 0.9) if len(elsewhere) else 0.0
    stands_out = jump[at] > 6 * usual and rise > 10 * sigma > 0
    started = int(step[at + width])
    # what stays at the higher level has lost what it had learnt: that is a divergence (D201)
    learns_on = median(values[-width:]) < median(after) - 2 * sigma / np.sqrt(width)
    if not stands_out or not learns_on or not _is_calm(values, at + width, sigma):
        return
    if not _adversary_starts(losses, started, last_step):
        words = f"from {level[at]:.3g} to {median(after):.3g} between two logged steps"
        causes: list[str] | None = None
        severity: Severity | None = None
        if order_of_clips(series, steps_per_epoch) is not None:
            words += ", where an epoch begins; it is below the last epoch at equal places"
            causes, severity = ["the epochs begin with other clips than they end with", *RULES["D203"].causes], "note"
        rows = series.rows(int(step[at]), int(step[at + 2 * width - 1]))
        yield Evidence(started, words, FAIR, rows, severity=severity, causes=causes)


@rule("D204", "warning")
def loss_gets_worse(judged: AllJudged, losses: PlainLosses | None) -> Answers:
    """A loss was better before, and has been getting worse since.

    ## What it sees
    Of ten stretches of a total, or of a loss of tokens, in training or evaluation, the last two are above the best one
    by more than 2 % of it, by a tenth of what had been gained and by four errors of a level. Adversarial parts may
    rise.
    ## Likely causes
    - the learning rate is too high for what is left to learn, or rises again (a resume, a restart of the schedule)
    - other data, another mask or other loss weights from there on
    - if only the evaluation rises: the training clips are being memorised
    ## Next probe
    Look at the learning rate before and after the best stretch, and evaluate the checkpoint from there.
    ## Fix
    Go back to the checkpoint of the best stretch; lower the learning rate, or stop there.
    ## References
    earnest's own; no publication known.
    """
    looked = False
    for view in (one.view for one in judged if one.is_tokens or one.stream == TOTAL):
        if view.course is None:
            continue
        looked = True
        series = view.any
        if view.course.best > 0 and view.course.gets_worse and series is not None and not _may_rise(series, losses):
            words = f"{view.course.end:.4g} now, {view.course.best:.4g} at best, by step {view.course.since}"
            yield Evidence(view.course.since, words, FAIR, series.rows(view.course.since), view.stream)
    yield Looked() if looked else TooEarly(f"{FEWEST_POINTS} points of a total, or of a loss of tokens")


def _is_calm(values: Values, at: int, sigma: float, width: int = 10) -> bool:
    """Whether a loss goes on quietly after a step up: one that rises on, ends above its start or has grown wild is a
    divergence."""
    rest = values[at:]
    settled = trend(rest[-max(width, len(rest) // 2) :])
    return bool(noise(rest) < 3 * sigma and median(values[at : at + width]) < values[:3].max() and not settled.rises)

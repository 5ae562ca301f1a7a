"""Family D: optimisation, from loss, gradient norm, learning rate and their settings."""

import numpy as np

from earnest.records import plain
from earnest.rules.catalogue import Evidence, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.ladder import ADVERSARIAL, DISCRIMINATOR, FEATURES, zero_since
from earnest.rules.statistics import boundary, noise, page_hinkley, spikes, trend
from earnest.streams import Part

# Losses that may rise in a healthy run: the other player got better, or the latent grew (AudioDec#8, #32, #33,
# ParallelWaveGAN#313).
COMMITMENT = Part("commitment")
MAY_RISE = {*ADVERSARIAL, *FEATURES, *DISCRIMINATOR, COMMITMENT, Part("loss_g"), Part("codebook"), Part("vq")}


def _rises_freely(series, run) -> bool:
    """An adversarial loss, a loss in the discriminator's units, or a total that has such parts."""
    stream = series.stream
    if stream in MAY_RISE or str(stream or "").startswith(("window", "scale", "stft_", "d_")):
        return True
    return not stream and any(run.get("train", "loss", part) is not None for part in MAY_RISE - {COMMITMENT})


def _adversary_starts(run, step: int) -> bool:
    """Whether the discriminator starts at about this step: reconstruction may jump then, and settle higher."""
    firsts = [
        one.step[0]
        for part in (*ADVERSARIAL, *DISCRIMINATOR)
        if (one := run.get("train", "loss", part)) is not None and len(one)
    ]
    return any(abs(step - first) <= max(20, 0.05 * run.last_step) and first > 0.01 * run.last_step for first in firsts)


@rule(
    "D101",
    needs=["ce_nats|loss", "grad_norm?", "learning_rate?"],
    severity="critical",
    points=0,
    explains=("C101", "D103", "D201"),
)
def loss_not_a_number(series, grad_norm, rate):
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
    if not len(bad) or not (bad[-1] or bad.mean() > 0.01):
        return
    onset = int(series.step[np.argmax(bad)])
    words, causes = f"{series.value[np.argmax(bad)]} first at step {onset}", None
    if bad.all():
        words = "never a number"
        causes = [
            "every batch is without a counted target, or the inputs are dropped: a mean over nothing is NaN",
            "half precision overflows from the first step on",
        ]
    elif grad_norm is not None:
        before = grad_norm.finite.where(grad_norm.finite.step < onset)
        if len(before) >= 20 and before.value[-3:].max() > 5 * np.median(before.value):
            words += (
                f", after the gradient norm rose from {np.median(before.value):.3g} to {before.value[-3:].max():.3g}"
            )
    yield Evidence(onset, words, EXACT, series.rows(int(series.step[max(0, np.argmax(bad) - 4)]), onset), causes=causes)


@rule("D102", needs=["ce_nats|loss", "grad_norm?"], severity="critical", points=2, explains=("C101", "C301"))
def loss_exactly_zero(series, grad_norm):
    """The loss is exactly 0.

    ## What it sees
    The last two logged values or more are 0 to the last digit. A model that predicts well scores a small number first:
    a loss that had fallen to a thousandth of its start before it became 0 is rounded, and not reported.
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
    start = zero_since(series)
    if start is not None and series.stream not in ADVERSARIAL:
        hidden = grad_norm is not None and not np.isfinite(grad_norm.since(start).value).all()
        causes = (
            ["a NaN loss that the logging shows as 0: the gradient norm is NaN", "half precision overflows"]
            if hidden
            else None
        )
        yield Evidence(
            start,
            "exactly 0" + (", with a gradient norm that is NaN" if hidden else ""),
            EXACT,
            series.rows(start),
            causes=causes,
        )


@rule("D103", needs=["grad_norm", "loss|ce_nats?"], severity="critical", explains=("D201",))
def gradient_not_a_number(grad_norm, loss):
    """The gradient norm is NaN or infinite while the loss is finite.

    ## What it sees
    More than 2 % of the gradient norms, or the last three, are not finite.
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
    if len(bad) and (bad[-3:].all() or (bad.mean() > 0.02 and bad.sum() > 5)):
        yield Evidence(
            int(grad_norm.step[np.argmax(bad)]),
            f"not a number in {bad.mean():.0%} of the logged steps",
            EXACT,
            grad_norm.rows(),
        )


@rule(
    "D201",
    needs=["ce_nats|loss", "run", "grad_norm?", "learning_rate?"],
    severity="critical",
    points=10,
    explains=("B101", "B102", "D301"),
)
def diverged(series, run, grad_norm, rate):
    """The training loss rises and does not come back.

    ## What it sees
    The end lies above the best level by more than a third of what had been gained, 15 % of the level and eight times
    the noise, and nearly all of its points above nearly all of the best ones. Or the first value was the best by a
    third. A spike that returns, and adversarial losses, which may rise, are left alone.
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
    if _rises_freely(series, run):
        return
    first, rest = series.finite.value[0], series.finite.value[1:]
    if first > 0 and np.quantile(rest, 0.05) > 1.5 * first and np.median(rest[-max(3, len(rest) // 5) :]) > 1.5 * first:
        words = f"{first:.3g} at first, {np.median(rest):.3g} in the median ever after"
        yield Evidence(int(series.finite.step[1]), words, STRONG, series.rows())
        return
    value, step = series.binned.value, series.binned.step
    width = max(3, len(value) // 20)
    level = np.median(np.lib.stride_tricks.sliding_window_view(value, width), axis=1)
    best = int(np.argmin(level))
    after = value[best + width :]
    # the last fifth of the bins, and of the points as logged: an end that is still up, not the middle of a spike that
    # returns
    end = value[-max(3, len(value) // 5) :]
    if len(after) < len(end):
        return
    gained = max(float(np.median(value[:width])) - float(level[best]), 0.0)
    scale = max(gained, 0.05 * abs(level[best]))  # a loss that never fell has gained nothing to lose
    rise = min(float(np.median(end)), float(np.median(series.finite.value[-3:]))) - float(level[best])
    apart = np.quantile(end, 0.05) > np.quantile(value[best : best + width], 0.95)
    # the noise, and the slow wandering of the level around its best (autocorrelated batches)
    sigma = max(noise(value[: best + width]), 0.5 * float(value[max(0, best - 3 * width) : best + width].std()))
    if apart and rise > scale / 3 and rise > 0.15 * abs(level[best]) and rise > 8 * sigma:
        shifted = page_hinkley(value[best:], max(sigma, 0.02 * scale))
        onset = int(step[best + (shifted if shifted is not None else width)])
        if _adversary_starts(run, onset):
            return
        words = f"{level[best]:.3g} at best, {np.median(end):.3g} now, since step {onset}"
        if (
            rate is not None
            and len(rate) > 3
            and (before := rate.where(rate.step <= onset))
            and before.value[-1] >= 0.95 * rate.value.max() > 2 * rate.value[0]
        ):
            words += f", as the learning rate reached {rate.value.max():.2g}"
        if grad_norm is not None and len(grad_norm.finite) > 10:
            before, later = (
                grad_norm.finite.where(grad_norm.finite.step < onset).value,
                grad_norm.finite.since(onset).value,
            )
            if len(before) > 5 and len(later) > 2 and np.median(later) > 3 * np.median(before):
                words += f"; gradient norm {np.median(before):.3g} before, {np.median(later):.3g} after"
        yield Evidence(onset, words, STRONG, series.rows(int(step[best])))


@rule("D202", needs=["ce_nats|loss", "run"], severity="warning", points=50)
def loss_spikes_again_and_again(series, run):
    """The loss spikes so often that spikes are part of the training.

    ## What it sees
    More than 2 % of the logged steps, and at least 5 separate ones, lie above the local median by more than 8 robust
    standard deviations and by a tenth of the loss, and rise above what was reached before by a twentieth of the whole
    fall. Single spikes that return are normal and are left alone.
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
    if _rises_freely(series, run):
        return
    values = series.finite
    found = spikes(values.value)
    if len(found):
        lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], values.value[:-1]]))
        # a twentieth of the whole fall (assumed): at the floor of a text of constants, a doubling means nothing
        worth = 0.05 * (float(np.median(values.value[:3])) - float(values.value.min()))
        found = found[(values.value - np.maximum(lowest_before + worth, 1.1 * np.median(values.value)))[found] > 0]
    separate = 1 + int((np.diff(found) > 3).sum()) if len(found) else 0
    tailed = len(found) and float(
        np.mean(np.abs(values.value - np.median(values.value)) > 0)
    )  # constant series have no spikes
    if tailed and separate >= 5 and len(found) > 0.02 * len(values):
        yield Evidence(
            int(values.step[found[0]]),
            f"{separate} spikes in {len(values)} logged steps",
            FAIR,
            [{"step": int(values.step[i]), str(series.key): float(values.value[i])} for i in found[:6]],
        )


@rule("D203", needs=["ce_nats|loss", "run"], severity="warning", points=30, explains=("D201",))
def loss_stepped_up(series, run):
    """The loss jumped to a higher level between two steps and goes on from there.

    ## What it sees
    A jump up by more than ten times the noise and a tenth of the loss, to a level below that of the start, after which
    the loss is as calm as before and does not rise on.
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
    if _rises_freely(series, run):
        return
    values = series.finite.value
    sigma = noise(values)
    width = 10
    if len(values) < 30 or sigma <= 0:
        return
    level = np.convolve(values, np.ones(width) / width, "valid")
    jump = level[width:] - level[:-width]  # level after minus level before, around index i + width
    at = int(np.argmax(jump))
    before, after = values[at : at + width], values[at + width : at + 2 * width]
    elsewhere = jump[np.abs(np.arange(len(jump)) - at) > width]
    usual = (
        float(np.quantile(elsewhere, 0.9)) if len(elsewhere) else 0.0
    )  # how far levels rise anyway: autocorrelation included
    if (
        jump[at] > 6 * usual
        and (rise := float(np.median(after) - np.median(before))) > 10 * sigma
        and rise > 0.1 * abs(level[at])
        and after.min() > before.max()
        and np.median(values[-width:]) > level[at]
    ):
        rest = values[at + width :]
        settled = trend(rest[-max(width, len(rest) // 2) :])
        # one that rises on, ends above its start or has grown wild is a divergence
        calm = noise(rest) < 3 * sigma and np.median(after) < values[:3].max() and settled.z < boundary(settled.points)
        if calm and not _adversary_starts(run, int(series.finite.step[at + width])):
            yield Evidence(
                int(series.finite.step[at + width]),
                f"from {level[at]:.3g} to {np.median(after):.3g} between two logged steps",
                FAIR,
                series.rows(int(series.finite.step[at]), int(series.finite.step[at + 2 * width - 1])),
            )


@rule(
    "D301",
    needs=["clipped_frac|grad_norm", "fact:max_grad_norm?", "grad_norm?", "verdicts?"],
    severity="warning",
    points=20,
)
def clipping_nearly_always(signal, limit, grad_norm, verdicts):
    """Nearly every step is clipped.

    ## What it sees
    More than 90 % of the steps of the last half are clipped, and the median gradient norm is more than twice the limit
    (where it is known).
    ## Likely causes
    - the learning rate or the initialisation drives activations up
    - the limit is far below the gradients of this loss (a sum instead of a mean, many streams)
    - the model memorises few clips: sharp, growing gradients
    ## Next probe
    Plot the gradient norm per group: one group that dominates points to its initialisation, all of them to the scale of
    the loss.
    ## Fix
    Halve the learning rate and lengthen the warm-up; if the loss falls well, raise the limit to the 90th percentile of
    the norm.
    ## References
    Clipping keeps the direction (Pascanu et al. 2013): it loses no information, but then the learning rate no longer
    sets the step's size for SGD; Adam hides it.
    """
    if signal.stream is not None:
        return
    if signal.key.name == "grad_norm":
        if not limit:
            yield TooEarly("--fact max_grad_norm=...")
            return
        clipped = signal.finite.value > limit
        steps = signal.finite.step
    else:
        clipped, steps = signal.finite.value, signal.finite.step
    half = clipped[len(clipped) // 2 :]
    norm = float(np.median(grad_norm.tail(0.5).value)) if grad_norm is not None and len(grad_norm.finite) else None
    if len(half) >= 10 and half.mean() > 0.9 and (norm is None or not limit or norm > 2 * limit):
        words = f"{half.mean():.0%} of the steps since step {int(steps[len(clipped) // 2])} are clipped" + (
            f"; the median norm is {norm:.3g}, the limit {limit:g}" if norm and limit else ""
        )
        well = bool(verdicts) and any(one.verdict in ("learning", "converged") for one in verdicts)
        first = np.flatnonzero(np.convolve(clipped, np.ones(10) / 10, "valid") > 0.9)
        yield Evidence(
            int(steps[first[0]]) if len(first) else int(steps[0]),
            words,
            FAIR,
            signal.rows(),
            severity="note" if well else None,
        )


@rule(
    "D302",
    needs=["learning_rate", "fact:schedule_steps?"],
    severity="critical",
    points=3,
    explains=("B102", "B104", "C302"),
)
def learning_rate_zero(rate, schedule_steps):
    """The learning rate is 0 while training goes on.

    ## What it sees
    All learning rates are 0, or the last twentieth of the run (at least 5 logged steps) is trained at 0.
    ## Likely causes
    - the schedule is made for fewer steps than the run has
    - the scheduler is stepped once per micro-batch or per rank, and so ends early
    - warm-up in epochs was read as a share, or the rate was rounded away in the configuration
    ## Next probe
    Print schedule steps, optimizer steps and accumulation; they must agree.
    ## Fix
    Make the schedule for the optimizer steps of this run, and step it once per optimizer step.
    ## References
    Accelerate steps a prepared scheduler once per process unless told otherwise.
    """
    values = rate.finite
    zero = values.value == 0
    if zero.all():
        yield Evidence(int(values.step[0]), "0 at every logged step", EXACT, rate.rows())
        return
    last = int(np.flatnonzero(~zero)[-1]) + 1
    if len(values) - last >= max(5, 0.05 * len(values)):
        start = int(values.step[last])
        yield Evidence(
            start,
            f"0 since step {start}, {int(values.step[-1]) - start} steps before the last",
            EXACT,
            rate.rows(start),
            severity="warning",
        )


@rule("D303", needs=["fact:schedule_steps", "run"], severity="warning")
def schedule_shorter_than_run(schedule_steps, run):
    """The run is longer than its learning-rate schedule.

    ## What it sees
    The last step lies more than 5 % behind the end of the schedule.
    ## Likely causes
    - the schedule counts micro-batches or epochs, the run optimizer steps
    - training was continued without a new schedule
    ## Next probe
    Plot the learning rate over the run.
    ## Fix
    Give the schedule the number of optimizer steps that will be taken.
    ## References
    earnest's own; no publication known.
    """
    if run.last_step > 1.05 * schedule_steps:
        yield Evidence(
            int(schedule_steps),
            f"step {run.last_step} of a schedule of {int(schedule_steps)}",
            STRONG,
            [{"schedule_steps": schedule_steps, "last_step": run.last_step}],
        )


@rule("D304", needs=["fact:warmup_steps", "fact:schedule_steps"], severity="warning")
def warm_up_never_ends(warmup_steps, schedule_steps):
    """The warm-up takes half of the schedule or more.

    ## What it sees
    warmup_steps is at least half of schedule_steps: the model hardly trains at its learning rate.
    ## Likely causes
    - a default of thousands of steps on a short run
    - warm-up counted in micro-batches
    ## Next probe
    Plot the learning rate over the run.
    ## Fix
    Warm up for 1-5 % of the steps, at most 2000.
    ## References
    Assumed: published recipes use 0.1-10 %; one-cycle schedules reach 30-45 %.
    """
    if schedule_steps and warmup_steps >= 0.5 * schedule_steps:
        yield Evidence(
            0,
            f"{int(warmup_steps)} of {int(schedule_steps)} steps are warm-up",
            STRONG,
            [{"warmup_steps": warmup_steps, "schedule_steps": schedule_steps}],
        )


@rule("D305", needs=["learning_rate"], severity="note", points=20)
def schedule_restarts(rate):
    """The learning rate jumps up once, in the middle of its decay.

    ## What it sees
    After falling below 90 % of its peak the learning rate rises again by more than a tenth of the peak, once. Cyclic
    schedules, which do so regularly, are left alone.
    ## Likely causes
    - a resume made a new schedule and started it at the beginning
    - two runs were written into one log
    ## Next probe
    Look for the resume in the log, and compare the loss before and after the jump.
    ## Fix
    Restore the scheduler's state with the checkpoint.
    ## References
    earnest's own; no publication known.
    """
    values = rate.finite
    peak = float(values.value.max())
    if peak <= 0:
        return
    lowest = np.minimum.accumulate(
        np.where(
            np.arange(len(values)) >= np.argmax(values.value > 0.98 * values.value[: len(values)].max()),
            values.value,
            np.inf,
        )
    )
    # the first top of the curve, not the highest: a restart may reach the same height
    ups = np.flatnonzero((np.diff(values.value) > 0.1 * peak) | False)
    fell = [
        i
        for i in ups
        if i > 0 and values.value[: i + 1].max() > 1.1 * values.value[i] and values.value[: i + 1].max() > 0.2 * peak
    ]
    if len(fell) == 1 and np.isfinite(lowest[-1]):
        at = fell[0]
        yield Evidence(
            int(values.step[at + 1]),
            f"from {values.value[at]:.3g} to {values.value[at + 1]:.3g}, with a peak of {peak:.3g}",
            STRONG,
            rate.rows(int(values.step[max(0, at - 3)]), int(values.step[min(len(values) - 1, at + 3)])),
        )


@rule("D401", needs=["loss_scale"], severity="warning", points=5, explains=("D103",))
def loss_scale_collapses(scale):
    """The loss scale of float16 shrinks to nothing.

    ## What it sees
    The loss scale ends below 1, and below a thousandth of its start.
    ## Likely causes
    - gradients overflow at every scale: NaN in the model, or values beyond 65504
    ## Next probe
    Run ten steps in float32 or bfloat16.
    ## Fix
    Train in bfloat16; keep losses and norms in float32.
    ## References
    Micikevicius et al. 2018, "Mixed Precision Training".
    """
    values = scale.finite.value
    if values[-1] < 1 and values[-1] < 1e-3 * values.max():
        yield Evidence(
            int(scale.finite.step[np.argmax(scale.finite.value < 1)]),
            f"from {values.max():g} to {values[-1]:g}",
            STRONG,
            scale.rows(),
        )


@rule("D402", needs=["probe:accumulation"], severity="critical")
def loss_depends_on_accumulation(accumulation):
    """The same data give another loss or gradient when split into micro-batches.

    ## What it sees
    The accumulation probe: the ratio of the gradient norm (or loss) at accumulation k to that at 1 differs from 1 by
    more than 5 %, or the difference of the two gradients (`distance`) is more than 5 % of the whole's norm.
    ## Likely causes
    - means per micro-batch are averaged although they count different numbers of targets
    - the loss is not divided by k, or twice
    ## Next probe
    Repeat with two micro-batches of the same length: if the ratio is then 1, the counts are the cause.
    ## Fix
    Sum the loss and divide by the counted targets of the whole step.
    ## References
    Unsloth and transformers, "Fixing gradient accumulation" (October 2024).
    """
    ratio, distance = accumulation.ratio, accumulation.distance or 0
    if max(abs(ratio - 1), distance) > 0.05:
        words = f"{ratio:.2f} times the value at accumulation {accumulation.steps or 'k'}"
        words = words if abs(ratio - 1) > 0.05 else f"{words}, in a direction that is {distance:.0%} of it away"
        yield Evidence(0, words, EXACT, [plain(accumulation)])

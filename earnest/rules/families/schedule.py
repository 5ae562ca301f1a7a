"""Family D, settings: clipping, learning rate, loss scale and accumulation."""

from typing import Annotated

import numpy as np

from earnest.probes.results import Accumulation
from earnest.quantiles import median
from earnest.records import plain
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.measure import COARSE, FIRST_SCALE, printed_unit
from earnest.rules.needs import AllJudged, Fact, LastStep, Loss, OfWholeRun, Probe, Signal
from earnest.run import Series

AGAIN = 10  # rows of a start that come again (assumed)


@rule("D301", "warning", points=20)
def clipping_nearly_always(
    signal: Annotated[Series, OfWholeRun(("clipped_frac", "grad_norm"))],
    max_grad_norm: Fact[float] | None,
    grad_norm: Signal | None,
    judged: AllJudged | None,
) -> Answers:
    """Nearly every step is clipped.

    ## What it sees
    More than 90 % of the steps of the last half are clipped, and the median gradient norm is more than twice the limit
    (if it is known).
    ## Likely causes
    - the learning rate or the initialisation drives activations up
    - the limit is far below the gradients of this loss (a sum instead of a mean, many streams)
    - the model memorises few clips: sharp, growing gradients
    ## Next probe
    Plot the gradient norm per group: one group that dominates points to its initialisation, all of them to the scale of
    the loss.
    ## Fix
    If the limit is a hundredth of the norm or less, or the loss falls well, raise the limit to the 90th percentile of
    the norm; else halve the learning rate and lengthen the warm-up.
    ## References
    Clipping keeps the direction (Pascanu et al. 2013): it loses no information, but then the learning rate no longer
    sets the step's size for SGD; Adam hides it.
    """
    values, steps = signal.finite.value, signal.finite.step
    if signal.key.name == "grad_norm":
        if not max_grad_norm:
            yield TooEarly("--fact max_grad_norm=...")
            return
        values = (values > max_grad_norm).astype(float)
    yield Looked()
    half = values[len(values) // 2 :]
    norm = median(grad_norm.tail(0.5).value) if grad_norm is not None and len(grad_norm.finite) else None
    if half.mean() > 0.9 and (norm is None or not max_grad_norm or norm > 2 * max_grad_norm):
        words = f"{half.mean():.0%} of the steps since step {int(steps[len(values) // 2])} are clipped"
        words += f"; the median norm is {norm:.3g}, the limit {max_grad_norm:g}" if norm and max_grad_norm else ""
        well = any(one.verdict.verdict in ("learning", "converged") for one in judged or ())
        first = np.flatnonzero(np.convolve(values, np.ones(10) / 10, "valid") > 0.9)
        start = int(steps[first[0]]) if len(first) else int(steps[0])
        yield Evidence(start, words, FAIR, signal.rows(), severity="note" if well else None)


@rule("D302", "critical", explains=("B102", "B104", "B110", "C302", "C303"))
def learning_rate_zero(learning_rate: Signal) -> Answers:
    """The learning rate is 0 while training goes on.

    ## What it sees
    All learning rates are 0, or the last twentieth of the run (at least 5 logged steps) is trained at 0: below 1e-12,
    or a millionth of the peak, and not rounded to 0 by the printing. One or two rows are enough for a number that is
    no rate; an exact 0 there is how a warm-up begins.
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
    values = learning_rate.finite
    peak = float(np.abs(values.value).max())
    zero = np.abs(values.value) <= max(1e-6 * peak, 1e-12)
    if zero.all():
        if len(values) < 3 and not values.value.all():
            yield TooEarly(f"3 points of {learning_rate.key}: a warm-up begins with 0")
        else:
            words = "0 at every logged step" if peak == 0 else f"{peak:.2g} at most, in every logged step: that is 0"
            yield Evidence(int(values.step[0]), words, EXACT, learning_rate.rows())
        return
    yield Looked()
    last = int(np.flatnonzero(~zero)[-1]) + 1
    unit = printed_unit(values.value)
    if 1 < peak / unit < 1 / COARSE and values.value[last - 1] < 1.5 * unit:  # it fell to the last digit: rounded
        return
    if len(values) - last >= max(5, 0.05 * len(values)):
        start = int(values.step[last])
        words = f"0 since step {start}, {int(values.step[-1]) - start} steps before the last"
        yield Evidence(start, words, EXACT, learning_rate.rows(start), severity="warning")


@rule("D303", "warning")
def schedule_shorter_than_run(schedule_steps: Fact[int], last_step: LastStep) -> Answers:
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
    yield Looked()
    if last_step > 1.05 * schedule_steps:
        rows = [{"schedule_steps": schedule_steps, "last_step": last_step}]
        yield Evidence(schedule_steps, f"step {last_step} of a schedule of {schedule_steps}", STRONG, rows)


@rule("D304", "warning")
def warm_up_never_ends(warmup_steps: Fact[int], schedule_steps: Fact[int]) -> Answers:
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
    yield Looked()
    if warmup_steps >= 0.5 * schedule_steps:
        rows = [{"warmup_steps": warmup_steps, "schedule_steps": schedule_steps}]
        yield Evidence(0, f"{warmup_steps} of {schedule_steps} steps are warm-up", STRONG, rows)


@rule("D305", "note", points=20)
def schedule_restarts(learning_rate: Signal) -> Answers:
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
    yield Looked()
    value, step = learning_rate.finite.value, learning_rate.finite.step
    peak, so_far = float(value.max()), np.maximum.accumulate(value)
    # below the first top of the curve, not the highest: a restart may reach the same height
    fell = (so_far > 1.1 * value) & (so_far > 0.2 * peak)
    restarts = [at for at in np.flatnonzero(np.diff(value) > 0.1 * peak).tolist() if at > 0 and fell[at]]
    if peak > 0 and len(restarts) == 1:
        at = restarts[0]
        words = f"from {value[at]:.3g} to {value[at + 1]:.3g}, with a peak of {peak:.3g}"
        around = learning_rate.rows(int(step[max(0, at - 3)]), int(step[min(len(step) - 1, at + 3)]))
        yield Evidence(int(step[at + 1]), words, STRONG, around)


@rule("D401", "warning", points=5, explains=("D103",))
def loss_scale_collapses(loss_scale: Signal) -> Answers:
    """The loss scale of float16 shrinks to nothing.

    ## What it sees
    The loss scale ends below 1, and below a thousandth of its start; or it is halved in every logged row, four times
    or more, to less than 65536, from where it is expected to come down: each step so far overflowed.
    ## Likely causes
    - gradients overflow at every scale: NaN in the model, or values beyond 65504
    ## Next probe
    Run ten steps in float32 or bfloat16.
    ## Fix
    Train in bfloat16; keep losses and norms in float32.
    ## References
    Micikevicius et al. 2018, "Mixed Precision Training".
    """
    yield Looked()
    value, step = loss_scale.finite.value, loss_scale.finite.step
    if value[-1] < 1 and value[-1] < 1e-3 * value.max():
        words = f"from {value.max():g} to {value[-1]:g}"
        yield Evidence(int(step[np.argmax(value < 1)]), words, STRONG, loss_scale.rows())
    elif (value[1:] <= 0.5 * value[:-1]).all() and 0 < value[-1] < FIRST_SCALE:
        words = f"from {value[0]:g} to {value[-1]:g}, lower in each of {len(value)} logged rows: every step overflows"
        yield Evidence(int(step[0]), words, FAIR, loss_scale.rows())


@rule("D402", "critical")
def loss_depends_on_accumulation(accumulation: Probe[Accumulation]) -> Answers:
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
    yield Looked()
    ratio, distance = accumulation.ratio, accumulation.distance or 0
    if max(abs(ratio - 1), distance) > 0.05:
        words = f"{ratio:.2f} times the value at accumulation {accumulation.steps or 'k'}"
        words += f", in a direction that is {distance:.0%} of it away" if abs(ratio - 1) <= 0.05 else ""
        yield Evidence(0, words, EXACT, [plain(accumulation)])


@rule("D207", "warning", points=30)
def training_starts_anew(series: Loss) -> Answers:
    """The loss is back where it began, and falls once more as it did at first.

    ## What it sees
    Between two rows the loss rises by most of what it had fallen, and the rows that follow are those of the start, give
    or take a quarter of that fall. The steps count on.
    ## Likely causes
    - a resume that loaded no weights, or those of the base model
    - a second run that was appended to the log of the first
    ## Next probe
    Evaluate the checkpoint that was resumed from: does it give the loss from before that row?
    ## Fix
    Load weights, optimizer and schedule from the checkpoint; give each run a log of its own.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    value, step = series.finite.value, series.finite.step
    fall = value[0] - value[:-1]
    jumps = 1 + np.flatnonzero((np.diff(value) > 0.7 * fall) & (fall > 0.1 * np.abs(value[:-1])))
    jumps = jumps[(jumps >= AGAIN) & (jumps <= len(value) - AGAIN)]
    first, again = value[:AGAIN], value[jumps[:, None] + np.arange(AGAIN)]
    off = 0.25 * fall[jumps - 1]
    slow = value[AGAIN // 2] - value[jumps - 1] > off  # a spike is over sooner
    for at in jumps[slow & (np.abs(again - first) < off[:, None]).all(1)][:1].tolist():
        words = f"{value[at - 1]:.4g} before, {value[at]:.4g} from then on, as {value[0]:.4g} at the start"
        yield Evidence(int(step[at]), words, STRONG, series.rows(int(step[at - AGAIN]), int(step[at + AGAIN - 1])))

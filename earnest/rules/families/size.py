"""Family D, by size: what a few rows show, because no healthy run does it; and the part that makes a total rise."""

from typing import NamedTuple

import numpy as np

from earnest.quantiles import median, quantile
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.gan import is_adversarial
from earnest.rules.measure import course, falling
from earnest.rules.needs import Loss, PlainLosses, Signal
from earnest.rules.parts import EXPLODED, Parts
from earnest.run import Series, Values

FEW = 10  # rows; from here on a loss is judged by its length (D201)
SMALL = 0.05  # of all parts; a smaller part harms nothing by growing (assumed)
HIGHER = 1.125  # times the first value, that fewer than ten rows do not reach by chance (assumed)
LEVEL = 0.1  # nats or whatever it is: a loss that stays below is near its floor, where a doubling means nothing
FEW_NORMS, GREW = 8, 10.0  # gradient norms that are judged, and times the lowest level: an order of magnitude
STEP, KNOWN_STEP, BEYOND = 3.0, 1.5, 10.0  # factors: without changes before to compare with; with them; beyond doubt


class Jump(NamedTuple):
    """A rise between two rows of a short log to a level that no earlier value reached, nor any later one left.

    at: index of the first value after it; factor: the lowest value after it as a multiple of the highest before.
    """

    at: int
    factor: float
    known: bool  # at least two changes were seen before it, and it is five times as large as the largest


def jump_of(value: Values) -> Jump | None:
    """The largest jump of a short series, if it is far outside the changes before it or beyond a factor of 3."""
    jumps: list[Jump] = []
    for at in range(1, len(value)):
        before, after = value[:at], value[at:]
        high, low = float(before.max()), float(after.min())
        if high <= 0 or low <= high or low < LEVEL:
            continue
        changes = np.abs(np.diff(before))
        known = len(changes) >= 2 and low - high > 5 * float(changes.max())
        returns = len(after) == 1 and low < STEP * high  # of one row it is not known whether it is a spike
        if low > (KNOWN_STEP if known else STEP) * high and not returns:
            jumps.append(Jump(at, low / high, known))
    return max(jumps, key=lambda jump: jump.factor, default=None)


@rule("D205", "critical", points=2, explains=("D204",))
def loss_jumps_beyond_measure(series: Loss, losses: PlainLosses | None, grad_norm: Signal | None) -> Answers:
    """The loss jumps by more than any healthy run shows, and does not come back.

    ## What it sees
    Discriminators and adversarial losses are left alone.

    - critical: of fewer than ten rows the loss rises from one row to the next to a level that no later row leaves, by
      half and by five times the largest change before, or threefold if there are no changes to compare with
    - critical: of more rows the last three values are all above a hundred times the level of the first half
    - a warning: fewer than ten rows go to and fro by a factor of a hundred, twice or more; or of five to nine the first
      two are the lowest, and the last three an eighth above the first
    ## Likely causes
    - the learning rate is too high, most often at the end of the warm-up
    - a bad batch threw the optimizer's state off: a gradient norm that rises before the loss says so
    - half precision overflows, or a scale in the loss is wrong
    ## Next probe
    Look at the batch and the gradient norm of the step before the jump; repeat that step in float32.
    ## Fix
    Go back to the checkpoint before the jump, clip at 1, and divide the learning rate by 3.
    ## References
    Chowdhery et al. 2022 (PaLM), section 5.1: restart before a spike that does not return.
    """
    yield Looked()
    values, parts = series.finite, Parts(losses or {})
    if is_adversarial(series.stream) or parts.explained_by_a_part(series):
        return
    small = parts.share(series.stream) < SMALL if series.stream else False
    if len(values) >= FEW:
        level = quantile(values.value[: len(values) // 2], 0.9)
        exploded = values.value > EXPLODED * max(level, LEVEL / EXPLODED)
        if level > 0 and exploded[-3:].all():
            onset = int(values.step[len(values) - int(np.argmin(exploded[::-1]))])
            words = f"{level:.3g} at first, {values.value[-1]:.3g} at the end, since step {onset}"
            yield Evidence(onset, words, STRONG, series.rows(), severity="note" if small else None)
        return
    jump = jump_of(values.value)
    if jump is None:
        yield from _swings(series)
        yield from _higher_ever_since(series)
        return
    step = int(values.step[jump.at])
    words = f"{values.value[jump.at - 1]:.3g} to {values.value[jump.at]:.3g} at step {step}, "
    words += f"{jump.factor:.1f} times what it was; seen in {len(values)} rows only"
    onset, moved = _norm_before(step, grad_norm)
    sure = jump.known or jump.factor > BEYOND
    severity: Severity | None = "note" if small else None if sure else "warning"
    yield Evidence(onset, words + moved, FAIR, series.rows(), severity=severity)


def _higher_ever_since(series: Series) -> Answers:
    """Five rows or more: the first two are the lowest, and the last ones are an eighth above the first."""
    value = series.finite.value
    if len(value) < 5 or value.min() < LEVEL or value[:2].max() >= value[2:].min():
        return
    if median(value[-3:]) > HIGHER * value[0]:
        words = f"{value[0]:.4g} at first, and never lower since: {value[-1]:.4g} at the end, in {len(value)} rows"
        yield Evidence(int(series.finite.step[0]), words, FAIR, series.rows(), severity="warning")


def _swings(series: Series) -> Answers:
    """Evidence if a short series goes up and down by more than a hundred: at least twice a row is that far from the row
    before it."""
    value = series.finite.value
    if len(value) < 3 or value.min() < LEVEL:
        return
    far = np.abs(np.diff(np.log(value))) > np.log(EXPLODED) / 2
    if value.max() > EXPLODED * value.min() and far.sum() > 1:
        words = f"between {value.min():.3g} and {value.max():.3g} from row to row, {value[-1]:.3g} at the end"
        yield Evidence(int(series.finite.step[int(value.argmax())]), words, FAIR, series.rows(), severity="warning")


def _norm_before(step: int, grad_norm: Series | None) -> tuple[int, str]:
    """The step at which it began, and in words, if the gradient norm jumped before the loss or with it."""
    if grad_norm is None:
        return step, ""
    finite = grad_norm.finite
    upto = finite.where(finite.step <= step)
    for at in range(1, len(upto)):
        usual = median(upto.value[:at])
        if usual > 0 and upto.value[at] > 5 * usual:
            began = int(upto.step[at])
            return began, f"; the gradient norm rose from {usual:.3g} to {upto.value[at]:.3g} at step {began}"
    return step, ""


@rule("D208", "warning", points=FEW_NORMS)
def gradient_norm_grows(grad_norm: Signal, losses: PlainLosses | None) -> Answers:
    """The gradient norm grows by an order of magnitude, or explodes in single steps.

    ## What it sees
    One of the two, unless two players are trained, whose norms may grow:

    - one value after the first tenth is more than a hundred times the median of all
    - of eight rows or more in ten stretches, the last two levels are more than ten times the lowest, by more than four
      errors of a level: a note while the loss still falls in the second half
    ## Likely causes
    - the learning rate is too high, or does not fall any more: the weights' norm and the curvature grow with it
    - a batch, or an operation with a large derivative (sqrt or log near 0, attention logits without a bound)
    - the loss is a sum, whose gradient grows with the length of the batch
    ## Next probe
    Log the norm by layer, and the batch of the largest one; repeat that step in float32.
    ## Fix
    Clip at the usual norm, divide the learning rate by 3, and let it decay; skip batches whose norm is far above.
    ## References
    Chowdhery et al. 2022 (PaLM), section 5.1. A norm that doubles over a long run is usual (allenai/OLMo#596).
    """
    yield Looked()
    if any(is_adversarial(stream) for stream in losses or {}):
        return
    values = grad_norm.finite
    usual, later = median(values.value), values.value[max(1, len(values) // 10) :]
    if usual > 0 and later.max() > EXPLODED * usual:
        at = int(values.step[len(values) - len(later) + int(later.argmax())])
        words = f"{later.max():.4g} at step {at}, {usual:.3g} in the median"
        yield Evidence(at, words, FAIR, grad_norm.rows(at))
        return
    went = course(grad_norm)
    if went is not None and went.gets_worse and (went.levels[-2:] > GREW * went.best).all() and went.best > 0:
        total = (losses or {}).get(None)
        severity: Severity | None = "note" if falling(total.tail(0.5) if total is not None else None) else None
        words = f"{went.best:.3g} at best, by step {went.since}, and {went.end:.3g} now: it grows"
        yield Evidence(went.since, words, FAIR, grad_norm.rows(went.since), severity=severity)


@rule("D206", "warning", explains=("D203", "D204"))
def one_part_swamps_the_total(losses: PlainLosses) -> Answers:
    """One part of the loss sets in or grows until it is nearly all of the total.

    ## What it sees
    The total has risen threefold or more, and a part that was 0, or a hundredth of what it is now, makes up nine tenths
    of all parts since. Critical if that part was in the sum before, or if another part got worse since. An adversary
    that sets in is left alone.
    ## Likely causes
    - a new phase adds this part with a weight, or a scale, that does not fit the others
    - the part itself grew without bound: its inputs, or what it is divided by
    ## Next probe
    Log the part's gradient norm beside that of the others; train a hundred steps with a hundredth of its weight.
    ## Fix
    Set the weight of this part so that it is of the size of the others, and ramp it up over some thousand steps.
    ## References
    Defossez et al. 2022 (EnCodec), section 3.4: a balancer makes weights shares of the gradient.
    """
    parts = Parts(losses)
    if parts.total is None or len(parts.parts) < 2:
        yield TooEarly("train/loss and two parts of it")
        return
    yield Looked()
    swamped = parts.swamped
    if swamped is None:
        return
    name, size = swamped.stream, f"{swamped.share:.1%} of all parts"
    words = f"{name} is {swamped.before:.3g} before step {swamped.since} and {swamped.now:.3g} now, {size}"
    words = f"{name} sets in at step {swamped.since} and is {swamped.now:.3g} now, {size}" if swamped.set_in else words
    if swamped.harmed:
        words += f"; {', '.join(map(str, swamped.harmed))} got worse since"
    severity: Severity | None = None if swamped.set_in and not swamped.harmed else "critical"
    rows = parts.total.rows(swamped.since) + parts.parts[name].rows()
    yield Evidence(swamped.since, words, STRONG if len(parts.total.finite) >= FEW else FAIR, rows, name, severity)

"""Family C, what never changes: one number again and again, an evaluation that stands, epochs that repeat."""

import math

import numpy as np

from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, STRONG
from earnest.rules.families.gradients import EARLY_STEPS
from earnest.rules.measure import COARSE, FEWEST_POINTS, printed_unit
from earnest.rules.needs import EvaluatedLoss, Loss
from earnest.run import Values

LONGEST_PERIOD = 5000  # points of an epoch whose losses are compared with those of the next
SAME_ROWS = 5  # rows with one number of five digits, which no two batches share by chance (assumed)
CLIPS = (-6, -7, -8, -10, -12)  # powers of ten at which trainers clip a probability before its logarithm


@rule("C301", "critical", points=8)
def loss_never_changes(series: Loss) -> Answers:
    """The training loss is the same number at every step.

    ## What it sees
    At least 8 logged values, the last half of all, are equal to the last digit though batches differ; and there are
    digits enough to tell. A loss that had fallen to a thousandth of its start is rounded. A warning if one number of
    five digits or more stands in five rows and a quarter of all.
    ## Likely causes
    - the model returns a constant: an early return, a cached loss, or logits that do not depend on weights and batch
    - a stale value is logged
    ## Next probe
    Feed two different batches and compare the losses.
    ## Fix
    Log the loss of this step; remove the constant path.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    values = series.finite
    end = values.value[len(values) // 2 :] if len(values) >= 16 else values.value
    faded = abs(end[0]) <= 1e-3 * abs(values.value[0])
    if end[0] != 0 and not faded and (end == end[0]).all() and printed_unit(values.value) < COARSE * abs(end[0]):
        other = np.flatnonzero(values.value != end[0])
        start = int(values.step[other[-1] + 1 if len(other) else 0])
        words = f"exactly {end[0]:.6g} in {len(end)} logged steps"
        yield Evidence(start, words, EXACT, series.rows(start))
        return
    level, times = _again_and_again(values.value)
    if times and abs(level) > 1e-3 * abs(values.value[0]):
        start = int(values.step[int(np.argmax(values.value == level))])
        words = f"exactly {level:.8g} in {times} of {len(values)} rows"
        clip = next((power for power in CLIPS if abs(level + math.log(10.0**power)) < 1e-4 * level), None)
        causes: list[str] | None = None
        if clip is not None:
            words += f", which is -ln 1e{clip}: a probability that is clipped there"
            causes = ["the output is saturated: the target's probability is 0, and no gradient comes through a clip"]
        yield Evidence(start, words, STRONG, series.rows(start), severity="warning", causes=causes)


def _again_and_again(value: Values) -> tuple[float, int]:
    """The number of five printed digits or more that stands in a quarter of a series, and in how many rows it does; 0
    rows if there is none."""
    numbers, counts = np.unique(value, return_counts=True)
    often = np.flatnonzero(counts >= max(SAME_ROWS, len(value) / 4))
    often = often[np.argsort(-counts[often], kind="stable")]
    for number, count in zip(numbers[often].tolist(), counts[often].tolist(), strict=True):
        if len(f"{number:.8g}".replace(".", "").lstrip("0-")) >= 5:
            return number, count
    return 0.0, 0


@rule("C302", "critical", points=3, explains=("B102", "E107"))
def evaluation_never_changes(evaluated: EvaluatedLoss) -> Answers:
    """The evaluation gives the same number every time: the weights do not move.

    ## What it sees
    Three or more evaluations over 20 steps, or eight, all of them equal to five digits (weight decay alone moves the
    sixth).
    ## Likely causes
    - the optimizer steps other parameters than the model uses (copy, wrong wrapper, adapters not active)
    - learning rate 0, or no gradient arrives
    - the evaluation loads a checkpoint that is never renewed
    ## Next probe
    Hash the parameters before and after ten steps.
    ## Fix
    Build the optimizer from the model that is trained; with LoRA and gradient checkpointing call
    enable_input_require_grads().
    ## References
    locuslab/open-unlearning#178.
    """
    values = evaluated.finite
    moved, first = float(np.ptp(values.value)), float(values.value[0])
    # weight decay alone moved the loss of an untrained model by 7e-6 of itself in 300 steps (measured:
    # tests/logs/lightning_loss_detached)
    still = first != 0 and moved <= 2e-5 * abs(first)
    if still and values.step[-1] - values.step[0] < EARLY_STEPS and len(values) < FEWEST_POINTS:
        yield TooEarly(f"{FEWEST_POINTS} evaluations, or {EARLY_STEPS} steps between the first and the last")
        return
    yield Looked()
    if still:
        exactly = "exactly" if moved == 0 else "to five digits"
        words = f"{exactly} {first:.5g} in {len(values)} evaluations"
        yield Evidence(int(values.step[0]), words, EXACT, evaluated.rows())


@rule("C303", "critical", points=12, explains=("B102", "B110"))
def losses_repeat_every_epoch(series: Loss) -> Answers:
    """The same losses come again in every epoch: the weights do not move.

    ## What it sees
    All values, to the last printed digit or a thousandth of how they vary, are those of one period before, over three
    periods or more; within a period they differ.
    ## Likely causes
    - the optimizer holds no parameter of the model, or its learning rate is 0 or far too small
    - no gradient arrives, and batches come in the same order in each epoch
    ## Next probe
    Compare the weights of two checkpoints: if no tensor differs, the optimizer does not step.
    ## Fix
    Build the optimizer from the parameters of the model that is trained, and check its learning rate.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    value = series.finite.value
    near = max(1.5 * printed_unit(value[:LONGEST_PERIOD]), 1e-3 * float(value.std()))
    longest = min(len(value) // 3, LONGEST_PERIOD)
    first = np.abs(value[2 : longest + 1] - value[0]) <= near
    for period in (np.flatnonzero(first & (np.abs(value[3 : longest + 2] - value[1]) <= near)) + 2).tolist():
        again, before = value[period:], value[:-period]  # a few values first: they differ unless all are alike
        if any(float(np.abs(again[:most] - before[:most]).max()) > near for most in (100, 10_000, len(again))):
            continue
        if near < 0.2 * float(value[:period].std()):
            words = f"the same {period} values come again {len(value) / period:.0f} times"
            yield Evidence(int(series.finite.step[0]), words, EXACT, series.rows())
            return

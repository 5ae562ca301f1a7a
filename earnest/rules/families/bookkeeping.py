"""Family H: bookkeeping."""

import math
import re

import numpy as np

from earnest.probes.results import Ranks
from earnest.quantiles import median, medians, quantile
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.measure import FIRST_SCALE, falling
from earnest.rules.needs import AllSeries, Fact, LastStep, Loss, LossInBothSplits, Messages, PlainLosses, Probe, Signal
from earnest.rules.statistics import trend
from earnest.run import Series

OWN = "earnest"  # the format of a log that this package's own training wrote
FEWEST_POINTS = 8  # of a training loss beside its evaluations (assumed)
FEWEST_TO_FALL = 4  # rows from which on halves of a loss are compared
COLLAPSED_SCALE = 1e-3  # a loss scale that is named: below it nothing but overflow is left (assumed)
NO_GAP = 20.0  # times training, at the first evaluation: another unit, and nothing that was learnt (assumed)
FEWEST_NANS = 3  # printed without a name: more than one odd value (assumed)


@rule("H101", "warning", points=4, explains=("E101", "E102"))
def units_differ(loss: LossInBothSplits, codebooks: Fact[int] | None, accumulation_steps: Fact[int] | None) -> Answers:
    """Training and evaluation are logged in different units.

    ## What it sees
    At every evaluation, from the first on, one of the two:

    - the ratio of evaluation to training loss is the same within 3 % and equals 1/ln 2 (bits), the number of codebooks
      or of accumulated micro-batches, or the inverse
    - the evaluation is more than 20 times the training loss, and moves by less than a twentieth while that halves
    ## Likely causes
    - one is a sum over codebooks or micro-batches, the other a mean
    - one is in bits per token
    - padding, or clips that a guard scores with a constant, make most of the held-out sum
    ## Next probe
    Evaluate on the training clips: the two numbers must agree at the same weights.
    ## Fix
    Log the unweighted mean in nats per counted target on both sides.
    ## References
    transformers' HiggsAudioV2 sums its codebooks.
    """
    evaluated, train = loss.evaluated.finite, loss.train
    if train is None or len(train.finite) < FEWEST_POINTS:
        yield TooEarly(f"{FEWEST_POINTS} points of train/{evaluated.key.name}")
        return
    at = np.clip(np.searchsorted(train.finite.step, evaluated.step), 2, len(train.finite) - 3)
    near = medians(train.finite.value[at[:, None] + np.arange(-2, 3)])
    inside = evaluated.step >= train.finite.step[0]
    near, values = near[inside], evaluated.value[inside]
    if len(near) < 4:
        yield TooEarly(f"4 points of {evaluated.key} beside {train.key}")
        return
    yield Looked()
    if (near <= 0).any():
        return
    ratio = values / near
    level, spread = median(ratio), float(quantile(ratio, 0.9) - quantile(ratio, 0.1))
    moved = float(np.ptp(near)) > 0.1 * float(near.mean())  # a constant ratio says little if nothing moved
    stands = float(np.ptp(values)) < 0.05 * float(values.max()) and near[-1] < 0.5 * near[0]
    if float(ratio.min()) > NO_GAP and stands:
        words = f"{values[0]:.4g} to {values[-1]:.4g} held out beside {near[0]:.4g} to {near[-1]:.4g} in training: "
        words += f"{ratio[0]:.0f} times as much at the first evaluation already, which no gap is"
        yield Evidence(int(evaluated.step[0]), words, FAIR, loss.evaluated.rows())
        return
    names = {"bits against nats": 1 / math.log(2)}
    for words, count in (("codebooks", codebooks), ("accumulation steps", accumulation_steps)):
        if count and count > 1:
            names[f"a sum over {count} {words}"] = float(count)
    for words, factor in names.items():
        near_factor = any(abs(level / one - 1) < 0.03 and spread < 0.05 * one for one in (factor, 1 / factor))
        if near_factor and (moved or factor > 1.9):
            words = f"evaluation is {level:.3f} times training at every evaluation: {words}"
            yield Evidence(int(evaluated.step[0]), words, STRONG, loss.evaluated.rows())
            return


@rule("H102", "note", points=40)
def steps_get_slower(step_s: Signal) -> Answers:
    """Steps take longer and longer.

    ## What it sees
    The median step of the last tenth takes more than twice as long as that of the second tenth, with a trend that can
    be believed.
    ## Likely causes
    - graphs or tensors are kept alive: losses summed without .item(), a growing list or cache
    - longer clips come last
    ## Next probe
    Log memory beside it: memory that grows with it is a leak.
    ## Fix
    Use .item() or .detach() on everything that is logged.
    ## References
    PyTorch FAQ, "My model reports out of memory".
    """
    yield Looked()
    value = step_s.binned.value
    tenth = max(2, len(value) // 10)
    first, last = median(value[tenth : 2 * tenth]), median(value[-tenth:])
    if last > 2 * first and trend(value[tenth:]).rises:
        words = f"{first:.3g} s at first, {last:.3g} s now"
        yield Evidence(int(step_s.binned.step[tenth]), words, FAIR, step_s.rows())


@rule("H103", "warning", points=20)
def memory_grows(memory_bytes: Signal) -> Answers:
    """Memory grows with every step.

    ## What it sees
    After the first fifth of the run memory still grows, by more than a quarter, in a trend that can be believed, and in
    both of the last two quarters.
    ## Likely causes
    - losses are summed without .item(), so graphs stay alive
    - demos or predictions are kept in a list
    ## Next probe
    Train 200 steps without evaluation and logging.
    ## Fix
    Detach whatever outlives the step.
    ## References
    PyTorch FAQ, "My model reports out of memory".
    """
    yield Looked()
    value = memory_bytes.binned.value
    first = len(value) // 5
    rest = value[first:]
    found, quarter = trend(rest), max(1, len(rest) // 4)
    ends = [median(rest[-(back + 1) * quarter : len(rest) - back * quarter]) for back in range(3)]
    steady = ends[0] > 1.02 * ends[1] > 1.02**2 * ends[2]
    if found.change > 0.25 * rest[0] and found.rises and steady:
        words = f"{rest[0] / 2**30:.2f} GiB to {rest[-1] / 2**30:.2f} GiB"
        yield Evidence(int(memory_bytes.binned.step[first]), words, FAIR, memory_bytes.rows())


@rule("H104", "note", points=10)
def waiting_for_data(data_s: Signal, step_s: Signal) -> Answers:
    """Most of a step is spent waiting for data.

    ## What it sees
    The median time spent loading is more than half of the median step.
    ## Likely causes
    - audio is decoded or encoded in the loop
    - too few workers, or a slow disk
    ## Next probe
    Train on one batch again and again: the difference is the loading.
    ## Fix
    Encode offline into a store, and load with workers.
    ## References
    earnest's own; no publication known.
    """
    if not len(step_s.finite):
        yield TooEarly(f"a point of {step_s.key} that is a number")
        return
    yield Looked()
    share = median(data_s.finite.value) / max(median(step_s.finite.value), 1e-9)
    if 0.5 < share <= 1.05:
        yield Evidence(int(data_s.finite.step[0]), f"{share:.0%} of a step is loading", STRONG, data_s.rows())


@rule("H105", "warning")
def clips_are_skipped(skipped_clips: Signal, train_clips: Fact[int] | None) -> Answers:
    """Many clips could not be read and are missing from the training.

    ## What it sees
    More than 1 % of the clips (and at least 2) were skipped; critical above 5 %.
    ## Likely causes
    - damaged or empty files, a format that is not decoded, paths that do not exist
    ## Next probe
    Read the list of skipped clips and open one by hand.
    ## Fix
    Repair or remove the files, and correct the metadata.
    ## References
    earnest's own; no publication known.
    """
    values = skipped_clips.finite
    count = float(values.value.max())
    if count >= 2 and not train_clips:
        yield TooEarly("--fact train_clips=...")
        return
    yield Looked()
    share = count / ((train_clips or 0) + count) if count else 0.0
    if count >= 2 and share > 0.01:
        words, first = f"{count:.0f} clips skipped, {share:.1%} of all", int(values.step[np.argmax(values.value > 0)])
        critical = share > 0.05
        yield Evidence(first, words, EXACT, skipped_clips.rows(), severity="critical" if critical else None)


@rule("H106", "note", points=5)
def batches_are_mostly_padding(padding_frac: Signal) -> Answers:
    """Half of every batch is padding.

    ## What it sees
    The median share of padding is above 0.5.
    ## Likely causes
    - short and long clips share batches
    ## Next probe
    Sort clips by length into buckets, and compare the time per counted target.
    ## Fix
    Bucket by length, or pack clips into one sequence.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    level = median(padding_frac.finite.value)
    if 0.5 < level <= 1:
        words = f"{level:.0%} of the positions are padding"
        yield Evidence(int(padding_frac.finite.step[0]), words, STRONG, padding_frac.rows())


@rule("H107", "critical")
def ranks_differ(ranks: Probe[Ranks]) -> Answers:
    """The ranks of a distributed run hold different weights.

    ## What it sees
    The ranks probe: hashes of the parameters differ between ranks after an optimizer step.
    ## Likely causes
    - forward is called on the inner module, past the wrapper that synchronises gradients
    - different random initialisation of new parameters per rank
    ## Next probe
    Compare hashes per parameter: all of them = no synchronisation, a few = their initialisation.
    ## Fix
    Call the wrapped model; seed before new parameters are made.
    ## References
    codeman911/higgs-audio calls base_model.forward and so bypasses DDP.
    """
    yield Looked()
    names = ranks.differing
    if names:
        words = f"{len(names)} parameters differ: {', '.join(names[:3])}"
        yield Evidence(ranks.step, words, EXACT, [{"parameter": name} for name in names[:6]])


@rule("H108", "note", points=12)
def same_value_logged_again(series: Loss) -> Answers:
    """The same values are logged again and again.

    ## What it sees
    More than half of the logged values equal the one before, to the last digit, in runs of three or more, although the
    loss as a whole moves.
    ## Likely causes
    - an epoch's mean is written at every step
    - a stale value is logged between evaluations
    ## Next probe
    Count distinct values per epoch.
    ## Fix
    Log each measurement once, at the step it belongs to.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    value = series.finite.value
    same = np.concatenate([[False], np.diff(value) == 0])
    # three decimals repeat by themselves once a loss has converged
    rounded = np.abs(value * 1000 - np.round(value * 1000)).max() < 1e-6
    repeats = list(series.finite.runs(same, at_least=2))
    if not rounded and same.mean() > 0.5 and len(repeats) >= 3 and value[-1] != 0:
        words = f"{same.mean():.0%} of the values repeat the one before"
        yield Evidence(repeats[0].start, words, STRONG, series.rows())


@rule("H111", "note")
def stopped_before_its_plan(schedule_steps: Fact[int], format: Fact[str], last_step: LastStep) -> Answers:
    """The log ends before the run's plan does.

    ## What it sees
    In a log of somebody else's trainer, the last step is at less than 95 % of the steps that were planned.
    ## Likely causes
    - the run goes on, or was stopped: a time limit, a crash, a full disk
    - only a part of the log is here
    ## Next probe
    Read the last lines that the program printed.
    ## Fix
    Continue from the last checkpoint; the learning rate has not come down yet.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    if format != OWN and 0 < last_step < 0.95 * schedule_steps:
        words = f"step {last_step} of {schedule_steps}"
        yield Evidence(last_step, words, STRONG, [{"last_step": last_step, "schedule_steps": schedule_steps}])


@rule("H110", "warning", explains=("H111",))
def log_tells_of_trouble(messages: Messages, series: AllSeries | None, losses: PlainLosses | None) -> Answers:
    """The log says in words that something went wrong.

    ## What it sees
    What the program printed between its numbers: steps skipped as a loss or gradient was not finite, overflow in half
    precision, a bare "nan", too little memory, a stop from outside, an error. Each kind is counted and quoted. Few
    overflows while the loss falls on are how a loss scaler finds its level.

    - critical: as many skipped steps or overflows as there were steps from the first logged one to the last, or the
      loss scale that they name is below a thousandth
    - a note: there are few of them, or the loss scale is still above 65536, where it begins
    ## Likely causes
    - what the quoted line says
    ## Next probe
    Read the lines before the first of these messages.
    ## Fix
    Mend what the quoted line names, and go on from the last checkpoint before it.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    steps = max((_covered(one) for one in (series or {}).values()), default=0)
    learns = _learns((losses or {}).get(None))
    for message in messages:
        severity: Severity | None = "note" if message.kind == "stopped" else None
        if message.kind == "nan" and message.count < FEWEST_NANS:
            severity = "note"
        if message.kind in ("skipped", "overflow"):
            few = message.count <= max(1, 0.02 * steps) or (learns and message.count <= 0.1 * steps)
            scale = _scale_told(message.words) if message.kind == "overflow" else None
            collapsed = scale is not None and scale < COLLAPSED_SCALE
            high = scale is not None and scale > FIRST_SCALE
            hopeless = collapsed or (message.count >= steps and not high)
            severity = "critical" if hopeless else "note" if few or high else None
            if few and learns and message.kind == "overflow" and not collapsed:  # a loss scaler finds its level so
                continue
        lines = {"kind": message.kind, "count": message.count, "line": message.place.last, "says": message.words}
        yield Evidence(None, message.told, STRONG, [lines], severity=severity)


def _scale_told(words: str) -> float | None:
    """The loss scale that a message names: "scale is small: 3.1e-05", "reducing loss scale to 16384.0"."""
    named = re.search(r"scale\b[^.\d]*?(?::|\bto)\s*(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", words, re.IGNORECASE)
    return float(named[1]) if named else None


def _covered(series: Series) -> int:
    """How many steps were made from the first logged row to the last: a row may cover hundreds of steps."""
    return max(len(series), int(series.step[-1] - series.step[0])) if len(series) else 0


def _learns(total: Series | None) -> bool:
    """Whether a loss falls; of two or three rows, from each to the next."""
    if total is None:
        return False
    value = total.finite.value
    return bool((np.diff(value) < 0).all()) if 1 < len(value) < FEWEST_TO_FALL else falling(total)

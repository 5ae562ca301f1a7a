"""Family H: bookkeeping."""

import math

import numpy as np

from earnest.rules.catalogue import Evidence, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.statistics import boundary, trend


@rule("H101", needs=["eval/ce_nats|eval/loss", "run"], severity="warning", points=4, explains=("E101", "E102"))
def units_differ(evaluated, run):
    """Training and evaluation are logged in different units.

    ## What it sees
    At every evaluation, from the first on, the ratio of evaluation to training loss is the same within 3 % and equals
    1/ln 2 (bits), the number of codebooks or of accumulated micro-batches, or the inverse.
    ## Likely causes
    - one is a sum over codebooks or micro-batches, the other a mean
    - one is in bits per token
    ## Next probe
    Evaluate on the training clips: the two numbers must agree at the same weights.
    ## Fix
    Log the unweighted mean in nats per counted target on both sides.
    ## References
    transformers' HiggsAudioV2 sums its codebooks.
    """
    train = run.get("train", evaluated.key.name, evaluated.stream)
    if train is None or len(train.finite) < 8:
        yield TooEarly(f"8 points of train/{evaluated.key.name}")
        return
    at = np.clip(np.searchsorted(train.finite.step, evaluated.finite.step), 2, len(train.finite) - 1)
    near = np.array([np.median(train.finite.value[max(0, i - 2) : i + 3]) for i in at])
    inside = evaluated.finite.step >= train.finite.step[0]
    if inside.sum() < 4 or (near[inside] <= 0).any():
        return
    ratio = evaluated.finite.value[inside] / near[inside]
    level, spread = float(np.median(ratio)), float(np.quantile(ratio, 0.9) - np.quantile(ratio, 0.1))
    names = {"bits against nats": 1 / math.log(2)}
    for fact in ("codebooks", "accumulation_steps"):
        if (count := getattr(run.facts, fact) or 1) > 1:
            names[f"a sum over {count} {fact.replace('_', ' ')}"] = float(count)
    moved = float(np.ptp(near[inside])) > 0.1 * float(
        near[inside].mean()
    )  # a constant ratio says little if nothing moved
    for words, factor in names.items():
        for wanted in (factor, 1 / factor):
            if abs(level / wanted - 1) < 0.03 and spread < 0.05 * wanted and (moved or factor > 1.9):
                yield Evidence(
                    int(evaluated.finite.step[0]),
                    f"evaluation is {level:.3f} times training at every evaluation: {words}",
                    STRONG,
                    evaluated.rows(),
                )
                return


@rule("H102", needs=["step_s"], severity="note", points=40)
def steps_get_slower(step_s):
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
    value = step_s.binned.value
    tenth = max(2, len(value) // 10)
    found = trend(value[tenth:])
    if np.median(value[-tenth:]) > 2 * np.median(value[tenth : 2 * tenth]) and found.z > boundary(found.points):
        yield Evidence(
            int(step_s.binned.step[tenth]),
            f"{np.median(value[tenth : 2 * tenth]):.3g} s at first, {np.median(value[-tenth:]):.3g} s now",
            FAIR,
            step_s.rows(),
        )


@rule("H103", needs=["memory_bytes"], severity="warning", points=20)
def memory_grows(memory):
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
    value = memory.binned.value
    rest = value[len(value) // 5 :]
    found = trend(rest)
    quarter = max(1, len(rest) // 4)
    steady = (
        np.median(rest[-quarter:])
        > 1.02 * np.median(rest[-2 * quarter : -quarter])
        > 1.02**2 * np.median(rest[-3 * quarter : -2 * quarter])
    )
    if found.change > 0.25 * rest[0] and found.z > boundary(found.points) and steady:
        yield Evidence(
            int(memory.binned.step[len(value) // 5]),
            f"{rest[0] / 2**30:.2f} GiB to {rest[-1] / 2**30:.2f} GiB",
            FAIR,
            memory.rows(),
        )


@rule("H104", needs=["data_s", "step_s"], severity="note", points=10)
def waiting_for_data(data_s, step_s):
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
    share = (
        float(np.median(data_s.finite.value)) / max(float(np.median(step_s.finite.value)), 1e-9)
        if len(step_s.finite)
        else 0.0
    )
    if 0.5 < share <= 1.05:
        yield Evidence(int(data_s.finite.step[0]), f"{share:.0%} of a step is loading", STRONG, data_s.rows())


@rule("H105", needs=["skipped_clips", "fact:train_clips?"], severity="warning")
def clips_are_skipped(skipped, clips):
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
    if not len(skipped.finite):
        return
    count = float(skipped.finite.value.max())
    share = count / (clips + count) if clips else None
    if count >= 2 and share is not None and share > 0.01:
        yield Evidence(
            int(skipped.finite.step[np.argmax(skipped.finite.value > 0)]),
            f"{count:.0f} clips skipped, {share:.1%} of all",
            EXACT,
            skipped.rows(),
            severity="critical" if share > 0.05 else None,
        )


@rule("H106", needs=["padding_frac"], severity="note", points=5)
def batches_are_mostly_padding(padding):
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
    level = float(np.median(padding.finite.value))
    if 0.5 < level <= 1:
        yield Evidence(int(padding.finite.step[0]), f"{level:.0%} of the positions are padding", STRONG, padding.rows())


@rule("H107", needs=["probe:ranks"], severity="critical")
def ranks_differ(ranks):
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
    differing = ranks.differing
    if differing:
        yield Evidence(
            ranks.step,
            f"{len(differing)} parameters differ: {', '.join(differing[:3])}",
            EXACT,
            [{"parameter": name} for name in differing[:6]],
        )


@rule("H108", needs=["ce_nats|loss"], severity="note", points=12)
def same_value_logged_again(series):
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
    value = series.finite.value
    same = np.concatenate([[False], np.diff(value) == 0])
    rounded = (
        np.abs(value * 1000 - np.round(value * 1000)).max() < 1e-6
    )  # three decimals repeat by themselves once a loss has converged
    repeats = list(series.finite.runs(same, at_least=2))
    if not rounded and same.mean() > 0.5 and len(repeats) >= 3 and value[-1] != 0:
        yield Evidence(
            repeats[0].start, f"{same.mean():.0%} of the values repeat the one before", STRONG, series.rows()
        )

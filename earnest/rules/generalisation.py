"""Family E: data and generalisation."""

import math

import numpy as np

from earnest.records import plain
from earnest.rules.catalogue import Evidence, rule
from earnest.rules.decision import EXACT, FAIR, STRONG, WEAK
from earnest.rules.ladder import falling, rising_since, rungs, token_curve, vocabulary
from earnest.rules.statistics import expected_used
from earnest.streams import Codebook


@rule("E101", needs=["eval/ce_nats|eval/loss", "run"], severity="warning", points=5)
def overfitting(evaluated, run):
    """The held-out loss rises while the training loss falls.

    ## What it sees
    After its minimum the held-out loss rises over at least four evaluations, by more than its noise and 2 % of chance,
    while the training loss still falls.
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
    key = evaluated.key
    train = run.get("train", key.name, key.stream)
    ladder = rungs(run, key.stream) if key.stream else []
    scale = ladder[0].value if ladder else abs(float(evaluated.finite.value[0]))
    rising = rising_since(evaluated, scale)
    if rising and train is not None and falling(train.since(rising[0])):
        lowest = float(evaluated.finite.value.min())
        few = run.facts.held_out_clips
        more = (
            f" ({int(few)} held-out clip{'s' if few > 1 else ''}: trust the direction, not the value)"
            if few is not None and few < 20
            else ""
        )
        yield Evidence(
            rising[0],
            f"{lowest:.3f} at step {rising[0]}, {evaluated.finite.value[-1]:.3f} now{more}",
            STRONG,
            evaluated.rows(),
        )


@rule("E102", needs=["verdicts", "run"], severity="warning", explains=("E101", "E204"))
def training_clips_memorised(verdicts, run):
    """The training clips are known by heart.

    ## What it sees
    The training loss is more than twice as far below the baseline as the held-out loss, which stalls or rises. A note
    where that costs nothing: the held-out loss is below every baseline, and no more than 2 % of chance above its lowest
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
    for verdict in verdicts:
        if verdict.verdict != "memorising":
            continue
        evaluated = token_curve(run, "eval", verdict.stream)
        values = evaluated.finite.value if evaluated is not None else np.zeros(0)
        known = [rung.value for rung in verdict.ladder]
        harmless = len(values) >= 3 and values[-1] <= values.min() + 0.02 * max(known) and values[-1] < min(known)
        if harmless:
            words = f"{verdict.why}, no worse than its lowest, {values.min():.2f}"
            yield Evidence(verdict.since_step, words, STRONG, [], verdict.stream, severity="note")
        else:
            yield Evidence(verdict.since_step, verdict.why, STRONG, [], verdict.stream)


@rule("E103", needs=["fact:held_out_clips"], severity="warning")
def validation_too_small(clips):
    """The validation set is too small to mean anything.

    ## What it sees
    Fewer than 10 held-out clips (critical for a single one).
    ## Likely causes
    - a split ratio chosen for a large corpus (0.997 of 40 clips leaves one)
    ## Next probe
    The held-out loss of each clip by itself: their spread is the error of the mean.
    ## Fix
    Hold out 5 % of the clips and at least 20.
    ## References
    rubin-labs: split_ratio 0.997 of 40 clips; "eval loss is irrelevant" was said of n = 1.
    """
    if clips < 10:
        yield Evidence(
            0,
            f"{int(clips)} held-out clip{'s' if clips != 1 else ''}",
            EXACT if clips <= 2 else STRONG,
            [{"held_out_clips": int(clips)}],
        )


@rule("E104", needs=["probe:crops"], severity="warning", explains=("E101", "E102"))
def crops_are_deterministic(crops):
    """Every epoch cuts the same frames out of each clip.

    ## What it sees
    The number of distinct crops per clip is less than half of what as many random ones would give (coupon collector).
    ## Likely causes
    - random windows are off by a default, or only the first seconds are read
    - the random generator is seeded anew in every epoch or worker
    ## Next probe
    Print the start frame of one clip over ten epochs.
    ## Fix
    Draw a random start per epoch and clip in training, a fixed one in evaluation.
    ## References
    rubin-labs/dia-finetuning-stereo 354ef6b: use_sliding_window defaulted to False; the first 600 frames of 40 clips.
    """
    draws, distinct, possible = crops.draws, crops.distinct, crops.possible
    expected = possible * expected_used(possible, draws)
    if draws >= 3 and possible >= 3 and distinct < 0.5 * expected:
        yield Evidence(
            0,
            f"{distinct:g} distinct crops per clip in {draws:g} draws, {expected:.1f} expected of {possible:g} possible",
            EXACT if distinct <= 1 else STRONG,
            [plain(crops)],
        )


@rule("E105", needs=["probe:unconditional", "fact:unconditional_frac"], severity="warning")
def unconditional_share_off(seen, configured):
    """Another share of clips is trained without condition than configured.

    ## What it sees
    A two-sided binomial test of the clips seen without condition against unconditional_frac (p < 0.0001).
    ## Likely causes
    - the draw is made per batch or per rank instead of per clip
    - the seed repeats
    ## Next probe
    Count per clip over an epoch.
    ## Fix
    Draw per clip, from a generator that is not reseeded.
    ## References
    earnest's own; no publication known.
    """
    from scipy.stats import binomtest  # here, as it takes longer to import than most runs to judge

    p = binomtest(seen.without, seen.clips, configured).pvalue
    if p < 1e-4:
        yield Evidence(0, f"{seen.without} of {seen.clips} clips, {configured:.0%} configured", EXACT, [plain(seen)])


@rule("E106", needs=["fact:guidance", "fact:unconditional_frac"], severity="warning", explains=("G105",))
def guidance_on_untrained_branch(guidance, share):
    """Demos use guidance, but the unconditional branch was never trained.

    ## What it sees
    The guidance scale is not 1, while fewer than 2 % of the clips are trained without their condition.
    ## Likely causes
    - unconditional_frac is 0 while demos keep their default guidance
    ## Next probe
    Generate the same prompts and seeds with guidance 1.
    ## Fix
    Turn guidance off (scale 1), or train 10-15 % of the clips unconditionally, with the same empty condition that
    generation uses.
    ## References
    Ho & Salimans 2022 train 10-20 % unconditionally; rubin-labs found it: unconditional_frac 0 with guidance 4 gave
    noise.
    """
    if guidance != 1 and share < 0.02:
        yield Evidence(
            0,
            f"guidance {guidance:g} with {share:.1%} of the clips trained unconditionally",
            EXACT,
            [{"guidance": guidance, "unconditional_frac": share}],
        )


@rule("E201", needs=["run"], severity="critical", explains=("F301",))
def metric_impossible(run):
    """A metric has a value that it cannot have: the measurement is wrong.

    ## What it sees
    A fraction outside 0 to 1, an entropy or cross-entropy below 0 or an entropy above ln V, a perplexity below 1 or
    above the number of entries.
    ## Likely causes
    - percent logged as a fraction; sums logged as means
    - the mean includes padding, or positions of other codebooks
    - it was read from a smoothed or logarithmic plot
    ## Next probe
    Compute the metric by hand for one batch.
    ## Fix
    Mask before the mean, and divide by what was counted.
    ## References
    Entropy is never negative: -(p log(p + 1e-10)) stays above -1e-9; a published log reads "below 0" where its next
    entry says 0.4.
    """
    for key, series in run.series.items():
        values = series.finite
        if not len(values):
            continue
        size = vocabulary(run, key.stream) if key.stream else None
        low, high = -math.inf, math.inf
        if key.name.endswith("_frac") and key.name not in ("update_frac", "residual_frac"):
            low, high = 0, 1
        elif key.name in ("entropy_nats", "ce_nats"):
            low, high = 0, math.log(size) if size and key.name == "entropy_nats" else math.inf
        elif key.name == "perplexity" and isinstance(key.stream, Codebook):
            low, high = 1, float(run.facts.codebook_size or size or math.inf)
        # rounding: a float32 mean is wrong by less than a millionth of its size
        wrong = (values.value < low - 1e-6) | (
            values.value > high * (1 + 1e-6) + 1e-6 if math.isfinite(high) else False
        )
        if wrong.mean() > 0.5 and low == 0 and high == 1 and values.value.max() <= 100 and values.value.min() >= 0:
            yield Evidence(
                int(values.step[np.argmax(wrong)]),
                f"{key} reaches {values.value.max():.4g}: percent, where a fraction is meant",
                EXACT,
                [{"signal": str(key), "highest": float(values.value.max())}],
                key.stream,
                severity="note",
            )
        elif wrong.any():
            worst = float(values.value[np.argmax(wrong)])
            yield Evidence(
                int(values.step[np.argmax(wrong)]),
                f"{key} is {worst:.4g}, possible is {low:g} to {high:.4g}",
                EXACT,
                [{"signal": str(key), "value": worst}],
                key.stream,
            )


@rule("E202", needs=["fact:trainable_parameters", "fact:train_targets", "run"], severity="note")
def many_parameters_and_no_validation(parameters, targets, run):
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
    measured = run.probes.held_out or any(key.split == "eval" for key in run.series)
    if targets and parameters > 50 * targets and not measured:
        yield Evidence(
            0,
            f"{parameters:,.0f} parameters for {targets:,.0f} targets, and no evaluation",
            STRONG,
            [{"trainable_parameters": parameters, "train_targets": targets}],
        )


@rule("E203", needs=["probe:duplicates"], severity="critical", explains=("A202",))
def validation_clips_in_training(duplicates):
    """Held-out clips also stand in the training data.

    ## What it sees
    The duplicates probe: held-out clips whose codes equal those of a training clip.
    ## Likely causes
    - the split was made by file, and the corpus holds copies
    - windows of one recording fall on both sides
    ## Next probe
    Split by recording or speaker, and evaluate the same checkpoint again.
    ## Fix
    Remove duplicates, and split by recording.
    ## References
    earnest's own; no publication known.
    """
    shared, clips = duplicates.shared, duplicates.held_out
    if shared:
        yield Evidence(0, f"{shared} of {clips} held-out clips", EXACT, [plain(duplicates)])


@rule("E204", needs=["ce_nats|loss", "fact:steps_per_epoch", "run"], severity="note", points=60)
def stair_steps(series, steps_per_epoch, run):
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
    # a step has to stand out of the fall inside the epochs; two or three steps while validation falls are normal
    drops, total, sure = [], 0.0, 0
    for epoch in range(1, int(values.step[-1] // steps_per_epoch) + 1):
        boundary_step = epoch * steps_per_epoch
        before = values.value[(values.step > boundary_step - steps_per_epoch / 4) & (values.step <= boundary_step)]
        after = values.value[(values.step > boundary_step) & (values.step <= boundary_step + steps_per_epoch / 4)]
        if len(before) < 4 or len(after) < 4:
            continue
        drop = float(before.mean() - after.mean())
        error = math.sqrt(before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after))
        drops.append((boundary_step, drop))
        total += drop
        sure += drop > 4 * error
    fall = float(values.value[:4].mean() - values.value[-4:].mean())
    evaluated = [run.get("eval", name, series.stream) for name in ("ce_nats", "loss")]
    helped = any(one is not None and falling(one) for one in evaluated)
    if sure >= 3 and fall > 0 and total > 0.5 * fall and not helped:
        measured = any(one is not None for one in evaluated)
        yield Evidence(
            int(drops[0][0]),
            f"{sure} of {len(drops)} epoch boundaries drop, by {np.mean([drop for _, drop in drops]):.2f} on average",
            FAIR if measured else WEAK,
            [{"step": int(step), "drop": drop} for step, drop in drops[:6]],
        )


@rule("E205", needs=["probe:noise"], severity="warning", explains=("A304", "B102", "B103", "B104", "B106"))
def clips_are_noise(noise):
    """The clips are noise: the level at which the loss stays is the data's floor.

    ## What it sees
    The noise probe listens to sixteen training clips: in more than half the power at each frequency varies over time as
    in stationary noise, and one moment says nothing of the next.
    ## Likely causes
    - dummy audio that a loader makes where a file is missing or cannot be read
    - raw samples read in a wrong format: byte order, sample width, a header taken for sound
    - recordings of nothing but hiss
    ## Next probe
    Listen to one of the clips named.
    ## Fix
    Let the loader fail where a file cannot be read. No learning rate lowers the entropy of noise; what a codec makes of
    it is learnt soon.
    ## References
    Harrolee/SLM-MoT: its fallback is noise, and the plateau on it was taken for a learning rate too low.
    """
    found, clips = noise.noise, noise.clips
    if found > clips / 2:
        yield Evidence(0, f"{found} of {clips} training clips are stationary noise", STRONG, [plain(noise)])

"""Family F: codec and GAN."""

import math
from itertools import accumulate

import numpy as np

from earnest.records import plain
from earnest.rules.catalogue import Evidence, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.ladder import ADVERSARIAL, DISCRIMINATOR, FEATURES, discriminator_gap, is_hinge
from earnest.rules.statistics import boundary, expected_used, trend
from earnest.streams import Codebook, Part

RECONSTRUCTION = (Part("mel"), Part("msspec"), Part("stft"), Part("waveform"))


def _first(run, streams):
    return next(
        (found for stream in streams if (found := run.get("train", "loss", stream)) is not None and len(found.finite)),
        None,
    )


@rule("F101", needs=["run"], severity="warning", explains=("F103",))
def discriminator_blind(run):
    """The discriminator sees no difference between real and generated audio.

    ## What it sees
    The gap D(real) - D(fake) stays below 0.05 (a hinge loss near 2), over the last half of the run or in the one value
    there is.
    ## Likely causes
    - the discriminator is too weak, or its learning rate too low
    - it is fed the same audio twice, or its gradients are zeroed
    - the generator is perfect (then ears and reconstruction agree)
    ## Next probe
    Train the discriminator alone for 200 steps with the generator frozen: a gap that stays 0 means that it cannot
    learn.
    ## Fix
    Give the discriminator its own optimizer at the generator's learning rate, and check real against fake inputs; judge
    the gap, not "stable at 2".
    ## References
    Lim & Ye 2017 (hinge): a constant D scores exactly 2. Amy-LM calls 1.97 "stable": with adv_g 0.32 that is a gap of
    0.027.
    """
    gap = discriminator_gap(run)
    if gap is None or not is_hinge(run) or not len(gap.finite):
        yield TooEarly("train/d_real and train/d_fake, or train/loss/loss_d (hinge)")
        return
    half = gap.tail(0.5)
    if len(gap.finite) > 1 and (run.last_step < 200 or len(half) < 5):
        yield TooEarly("200 steps of the discriminator")
        return
    level = float(np.median(half.value))
    if abs(level) < 0.05:
        adversarial = _first(run, ADVERSARIAL)
        words = f"D(real) - D(fake) = {level:.3f}"
        if adversarial is not None:
            fake = -float(adversarial.tail(0.5).value.mean())
            words += f": D(fake) = {fake:.2f}, D(real) = {fake + level:.2f}"
        yield Evidence(
            int(half.step[0]), f"{words}: it does not tell them apart", STRONG if len(half) >= 5 else FAIR, gap.rows()
        )


@rule("F102", needs=["run"], severity="warning", explains=("D102",))
def discriminator_wins(run):
    """The discriminator tells real from generated without effort, and the generator learns little from it.

    ## What it sees
    A hinge loss of the discriminator below 0.1, or a gap above 1.9 with almost no loss left, over the last quarter of
    the run (at least 20 points).
    ## Likely causes
    - the discriminator learns faster: learning rate, updates per step, capacity
    - it recognises an artefact: length, silence, another sample rate, clipping
    - the generator's reconstruction has stopped improving
    ## Next probe
    Feed the discriminator re-encoded real audio: if it still separates, it listens to an artefact.
    ## Fix
    Update the discriminator in two of three steps, or divide its learning rate by 4; start it after the reconstruction
    has settled.
    ## References
    descriptinc/melgan-neurips#3: D loss near 0, G loss rises.
    """
    loss, gap = _first(run, DISCRIMINATOR), discriminator_gap(run)
    if loss is None or gap is None or not is_hinge(run):
        yield TooEarly("train/loss/loss_d (hinge)")
        return
    if len(loss.finite) < 20:
        yield TooEarly(f"20 points of {loss.key} (it has {len(loss.finite)})")
        return
    end, apart = loss.tail(0.25, at_least=10), float(np.median(gap.tail(0.25, at_least=10).value))
    wins = float(np.median(end.value)) < 0.1 and float(np.quantile(end.value, 0.9)) < 0.3
    if wins or apart > 4:
        adversarial = _first(run, ADVERSARIAL)
        rises = adversarial is not None and (found := trend(adversarial.binned.value)).z > boundary(found.points)
        start = next(iter(loss.runs_below(0.3, at_least=5) if wins else gap.runs_above(4, at_least=3)), None)
        words = (
            f"its loss is {np.median(end.value):.3f} (2 sees nothing, 0 separates all)"
            if wins
            else f"D(real) - D(fake) = {apart:.1f}, hinge asks for 2"
        )
        words += ", and the generator's adversarial loss rises" if rises else ""
        yield Evidence(start.start if start else int(end.step[0]), words, STRONG, (loss if wins else gap).rows())


@rule("F103", needs=["run"], severity="warning")
def discriminator_wrong(run):
    """The discriminator is wrong more often than a constant would be.

    ## What it sees
    The hinge loss of the discriminator stays above 2.2 in the last half of at least 20 points.
    ## Likely causes
    - its learning rate is too high and it oscillates
    - labels of real and fake are swapped, or it is updated with the generator's gradients
    ## Next probe
    Log D(real) and D(fake): D(fake) above D(real) throughout means swapped signs.
    ## Fix
    Divide its learning rate by 4; zero its gradients after the generator's step.
    ## References
    Any constant D scores 2 or more, exactly 2 within |c| <= 1: more than 2 is worse than knowing nothing.
    """
    loss = _first(run, DISCRIMINATOR)
    if loss is None or not is_hinge(run):
        yield TooEarly("train/loss/loss_d (hinge)")
        return
    if len(loss.finite) < 20:
        yield TooEarly(f"20 points of {loss.key} (it has {len(loss.finite)})")
        return
    half = loss.tail(0.5)
    if float(np.median(half.value)) > 2.2 and float(np.quantile(half.value, 0.2)) > 2.0:
        yield Evidence(
            int(half.step[0]), f"its loss is {np.median(half.value):.2f}, knowing nothing scores 2", STRONG, loss.rows()
        )


@rule("F104", needs=["run"], severity="critical", explains=("F101", "F102"))
def adversarial_training_dies(run):
    """Adversarial and feature-matching loss both fall to nothing within a few steps.

    ## What it sees
    Feature matching falls below a hundredth of its start and stays there, and the adversarial loss does not vary any
    more, while reconstruction does not reach 0 too.
    ## Likely causes
    - the generator's step leaves its gradients in the discriminator, which is then trained to agree
    - the discriminator's features collapse to a constant
    - generator and discriminator share an optimizer
    ## Next probe
    Compare the discriminator's gradients before and after the generator's backward pass: they must be equal.
    ## Fix
    Turn requires_grad off for the discriminator in the generator's step, or zero its gradients before its own; detach
    the generated audio there.
    ## References
    NVIDIA/NeMo PR#7266: discriminator gradients polluted by the generator's step.
    """
    features, adversarial = _first(run, FEATURES), _first(run, ADVERSARIAL)
    if features is None or adversarial is None or min(len(features.finite), len(adversarial.finite)) < 20:
        yield TooEarly("20 points of train/loss/feat and train/loss/adv_g")
        return
    start, end = float(features.head(5).value.max()), features.tail(0.5)
    still = (
        float(np.ptp(adversarial.tail(0.5).value)) < 0.05 and abs(float(np.median(adversarial.tail(0.5).value))) < 0.05
    )
    if start > 0 and float(np.quantile(end.value, 0.9)) < 0.01 * start and still:
        gone = next(iter(features.runs_below(0.01 * start, at_least=5)), None)
        yield Evidence(
            gone.start if gone else int(end.step[0]),
            f"feature matching fell from {start:.3g} to {np.median(end.value):.2g}, and the adversarial loss stands still near 0",
            STRONG,
            features.rows(),
        )


@rule("F201", needs=["verdicts", "run"], severity="warning")
def distillation_predicts_the_mean(verdicts, run):
    """A distillation loss sits on what predicting the teacher's mean vector gives.

    ## What it sees
    A loss 1 - cos that lies on the constant-mean baseline 1 - sqrt(r), r the share of the features' energy in their
    mean. A low value is no proof: with r = 0.85 it is 0.078.
    ## Likely causes
    - no gradient reaches the codebook: the quantised vectors are looked up from a buffer
    - teacher frames are misaligned with the codec's (pooled over padding, offset crops)
    - the teacher's features are anisotropic and were not centred
    ## Next probe
    Subtract the teacher's mean over the data and measure the cosine again; permute the pairs: if the loss stays the
    same, nothing is learnt.
    ## Fix
    Centre and scale the teacher per dimension; pass the gradient with z + (q - z).detach(); pool the teacher by time
    stamps.
    ## References
    Amy-LM: WavLM 0.668-0.693 for 16 hours, centred cosine 3-6 %; an MLP head and a weight of 5 did not help.
    """
    for verdict in verdicts:
        against_mean = verdict.baseline is not None and verdict.baseline.name == "constant mean"
        if against_mean and verdict.verdict in ("at-chance", "worse-than-chance"):
            series = run.get("train", "loss", verdict.stream)
            odds = FAIR if "assumed" in verdict.why else STRONG
            yield Evidence(
                verdict.since_step, verdict.why, odds, series.rows() if series is not None else [], verdict.stream
            )


@rule("F202", needs=["verdicts"], severity="critical")
def reconstruction_no_better_than_silence(verdicts):
    """Reconstruction is no better than silence or a mean frame.

    ## What it sees
    A spectral loss on or above the lowest baseline that the run itself measured (silence, mean frame).
    ## Likely causes
    - the decoder outputs near silence; the gain or the sample rate is wrong
    - the gradient does not pass the quantiser
    ## Next probe
    Bypass the quantiser: if the loss then falls, the quantiser cuts the gradient.
    ## Fix
    Check the straight-through path, and start the adversarial losses only after the spectral loss has left its
    baseline.
    ## References
    earnest's own; no publication known.
    """
    for verdict in verdicts:
        if verdict.stream in RECONSTRUCTION and verdict.verdict in (
            "at-chance",
            "worse-than-chance",
        ):
            yield Evidence(verdict.since_step, verdict.why, STRONG, [], verdict.stream)


@rule(
    "F301",
    needs=["used_frac|perplexity", "perplexity?", "fact:codebook_size?", "fact:usage_window_frames?"],
    severity="critical",
    points=3,
)
def codebook_collapse(usage, perplexity, size, window):
    """Most entries of a codebook are never chosen.

    ## What it sees
    Over the last three logged values or more: a perplexity below 2, or less than a tenth of the entries in use that as
    many draws from an even codebook would touch. A perplexity that rises from a low start is normal and is left alone.
    ## Likely causes
    - dead codes are not restarted, or the codebook was initialised on too few vectors
    - the commitment weight is too low and the encoder runs away from its codes
    - the decoder has learnt to ignore this level
    ## Next probe
    Decode with this level zeroed: if nothing changes, the decoder ignores it.
    ## Fix
    Initialise by k-means on at least ten vectors per entry, restart codes unused for 100 batches, normalise the latent
    before the codebook.
    ## References
    wenet/AudioDec#19: perplexity 1.0007 on all codebooks; Zeghidour et al. 2021 (SoundStream), section III-C.
    """
    values = usage.finite
    end = values.value[-max(3, len(values) // 10) :]
    rising = trend(values.value[-max(5, len(values) // 2) :])
    if rising.z > boundary(rising.points):
        return
    ppl = usage if usage.key.name == "perplexity" else perplexity
    if (
        ppl is not None
        and len(ppl.finite) >= 3
        and float(np.median(ppl.finite.value[-max(3, len(ppl.finite) // 10) :])) < 2
        and (size is None or size > 8)
    ):
        level = float(np.median(ppl.finite.value[-3:]))
        start = next(iter(ppl.runs_below(2, at_least=3)), None)
        yield Evidence(
            start.start if start else None, f"perplexity {level:.4g}: one entry does all the work", STRONG, ppl.rows()
        )
    elif usage.key.name == "used_frac":
        expected = expected_used(int(size), float(window)) if size and window else 1.0
        if float(np.median(end)) < 0.1 * expected:
            start = next(iter(usage.runs_below(0.1 * expected, at_least=3)), None)
            yield Evidence(
                start.start if start else None,
                f"{np.median(end):.1%} of the entries in use, {expected:.0%} expected of an even codebook at this sample size",
                STRONG,
                usage.rows(),
            )


@rule("F302", needs=["run"], severity="warning")
def residual_does_not_shrink(run):
    """A quantiser level takes no energy out of the residual.

    ## What it sees
    The energy left after a level is at least that left before it, in the median of the last tenth of the run. Where
    codebooks form groups side by side (fact codebook_groups), each group begins with all of it.
    ## Likely causes
    - a collapsed or frozen codebook at this level
    - levels are applied to the latent in parallel instead of to the residual
    ## Next probe
    Print the energy left per level for one clip; each level must lower it.
    ## Fix
    Quantise x - sum of the levels before; restart the level's dead codes.
    ## References
    Zeghidour et al. 2021 (SoundStream): residual vector quantisation.
    """
    levels = {
        key.stream.index: series.finite
        for key, series in run.series.items()
        if key[:2] == ("train", "residual_frac") and isinstance(key.stream, Codebook)
    }
    means = {
        level: float(np.median(series.value[-max(3, len(series) // 10) :]))
        for level, series in levels.items()
        if len(series) >= 3
    }
    if len(means) < 2:
        yield TooEarly("3 points of train/residual_frac of at least two codebooks")
        return
    firsts = {
        0,
        *accumulate(run.facts.codebook_groups or []),
    }  # each group of codebooks is given the whole latent
    for level in sorted(means):
        before = 1.0 if level in firsts else means.get(level - 1)
        # training quantisers may drop deeper levels per batch: a level must not be worse than nothing by more than 1 %
        # (assumed)
        if before is not None and means[level] >= 0.99 * before and before > 1e-6:
            yield Evidence(
                None,
                f"{means[level]:.3f} of the energy left, {before:.3f} before it",
                STRONG,
                [{"codebook": i, "residual_frac": means[i]} for i in sorted(means)],
                Codebook(level),
            )


@rule("F401", needs=["fact:loss_weights", "run"], severity="warning")
def parts_do_not_sum(weights, run):
    """The weighted parts do not add up to the total that is logged.

    ## What it sees
    The sum of weight times part differs from the logged total by more than 3 %, in the median over common steps. If
    exactly one weighted part is missing from the total, that is a phase (such as adversarial only) and only a note.
    ## Likely causes
    - a part is computed and logged, but not added
    - other weights are in force than those written down, or a balancer rescales them
    ## Next probe
    Solve for the weights by least squares over the logged steps.
    ## Fix
    Add the part, or log the weights in force with every step.
    ## References
    Amy-LM: 1*0.3218 + 4*0.0169 + 15*0.0746 + 1*0.6683 + 1*0.0796 = 2.2556, the logged loss_g. audiocraft's balancer
    makes weights gradient shares instead.
    """
    parts = {}
    for stream, weight in weights.items():
        # What is trained is the cross-entropy over all rows of an output layer, where a stream's own ids are a part of
        # them.
        part = next(
            filter(None, (run.get("train", name, stream) for name in ("loss", "ce_full_nats", "ce_nats"))), None
        )
        if part is not None and weight:
            parts[stream] = (float(weight), part)
    total = run.get("train", "loss", Part("loss_g")) or run.get("train", "loss")
    if total is None or len(parts) < 2 or len(parts) < sum(1 for weight in weights.values() if weight):
        yield TooEarly("every weighted part and their total in one log")
        return
    steps = set(total.finite.step)
    for _, part in parts.values():
        steps &= set(part.finite.step)
    common = np.array(sorted(steps))
    if not len(common):
        yield TooEarly("every weighted part and their total at the same steps")
        return
    at = lambda series: series.finite.value[np.isin(series.finite.step, common)]  # noqa: E731
    weighted = {stream: weight * at(part) for stream, (weight, part) in parts.items()}
    summed, logged = np.sum(list(weighted.values()), axis=0), at(total)
    off = np.abs(summed - logged) / np.maximum(np.abs(logged), 1e-9)
    half = slice(len(common) // 2, None)
    if float(np.median(off[half])) <= 0.03:
        return
    rows = [
        {"part": str(stream), "weighted": float(np.median(values[half]))} for stream, values in weighted.items()
    ] + [{"part": "total as logged", "weighted": float(np.median(logged[half]))}]
    for stream, values in weighted.items():
        if float(np.median((np.abs(summed - values - logged) / np.maximum(np.abs(logged), 1e-9))[half])) <= 0.01:
            yield Evidence(
                int(common[half][0]),
                f"{stream} is logged but not part of the total: a phase without it?",
                STRONG,
                rows,
                stream,
                severity="note",
            )
            return
    mean = np.median(logged[half]) / np.median(summed[half])
    if (
        abs(mean * len(parts) - 1) > 0.03 and abs(mean * sum(weight for weight, _ in parts.values()) - 1) > 0.03
    ):  # a weighted mean is a sum too
        yield Evidence(
            int(common[half][0]),
            f"the parts sum to {np.median(summed[half]):.4g}, the total says {np.median(logged[half]):.4g}",
            FAIR,
            rows,
        )


@rule("F402", needs=["fact:loss_weights", "run"], severity="note")
def one_part_is_the_loss(weights, run):
    """One weighted part makes up nearly all of the loss.

    ## What it sees
    A single part holds more than 95 % of the weighted sum in the last half of the run, beside at least two others.
    ## Likely causes
    - weights copied from a code base whose losses have other scales
    - a part in other units: a sum over frames, or scaled by the sample rate
    ## Next probe
    Log each part's gradient norm at the shared trunk: shares of the loss are not shares of the gradient.
    ## Fix
    Set the weights by gradient norm, or use a balancer.
    ## References
    Defossez et al. 2022 (EnCodec), section 3.4: the balancer. In Amy-LM's example msspec is 50 %.
    """
    parts = {}
    for stream, weight in weights.items():
        part = run.get("train", "loss", stream)
        if part is not None and weight and len(part.finite):
            parts[stream] = abs(float(weight) * float(np.median(part.tail(0.5).value)))
    total = sum(parts.values())
    for stream, part in parts.items():
        if len(parts) >= 3 and total > 0 and math.isfinite(total) and part > 0.95 * total:
            yield Evidence(
                None,
                f"{part / total:.1%} of the weighted sum",
                STRONG,
                [{"part": str(name), "weighted": value} for name, value in parts.items()],
                stream,
            )


@rule("F403", needs=["probe:generator_step"], severity="critical", explains=("F101", "F104"))
def generator_step_changes_discriminator(seen):
    """The generator's step leaves gradients in the discriminator.

    ## What it sees
    The probe that compares the discriminator's gradients before and after the generator's backward pass found a
    difference, or generated audio that is not detached.
    ## Likely causes
    - requires_grad stays on for the discriminator in the generator's step, and its gradients are not zeroed before its
      own
    - the discriminator is trained on audio that is not detached
    ## Next probe
    Zero the discriminator's gradients right before its own backward pass, and compare.
    ## Fix
    `discriminator.requires_grad_(False)` in the generator's step; `fake.detach()` in the discriminator's.
    ## References
    NVIDIA/NeMo PR#7266.
    """
    if seen.discriminator_changed or seen.fake_attached:
        words = (
            "generated audio is not detached in the discriminator's step"
            if seen.fake_attached
            else "the discriminator's gradients differ after the generator's backward pass"
        )
        yield Evidence(0, words, EXACT, [plain(seen)])

"""Family F, the codec: distillation, reconstruction, and the quantiser's codebooks."""

from itertools import accumulate
from typing import Annotated

from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.needs import AllJudged, Fact, OneOf, PerStream, PlainLosses, Signal
from earnest.rules.statistics import expected_used, trend
from earnest.run import Series
from earnest.streams import Codebook, Part

RECONSTRUCTION = tuple(map(Part, ("mel", "msspec", "stft", "waveform")))
SETTLED = 1000  # steps after which one value of a codebook's usage is believed (assumed)
NO_BETTER = ("at-chance", "worse-than-chance")
CONSTANT_MEAN = "constant mean"
DIVERGENCE, NOTHING = Part("kl"), 1e-3  # share of its start that is nothing (assumed)


@rule("F201", "warning")
def distillation_predicts_the_mean(judged: AllJudged) -> Answers:
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
    distilled = [one for one in judged if one.verdict.baseline and one.verdict.baseline.name == CONSTANT_MEAN]
    if not distilled:
        yield TooEarly("a distillation loss and its constant-mean baseline (the probe baselines)")
        return
    yield Looked()
    for one in distilled:
        verdict, series = one.verdict, one.view.train
        if verdict.verdict in NO_BETTER:
            odds = FAIR if "assumed" in verdict.why else STRONG
            rows = series.rows() if series is not None else []
            yield Evidence(verdict.since_step, verdict.why, odds, rows, one.stream)


@rule("F202", "critical")
def reconstruction_no_better_than_silence(judged: AllJudged) -> Answers:
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
    spectral = [one for one in judged if one.stream in RECONSTRUCTION]
    if not spectral:
        yield TooEarly(f"train/loss of {', '.join(map(str, RECONSTRUCTION[:-1]))} or {RECONSTRUCTION[-1]}")
    for one in spectral:
        if one.verdict.baseline is None:
            yield TooEarly(f"the baselines of {one.stream} (the probe baselines)")
            continue
        yield Looked()
        if one.verdict.verdict in NO_BETTER:
            yield Evidence(one.verdict.since_step, one.verdict.why, STRONG, [], one.stream)


@rule("F301", "critical")
def codebook_collapse(
    usage: Annotated[Series, OneOf(("used_frac", "perplexity"))],
    perplexity: Signal | None,
    codebook_size: Fact[int] | None,
    usage_window_frames: Fact[int] | None,
) -> Answers:
    """Most entries of a codebook are never chosen.

    ## What it sees
    Over the last three logged values or more: a perplexity below 2, or less than a tenth of the entries in use that as
    many draws from an even codebook would touch. One or two values are enough after a thousand steps; before them it is
    a warning. A perplexity that rises from a low start is normal and is left alone.
    ## Likely causes
    - dead codes are not restarted, or the codebook was initialised on too few vectors
    - the commitment weight is too low and the encoder runs away from its codes
    - the decoder has learnt to ignore this codebook
    ## Next probe
    Decode with this codebook zeroed: if nothing changes, the decoder ignores it.
    ## Fix
    Initialise by k-means on at least ten vectors per entry, restart codes unused for 100 batches, normalise the latent
    before the codebook.
    ## References
    wenet/AudioDec#19: perplexity 1.0007 on all codebooks; Zeghidour et al. 2021 (SoundStream), section III-C.
    """
    values = usage.finite.value
    few = len(values) < 3
    if few and usage.last_step < SETTLED:
        yield TooEarly(f"3 points of {usage.key}, or one after {SETTLED} steps")
        return
    yield Looked()
    end = median(values[-max(3, len(values) // 10) :])
    if trend(values[-max(5, len(values) // 2) :]).rises:
        return
    ppl = usage if usage.key.name == "perplexity" else perplexity
    small = codebook_size is not None and codebook_size <= 8
    severity: Severity | None = None if usage.last_step >= SETTLED else "warning"
    if ppl is not None and len(ppl.finite) and not small and _end(ppl) < 2:
        level = median(ppl.finite.value[-3:])
        start = next(iter(ppl.runs_below(2, at_least=1 if few else 3)), None)
        words = f"perplexity {level:.4g}: one entry does all the work"
        yield Evidence(start.start if start else None, words, FAIR if few else STRONG, ppl.rows(), severity=severity)
    elif usage.key.name == "used_frac":
        expected = 1.0
        if codebook_size and usage_window_frames:
            expected = expected_used(codebook_size, usage_window_frames)
        if end < 0.1 * expected:
            start = next(iter(usage.runs_below(0.1 * expected, at_least=3)), None)
            words = f"{end:.1%} of the entries in use, {expected:.0%} expected of an even codebook at this sample size"
            yield Evidence(start.start if start else None, words, STRONG, usage.rows(), severity=severity)


def _end(series: Series) -> float:
    """The median of the last tenth, but of no fewer than 3 points."""
    value = series.finite.value
    return median(value[-max(3, len(value) // 10) :])


@rule("F302", "warning")
def residual_does_not_shrink(residual_frac: PerStream, codebook_groups: Fact[tuple[int, ...]] | None) -> Answers:
    """A codebook takes no energy out of the residual.

    ## What it sees
    The energy left after a codebook is at least that left before it, in the median of the last tenth of the run. If
    codebooks form groups side by side (fact codebook_groups), each group begins with all of it.
    ## Likely causes
    - this codebook collapsed, or is frozen
    - codebooks are applied to the latent in parallel instead of to the residual
    ## Next probe
    Print the energy left per codebook for one clip; each must lower it.
    ## Fix
    Quantise x - sum of the codebooks before; restart the codebook's dead codes.
    ## References
    Zeghidour et al. 2021 (SoundStream): residual vector quantisation.
    """
    left = {
        stream.index: _end(series)
        for stream, series in residual_frac.items()
        if isinstance(stream, Codebook) and len(series.finite) >= 3
    }
    if len(left) < 2:
        yield TooEarly("3 points of train/residual_frac of at least two codebooks")
        return
    yield Looked()
    firsts = {0, *accumulate(codebook_groups or ())}  # each group of codebooks is given the whole latent
    rows = [{"codebook": index, "residual_frac": left[index]} for index in sorted(left)]
    for index in sorted(left):
        before = 1.0 if index in firsts else left.get(index - 1)
        # training quantisers may drop deeper codebooks per batch: one must not be worse than nothing by more than 1 %
        # (assumed)
        if before is not None and left[index] >= 0.99 * before and before > 1e-6:
            words = f"{left[index]:.3f} of the energy left, {before:.3f} before it"
            yield Evidence(None, words, STRONG, rows, Codebook(index))


@rule("F303", "warning", points=8)
def latent_carries_nothing(losses: PlainLosses) -> Answers:
    """The divergence of a latent from its prior falls to nothing: the decoder does without the latent.

    ## What it sees
    The loss called kl falls to a thousandth of its start, and to 0.001 and less, and stays there for the last quarter
    of at least eight values.
    ## Likely causes
    - posterior collapse: the weight of the divergence is too high from the start, and the decoder strong enough alone
    - the decoder sees the target by another way (teacher forcing, a skip connection)
    - the printed value is multiplied by a weight that is annealed to 0
    ## Next probe
    Decode with the latent shuffled over the batch: if the loss stays the same, the latent carries nothing.
    ## Fix
    Raise the weight of the divergence slowly from 0, leave some of it free (free bits), or weaken the decoder.
    ## References
    Bowman et al. 2016, "Generating Sentences from a Continuous Space", section 3.1; Kingma et al. 2016, free bits.
    """
    loss = losses.get(DIVERGENCE)
    if loss is None or len(loss.finite) < 8:
        yield TooEarly("8 points of train/loss/kl")
        return
    yield Looked()
    value = loss.finite.value
    start, level = float(value[: max(1, len(value) // 10)].max()), NOTHING
    end = loss.tail(0.25, at_least=3).value
    if (value >= 0).all() and level * start > 0 and float(end.max()) < level * min(start, 1.0):
        since = next((one.start for one in loss.runs_below(level * min(start, 1.0))), None)
        words = f"{loss.key.stream} fell from {start:.3g} to {median(end):.2g}"
        yield Evidence(since, words, STRONG, loss.rows(), DIVERGENCE)

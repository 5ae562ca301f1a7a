"""Family E, the data: what is held out, what is drawn, and whether metrics and clips can be what they are."""

import math

import numpy as np

from earnest.probes.results import Crops, Duplicates, Noise, Unconditional
from earnest.records import plain
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, STRONG
from earnest.rules.needs import AllSeries, Fact, Probe
from earnest.rules.statistics import expected_used
from earnest.rules.streams import vocabulary
from earnest.run import Series
from earnest.signals import Key
from earnest.streams import Codebook


@rule("E103", "warning")
def validation_too_small(held_out_clips: Fact[int]) -> Answers:
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
    yield Looked()
    if held_out_clips < 10:
        words = f"{held_out_clips} held-out clip{'s' if held_out_clips != 1 else ''}"
        yield Evidence(0, words, EXACT if held_out_clips <= 2 else STRONG, [{"held_out_clips": held_out_clips}])


@rule("E104", "warning", explains=("E101", "E102"))
def crops_are_deterministic(crops: Probe[Crops]) -> Answers:
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
    if draws < 3:
        yield TooEarly(f"3 draws of each clip (it has {draws:g})")
        return
    yield Looked()
    if possible >= 3 and distinct < 0.5 * (expected := possible * expected_used(possible, draws)):
        words = f"{distinct:g} distinct crops per clip in {draws:g} draws, {expected:.1f} expected of {possible:g}"
        yield Evidence(0, f"{words} possible", EXACT if distinct <= 1 else STRONG, [plain(crops)])


@rule("E105", "warning")
def unconditional_share_off(unconditional: Probe[Unconditional], unconditional_frac: Fact[float]) -> Answers:
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
    from scipy.stats import binomtest  # pyright: ignore  # here, as it takes longer to import than most runs to judge

    if not unconditional.clips:
        yield TooEarly("clips drawn for training")
        return
    yield Looked()
    if binomtest(unconditional.without, unconditional.clips, unconditional_frac).pvalue < 1e-4:
        words = f"{unconditional.without} of {unconditional.clips} clips, {unconditional_frac:.0%} configured"
        yield Evidence(0, words, EXACT, [plain(unconditional)])


@rule("E106", "warning", explains=("G105",))
def guidance_on_untrained_branch(guidance: Fact[float], unconditional_frac: Fact[float]) -> Answers:
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
    yield Looked()
    if guidance != 1 and unconditional_frac < 0.02:
        words = f"guidance {guidance:g} with {unconditional_frac:.1%} of the clips trained unconditionally"
        yield Evidence(0, words, EXACT, [{"guidance": guidance, "unconditional_frac": unconditional_frac}])


@rule("E201", "critical", explains=("F301",))
def metric_impossible(
    series: AllSeries, text_vocab: Fact[int] | None, audio_vocab: Fact[int] | None, codebook_size: Fact[int] | None
) -> Answers:
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
    bounded = False
    for key, signal in series.items():
        size = vocabulary(key.stream, text_vocab, audio_vocab) if key.stream else None
        low, high = _possible(key, size, codebook_size)
        if len(signal.finite) and math.isfinite(low):
            bounded = True
            yield from _impossible(signal.finite, low, high)
    yield Looked() if bounded else TooEarly("a fraction, an entropy, a cross-entropy or a codebook's perplexity")


def _possible(key: Key, size: int | None, codebook_size: int | None) -> tuple[float, float]:
    """Lowest and highest value that a signal can have; infinite if there is no such bound."""
    if key.name == "error_frac":  # more words may be inserted than there are
        return 0, math.inf
    if key.name.endswith("_frac") and key.name not in ("update_frac", "residual_frac"):
        return 0, 1
    if key.name == "ce_nats":
        return 0, math.inf
    if key.name == "entropy_nats":
        return 0, math.log(size) if size else math.inf
    if key.name == "perplexity" and isinstance(key.stream, Codebook):
        return 1, codebook_size or size or math.inf
    return -math.inf, math.inf


def _impossible(values: Series, low: float, high: float) -> Answers:
    # rounding: a float32 mean is wrong by less than a millionth of its size
    wrong = values.value < low - 1e-6
    if math.isfinite(high):
        wrong |= values.value > high * (1 + 1e-6) + 1e-6
    if not wrong.any():
        return
    first, key = int(np.argmax(wrong)), values.key
    step, value, highest = int(values.step[first]), float(values.value[first]), float(values.value.max())
    if wrong.mean() > 0.5 and (low, high) == (0, 1) and highest <= 100 and values.value.min() >= 0:
        words = f"{key} reaches {highest:.4g}: percent, where a fraction is meant"
        yield Evidence(step, words, EXACT, [{"signal": str(key), "highest": highest}], key.stream, severity="note")
    else:
        words = f"{key} is {value:.4g}, possible is {low:g} to {high:.4g}"
        yield Evidence(step, words, EXACT, [{"signal": str(key), "value": value}], key.stream)


@rule("E203", "critical", explains=("A202",))
def validation_clips_in_training(duplicates: Probe[Duplicates]) -> Answers:
    """Held-out clips are in the training data too.

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
    yield Looked()
    if duplicates.shared:
        words = f"{duplicates.shared} of {duplicates.held_out} held-out clips"
        yield Evidence(0, words, EXACT, [plain(duplicates)])


REPEATED = [
    "one iterator of batches is made anew at every step, so that each step gets its beginning",
    "a seed that does not depend on epoch or step, or a debugging subset that was left in",
]
REPEATED_FIX = "Make the loader once, iterate it to its end in each epoch, and shuffle by a seed that holds the epoch."


@rule("E206", "warning", explains=("E102", "E107"))
def clips_left_out(
    left_out_clips: Fact[tuple[str, ...]],
    train_clips: Fact[int],
    held_out_clips: Fact[int],
    cut_texts: Fact[int] | None,
    crops: Probe[Crops] | None,
) -> Answers:
    """A part of the data is not used.

    ## What it sees
    More than 5 % of the clips are left out (too long, too long a text, unreadable); or more than 5 % of the texts are
    cut. Or training has drawn as often as there are clips, twice over, and half of them or more never came up; drawing
    with replacement would miss a seventh.
    ## Likely causes
    - a limit made for short clips (data.max_duration_s) on a corpus of long ones: audiobooks have clips of 20 to 35 s
    - captions longer than the window for texts
    - of clips that never come up: the same batches again and again, by an iterator or a seed that is made anew
    ## Next probe
    Compare the hours trained on with the hours of the corpus; print which clips the first ten steps hold.
    ## Fix
    Raise data.max_duration_s as far as the context allows, or set data.too_long to cut; raise the window for texts, or
    shorten them.
    ## References
    earnest's own: `earnest train mot` left out 18 of 30 clips with captions of MusicCaps' length.
    """
    yield Looked()
    clips = train_clips + held_out_clips
    if len(left_out_clips) > 0.05 * (clips + len(left_out_clips)):
        words = f"{len(left_out_clips)} of {clips + len(left_out_clips)} clips are left out: {left_out_clips[0]}"
        yield Evidence(0, words, EXACT, [{"clip": clip} for clip in left_out_clips[:6]])
    if cut_texts and cut_texts > 0.05 * clips:
        words = f"{cut_texts} texts of {clips} clips are cut"
        yield Evidence(0, words, EXACT, [{"cut_texts": cut_texts}], severity="note")
    if crops and crops.clips and crops.draws * crops.clips >= 2 * train_clips and crops.clips <= 0.5 * train_clips:
        words = f"{crops.clips} of {train_clips} training clips were ever drawn, {crops.draws:.0f} times each"
        yield Evidence(0, words, EXACT, [plain(crops)], causes=REPEATED, fix=REPEATED_FIX)


@rule("E205", "warning", explains=("A304", "B102", "B103", "B104", "B106"))
def clips_are_noise(noise: Probe[Noise]) -> Answers:
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
    yield Looked()
    if noise.noise > noise.clips / 2:
        words = f"{noise.noise} of {noise.clips} training clips are stationary noise"
        yield Evidence(0, words, STRONG, [plain(noise)])

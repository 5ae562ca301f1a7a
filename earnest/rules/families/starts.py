"""Family B, how a loss starts and what it is made of."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from earnest.quantiles import median
from earnest.rules.catalogue import RULES, Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.gan import is_of_discriminator
from earnest.rules.measure import FELL, FEWEST_POINTS, HIGHEST_CHANCE, WORSE, began_above, end_of
from earnest.rules.needs import AllJudged, AudioTokens, Fact, Loss, PerStream, Signal, Tokens
from earnest.rules.parts import ADVERSARIES, MAY_STAND
from earnest.rules.streams import StreamView
from earnest.rules.verdicts.tokens import FREQUENCIES_TEXT
from earnest.run import Series, Steps, Values
from earnest.streams import TOTAL, Stream


@rule("B105", "note", points=200, explains=("B104",))
def running_mean_logged(series: Loss) -> Answers:
    """What is logged is a mean since the start, not the loss of the last steps.

    ## What it sees
    Three signs together. The step-to-step noise shrinks like 1/n over the whole run; if the mean is undone,
    n m_n - (n-1) m_(n-1), the noise has a constant size; and the total n m_n never falls. A loss that falls by orders
    of magnitude, as in memorising, loses its noise too, but lacks the other signs.
    ## Likely causes
    - the loop prints total_loss / steps, with a total that is never reset
    - a progress bar's average is logged
    ## Next probe
    Log the loss of the step itself beside it for fifty steps.
    ## Fix
    Reset the sum at every log line, or use an exponential mean over the last hundred steps.
    ## References
    SLM-MoT prints a cumulative mean: it always looks like a plateau.
    """
    yield Looked()
    finite = series.finite
    values = finite.where(np.arange(len(finite)) % (1 + len(finite) // 4096) == 0)
    total = values.step * values.value
    if (total < 0.98 * np.maximum.accumulate(total)).any():  # 2 %: steps may be counted from 0 or 1 (assumed)
        return
    undone = np.diff(total) / np.diff(values.step)
    power, error = _noise_power(values.step[1:], values.value[1:])
    undone_power, _ = _noise_power(values.step[1:], undone)
    # a running mean has power -1 and an undone noise of one size; others have 0 (cuts assumed; 2.5 errors from -0.35)
    if -1.4 < power < -0.6 and power + 2.5 * error < -0.35 and abs(undone_power) < 0.4:
        words = f"its noise shrinks as n^{power:.2f}: a mean since the start"
        yield Evidence(int(values.step[0]), words, FAIR, series.rows())


def _noise_power(step: Steps, value: Values) -> tuple[float, float]:
    """Power p, and its error, with which the noise goes as step^p: medians of second differences, in bins even in log
    step."""
    size, middle = np.abs(value[2:] - 2 * value[1:-1] + value[:-2]), step[1:-1]
    edges: Values = np.geomspace(float(step[len(size) // 20]), float(step[-1]), 13)[1:-1]  # pyright: ignore
    bins = np.array_split(np.arange(len(size)), np.searchsorted(middle, edges).tolist())
    bins = [places for places in bins[1:] if len(places) >= 8 and median(size[places]) > 0]
    if len(bins) < 4:
        return 0.0, 1.0
    x = np.array([float(np.log(middle[places]).mean()) for places in bins])
    y = np.array([float(np.log(median(size[places]))) for places in bins])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt((rest @ rest) / (len(bins) - 2) / (x @ x)))


@rule("B107", "warning", explains=("B102",))
def pretrained_weights_have_no_effect(tokens: Tokens, pretrained: Fact[bool]) -> Answers:
    """A model that is called pretrained starts at chance on text.

    ## What it sees
    The run starts from pretrained weights, yet the first loss of text (or a total that stands alone) is within 10 % of
    a uniform guess; critical if it is above it.
    ## Likely causes
    - checkpoint keys did not match and the layers stayed random (strict=False)
    - the text head was left out of the checkpoint (use_text_head) or its vocabulary differs
    - labels are misaligned, so a good model scores badly
    ## Next probe
    List the missing and unexpected keys when loading; score plain text with the loaded backbone.
    ## Fix
    Load strictly, or print what was not loaded and refuse to start.
    ## References
    HiggsAudioV2 loads without text head unless use_text_head=True, and warns once.
    """
    series, chance = tokens.view.train, tokens.view.chance
    if not pretrained or tokens.view.is_audio:
        yield Looked()
    elif series is None or len(series.finite) < 3 or series.finite.step[0] > 20:
        yield TooEarly("3 points of the training loss of text, from step 20 or earlier on")
    elif chance is None:
        yield TooEarly(tokens.view.vocabulary_fact)
    else:
        yield Looked()
        first = float(series.head(3).value.mean())
        if first > 0.9 * chance.value:
            words = f"{tokens.stream} starts at {first:.2f} nats, chance is {chance.value:.2f}"
            above = first > (1 + WORSE) * chance.value
            severity: Severity | None = "critical" if above else None
            yield Evidence(int(series.step[0]), words, STRONG if above else FAIR, series.rows(), severity=severity)


@rule("B108", "note")
def start_far_above_chance(tokens: Tokens, learning_rate: Signal | None) -> Answers:
    """A stream starts far above chance and takes long to come down.

    ## What it sees
    The first loss exceeds ln V by more than 0.3 nats, and after a fifth of the run it still does. A warning if it came
    down right when the learning rate was cut: then the rate was too high until there; or if it is hardly below chance
    even now.
    ## Likely causes
    - the output head is initialised too wide, or attention logits are too large (no 1/sqrt(d))
    - the logits of another vocabulary are compared with these labels
    ## Next probe
    Print the standard deviation of the logits at step 0: about 0 gives ln V, 1 adds half a nat.
    ## Fix
    Initialise the head with std 0.02 / sqrt(width) or zero, and scale attention by 1/sqrt(head_dim).
    ## References
    Karpathy, "A Recipe for Training Neural Networks" (2019): verify the loss at init. Dia from scratch: scale 1.0 gives
    logits of std 9.3.
    """
    series, chance, now = tokens.view.train, tokens.view.chance, tokens.view.now
    if series is None or len(series.finite) < 5:
        yield TooEarly(f"5 points of train/ce_nats or train/loss of {tokens.stream}")
    elif chance is None:
        yield TooEarly(tokens.view.vocabulary_fact)
    else:
        yield Looked()
        first, above = float(series.finite.value[0]), began_above(series, chance)
        if first > chance.value + 0.3 and above and now is not None and now.value < chance.value:
            words = f"{first:.2f} nats at first, {chance.value:.2f} is chance, above it until step {above[0]}"
            hardly = now.value > (1 - FREQUENCIES_TEXT) * chance.value
            causes: list[str] | None = None
            fix: str | None = None
            severity: Severity | None = "warning" if hardly else None
            if cut := _rate_cut_at(above[0], learning_rate):
                words += f", where the learning rate was cut from {cut[0]:.3g} to {cut[1]:.3g}"
                causes = ["the learning rate was too high until then", *RULES["B108"].causes]
                fix = f"Begin with a learning rate of {cut[1]:.3g}, to which it was cut there, after a warm-up."
                severity = "warning"
            yield Evidence(int(series.step[0]), words, FAIR, series.rows(), severity=severity, causes=causes, fix=fix)


def _rate_cut_at(step: int, learning_rate: Series | None) -> tuple[float, float] | None:
    """The learning rate before and after a step, if it was halved or more within a twentieth of the run around it."""
    if learning_rate is None or len(learning_rate.finite) < 4:
        return None
    finite = learning_rate.finite
    near = 0.05 * finite.last_step
    around = finite.where(np.abs(finite.step - step) <= near).value
    if len(around) < 2 or around[-1] > 0.5 * around[0]:
        return None
    return float(around[0]), float(around[-1])


@rule("B112", "note")
def start_above_any_vocabulary(tokens: Tokens) -> Answers:
    """A loss starts above what guessing scores in any vocabulary.

    ## What it sees
    Without a known vocabulary: a total that stands alone, or the loss of text, starts above 13 nats (a uniform guess
    among 440,000 ids) and falls below that, by half or more. If it is a cross-entropy, it began worse than chance.
    ## Likely causes
    - the labels do not fit the inputs: shuffled, or shifted
    - the pretrained weights were not loaded, or the head is new and far too wide
    - it is no mean per target: a sum over tokens or codebooks falls from such heights, too
    ## Next probe
    Score the untrained checkpoint on ten clips; pass the vocabulary (--fact text_vocab=...) to compare with its chance.
    ## Fix
    Shift labels once, print the keys that were not loaded, and initialise a new head near 0.
    ## References
    earnest's own; no publication known.
    """
    series = tokens.view.train
    if series is None or len(series.finite) < EARLY_POINTS:
        yield TooEarly(f"{EARLY_POINTS} points of the training loss of {tokens.stream}")
        return
    yield Looked()
    first, now = float(series.finite.value[0]), end_of(series).value
    may_be = tokens.view.chance is None and not tokens.view.no_mean and not tokens.view.is_audio
    if may_be and first > HIGHEST_CHANCE > now and now < 0.5 * first:
        words = f"{first:.4g} nats at first; no vocabulary's chance is above {HIGHEST_CHANCE:g}; {now:.4g} at the end"
        yield Evidence(int(series.finite.step[0]), words, FAIR, series.rows())


@rule("B109", "warning", explains=("B101", "B108"))
def loss_is_a_sum(
    tokens: AudioTokens,
    codebooks: Fact[int] | None,
    accumulation_steps: Fact[int] | None,
    pretrained: Fact[bool] | None,
) -> Answers:
    """A loss is a sum, though a mean is meant.

    ## What it sees
    The first loss of an audio stream is a whole multiple of ln V: the number of codebooks, or of accumulated
    micro-batches.
    ## Likely causes
    - per-codebook losses are added, not averaged (HiggsAudioV2ForConditionalGeneration does so: 8 x 6.933 = 55.47)
    - the loss is summed over micro-batches and not divided by what counts
    ## Next probe
    Divide by the number found and compare with ln V again; run the same batch with accumulation 1 and k.
    ## Fix
    Divide by the counted targets of the whole step; log a mean per codebook.
    ## References
    transformers 4.46 gradient-accumulation fix.
    """
    series, chance = tokens.view.train, tokens.view.chance
    factors = {"codebooks": codebooks, "accumulated micro-batches": accumulation_steps}
    if series is None or not len(series.finite):
        yield TooEarly(f"a point of train/ce_nats or train/loss of {tokens.stream}")
    elif chance is None:
        yield TooEarly(tokens.view.vocabulary_fact)
    elif codebooks is None and accumulation_steps is None:
        yield TooEarly("--fact codebooks=... or accumulation_steps=...")
    else:
        yield Looked()
        first = float(series.finite.value[0])
        sums = [item for item in factors.items() if item[1] and item[1] > 1]
        for words, factor in [] if pretrained else sums:
            if factor and abs(first / chance.value / factor - 1) < 0.03:
                words = f"it starts at {first:.2f} = {factor} x {chance.value:.3f}: summed over {factor} {words}"
                yield Evidence(int(series.finite.step[0]), words, STRONG, series.rows())
                return


# Numbers of classes whose uniform guess is a familiar level: codebooks with their special tokens, vocabularies of
# public models, and round numbers.
FAMILIAR = (
    *(2, 4, 10, 100, 256, 500, 512, 1000, 1024, 1026, 1028, 2048, 2050, 3072, 4096, 10_000, 32_000, 49_152, 50_257),
    *(50_304, 51_865, 65_536, 128_256, 151_936, 152_064),
)
CODEBOOKS = (2, 4, 8, 9, 16, 32)
EARLY_POINTS = 5  # of a start that is judged (assumed)
# Points and steps of a loss that is said not to have moved (assumed: a warm-up may take so long).
UNMOVED_POINTS, UNMOVED_STEPS = 20, 40
UNLEARNT = 5.5  # nats; what has learnt anything is rarely above (assumed)
HARDLY_ANY = 2e-6  # learning rate that may be too low to move anything, and rounds to nothing in bfloat16 (assumed)
NEAR_ONE = 0.02  # of 1.0, the square error of a predictor of nothing, or a margin (assumed)
OF_NOTHING = (
    "1.0 is what a constant scores: a square error of noise or of normalised targets, or the margin of triplets"
)
FEW_CLASSES, CERTAIN_CLASSES = range(2, 31), 10  # beyond ten, logarithms are too close to tell without an accuracy


class AtChance(NamedTuple):
    """What a uniform guess scores near a level, in words, and whether that is what the level is beyond doubt."""

    nats: float
    words: str
    sure: bool


def chance_near(level: float, accuracy: float | None, guess: bool) -> AtChance | None:
    """The level of chance that a loss lies at, if any: a uniform guess among a familiar number of classes; among a few
    classes if the accuracy agrees; or the sum of several codebooks' guesses. guess: whether a number of classes counts
    without an accuracy that agrees."""
    if not guess and (accuracy is None or abs(accuracy * math.exp(min(level, 10.0)) - 1) > 0.1):
        return None
    nearest, few = min(FAMILIAR, key=lambda classes: abs(level - math.log(classes))), round(math.exp(min(level, 10.0)))
    if abs(level - math.log(nearest)) < 0.003 * level:
        return _guess_among(nearest, True)
    if few in FEW_CLASSES and abs(level - math.log(few)) < 0.002 * level:
        sure = accuracy is not None and abs(accuracy * few - 1) < 0.1
        return _guess_among(few, sure) if sure or few <= CERTAIN_CLASSES else None
    summed = [(count * math.log(classes), f"{count} x ln {classes}") for classes in (1024, 2048) for count in CODEBOOKS]
    return next(
        (
            AtChance(nats, f"{words}: is it a sum over codebooks? Then it is chance", False)
            for nats, words in summed
            if abs(level - nats) < 0.002 * level
        ),
        None,
    )


def guessed_classes(lowest: float) -> int | None:
    """The number of classes, few or familiar, of which a uniform guess scores this, within 0.3 %."""
    near = round(math.exp(min(max(lowest, 0.0), 13.0)))
    nearest = min((*FEW_CLASSES, *FAMILIAR), key=lambda classes: abs(lowest - math.log(classes)))
    known = near == nearest or nearest in FAMILIAR
    return nearest if known and abs(lowest - math.log(nearest)) < 0.003 * lowest else None


def _guess_among(classes: int, sure: bool) -> AtChance:
    return AtChance(math.log(classes), f"ln {classes}: is {classes} the number of classes? Then it is chance", sure)


@rule("B110", "warning", explains=("B104", "B113"))
def loss_never_moved(judged: AllJudged, accuracy_frac: PerStream | None, learning_rate: PerStream | None) -> Answers:
    """A loss is where it was at the first rows, at what may be chance.

    ## What it sees
    The training loss (a total, or a loss of tokens) is cut into ten stretches; none differs from the first by more than
    half a percent of it, or by more than its own error; the first itself may be higher. Other levels are left alone: a
    model that had converged before may stand still there.

    - a warning if the level is near the logarithm of a familiar number of classes, or of a small number of classes
      beside an accuracy of one in as many; at any level, if it is one of several numbered losses and most of the others
      fell by a tenth or more
    - a note if that is seen in fewer than 20 rows or 40 steps, if the level is near what codebooks at chance add up to,
      or if the loss came there later and has stood for half of the run within 0.15 %
    - a note, without a known vocabulary, above 5.5 nats, which is high for anything learnt; if the learning rate was
      never above 2e-6; and within 2 % of 1.0, which noise or a margin scores
    ## Likely causes
    - the optimizer does not hold the parameters, or its learning rate is 0 or far too small
    - no gradient reaches what is trained: frozen, detached, or a loss that does not depend on it
    - a model that had converged before training began
    ## Next probe
    Compare the weights of two checkpoints: if no tensor differs, the optimizer does not step.
    ## Fix
    Give the trainable parameters to the optimizer, raise the learning rate, and overfit one batch first.
    ## References
    Karpathy, "A Recipe for Training Neural Networks" (2019): overfit one batch.
    """
    looked, has_adversary = False, any(one.stream in ADVERSARIES for one in judged)
    siblings = _alike([one.view for one in judged])
    rate = max(
        (float(one.finite.value.max()) for one in (learning_rate or {}).values() if len(one.finite)), default=1.0
    )
    for one in judged:
        view, course = one.view, one.view.course
        if course is None or view.train is None or course.end <= 0 or view.stream in MAY_STAND:
            continue
        beside = _falls_beside(siblings.get(_family(view.stream), [])) if course.never_moved else []
        if not (one.is_tokens or view.stream == TOTAL or beside):
            continue
        looked = True
        span = view.train.last_step - int(view.train.step[0])
        enough = course.points >= UNMOVED_POINTS and (span >= UNMOVED_STEPS or not view.run.counts_steps)
        enough = enough or view.rows_are_epochs
        right = (accuracy_frac or {}).get(None if view.stream == TOTAL else view.stream)
        accuracy = median(right.finite.value) if right is not None and len(right.finite) else None
        chance = chance_near(course.end, accuracy, guess=view.chance is None)
        at_chance = chance is not None and course.never_moved_after_the_start
        level = median(course.levels) if course.flat_since is not None else math.inf
        came_there = chance is not None and abs(level / chance.nats - 1) < 1.5e-3
        unlearnt = view.chance is None and not view.no_mean and not has_adversary
        unlearnt = unlearnt and (course.end > UNLEARNT or rate <= HARDLY_ANY)
        stands = course.never_moved or course.settled_at_once
        normalised = course.never_moved and abs(course.end - 1) < NEAR_ONE and not has_adversary
        if at_chance or came_there or beside or normalised or (stands and unlearnt):
            words = f"{course.start:.4g} in the first of {course.points} values, {course.end:.4g} in the last"
            words += ": it never moved" if course.never_moved else f": it has not moved since step {course.flat_since}"
            words += f", at a learning rate of {rate:.2g} at most" if rate <= HARDLY_ANY else ""
            words += f", while {len(beside)} losses of its kind fell by {median(beside):.0%}" if beside else ""
            words += f". That is {chance.words}" if chance else f". {OF_NOTHING}" if normalised else ""
            sure = beside or (at_chance and chance is not None and chance.sure)
            severity = None if enough and sure else "note"
            yield Evidence(int(view.train.step[0]), words, FAIR, view.train.rows(), view.stream, severity)
    yield Looked() if looked else TooEarly(f"{FEWEST_POINTS} points of a total, or of a loss of tokens")


def _family(stream: Stream) -> str:
    """What numbered losses have in common: `codebook_3` and `codebook_4`, `c0` and `c1`."""
    return re.sub(r"\d+", "#", str(stream))


def _alike(views: Sequence[StreamView]) -> dict[str, list[StreamView]]:
    """Numbered losses by what they have in common."""
    families: dict[str, list[StreamView]] = {}
    for view in views:
        if "#" in _family(view.stream) and not is_of_discriminator(view.stream):
            families.setdefault(_family(view.stream), []).append(view)
    return families


def _falls_beside(family: Sequence[StreamView]) -> list[float]:
    """The shares by which the others of a family fell, if most of them fell, by a tenth or more; else empty."""
    courses = [view.course for view in family if view.course and view.course.start > 0]
    falls = [1 - course.end / course.start for course in courses if not course.never_moved]
    return falls if len(falls) > len(courses) / 2 and median(falls) > FELL else []

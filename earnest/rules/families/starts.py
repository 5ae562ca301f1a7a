"""Family B, how a loss starts and what it is made of."""

import math

import numpy as np

from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.measure import began_above
from earnest.rules.needs import AllJudged, AudioTokens, Fact, Loss, TextTokens
from earnest.run import Steps, Values
from earnest.streams import TOTAL


@rule("B105", "note", points=200, explains=("B104",))
def running_mean_logged(series: Loss) -> Answers:
    """What is logged is a mean since the start, not the loss of the last steps.

    ## What it sees
    The step-to-step noise shrinks like 1/n over the whole run, undoing the mean, n m_n - (n-1) m_(n-1), gives noise of
    constant size, and the total n m_n never falls: a loss that itself falls by orders of magnitude, as in memorising,
    loses its noise too, but not so.
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
    bins = [places for places in bins[1:] if len(places) >= 8 and np.median(size[places]) > 0]
    if len(bins) < 4:
        return 0.0, 1.0
    x = np.array([float(np.log(middle[places]).mean()) for places in bins])
    y = np.array([float(np.log(np.median(size[places]))) for places in bins])
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt((rest @ rest) / (len(bins) - 2) / (x @ x)))


@rule("B107", "warning", explains=("B102",))
def pretrained_weights_have_no_effect(text: TextTokens, pretrained: Fact[bool]) -> Answers:
    """A model that is called pretrained starts at chance on text.

    ## What it sees
    The run starts from pretrained weights, yet the first text loss is within 10 % of a uniform guess or above it.
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
    series, chance = text.view.train, text.view.chance
    if not pretrained:
        yield Looked()
    elif series is None or len(series.finite) < 3 or series.finite.step[0] > 20:
        yield TooEarly("3 points of the training loss of text, from step 20 or earlier on")
    elif chance is None:
        yield TooEarly(text.view.vocabulary_fact)
    else:
        yield Looked()
        first = float(series.head(3).value.mean())
        if first > 0.9 * chance.value:
            words = f"text starts at {first:.2f} nats, chance is {chance.value:.2f}"
            yield Evidence(int(series.step[0]), words, FAIR, series.rows())


@rule("B108", "note")
def start_far_above_chance(tokens: AudioTokens) -> Answers:
    """A stream starts far above chance and takes long to come down.

    ## What it sees
    The first audio loss exceeds ln V by more than 0.3 nats, and after a tenth of the run (and 50 steps) it still does.
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
            yield Evidence(int(series.step[0]), words, FAIR, series.rows())


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


UNMOVED_POINTS = 20  # of a loss that is said not to have moved (assumed)


@rule("B110", "warning", explains=("B104",))
def loss_never_moved(judged: AllJudged) -> Answers:
    """A loss is where it was at the first row, at what may be chance.

    ## What it sees
    Of ten stretches of the training loss (a total, or a loss of tokens) none differs from the first by more than half
    a percent of it, or by more than its own error; and it is near the logarithm of a familiar number of classes.
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
    looked = False
    for view in (one.view for one in judged if one.is_tokens or one.stream == TOTAL):
        course = view.course
        if course is None or view.train is None or course.points < UNMOVED_POINTS:
            continue
        looked = True
        near = [classes for classes in FAMILIAR if abs(course.end - math.log(classes)) < 0.004 * course.end]
        if course.never_moved and near:
            words = (
                f"{course.start:.4g} in the first of {course.points} values and {course.end:.4g} in the last; that is "
            )
            words += f"ln {near[0]}: is {near[0]} the number of classes? Then it is chance"
            yield Evidence(int(view.train.step[0]), words, FAIR, view.train.rows(), view.stream)
    yield Looked() if looked else TooEarly(f"{UNMOVED_POINTS} points of a total, or of a loss of tokens")

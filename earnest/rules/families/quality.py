"""Family E, what is measured on the output: error rates and scores, beside the loss."""

from collections.abc import Mapping

from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR
from earnest.rules.finding import Severity
from earnest.rules.measure import FEWEST_POINTS, course, falling, flipped
from earnest.rules.needs import LOSSES, AllSeries, Fact
from earnest.run import Series
from earnest.streams import Part

SIMILARITY, OPPOSITE = Part("similarity"), -0.3  # a similarity below is of opposites (assumed; percent or fraction)
UPSIDE_DOWN = "the output becomes the target upside down, as a loss of magnitudes (mel, STFT, SI-SDR) sees no sign"
FEWEST_ACCURACIES, EIGHT, LOW = 5, 8, 0.75  # rows of one accuracy, and below which it is low (assumed)
FEWEST_RATES, NOTHING = 3, 0.9  # rows of an error rate, and the rate above which nothing is recognised (assumed)


@rule("E109", "warning")
def quality_gets_worse(series: AllSeries, mapping: Fact[Mapping[str, str]] | None) -> Answers:
    """What is measured on the output gets worse while the loss falls.

    ## What it sees
    An error rate (wer, cer) or a score (pesq, mos, sdr, similarity) of evaluation is worse than its best level by more
    than a tenth of that level and four standard errors, while the training loss falls. With fewer than eight rows: an
    error rate is twice its best, and above one half.
    ## Likely causes
    - the model memorises, or forgets what it could before the fine-tune
    - the loss counts something that the output does not need
    - the measurement changed: another recogniser, another set, another temperature
    ## Next probe
    Generate from the best checkpoint and from the last, same prompts and seeds, and listen.
    ## Fix
    Keep the checkpoint with the best quality, and choose checkpoints by it in place of the loss.
    ## References
    earnest's own; no publication known.
    """
    measured = {key: one for key, one in series.items() if key.name in ("error_frac", "quality")}
    courses = {key: course(one if key.name == "error_frac" else flipped(one)) for key, one in measured.items()}
    if not any(courses.values()):
        doubled = [one for key, one in measured.items() if key.name == "error_frac" and _doubled(one)]
        for one in doubled:
            yield Looked()
            words = f"{one.key.stream or 'the error rate'} is {one.finite.value[-1]:.3g}, {one.finite.value.min():.3g} "
            words += f"at best; seen in {len(one.finite)} rows only"
            yield Evidence(int(one.finite.step[int(one.finite.value.argmin())]), words, FAIR, one.rows())
        if doubled:
            return
        yield TooEarly(f"{FEWEST_POINTS} points of eval/error_frac (wer, cer) or eval/quality (pesq, mos)")
        return
    yield Looked()
    learns = any(falling(one) for key, one in series.items() if key.split == "train" and key.name in LOSSES)
    columns = {signal: column for column, signal in (mapping or {}).items()}
    for key, one in courses.items():
        if one is not None and learns and one.gets_worse and one.end - one.best > 0.1 * abs(one.best):
            last, best = float(measured[key].finite.value[-1]), one.best if key.name == "error_frac" else -one.best
            words = f"{columns.get(str(key), key.stream or key.name)} is {last:.4g}, {best:.4g} at best, "
            words += f"by step {one.since}"
            causes = [UPSIDE_DOWN] if key.stream == SIMILARITY and last < OPPOSITE else None
            yield Evidence(one.since, f"{words}; the training loss falls", FAIR, measured[key].rows(), causes=causes)


def _doubled(rate: Series) -> bool:
    """Whether an error rate is twice its best at the end of a short log, and above one half."""
    value = rate.finite.value
    return len(value) > 1 and bool(value[-1] > max(0.5, 2 * value.min()))


@rule("E111", "warning")
def nothing_is_recognised(series: AllSeries) -> Answers:
    """The error rate stands at nearly one in every row, or the accuracy at one low value: nothing is recognised.

    ## What it sees
    Three rows or more of an error rate (wer, cer), all of them above 0.9, or eight or more of an accuracy that is
    exactly 0, or the same value below 0.75 to the last digit (five rows, if it is no whole number of percent). At 0,
    and of an error rate, a note while the loss still falls, by a twentieth in the second half.
    ## Likely causes
    - one class is predicted for everything: the rate is too high, or the classes are not balanced
    - only blanks are predicted (CTC at its plateau): the rate is too high or too low, or the warm-up too short
    - texts and clips do not belong together, or the texts are in another alphabet than the tokens
    - predictions or references are empty, or compared in another form (case, punctuation)
    ## Next probe
    Print three predictions beside their references: empty, babble, or right and only written differently?
    ## Fix
    Train on ten clips until they are learnt by heart, with a tenth of the rate; more epochs alone change nothing.
    ## References
    flashlight/wav2letter#728: 94 % after 170 epochs. huggingface/transformers#10884.
    """
    rates = [one for key, one in series.items() if key.name == "error_frac" and len(one.finite) >= FEWEST_RATES]
    accuracies = [
        one for key, one in series.items() if key.name == "accuracy_frac" and len(one.finite) >= FEWEST_ACCURACIES
    ]
    if not rates and not accuracies:
        yield TooEarly(
            f"{FEWEST_RATES} points of eval/error_frac (wer, cer), or {FEWEST_ACCURACIES} of eval/accuracy_frac"
        )
        return
    yield Looked()
    losses = [one.finite.value for key, one in series.items() if key.name in LOSSES and key.stream is None]
    falls = any(len(value) > 1 and value[-1] < 0.95 * value[len(value) // 2] for value in losses)
    for one in accuracies:
        level, rows = float(one.finite.value[0]), len(one.finite)
        unrounded = abs(100 * level - round(100 * level)) > 1e-3
        if (one.finite.value == level).all() and level < LOW and rows >= (FEWEST_ACCURACIES if unrounded else EIGHT):
            words = f"an accuracy of exactly {level:.4g} in {rows} rows"
            severity: Severity | None = "note" if falls and not level else None
            yield Evidence(int(one.finite.step[0]), words, FAIR, one.rows(), one.stream, severity)
    for one in rates:
        if (one.finite.value > NOTHING).all():
            words = f"{one.key.stream or 'the error rate'} from {one.finite.value[0]:.3g} to {one.finite.value[-1]:.3g}"
            severity = "note" if falls else None
            yield Evidence(int(one.finite.step[0]), words, FAIR, one.rows(), severity=severity)

"""Family E, the evaluation itself: it is nothing, the training loss once more, known by heart too, or several sets."""

import re
from collections.abc import Mapping

import numpy as np

from earnest.profiles import built_on
from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.gan import is_adversarial
from earnest.rules.measure import FEWEST_POINTS, course, degenerate, falling
from earnest.rules.needs import AllJudged, AllSeries, EvaluatedLoss, Fact, Losses, LossInBothSplits
from earnest.run import Series
from earnest.streams import Stream

# a name of one of these is no held-out set's
PARTS_OF_A_LOSS = re.compile("mel|stft|spec|kl|dur|pitch|energy|vq|commit|recon|rec|box|cls|l1|l2|mse|feat|aux|ctc|att")
MANY_PASSES, BY_HEART = 10, 0.05  # passes over the data, and nats, from which on clips are known by heart (assumed)
OF_TOKENS = "hf-trainer"  # whose models are trained by cross-entropy, but for a few
FEWEST_COMMON = 5  # rows in which two losses are compared (assumed)


@rule("E108", "warning", points=0)
def held_out_loss_is_nothing(evaluated: EvaluatedLoss, losses: Losses | None) -> Answers:
    """The held-out loss is not a number, or exactly 0, while training goes on.

    ## What it sees
    The evaluation was never a number, is none any more, or is exactly 0, beside a training loss that is one. A total
    that was never a number also without one.
    ## Likely causes
    - a held-out batch without a counted target: a mean over nothing
    - the evaluation runs in another precision, or masks every label
    - the evaluation is a placeholder that nobody filled
    ## Next probe
    Evaluate one training batch in the evaluation's own code: is that a number?
    ## Fix
    Leave out held-out batches without targets, and compute the loss in float32.
    ## References
    Cross-entropy over an empty batch is NaN.
    """
    yield Looked()
    broken, train = degenerate(evaluated), (losses or {}).get(evaluated.stream)
    alone = train is None and evaluated.stream is None and not len(evaluated.finite)
    if broken and (alone or (train is not None and len(train.finite) and not degenerate(train))):
        words = f"the evaluation is {broken[1]}"
        if len(evaluated) and not np.isfinite(evaluated.value).any():
            words = f"never a number in {len(evaluated)} evaluations: nothing is known of held-out data"
        yield Evidence(broken[0], words, STRONG, evaluated.rows())


@rule("E113", "warning", points=FEWEST_COMMON)
def evaluation_is_the_training_loss(loss: LossInBothSplits) -> Answers:
    """What is logged as the held-out loss is the training loss.

    ## What it sees
    Five rows or more in which both are logged, and in each they are the same to the last printed digit, while they
    change from row to row.
    ## Likely causes
    - the same variable is logged under two names
    - the evaluation runs over the training loader, in training mode or not
    ## Next probe
    Print the first clip of both loaders, and the two numbers before they are logged.
    ## Fix
    Evaluate clips that were never trained on, with `model.eval()`, and log that number.
    ## References
    earnest's own; no publication known.
    """
    evaluated, train = loss.evaluated.finite, loss.train.finite if loss.train is not None else None
    common = np.intersect1d(evaluated.step, train.step) if train is not None else np.zeros(0)
    if train is None or len(common) < FEWEST_COMMON:
        yield TooEarly(f"{FEWEST_COMMON} rows with train/{evaluated.key.name} and {evaluated.key}")
        return
    yield Looked()
    held_out, trained = (one.value[np.isin(one.step, common)] for one in (evaluated, train))
    if np.ptp(held_out) > 0 and np.array_equal(held_out, trained):
        words = f"the same number as in training in all of {len(common)} rows"
        yield Evidence(int(common[0]), words, STRONG, evaluated.rows())


@rule("E110", "warning", points=4)
def held_out_as_low_as_memory(
    loss: LossInBothSplits,
    steps_per_epoch: Fact[int],
    judged: AllJudged | None,
    series: AllSeries | None,
    trainer: Fact[str] | None,
) -> Answers:
    """The held-out loss falls with a training loss that is learnt by heart: the held-out clips are known too.

    ## What it sees
    After ten passes or more the cross-entropy of training is below 0.05 nats and a tenth of its start; the held-out
    loss is no more than twice as high, is below 0.05 too, and still falls, by a third in the second half of the run.
    A vocabulary, an accuracy or error rate beside it, or the trainer says that it is a cross-entropy. Not if the
    bigram baseline of the stream is below 0.05 as well: a table of pairs predicts templates without knowing a clip.
    ## Likely causes
    - held-out clips, or copies of them, are among the training clips: split by row of a table with duplicates
    - held-out and training clips have the same sentences
    - the targets are a few templates, so that nothing is left to predict
    ## Next probe
    Count the texts, and the hashes of the audio, that both sets hold; then score ten clips recorded today.
    ## Fix
    Split by speaker and by sentence before anything else, drop duplicates, and train anew: these figures say nothing
    about new speech.
    ## References
    earnest's own; no publication known.
    """
    evaluated, train = loss.evaluated.finite, loss.train.finite if loss.train is not None else None
    if train is None or len(train) < FEWEST_POINTS:
        yield TooEarly(f"{FEWEST_POINTS} points of train/{evaluated.key.name} beside {evaluated.key}")
        return
    yield Looked()
    passes = int(evaluated.last_step / max(steps_per_epoch, 1))
    view = next((one.view for one in judged or () if one.view.evaluated is loss.evaluated), None)
    table = view.rung("bigram") if view else None
    named = any(key.name in ("accuracy_frac", "error_frac", "perplexity") for key in series or ())
    is_entropy = named or built_on(trainer, OF_TOKENS) or (view is not None and bool(view.vocabulary))
    if passes < MANY_PASSES or not is_entropy or (table is not None and table.value < BY_HEART):
        return
    start, end = float(train.head(3).value.max()), median(train.tail(0.1, at_least=2).value)
    last, half = float(evaluated.value[-1]), float(evaluated.value[len(evaluated) // 2])
    by_heart = 0 < end < min(BY_HEART, 0.1 * start)
    if by_heart and 0 < last < min(BY_HEART, 2 * end) and last < 0.67 * half and last <= evaluated.value.min():
        words = f"{last:.3g} held out beside {end:.3g} in training after {passes} passes, and still falling: "
        words += "what is new cannot be known by heart"
        since = int(evaluated.step[int(np.argmax(evaluated.value < 0.1 * start))])
        yield Evidence(since, words, FAIR, evaluated.rows())


def held_out_sets(losses: Mapping[Stream | None, Series], trained: Mapping[Stream | None, Series]) -> list[Stream]:
    """The names of held-out sets that are evaluated one by one, beside a training loss that has no parts."""
    sets = [stream for stream in losses if stream is not None]
    of_sets = len(sets) > 1 and None not in losses and set(trained) == {None} and not any(map(is_adversarial, sets))
    return sets if of_sets and not any(PARTS_OF_A_LOSS.search(str(one)) for one in sets) else []


def all_sets_rise(sets: list[Stream], evaluated: Series, trained: Mapping[Stream | None, Series]) -> Answers:
    """Told with the first set, if this one and the training loss beside it show overfitting."""
    went, train = course(evaluated), trained[None]
    if went is None or evaluated.stream != sets[0] or not went.gets_worse or not falling(train.since(went.since)):
        return
    words = f"{went.best:.3f} by step {went.since}, {evaluated.finite.value[-1]:.3f} now, in {evaluated.stream}, "
    words += f"one of {len(sets)} held-out sets; training falls to {train.finite.value[-1]:.3f}"
    yield Evidence(went.since, words, STRONG, evaluated.rows())

"""Family E, the evaluation itself: it is nothing, or the training loss once more."""

import numpy as np

from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import STRONG
from earnest.rules.measure import degenerate
from earnest.rules.needs import EvaluatedLoss, Losses, LossInBothSplits

FEWEST_COMMON = 5  # rows in which two losses are compared (assumed)


@rule("E108", "warning", points=0)
def held_out_loss_is_nothing(evaluated: EvaluatedLoss, losses: Losses | None) -> Answers:
    """The held-out loss is not a number, or exactly 0, while training goes on.

    ## What it sees
    The evaluation was never a number, is none any more, or is exactly 0, beside a training loss that is one.
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
    if broken and train is not None and len(train.finite) and not degenerate(train):
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

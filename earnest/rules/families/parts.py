"""Families B and F, a total and its parts: who makes the fall, and is the sum all there is?"""

import numpy as np

from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR
from earnest.rules.measure import FEWEST_POINTS, course, falling
from earnest.rules.needs import PlainLosses
from earnest.rules.parts import ADVERSARIES, GENERATOR, Parts
from earnest.streams import Part

LARGE = 0.25  # share of all parts: a part that is worth a finding if it never moves (assumed)
MADE = 0.9  # share of the fall that one part makes alone (assumed)
FAR = 5.0  # times the sum of its parts: a total of which most is not in the log (assumed)
MAY_STAND = {*ADVERSARIES, Part("commitment"), Part("kl")}  # parts that hold a balance, and need not fall


@rule("B111", "warning", explains=("B104",))
def one_part_makes_all_of_the_fall(losses: PlainLosses) -> Answers:
    """Only one part of the loss falls; another large one is where it began.

    ## What it sees
    The total falls, one part makes nine tenths of that fall, and another part that is a quarter of all parts or more
    has not moved since the first row. Adversaries, commitment and a divergence hold a balance, and are left alone.
    ## Likely causes
    - no gradient of the other part arrives: detached, computed under no_grad, or of another module
    - its weight is 0, or so small beside the other that nothing is learnt from it
    - a constant predictor is already the best that its inputs allow
    ## Next probe
    Train a hundred steps on the part that stands alone: if it still does not fall, its gradient does not arrive.
    ## Fix
    Trace that part from its output to the weights, and give it a weight by its gradient norm.
    ## References
    earnest's own; no publication known.
    """
    parts = Parts(losses)
    total, courses = parts.total, {stream: course(series) for stream, series in parts.parts.items()}
    if total is None or len(total.finite) < FEWEST_POINTS or len(courses) < 2:
        yield TooEarly(f"{FEWEST_POINTS} points of train/loss and of two parts of it")
        return
    yield Looked()
    falls = {stream: one.start - one.end for stream, one in courses.items() if one}
    whole = sum(max(fall, 0.0) for fall in falls.values())
    if not falling(total) or whole <= 0 or max(falls.values()) < MADE * whole:
        return
    makes = max(falls, key=lambda stream: falls[stream])
    if falls[makes] < 0.1 * (parts.at_the_end[makes] + falls[makes]):  # it hardly falls either
        return
    for stream, one in courses.items():
        if one and one.never_moved and stream != makes and stream not in MAY_STAND and parts.share(stream) > LARGE:
            words = f"all of the fall is {makes}; {stream} is {one.start:.4g} at first and {one.end:.4g} now, "
            words += f"{parts.share(stream):.0%} of all parts"
            yield Evidence(int(total.step[0]), words, FAIR, parts.parts[stream].rows(), stream)


@rule("F404", "note")
def parts_are_not_the_total(losses: PlainLosses) -> Answers:
    """The parts in the log are a small share of the total.

    ## What it sees
    The total is five times the sum of its parts or more at the end, and no weights of these parts make it.
    ## Likely causes
    - a part of the loss is not logged, and is most of what is optimised
    - the total is a sum over frames, tokens or accumulation steps, its parts are means
    ## Next probe
    Print every term right where they are added.
    ## Fix
    Log each term that is added, in the units in which it is added.
    ## References
    earnest's own; no publication known.
    """
    parts = Parts(losses)
    total, summed = parts.total, sum(parts.at_the_end.values())
    if total is None or len(total.finite) < FEWEST_POINTS or len(parts.parts) < 2:
        yield TooEarly(f"{FEWEST_POINTS} points of train/loss and two parts of it")
        return
    yield Looked()
    end = float(np.median(total.tail(0.1, at_least=3).value))
    if total.stream == GENERATOR or summed <= 0 or end < FAR * summed or _weights_make_it(parts):
        return
    known = " + ".join(f"{stream} {size:.3g}" for stream, size in parts.at_the_end.items())
    words = f"the total is {end:.4g}, its parts make {summed:.3g} ({known}): {1 - summed / end:.0%} of it is not there"
    yield Evidence(int(total.step[0]), words, FAIR, total.rows())


def _weights_make_it(parts: Parts) -> bool:
    """Whether the total goes with its parts, so that weights explain it: they leave a twentieth of how it varies."""
    total = parts.total
    assert total is not None
    steps = total.finite.step
    for series in parts.parts.values():
        steps = np.intersect1d(steps, series.finite.step)
    if len(steps) < 2 * len(parts.parts) + 4:
        return False
    columns = [
        series.finite.value[np.isin(series.finite.step, steps)] for series in [*parts.parts.values(), total.finite]
    ]
    *left, right = columns
    weights, *_ = np.linalg.lstsq(np.stack(left, axis=1), right, rcond=None)
    rest = right - np.stack(left, axis=1) @ weights
    return bool((weights >= 0).all() and rest.var() < 0.05 * right.var())

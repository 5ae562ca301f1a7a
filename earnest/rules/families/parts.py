"""Families B and F, a total and its parts: who makes the fall, and is the sum all there is?"""

from collections.abc import Mapping

import numpy as np

from earnest.quantiles import median
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import FAIR, STRONG
from earnest.rules.measure import FELL, FEWEST_POINTS, course, falling
from earnest.rules.needs import Fact, PlainLosses, WeightedLosses
from earnest.rules.parts import GENERATOR, MAY_STAND, Parts
from earnest.run import Series, Steps, Values
from earnest.streams import Stream

LARGE = 0.25  # share of all parts: a part that is worth a finding if it never moves (assumed)
FAR = 5.0  # times the sum of its parts: a total of which most is not in the log (assumed)


@rule("B111", "warning", explains=("B104",))
def part_never_moved(losses: PlainLosses) -> Answers:
    """A large part of the loss is where it began, while the others fall.

    ## What it sees
    The total falls, a part that is a quarter of all parts or more has not moved since the first row, and the others
    have fallen by a tenth together. Adversaries, commitment and a divergence hold a balance, and are left alone.
    ## Likely causes
    - no gradient of that part arrives: detached, computed under no_grad, or of another module
    - its weight is 0, or so small beside the others that nothing is learnt from it
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
    if not falling(total):
        return
    for stream, one in courses.items():
        others = {other: course for other, course in courses.items() if course and other != stream}
        before, now = sum(course.start for course in others.values()), sum(course.end for course in others.values())
        if not one or not one.never_moved or stream in MAY_STAND or parts.share(stream) <= LARGE:
            continue
        if before > 0 and now < (1 - FELL) * before:
            words = (
                f"{stream} is {one.start:.4g} at first and {one.end:.4g} now, {parts.share(stream):.0%} of all parts, "
            )
            words += f"while {', '.join(map(str, others))} fell by {1 - now / before:.0%}"
            yield Evidence(int(total.step[0]), words, FAIR, parts.parts[stream].rows(), stream)


@rule("F401", "warning")
def parts_do_not_sum(
    loss_weights: Fact[Mapping[Stream, float]], parts: WeightedLosses, losses: PlainLosses | None
) -> Answers:
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
    weights = {stream: weight for stream, weight in loss_weights.items() if weight}
    total = (losses or {}).get(GENERATOR) or (losses or {}).get(None)
    weighted = {stream: parts[stream] for stream in weights if stream in parts}
    if total is None or len(weighted) < 2 or len(weighted) < len(weights):
        yield TooEarly("every weighted part and their total in one log")
        return
    common = _common_steps([total, *weighted.values()])
    if not len(common):
        yield TooEarly("every weighted part and their total at the same steps")
        return
    yield Looked()
    values = {stream: weights[stream] * _at(common, part) for stream, part in weighted.items()}
    yield from _compared(common, values, _at(common, total), sum(weights.values()))


def _common_steps(series: list[Series]) -> Steps:
    common = series[0].finite.step
    for one in series[1:]:
        common = np.intersect1d(common, one.finite.step)
    return common


def _at(steps: Steps, series: Series) -> Values:
    return series.finite.value[np.isin(series.finite.step, steps)]


def _compared(steps: Steps, parts: Mapping[Stream, Values], total: Values, weight: float) -> Answers:
    """Weighted parts beside the total, in the last half of the steps; `weight`: the sum of the weights."""
    half = slice(len(steps) // 2, None)
    summed = np.sum(list(parts.values()), axis=0)

    def is_off(values: Values, by: float) -> bool:
        return median((np.abs(values - total) / np.maximum(np.abs(total), 1e-9))[half]) > by

    if not is_off(summed, 0.03):
        return
    rows = [{"part": str(stream), "weighted": median(values[half])} for stream, values in parts.items()]
    rows.append({"part": "total as logged", "weighted": median(total[half])})
    start = int(steps[half][0])
    for stream, values in parts.items():
        if not is_off(summed - values, 0.01):
            words = f"{stream} is logged but not part of the total: a phase without it?"
            yield Evidence(start, words, STRONG, rows, stream, severity="note")
            return
    mean = float(np.divide(median(total[half]), median(summed[half])))
    if abs(mean * len(parts) - 1) > 0.03 and abs(mean * weight - 1) > 0.03:  # a weighted mean is a sum too
        words = f"the parts sum to {median(summed[half]):.4g}, the total says {median(total[half]):.4g}"
        yield Evidence(start, words, FAIR, rows)


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
    end = median(total.tail(0.1, at_least=3).value)
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

"""The chance ladder: is each stream learning, against what a predictor that has learnt nothing would score?

A cross-entropy is compared, in this order, with a uniform guess over the ids that can occur, with the label frequencies
(unigram) and with the previous frame (bigram). Other losses have baselines of their own: a hinge discriminator 2, a
cosine distillation the constant mean vector. A stream without a known baseline is not judged: the verdict says which
fact is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from earnest.errors import fault
from earnest.rules.finding import Verdict
from earnest.rules.measure import end_of, last_points
from earnest.rules.streams import StreamView, token_streams
from earnest.rules.verdicts import losses, tokens, total
from earnest.run import Run
from earnest.streams import TOTAL, Stream


@dataclass(frozen=True)
class Judged:
    """A stream and its verdict."""

    view: StreamView
    verdict: Verdict

    @property
    def stream(self) -> Stream:
        return self.view.stream

    @property
    def mean_of(self) -> int:
        """How many of the last training values the verdict's value is the mean of; 1 if it is a single one."""
        train = self.view.train
        if train is None or not len(train.finite) or self.verdict.value is None:
            return 1
        points = last_points(train)
        return len(points) if self.verdict.value == end_of(train).value else 1

    @property
    def is_tokens(self) -> bool:
        return self.verdict.unit == "nats"


def judge(run: Run) -> list[Judged]:
    """One verdict per stream: tokens first, then the other losses, then a total that tokens at chance add up to."""
    beside = tuple(token_streams(run))
    view = {stream: StreamView(run, stream, beside) for stream in beside}
    result = [_judged(one, (total if one.stream == TOTAL else tokens).judge) for one in view.values()]
    others = [key.stream for key in run.series if key[:2] == ("train", "loss")]
    parts = [StreamView(run, stream, beside) for stream in others if stream and stream not in view]
    result += [_judged(part, losses.judge) for part in parts]
    whole = StreamView(run, TOTAL, beside)
    if not result and whole.evaluated is not None:  # nothing but an evaluation is in the log
        return [_judged(whole, total.of_parts)]
    if result and TOTAL not in beside and whole.train is not None:
        at_chance = all(one.verdict.verdict in ("at-chance", "worse-than-chance") for one in result)
        summed = total.at_sum_of_chances(whole) if beside and not parts and at_chance else None
        result.append(Judged(whole, summed) if summed else _judged(whole, total.of_parts))
    return result


def _judged(view: StreamView, judge: Callable[[StreamView], Verdict]) -> Judged:
    """A stream with its verdict; one that cannot be made for a fault costs that verdict."""
    try:
        return Judged(view, judge(view))
    except Exception as error:
        return Judged(view, Verdict(view.stream, "cannot-judge", None, "", None, None, fault(error), fault=True))

"""The verdict of a loss without a stream: a sum of chances is recognised, else it is taken for a mean."""

import math
from dataclasses import replace

from earnest.facts import Facts
from earnest.rules.finding import Baseline, Verdict, Word
from earnest.rules.measure import WORSE, degenerate, end_of
from earnest.rules.streams import AUDIO_IDS, ONE_CODEBOOK, StreamView
from earnest.rules.verdicts import tokens
from earnest.rules.verdicts.tokens import FREQUENCIES_TEXT, NEAR_CHANCE


def judge(view: StreamView) -> Verdict:
    """A total, alone in its log: judged as what it is known to be, or against the sum that it is or began as, else
    taken for the mean of the vocabulary that is known."""
    if view.audio_part is not None:
        return _joint(view)
    if view.train is None or not len(view.train.finite) or view.unit is not None or view.stated is not None:
        return tokens.judge(view)
    if verdict := at_sum_of_chances(view) or _below_a_sum(view):
        return verdict
    verdict = tokens.judge(view)
    if verdict.baseline is None:
        return verdict
    text, audio = view.facts.text_vocab, view.facts.audio_vocab
    why = f"taken for the mean cross-entropy of {'audio' if audio else 'text'} targets: {verdict.why}"
    if text and audio:
        joint = math.log(text + audio)
        why += f"; chance over the joint vocabulary is {joint:.3f}, "
        why += f"of which {joint - math.log(audio):.2f} only choose audio"
    return replace(verdict, why=why)


def _joint(view: StreamView) -> Verdict:
    """The verdict of a mean over a vocabulary of text and audio ids, with what chance is over all and over a part."""
    verdict = tokens.judge(view)
    levels = ", ".join(
        f"{rung.value:.3f} over {rung.name}" for rung in view.rungs if rung.name in (AUDIO_IDS, ONE_CODEBOOK)
    )
    joint = view.facts.joint_vocab or 0
    return replace(verdict, why=f"{verdict.why}; chance is {math.log(joint):.3f} over all {joint} ids, {levels}")


def of_parts(view: StreamView) -> Verdict:
    """The verdict of a total whose parts are logged: it says how it went, its parts what that is worth."""
    if broken := degenerate(view.any):
        return Verdict(view.stream, "degenerate", None, "", None, broken[0], broken[1])
    assert view.any is not None, "it is called for a total that is logged"
    went = f"{view.course.in_words}; " if view.course else ""
    why = f"{went}a sum has no baseline: judge its parts"
    return Verdict(view.stream, "cannot-judge", end_of(view.any).value, "", None, None, why)


def at_sum_of_chances(view: StreamView) -> Verdict | None:
    """At chance, if the total is what streams at chance add up to."""
    if view.train is None or not len(view.train.finite):
        return None
    now = end_of(view.train)
    for words, chance in sums_of_chances(view.facts).items():
        if abs(now.value / chance - 1) < NEAR_CHANCE:
            rung, why = Baseline(words, chance), f"{now.value:.2f} nats are the {words}, {chance:.2f}"
            return Verdict(view.stream, "at-chance", now.value, "nats", rung, now.first_step, why, [rung])
    return None


def _below_a_sum(view: StreamView) -> Verdict | None:
    """The verdict of a total that began as a sum of chances (assumed: heads start within 4 % of chance)."""
    assert view.train is not None
    start, now = float(view.train.head(3).value.mean()), end_of(view.train)
    for words, chance in sums_of_chances(view.facts).items():
        if abs(start / chance - 1) < 0.1:
            above, learnt = now.low > chance * (1 + WORSE), now.value < (1 - FREQUENCIES_TEXT) * chance
            word: Word = "worse-than-chance" if above else "learning" if learnt else "cannot-judge"
            why = f"{now.value:.2f} nats, after a start at the {words}, {chance:.2f}"
            why += "; log the streams apart to see which one learns"
            rung = Baseline(words, chance)
            return Verdict(view.stream, word, now.value, "nats", rung, None, why, [rung])
    return None


def sums_of_chances(facts: Facts) -> dict[str, float]:
    """Totals that streams at chance add up to, by what they are the sum of."""
    text, audio, codebooks = facts.text_vocab, facts.audio_vocab, facts.codebooks or 1
    sums: dict[str, float] = {}
    if text and audio:
        sums["sum of the chances of text and audio"] = math.log(text) + math.log(audio)
    if audio and codebooks > 1:
        sums[f"sum of the chances of {codebooks} codebooks"] = codebooks * math.log(audio)
    if text and audio and codebooks > 1:
        sums[f"sum of the chances of text and {codebooks} codebooks"] = math.log(text) + codebooks * math.log(audio)
    return sums

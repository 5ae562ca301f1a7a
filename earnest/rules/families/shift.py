"""Family A, alignment: is a label scored against the logits that predict it? These faults explain most others."""

import math
from collections.abc import Mapping

import numpy as np

from earnest.probes.results import Alignment
from earnest.quantiles import median
from earnest.records import plain
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.measure import WORSE, began_above, end_of
from earnest.rules.needs import AllJudged, AudioSignal, Fact, LabelCounts, PerStream, Probe, Tokens
from earnest.rules.streams import StreamView
from earnest.run import Series
from earnest.streams import TEXT, Stream

COPIED_POINTS = 3  # of a copy rate that is believed (assumed)


@rule(
    "A201",
    "critical",
    explains=("A202", "A203", "A204", "B101", "B102", "B103", "B104", "B107", "B108", "E101", "G102"),
)
def labels_not_shifted(judged: AllJudged, copy_frac: PerStream | None) -> Answers:
    """The labels are not shifted: the model is scored on the token that it has just been given.

    ## What it sees
    An audio stream whose cross-entropy is near 0, together with a text stream that stays above chance (a next-token
    model asked for the current token), or with predictions that repeat the input token (copy rate above one half). Not
    if held-out clips score far above that: a loss near 0 is then memory, and the repeats are the data's.
    ## Likely causes
    - logits at position t are scored against the label of position t: neither the model nor the loss shifts
    - a wrapper or a custom loss bypasses the model's own shift
    ## Next probe
    Train on fresh random codes for a hundred steps: with the right shift the loss stays at ln V, with unshifted labels
    it falls to 0.
    ## Fix
    Score `logits[:, :-1]` against `labels[:, 1:]`, for audio within each clip; shift in one place only.
    ## References
    higgs-audio#94 and JimmyMa99/train-higgs-audio commit 830e3e6 "[fix]loss"; measured here on random codes: 4.89 falls
    to 0.03.
    """
    views = {one.stream: one.view for one in judged if one.is_tokens}
    audio, text = [view for view in views.values() if view.stream.is_audio], views.get(TEXT)
    above, rates = _text_above_chance(text), copy_frac or {}
    if not audio:
        yield TooEarly("train/ce_nats or train/loss of an audio stream")
    for view in audio:
        loss, copied = view.train, _copied(rates.get(view.stream))
        if loss is None or len(loss.finite) < 3:
            yield TooEarly(f"3 points of train/ce_nats or train/loss of {view.stream}")
            continue
        level, bound = end_of(loss).value, view.too_good or 0
        low = 0 < level < bound and not view.only_in_training(bound)
        if low and copied is None and text is None:
            yield TooEarly(f"train/copy_frac/{view.stream} or the loss of a text stream")
            continue
        yield Looked()
        # a codec's data may repeat themselves in half of the frames (silence), not in nine of ten with a falling loss
        # (assumed)
        half = level < 0.5 * math.log(view.vocabulary or 1024)
        copies = copied is not None and ((copied > 0.5 and low) or (copied > 0.9 and half))
        if not copies and not (low and above):
            continue
        words = [f"{level:.3f} nats"]
        words += [f"{copied:.0%} of the predictions repeat the input token"] if copies else []
        words += [above] if above else []
        yield Evidence(int(loss.step[0]), ", ".join(words), EXACT, loss.rows(), view.stream)
        if above and text is not None and text.train is not None:
            yield Evidence(int(text.train.step[0]), above, EXACT, text.train.rows(), TEXT)
            above = None


def _text_above_chance(text: StreamView | None) -> str | None:
    """Words for the summary if text is above chance, else an empty text. Beside an audio loss that is impossibly low, a
    short stretch above chance at the start is enough."""
    if text is None or text.train is None or text.chance is None or len(text.train.finite) < 3:
        return None
    until = began_above(text.train, text.chance, run_frac=0.05)
    if until:
        return f"text above chance ({text.chance.value:.2f}) until step {until[0]}"
    is_above = end_of(text.train).low > text.chance.value * (1 + WORSE)
    return f"text above chance ({text.chance.value:.2f})" if is_above else None


def _copied(rate: Series | None) -> float | None:
    if rate is None or len(rate.finite) < COPIED_POINTS:
        return None
    return median(rate.tail(0.1, at_least=COPIED_POINTS).value)


@rule("A202", "critical", explains=("E101", "E112"))
def loss_too_good(tokens: Tokens) -> Answers:
    """A loss is lower than its targets can be predicted.

    ## What it sees
    A cross-entropy of audio codes below 5 % of ln V (0.35 nats of 6.93), or of text without audio beside it below 0.02
    nats, but not exactly 0, and no held-out loss that would show it as memorised.
    ## Likely causes
    - copying: the labels are not shifted, so the target stands in the input
    - a leak: attention is not causal over the delayed codebooks, or the reference clip is the target clip
    - the training set is a handful of clips and has been memorised; or the targets are constants
    ## Next probe
    Log the copy rate (predictions equal to the input token) and the same loss on clips never trained on: high copy rate
    = copying, high held-out loss = memorised.
    ## Fix
    Check the shift first (`logits[:, :-1]` against `labels[:, 1:]`), then the causal mask, then that reference and
    target are different clips.
    ## References
    higgs-audio forks (audio loss 0.004 after LoRA); lowest believable report: 0.96 nats on silence-heavy effects,
    audiocraft#447.
    """
    view = tokens.view
    series, level = view.train, view.too_good
    if series is None or not len(series.finite):
        yield TooEarly(f"a point of train/ce_nats or train/loss of {view.stream}")
        return
    if level is None and not view.has_audio_beside:
        yield TooEarly(view.vocabulary_fact)
        return
    yield Looked()
    now = end_of(series).value
    if level is None or not 0 < now < level or view.only_in_training(level):
        return
    start = int(series.finite.step[np.argmax(series.finite.value < level)])
    choices = f"{math.exp(now):.3f} choices per target"
    words = f"{now:.3g} nats, {choices}: copying or a leak, not an empty loss (that is exactly 0)"
    sure = (view.evaluated is not None or view.stream.is_audio) and len(series.finite) > 2
    odds = STRONG if sure else FAIR
    yield Evidence(start, words, odds, series.rows())


def _at(offset: int) -> str:
    return f"t - {offset}" if offset > 0 else f"t + {-offset}" if offset else "t itself"


@rule("A203", "critical", explains=("A202", "B101", "B102", "G102", "G103"))
def labels_misaligned(alignment: Probe[Mapping[Stream, Alignment]]) -> Answers:
    """A label is scored against the logits of another position or codebook.

    ## What it sees
    The alignment probe (one label kept, gradient traced back to the logits): the position or codebook reached is not
    the one the convention says.
    ## Likely causes
    - offset 0: not shifted; offset 2: shifted twice, by the data and by the model
    - another codebook: heads or labels are reshaped in the wrong order
    - the label itself: a depth decoder reads one codebook too many
    ## Next probe
    Print the convention of the model class: HiggsAudioV2 and Llama shift inside, Dia wants labels already shifted,
    Musicgen wants them delayed and unshifted.
    ## Fix
    Shift exactly once: hand unshifted labels to a model that shifts, shifted ones to a model that does not.
    ## References
    QwenLM/Qwen3-TTS#39, #179 and #371: labels shifted twice, loss falls, output is noise.
    """
    yield Looked()
    for stream, seen in alignment.items():
        offset, expected = seen.offset, seen.expected
        if offset != expected:
            words = f"a label at position t is predicted from {_at(offset)}, not {_at(expected)}"
        elif not seen.codebook_matches:
            words = "a label is scored by another codebook's head"
        elif seen.sees_label:
            words = "a label is among the inputs of its own prediction"
        else:
            continue
        yield Evidence(0, words, EXACT, [{"stream": str(stream), **plain(seen)}], stream)


@rule("A204", "warning", points=3)
def predictions_repeat_input(
    copy_frac: AudioSignal, label_counts: Fact[LabelCounts] | None, repeat_frac: Fact[Mapping[Stream, float]] | None
) -> Answers:
    """Predictions mostly repeat the input token, more than the data do.

    ## What it sees
    The copy rate of an audio stream is more than halfway from the data's own share of repeats to 1; above 0.7 if
    that share is unknown.
    ## Likely causes
    - the labels are not shifted and the model is on its way to copying
    - silence or held notes: the data repeat themselves (compare with the bigram baseline)
    ## Next probe
    Count in the data how often a code equals the one before it, per codebook; a copy rate far above that share is
    copying.
    ## Fix
    Check the shift as for A201; if the data repeat themselves, drop long silences.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    stream = copy_frac.stream
    assert stream is not None
    level = median(copy_frac.tail(0.1, at_least=3).value)
    counts = list((label_counts or {}).get(stream, {}).values())
    commonest = max(counts) / sum(counts) if sum(counts) else 0.0
    own = (repeat_frac or {}).get(stream)
    # 0.7 (assumed): the first codebook of a slow codec repeats half of its codes, and an argmax a few more (54 % for 45
    # %, measured)
    limit = max(2 * commonest, 0.7 if own is None else (1 + own) / 2)
    if limit < level <= 1:
        start = next(iter(copy_frac.runs_above(limit)), None)
        data = "" if own is None else f", {own:.0%} of the data do"
        words = f"{level:.0%} of the predictions repeat the input token{data}"
        yield Evidence(start.start if start else None, words, FAIR, copy_frac.rows())

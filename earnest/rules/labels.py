"""Family A: labels and alignment, as far as a log shows them. These faults are exact, and explain most others."""

import math

import numpy as np

from earnest.records import plain
from earnest.rules.catalogue import Evidence, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.ladder import (
    WORSE,
    began_above_chance,
    rungs,
    series_measure,
    token_curve,
    token_streams,
    too_good,
    vocabulary,
)
from earnest.rules.statistics import noise
from earnest.rules.targets import codes_lost, end_in_no_clip
from earnest.streams import TEXT, Codebook


@rule("A101", needs=["counted_frac"], severity="critical", explains=("A102", "B102", "C101", "C302", "D101", "D102"))
def labels_all_masked(counted):
    """No target of a stream counts.

    ## What it sees
    The fraction of positions whose target counts is exactly 0 in the last three logged steps, or in a quarter of all.
    ## Likely causes
    - the response template that ends the mask was not found, so everything stayed -100
    - sequences are truncated before the part that is scored
    - the labels of this stream are built from the wrong clips, or its mask is inverted
    ## Next probe
    Print one batch with `earnest trace`: the labels of this stream beside its tokens, and the share masked at every
    stop.
    ## Fix
    Build the mask from token ids, not from text, and keep at least one counted target per clip; raise max_length if the
    answer is cut off.
    ## References
    unslothai/unsloth#2900 and #1128 (loss 0, all labels -100).
    """
    values = counted.finite
    empty = values.value == 0
    if empty[-3:].all() or empty.mean() >= 0.25:
        start = int(values.step[np.argmax(empty)])
        yield Evidence(start, f"no target counts in {empty.mean():.0%} of the logged steps", EXACT, counted.rows(start))


@rule("A102", needs=["counted_frac", "fact:delays?"], severity="warning", explains=("B102",))
def labels_over_masked(counted, delays):
    """Far fewer targets count than the layout asks for.

    ## What it sees
    An audio stream counts fewer than 5 % of its positions, or a stream counts less than half of what it counted over
    its first 20 logged steps, to the end.
    ## Likely causes
    - the mask also covers what should be learnt (whole turns, or every codebook but the first)
    - longer clips are truncated so that mostly prompt remains
    - the data changed: mostly padding, or clips whose labels are missing
    ## Next probe
    `earnest trace` on one batch from before and one from after the drop; compare the share masked at each stop.
    ## Fix
    Mask only prompt, padding and delay fill: a codebook with delay d counts T of T + max(delays) positions.
    ## References
    earnest's own; no publication known.
    """
    values = counted.finite
    level = float(np.median(values.tail(0.1, at_least=5).value))
    if level == 0:
        return
    if counted.stream and counted.stream.is_audio and level < 0.05:
        yield Evidence(int(values.step[0]), f"{level:.1%} of the positions count", STRONG, counted.rows())
    elif len(values) >= 30:
        first = values.value[:20]
        if (
            level < 0.5 * float(np.median(first))
            and level < float(np.quantile(first, 0.01))
            and noise(values.value) < 0.2 * np.median(first)
        ):
            below = int(values.step[np.flatnonzero(values.value > 0.5 * np.median(first))[-1]])
            yield Evidence(
                below,
                f"{np.median(first):.1%} of the positions counted at first, {level:.1%} now",
                STRONG,
                counted.rows(below),
            )


@rule("A103", needs=["run"], severity="warning")
def codebooks_masked_unevenly(run):
    """One codebook counts a different share of its positions than the others.

    ## What it sees
    The fraction of counted targets of a codebook is less than 0.8 of the median over all codebooks, on average over the
    run. In one batch (`earnest.check`): the more a codebook is delayed, the fewer of its codes are targets.
    ## Likely causes
    - a delay pattern is applied inside the window, so late codebooks lose their last codes
    - the mask was made before the delay was applied, or with another delay pattern
    ## Next probe
    Delay one clip and take the delay off again: `revert(apply(codes)) == codes`, with no token lost.
    ## Fix
    Delay into T + max(delays) positions and mask only the fill; every codebook then counts T targets (and its own end).
    ## References
    rubin-labs/dia-finetuning-stereo loses the last d codes of a codebook delayed by d; audiocraft#95.
    """
    if run.probes.targets is not None:
        yield from codes_lost(run.probes.targets)
        return
    means = {
        key.stream: float(np.nanmean(series.value))
        for key, series in run.series.items()
        if key[:2] == ("train", "counted_frac") and isinstance(key.stream, Codebook) and np.isfinite(series.value).any()
    }
    if len(means) < 3:
        return
    middle = float(np.median(list(means.values())))
    for stream, mean in means.items():
        if 0 < mean < 0.8 * middle:
            yield Evidence(
                None,
                f"{mean:.1%} of its positions count, {middle:.1%} in the median codebook",
                STRONG,
                [{"stream": str(stream), "counted_frac": mean}],
                stream,
            )


@rule(
    "A201",
    needs=["run"],
    severity="critical",
    explains=("A202", "A203", "A204", "B101", "B102", "B103", "B104", "B107", "E101", "G102"),
)
def labels_not_shifted(run):
    """The labels are not shifted: the model is scored on the token that it has just been given.

    ## What it sees
    An audio stream whose cross-entropy is near 0, together with a text stream that stays above chance (a next-token
    model asked for the current token), or with predictions that repeat the input token (copy rate above one half). Not
    where held-out clips score far above that: a loss near 0 is then memory, and the repeats are the data's.
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
    text, uniform = token_curve(run, "train", TEXT), next(iter(rungs(run, TEXT)), None)
    above = None
    if text is not None and uniform is not None and len(text.finite) >= 3:
        until = began_above_chance(
            text, uniform, run_frac=0.05
        )  # beside an audio loss that is impossibly low, a short one tells
        if until or series_measure(text, "training").low > uniform.value * (1 + WORSE):
            above = f"text above chance ({uniform.value:.2f})" + (f" until step {until[0]}" if until else "")
    for stream in [stream for stream in token_streams(run) if stream.is_audio]:
        loss, copy = token_curve(run, "train", stream), run.get("train", "copy_frac", stream)
        if loss is None or len(loss.finite) < 3:
            continue
        level = series_measure(loss, "training").value
        copied = (
            float(np.median(copy.tail(0.1, at_least=3).value)) if copy is not None and len(copy.finite) >= 3 else 0.0
        )
        bound = too_good(run, stream) or 0
        low = 0 < level < bound and not _only_in_training(run, stream, bound)
        # a codec's data may repeat themselves in half of the frames (silence), not in nine of ten with a falling loss
        # (assumed)
        copies = (copied > 0.5 and low) or (copied > 0.9 and level < 0.5 * math.log(vocabulary(run, stream) or 1024))
        if copies or (low and above):
            words = (
                [f"{level:.3f} nats"]
                + [f"{copied:.0%} of the predictions repeat the input token"] * copies
                + [above] * bool(above)
            )
            yield Evidence(int(loss.step[0]), ", ".join(map(str, words)), EXACT, loss.rows(), stream)
            if above and text is not None:
                yield Evidence(int(text.step[0]), above, EXACT, text.rows(), TEXT)
                above = None


def _only_in_training(run, stream, level: float) -> bool:
    """Whether held-out clips score far above this level: memorised, as a target that stands in the input does so in
    held-out clips too."""
    evaluated = token_curve(run, "eval", stream)
    return evaluated is not None and len(evaluated.finite) > 0 and evaluated.finite.value[-1] > 3 * level


@rule("A202", needs=["run"], severity="critical", explains=("E101",))
def loss_too_good(run):
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
    for stream in token_streams(run):
        series, level = token_curve(run, "train", stream), too_good(run, stream)
        if series is None or level is None or len(series.finite) < 3:
            continue
        now = series_measure(series, "training")
        evaluated = token_curve(run, "eval", stream)
        if not 0 < now.value < level or _only_in_training(run, stream, level):
            continue
        start = int(series.finite.step[np.argmax(series.finite.value < level)])
        words = f"{now.value:.3g} nats, {math.exp(now.value):.3f} choices per target: copying or a leak, not an empty loss (that is exactly 0)"
        yield Evidence(
            start, words, STRONG if evaluated is not None or stream.is_audio else FAIR, series.rows(), stream
        )


def _at(offset: int) -> str:
    return f"t - {offset}" if offset > 0 else f"t + {-offset}" if offset else "t itself"


@rule("A203", needs=["probe:alignment"], severity="critical", explains=("A202", "B101", "B102", "G102", "G103"))
def labels_misaligned(alignment):
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


@rule("A204", needs=["copy_frac", "fact:label_counts?", "fact:repeat_frac?"], severity="warning", points=3)
def predictions_repeat_input(copy, counts, repeats):
    """Predictions mostly repeat the input token, more than the data do.

    ## What it sees
    The copy rate of an audio stream is more than halfway from the data's own share of repeats to 1; above 0.7 where
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
    level = float(np.median(copy.tail(0.1, at_least=3).value))
    size = sum((counts or {}).get(copy.stream, {}).values())
    commonest = max((counts or {}).get(copy.stream, {0: 0}).values()) / size if size else 0.0
    own = (repeats or {}).get(copy.stream)
    # 0.7 (assumed): the first codebook of a slow codec repeats half of its codes, and an argmax a few more (54 % for 45
    # %, measured)
    limit = max(2 * commonest, 0.7 if own is None else (1 + own) / 2)
    if copy.stream and copy.stream.is_audio and limit < level <= 1:
        start = next(iter(copy.runs_above(limit)), None)
        data = "" if own is None else f", {own:.0%} of the data do"
        yield Evidence(
            start.start if start else None,
            f"{level:.0%} of the predictions repeat the input token{data}",
            FAIR,
            copy.rows(),
        )


@rule("A301", needs=["fact:label_counts", "run"], severity="critical", explains=("D101", "D103"))
def label_outside_vocabulary(counts, run):
    """A target's id does not exist in the vocabulary.

    ## What it sees
    The label histogram of a stream holds a negative id, or one at or above the vocabulary size.
    ## Likely causes
    - codebook_size was left at 1024 where specials need 1026: ids spill into the next codebook
    - ignore_index is not -100 here, so the masked id is counted
    - text and audio ids were added with the wrong offset
    ## Next probe
    `earnest explain tokens`: which id means what in this system; then print the smallest and largest label of one
    batch.
    ## Fix
    Set the vocabulary to codes plus specials (1026 for Higgs, 1028 for Dia) and mask with -100.
    ## References
    HiggsAudioV2Config defaults codebook_size to 1024, its checkpoint uses 1026 (codebook 7 raises IndexError).
    """
    for stream, histogram in counts.items():
        size = vocabulary(run, stream)
        wrong = [
            int(label)
            for label, count in histogram.items()
            if count and (int(label) < 0 or (size and int(label) >= size))
        ]
        if wrong:
            yield Evidence(
                0,
                f"id {wrong[0]} is counted, the vocabulary has {size or 'no negative'} ids",
                EXACT,
                [{"stream": str(stream), "id": i, "count": histogram[i]} for i in wrong[:6]],
                stream,
            )


@rule("A302", needs=["fact:label_counts?", "fact:eos_id?", "probe:targets?"], severity="warning", explains=("G102",))
def end_never_taught(counts, eos_id, targets):
    """The end of an utterance is never a counted target.

    ## What it sees
    The end-of-stream id does not occur in the label histogram of any codebook, while generation waits for it. In one
    batch (`earnest.check`): it is no target of any clip, although clips of unequal length end there.
    ## Likely causes
    - the loss mask drops all ids above 1023, and the end with them
    - the labels mask 1025 together with the padding that also uses it
    - clips are cut to a window, so that no clip ever ends
    ## Next probe
    Generate with a generous limit and count how many demos stop by themselves.
    ## Fix
    Count the first end of every codebook (at its delayed position) and mask only the padding behind it.
    ## References
    transformers' HiggsAudioV2 processor masks 1024 and 1025 both.
    """
    if targets is not None:
        yield from end_in_no_clip(targets)
    elif counts is None or eos_id is None:
        yield TooEarly("--fact label_counts=..., --fact eos_id=..., or the probe targets")
    else:
        audio = {stream: histogram for stream, histogram in counts.items() if stream.is_audio}
        taught = any(int(label) == eos_id and count for one in audio.values() for label, count in one.items())
        if audio and not taught:
            words = f"id {eos_id} (end of stream) is not a target of any of {len(audio)} codebooks"
            yield Evidence(0, words, EXACT, [{"eos_id": eos_id, "codebooks": len(audio)}])


@rule("A303", needs=["fact:label_counts", "fact:pad_id"], severity="warning")
def padding_is_taught(counts, pad_id):
    """Padding is counted as a target.

    ## What it sees
    The padding id makes up more than 5 % of the counted targets of an audio stream.
    ## Likely causes
    - the fill of the delay pattern, or of shorter clips, was not masked
    - padding and end of stream share an id and all of them are counted
    ## Next probe
    Recompute the loss with the padding masked: a loss that rises was made of padding.
    ## Fix
    Set labels to -100 wherever the code is padding, but keep the first end of each codebook.
    ## References
    earnest's own; no publication known.
    """
    for stream, histogram in counts.items():
        total = sum(histogram.values())
        share = sum(count for label, count in histogram.items() if int(label) == int(pad_id)) / total if total else 0
        if stream.is_audio and share > 0.05:
            yield Evidence(
                0,
                f"{share:.0%} of the targets are padding (id {pad_id})",
                STRONG,
                [{"stream": str(stream), "share": share}],
                stream,
            )


@rule("A304", needs=["fact:label_counts"], severity="note")
def one_label_dominates(counts):
    """One code makes up most of an audio stream's targets.

    ## What it sees
    A single id holds more than half of a codebook's counted targets. The unigram baseline is then low, and a low loss
    says little.
    ## Likely causes
    - long silences in the clips, or clips padded with zeros before they were encoded
    - a collapsed codebook of the codec
    ## Next probe
    Decode the clip with the most of that code and listen; count silence per clip.
    ## Fix
    Trim silence before encoding, and judge the loss against the unigram baseline.
    ## References
    audiocraft#447: 0.96 nats on silence-heavy short sounds.
    """
    for stream, histogram in counts.items():
        total = sum(histogram.values())
        if stream.is_audio and total >= 100:
            label, count = max(histogram.items(), key=lambda item: item[1])
            if count > 0.5 * total:
                yield Evidence(
                    0,
                    f"id {label} is {count / total:.0%} of {total} targets",
                    STRONG,
                    [{"stream": str(stream), "id": int(label), "count": count}],
                    stream,
                )

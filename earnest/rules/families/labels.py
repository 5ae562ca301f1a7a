"""Family A, masks and ids: which targets count, and which ids they are."""

from collections.abc import Iterator, Mapping

import numpy as np

from earnest.quantiles import median, quantile
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, STRONG
from earnest.rules.families.batch import TargetsByStream, codes_lost, end_in_no_clip
from earnest.rules.needs import Fact, LabelCounts, PerStream, Probe, Signal
from earnest.rules.statistics import noise
from earnest.rules.streams import vocabulary
from earnest.streams import Codebook, Stream

OF_AUDIO = "--fact label_counts=... of an audio stream"
FEWEST_TARGETS = 100  # of a histogram that is judged (assumed)


@rule("A101", "critical", explains=("A102", "B102", "C101", "C302", "D101", "D102"))
def labels_all_masked(counted_frac: Signal) -> Answers:
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
    values = counted_frac.finite
    empty = values.value == 0
    if empty[-3:].all() or empty.mean() >= 0.25:
        start = int(values.step[np.argmax(empty)])
        words = f"no target counts in {empty.mean():.0%} of the logged steps"
        yield Evidence(start, words, EXACT, counted_frac.rows(start))
    yield Looked()


@rule("A102", "warning", explains=("B102",))
def labels_over_masked(counted_frac: Signal) -> Answers:
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
    values = counted_frac.finite
    level = median(values.tail(0.1, at_least=5).value)
    of_audio = counted_frac.stream is not None and counted_frac.stream.is_audio
    if level > 0 and of_audio and level < 0.05:
        yield Evidence(int(values.step[0]), f"{level:.1%} of the positions count", STRONG, counted_frac.rows())
    elif level > 0 and len(values) >= 30:
        first = values.value[:20]
        usual = median(first)
        if level < 0.5 * usual and level < quantile(first, 0.01) and noise(values.value) < 0.2 * usual:
            below = int(values.step[np.flatnonzero(values.value > 0.5 * usual)[-1]])
            words = f"{usual:.1%} of the positions counted at first, {level:.1%} now"
            yield Evidence(below, words, STRONG, counted_frac.rows(below))
    if of_audio or len(values) >= 30:
        yield Looked()
    else:
        yield TooEarly(f"30 points of {counted_frac.key} (it has {len(values)})")


@rule("A103", "warning")
def codebooks_masked_unevenly(counted_frac: PerStream | None, targets: Probe[TargetsByStream] | None) -> Answers:
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
    if targets is not None:
        yield from codes_lost(targets)
        return
    means = {
        stream: float(np.nanmean(series.value))
        for stream, series in (counted_frac or {}).items()
        if isinstance(stream, Codebook) and np.isfinite(series.value).any()
    }
    if len(means) < 3:
        yield TooEarly("train/counted_frac of at least 3 codebooks")
        return
    yield Looked()
    middle = median(list(means.values()))
    for stream, mean in means.items():
        if 0 < mean < 0.8 * middle:
            words = f"{mean:.1%} of its positions count, {middle:.1%} in the median codebook"
            yield Evidence(None, words, STRONG, [{"stream": str(stream), "counted_frac": mean}], stream)


@rule("A301", "critical", explains=("D101", "D103"))
def label_outside_vocabulary(
    label_counts: Fact[LabelCounts], text_vocab: Fact[int] | None, audio_vocab: Fact[int] | None
) -> Answers:
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
    for stream, histogram in label_counts.items():
        size = vocabulary(stream, text_vocab, audio_vocab)
        wrong = [label for label, count in histogram.items() if count and (label < 0 or (size and label >= size))]
        if wrong:
            words = f"id {wrong[0]} is counted, the vocabulary has {size or 'no negative'} ids"
            rows = [{"stream": str(stream), "id": label, "count": histogram[label]} for label in wrong[:6]]
            yield Evidence(0, words, EXACT, rows, stream)
        elif size:
            yield Looked()
        else:
            yield TooEarly(f"the vocabulary of {stream} (--fact text_vocab=... or audio_vocab=...)")
    if not label_counts:
        yield TooEarly("--fact label_counts=... of a stream")


@rule("A302", "warning", explains=("G102",))
def end_never_taught(
    label_counts: Fact[LabelCounts] | None, eos_id: Fact[int] | None, targets: Probe[TargetsByStream] | None
) -> Answers:
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
    audio = dict(_of_audio(label_counts or {}))
    if targets is not None:
        yield from end_in_no_clip(targets)
    elif not audio or eos_id is None:
        yield TooEarly("--fact label_counts=... of an audio stream and --fact eos_id=..., or the probe targets")
    elif any(histogram.get(eos_id) for histogram in audio.values()):
        yield Looked()
    else:
        words = f"id {eos_id} (end of stream) is not a target of any of {len(audio)} codebooks"
        yield Evidence(0, words, EXACT, [{"eos_id": eos_id, "codebooks": len(audio)}])


@rule("A303", "warning")
def padding_is_taught(label_counts: Fact[LabelCounts], pad_id: Fact[int]) -> Answers:
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
    yield from _looked_at(label_counts)
    for stream, histogram in _of_audio(label_counts):
        total = sum(histogram.values())
        share = histogram.get(pad_id, 0) / total if total else 0
        if share > 0.05:
            words = f"{share:.0%} of the targets are padding (id {pad_id})"
            yield Evidence(0, words, STRONG, [{"stream": str(stream), "share": share}], stream)


@rule("A304", "note")
def one_label_dominates(label_counts: Fact[LabelCounts]) -> Answers:
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
    yield from _looked_at(label_counts)
    for stream, histogram in _of_audio(label_counts):
        total = sum(histogram.values())
        if total < FEWEST_TARGETS:
            yield TooEarly(f"{FEWEST_TARGETS} counted targets of {stream} (it has {total})")
            continue
        label, count = max(histogram.items(), key=lambda item: item[1])
        if count > 0.5 * total:
            words = f"id {label} is {count / total:.0%} of {total} targets"
            yield Evidence(0, words, STRONG, [{"stream": str(stream), "id": label, "count": count}], stream)


def _of_audio(label_counts: LabelCounts) -> Iterator[tuple[Stream, Mapping[int, int]]]:
    return ((stream, histogram) for stream, histogram in label_counts.items() if stream.is_audio)


def _looked_at(label_counts: LabelCounts) -> Iterator[Looked | TooEarly]:
    yield Looked() if any(_of_audio(label_counts)) else TooEarly(OF_AUDIO)

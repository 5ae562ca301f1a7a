"""Family A, what one batch shows before training (`earnest.check`): what its counted targets are."""

import math
from collections.abc import Mapping

from earnest.probes.results import Alignment, AlikeRows, Delays, KeptGradients, MicroBatches, Remainders, Targets
from earnest.records import plain
from earnest.rules.catalogue import Answers, Evidence, Looked, TooEarly, rule
from earnest.rules.decision import EXACT, FAIR, STRONG
from earnest.rules.finding import Severity
from earnest.rules.needs import Probe
from earnest.streams import TEXT, Codebook, Stream

TargetsByStream = Mapping[Stream, Targets]
NEW_SHARE = 0.1  # of a batch's ids that cannot be told apart (assumed)
REPEATED = 2  # times that the same must happen at the end of an epoch
FEWEST_CLIPS = 3  # of unequal length, for a question about padding
LONG_RUN = 8  # targets of one id behind the ends of two clips are no chance (assumed)


def uneven(targets: TargetsByStream) -> str | None:
    """What is missing for questions about padding; None if nothing is."""
    clips = max((one.clips or 0 for one in targets.values()), default=0)
    if clips < FEWEST_CLIPS:
        return f"{FEWEST_CLIPS} clips of unequal length in the batch (it has {clips or 'none that can be told apart'})"
    return None


def end_in_no_clip(targets: TargetsByStream) -> Answers:
    """A302, of one batch."""
    audio = {stream: seen for stream, seen in targets.items() if stream != TEXT} or targets
    known = {stream: seen for stream, seen in audio.items() if seen.end_taught is not None}
    lengths = {length for seen in audio.values() for length in seen.lengths or ()}
    if any(seen.end_taught for seen in known.values()):
        yield Looked()
    elif not known:
        yield TooEarly("the id that ends a clip: no setting of the model names one; pass end_id")
    elif len(lengths) < 2:
        yield TooEarly("clips of unequal length in the batch: equal ones may be windows, which do not end")
    else:
        stream, seen = next(iter(known.items()))
        words = f"id {seen.end_id} ({seen.end_named}) ends a clip, and is a target of none of {seen.clips} clips"
        yield Evidence(0, words, EXACT, [_row(stream, seen)], stream)


def codes_lost(targets: TargetsByStream) -> Answers:
    """A103, of one batch: windows may lose the tails of delayed codebooks, whole clips should not."""
    codebooks = {stream: seen for stream, seen in targets.items() if isinstance(stream, Codebook) and seen.clips}
    lost = [(next(iter(codebooks.values())).codes or 0) - (seen.codes or 0) for seen in codebooks.values()]
    clips = max((seen.clips or 0 for seen in codebooks.values()), default=0)
    if len(lost) < 2 or not clips:
        yield TooEarly("two codebooks, in clips that can be told apart")
        return
    yield Looked()
    if lost == sorted(lost) and lost[-1] >= clips and not any(one % clips for one in lost):
        ends = any(seen.end_taught for seen in codebooks.values())
        each = ", ".join(str(one // clips) for one in lost)
        words = f"codes of a clip that are no target, by codebook: {each} more than of the first"
        last = list(codebooks)[-1]
        yield Evidence(0, words, EXACT if ends else FAIR, [_row(last, codebooks[last])], last, None if ends else "note")


@rule("A205", "critical", explains=("A202", "A203", "B107", "E101"))
def logits_see_the_future(alignment: Probe[Mapping[Stream, Alignment]]) -> Answers:
    """Logits have seen tokens that come after their label.

    ## What it sees
    Tokens after a label were changed, and the logits that the label is scored on moved, as they do when the label
    itself is changed.
    ## Likely causes
    - attention is not causal: a mask is missing, or a packed or padded mask replaces the causal one
    - the clip itself is the reference, or is read whole by another part of the model
    - a convolution or a normalisation over time looks ahead
    ## Next probe
    Change one token in the middle of a clip, and look which rows of logits move: only those after it may.
    ## Fix
    Pass a causal mask (is_causal=True); take the reference from another clip, or from before the target.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    for stream, seen in alignment.items():
        if seen.later and seen.offset <= 0:
            yield Evidence(
                0,
                "logits have seen their label and what follows it",
                EXACT,
                [{"stream": str(stream), **plain(seen)}],
                stream,
            )


@rule("A206", "warning", explains=("G102",))
def delay_is_missing(delays: Probe[Delays]) -> Answers:
    """The codebooks of a batch are not delayed as the model's configuration says.

    ## What it sees
    Every codebook begins with rows of the begin-of-stream id, and how many rows these are differs from the delays that
    the configuration names.
    ## Likely causes
    - the data set hands raw codes to a model that was pretrained on delayed ones
    - the pattern is applied twice, or with other delays
    ## Next probe
    Print the first rows of the model's input ids, one codebook a column: the begin ids form the steps of the delays.
    ## Fix
    Delay the codes as the processor of the released model does, in training and in generation.
    ## References
    itsitgroup/dia-finetune trains Dia on raw frames of DAC.
    """
    yield Looked()
    if delays.found != delays.configured:
        words = f"delays {list(delays.found)} in the batch, {list(delays.configured)} in the configuration"
        yield Evidence(0, words, EXACT, [plain(delays)])


@rule("A207", "critical", explains=("A202", "E101", "G106"))
def target_is_in_the_prompt(alignment: Probe[Mapping[Stream, Alignment]]) -> Answers:
    """The labels stand in the input a second time, before they are predicted.

    ## What it sees
    A run of labels is found twice among the ids that the model reads, and the logits move if the earlier copy is
    changed.
    ## Likely causes
    - the reference clip of a cloning sample is the target clip
    - the answer is part of the prompt
    ## Next probe
    Decode reference and target of one sample: they should be two recordings of one voice.
    ## Fix
    Take the reference from another clip of the same speaker.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    for stream, seen in alignment.items():
        if seen.copied and stream != TEXT:
            words = "the labels stand in the input before they are predicted"
            yield Evidence(0, words, STRONG, [{"stream": str(stream), **plain(seen)}], stream)


@rule("A305", "warning", explains=("A303",))
def padding_is_taught_as_the_end(targets: Probe[TargetsByStream]) -> Answers:
    """The positions behind shorter clips are targets too: all of them, of one id.

    ## What it sees
    In a batch of clips of unequal length, each shorter clip ends in a run of one id that occurs nowhere else; the
    shorter the clip, the longer the run (of two clips: eight ids or more). Or more than half of every clip is one and
    the same id, at its end.
    ## Likely causes
    - labels are padded with the end-of-stream id, and the loss has no ignore_index
    - padding and end of stream share an id and none of it is masked
    ## Next probe
    Print the labels of the shortest clip of a batch: after its end everything should be -100.
    ## Fix
    Set labels to -100 behind the first end of each clip.
    ## References
    lifeiteng/vall-e, GPT-SoVITS and tortoise train so, without harm that is known; but the loss counts padding, and
    depends on how clips are batched.
    """
    if (missing := uneven(targets)) is not None and not any(seen.repeated >= LONG_RUN for seen in targets.values()):
        yield TooEarly(missing)
        return
    yield Looked()
    for stream, seen in targets.items():
        if seen.repeated >= (LONG_RUN if (seen.clips or 0) < FEWEST_CLIPS else 1):
            words = f"{seen.repeated} of {seen.targets} targets are id {seen.repeated_id} behind the end of a clip"
            yield Evidence(0, words, EXACT, [_row(stream, seen)], stream)


@rule("A306", "warning")
def first_token_untaught(targets: Probe[TargetsByStream]) -> Answers:
    """The first token of every clip is no target, though there is a row that should predict it.

    ## What it sees
    In each clip the token right before the first target is a token like the targets, and it differs between clips; what
    comes before that token (text, a begin-of-stream id) is not like them.
    ## Likely causes
    - labels were masked up to and with the first token: an off-by-one in the length of the prompt
    - a shift by hand before a shift in the model, at the beginning
    ## Next probe
    Print the first three inputs and labels of one clip, and the row that each label is scored on.
    ## Fix
    Mask up to the last token of the prompt, not beyond it.
    ## References
    earnest's own; no publication known.
    """
    yield Looked()
    for stream, seen in targets.items():
        if seen.first_untaught:
            words = f"the first token of {seen.first_untaught} clips is no target"
            yield Evidence(0, words, STRONG, [_row(stream, seen)], stream)


@rule("A307", "note")
def beginning_is_taught(targets: Probe[TargetsByStream]) -> Answers:
    """The id of a beginning is a target.

    ## What it sees
    Among the targets of a codebook is the id that the configuration calls begin of stream; a warning if it is scored
    right behind the end of another clip.
    ## Likely causes
    - the fill of a delay pattern is not masked
    - clips are scored in one row after the other: the end of one is followed by the beginning of the next
    ## Next probe
    Print the labels of one clip: a beginning is given when a model generates, so it need not be predicted.
    ## Fix
    Set labels to -100 where they are the id of a beginning, and shift within each clip.
    ## References
    JimmyMa99/train-higgs-audio shifts the audio of a whole batch as one string.
    """
    yield Looked()
    for stream, seen in targets.items():
        if seen.begin_targets:
            words = f"{seen.begin_targets} of {seen.targets} targets are the id of a beginning"
            across = f", {seen.begin_after_end} of them behind the end of another clip"
            words, severity = (words + across, "warning") if seen.begin_after_end else (words, None)
            yield Evidence(0, words, EXACT, [_row(stream, seen)], stream, severity)


@rule("C108", "warning", explains=("B102", "C302"))
def new_rows_are_frozen(alike_rows: Probe[tuple[AlikeRows, ...]]) -> Answers:
    """Ids of the batch share one row of an embedding that is not trained.

    ## What it sees
    Of the ids of a batch that are looked up in a table without a gradient, some have the same row, to one percent of
    its length. Critical if they are a tenth of the ids or more.
    ## Likely causes
    - tokens were added and the embedding resized, and LoRA freezes it (no modules_to_save, no trainable_token_indices)
    - reserved tokens of a checkpoint, which were never trained, stand for something, and the embedding is frozen
    ## Next probe
    Print the rows of two new tokens, and requires_grad of the embedding: new rows are the mean of the old ones.
    ## Fix
    Train the new rows: `modules_to_save=["embed_tokens", "lm_head"]`, or `trainable_token_indices` for these ids alone.
    ## References
    huggingface/peft, "Add new tokens to the model": the embedding must be trained or saved with the adapter.
    """
    yield Looked()
    for found in alike_rows:
        words = f"{found.alike} of {found.ids} ids of the batch have one row in {found.table}, which is not trained"
        severity: Severity | None = "critical" if found.alike >= found.ids * NEW_SHARE else None
        yield Evidence(0, words, EXACT, [plain(found)], None, severity)


@rule("C109", "critical", explains=("D201", "D204"))
def gradients_are_never_cleared(kept_gradients: Probe[KeptGradients]) -> Answers:
    """Each step uses the gradients of all steps before it too.

    ## What it sees
    After an optimizer's step its gradients are still there when the next backward pass adds to them, and nothing sets
    them to zero before the next step: in three of the first steps or more.
    ## Likely causes
    - `optimizer.zero_grad()` is missing, or is called on another optimizer or model
    - gradients are accumulated, and only the step waits for it
    ## Next probe
    Print the gradient's norm before each `loss.backward()`: it should be 0, or there should be no gradient.
    ## Fix
    Call `optimizer.zero_grad()` right after `optimizer.step()`.
    ## References
    torch.optim.Optimizer.zero_grad; Karpathy, "most common neural net mistakes" (2018): "you forgot to .zero_grad()".
    """
    yield Looked()
    for name in kept_gradients.optimizers:
        words = f"the gradients of {name or 'the optimizer'} are not set to zero between steps: each step uses old ones"
        yield Evidence(0, words, EXACT, [plain(kept_gradients)])


@rule("D403", "warning")
def mean_over_padding(targets: Probe[TargetsByStream]) -> Answers:
    """The loss is divided by all positions, not by those that count.

    ## What it sees
    What one target adds to the loss is 1 / (positions of the batch), although only a part of the rows has a target.
    ## Likely causes
    - the masked loss is averaged with .mean() over the padded batch
    - num_items_in_batch counts padding, because a mask is wrong
    ## Next probe
    Add padding to a batch: the loss should not change.
    ## Fix
    Divide the summed loss by the number of targets that count.
    ## References
    huggingface/parler-tts: `labels.ne(a) | labels.ne(b)` is true everywhere.
    """
    yield (
        Looked()
        if any(seen.divided_by and seen.shape for seen in targets.values())
        else TooEarly("a loss that divides each target by the same number")
    )
    for stream, seen in targets.items():
        if seen.divided_by is None or seen.shape is None:
            continue
        right = {seen.targets, seen.targets * len(targets)}
        clips = math.prod(seen.shape) // max(seen.shape)  # transformers' Trainer counts the first label of each, too
        for positions in _positions(seen.shape, len(targets)) - right:
            if positions > seen.targets + clips and abs(seen.divided_by / positions - 1) < 1e-4:
                words = f"{seen.targets} targets count, and their loss is divided by {positions}"
                yield Evidence(0, words, EXACT, [_row(stream, seen)], stream)


@rule("D404", "critical", explains=("B102", "B103", "B110", "C102"))
def micro_batches_are_lost(micro_batches: Probe[MicroBatches] | None, remainders: Probe[Remainders] | None) -> Answers:
    """Gradients are set to zero before the optimizer has used them, or micro-batches are added instead of averaged.

    ## What it sees
    Up to the first optimizer step backward() was called several times, and zero_grad() between two of them; or each
    micro-batch's loss counts in full, so that the gradient grows with their number (a note). While a training runs: the
    micro-batches at the end of an epoch that fill no step are added to the first step of the next one, again and again
    (a warning), or are cleared (a note).
    ## Likely causes
    - zero_grad() at the beginning of every micro-batch
    - the loss is not divided by the number of micro-batches
    - the loop counts micro-batches anew in each epoch, and steps at every n-th alone
    ## Next probe
    Print the gradient's norm after each backward() of one step: it should not fall back.
    ## Fix
    Call zero_grad() right after step() alone; divide each loss by the number of micro-batches, or by all targets of the
    step. Make a step at the end of an epoch too.
    ## References
    GPT-SoVITS's s1 adds four micro-batches, five before the first step.
    """
    if micro_batches is None and remainders is None:
        yield TooEarly("the first step of a training under watch, or earnest.check of several micro-batches")
        return
    yield Looked()
    if remainders is not None:
        yield from _remainders(remainders)
    if micro_batches is None:
        return
    count, lost, weight = micro_batches.count, micro_batches.lost, micro_batches.weight
    if lost:
        yield Evidence(
            0, f"gradients of {lost} of {count} micro-batches were set to zero", EXACT, [plain(micro_batches)]
        )
    elif count > 1 and weight is not None and abs(weight - 1) < 1e-3:
        words = f"the losses of {count} micro-batches are added, each as a mean of its own"
        yield Evidence(0, words, STRONG, [plain(micro_batches)], None, "note")


def _remainders(seen: Remainders) -> Answers:
    if seen.added_times >= REPEATED:
        words = f"{seen.added} micro-batches left over are added to the {seen.usual} of {seen.added_times} steps"
        yield Evidence(None, words, STRONG, [plain(seen)], None, "warning")
    if seen.dropped_times >= REPEATED:
        words = f"the last {seen.dropped} micro-batches were used by no step, {seen.dropped_times} times"
        yield Evidence(None, words, STRONG, [plain(seen)], None, "note")


def _positions(shape: tuple[int, ...], codebooks: int) -> set[int]:
    """How many positions a loss is averaged over if it is over all: of a stream or of all streams, without the last one
    or two of each clip if labels are shifted."""
    clips, longest = math.prod(shape) // max(shape), max(shape)
    return {clips * (longest - lost) * times for lost in range(3) for times in (1, codebooks)}


def _row(stream: Stream, seen: Targets) -> dict[str, object]:
    row = {name: value for name, value in plain(seen).items() if value is not None}
    return {"stream": str(stream), **row}

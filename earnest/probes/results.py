"""What each probe found, one record per probe: whoever measures writes these, rules and reports read them.

A field that is None was not measured. In ``run.json`` a record is an object under the name of its field in `Results`.
They are msgspec's records: so many dataclasses take a tenth of the time in which a short log is judged.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from earnest import records
from earnest.streams import Stream

Interval = tuple[float, float]
Gap = tuple[float, float, float]  # mean, low, high


class Alignment(Struct, frozen=True):
    """From which input a label of one stream is predicted: `offset` positions before it.

    sees_label: if lower codebooks of the label's position are seen rightly, whether the label itself is seen too ·
    later: the logits have seen tokens after the label too · copied: they have seen a copy of all labels · where: file
    and line of the loss · layer: whose weights made the logits · tokens: the table that the stream's own tokens are
    looked up in.
    """

    offset: int
    expected: int = 1
    codebook_matches: bool = True
    sees_label: bool | None = None
    later: bool = False
    copied: bool = False
    where: str | None = None
    layer: str | None = None
    tokens: str | None = None


class Targets(Struct, frozen=True):
    """The counted targets of one stream in one batch.

    classes: size of the softmax · where: file and line of the loss · clips, lengths: how many clips, and the targets of
    each, None if clips cannot be told apart · end_id, end_named, end_taught: the id that ends a clip, the setting that
    names it, and whether it is a target · repeated_id, repeated: the id that fills the ends of shorter clips, and how
    many targets of it are too many · first_untaught: clips whose first token is no target though a row could predict it
    · begin_targets: targets that are the id of a beginning, and begin_after_end, those right behind an end · codes:
    targets that are no special id · divided_by: the number that the loss of each target is divided by, None if it is
    not the same for all · shape: of the rows of logits.
    """

    targets: int
    classes: int
    where: str | None = None
    clips: int | None = None
    lengths: tuple[int, ...] | None = None
    end_id: int | None = None
    end_named: str | None = None
    end_taught: bool | None = None
    repeated_id: int | None = None
    repeated: int = 0
    first_untaught: int = 0
    begin_targets: int = 0
    begin_after_end: int = 0
    codes: int | None = None
    divided_by: float | None = None
    shape: tuple[int, ...] | None = None


class Delays(Struct, frozen=True):
    """By codebook, in frames: the delays that the model's configuration names, and those that a batch's ids begin
    with."""

    configured: tuple[int, ...]
    found: tuple[int, ...]


class Inputs(Struct, frozen=True):
    """Parts of the batch that change nothing in the model, and the shape of the logits."""

    dropped: tuple[str, ...] = ()
    logits_shape: tuple[int, ...] | None = None


class Optimizer(Struct, frozen=True):
    """Parameters that require a gradient (`trained`: how many) and are in no group of the optimizer."""

    missing: tuple[str, ...] = ()
    trained: int | None = None


class LowPrecision(Struct, frozen=True):
    """Trained parameters in fewer bits than float32: their type, names, how many entries they have of how many that are
    trained.

    optimizer: its class · keeps_more: whether it keeps what rounding takes from them (a copy in float32, stochastic
    rounding, a compensation), tried on numbers of the same type; None if it could not be tried · still_frac: share of
    the entries that a step as large as the learning rate leaves as they are, measured on some of them.
    """

    type: str
    names: tuple[str, ...]
    parameters: int
    trained: int
    optimizer: str | None = None
    keeps_more: bool | None = None
    still_frac: float | None = None
    learning_rate: float | None = None


class Moved(Struct, frozen=True):
    """By part of the model, the share of sampled entries of its trained weights that are not what they were `steps`
    steps ago."""

    share: Mapping[str, float]
    steps: int
    step: int | None = None


class Accumulation(Struct, frozen=True):
    """The gradient of a batch in `steps` micro-batches beside that of the whole: ratio of the norms, and norm of the
    difference as a share of the whole's."""

    ratio: float
    distance: float | None = None
    steps: int | None = None


class MicroBatches(Struct, frozen=True):
    """Backward passes before the first optimizer step: how many, how many of them were set to zero again, and what the
    first one's targets add to the loss together (1 / count if means are averaged, 1 if they are added)."""

    count: int
    lost: int = 0
    weight: float | None = None


class Duplicates(Struct, frozen=True):
    """How many of the held-out clips hold the codes of a training clip, and some of their sources."""

    shared: int
    held_out: int
    sources: tuple[str, ...] | None = None


class Noise(Struct, frozen=True):
    """How many of the training clips that were listened to are stationary noise, and some of their sources."""

    noise: int
    clips: int
    sources: tuple[str, ...] | None = None


class Gradients(Struct, frozen=True):
    """Trainable tensors that no gradient but zero has reached in the first `steps` steps.

    Of these, as far as it was looked: `beside`, of which others of the same kind have a gradient (one of several output
    layers); `cut`, which were computed with while gradients were on; `idle`, which were not.
    """

    without_gradient: tuple[str, ...] = ()
    steps: int | None = None
    step: int | None = None
    beside: tuple[str, ...] | None = None
    cut: tuple[str, ...] | None = None
    idle: tuple[str, ...] | None = None


class AlikeRows(Struct, frozen=True):
    """Ids of a batch that are looked up in a table without a gradient, and whose rows there are the same: their number,
    that of all ids of the batch in this table, and some of them."""

    table: str
    alike: int
    ids: int
    some: tuple[int, ...] = ()


class FrozenTensors(Struct, frozen=True):
    """Which of the tensors that are not trained have changed since training began."""

    changed: tuple[str, ...] = ()
    tensors: int | None = None
    step: int | None = None


class Ranks(Struct, frozen=True):
    """Tensors that are not the same on every process."""

    differing: tuple[str, ...] = ()
    ranks: int | None = None
    step: int | None = None


class Conditioning(Struct, frozen=True):
    """How much higher the held-out cross-entropy of audio is if clips get each other's condition."""

    delta_nats: float
    interval: Interval
    clips: int | None = None
    step: int | None = None


class NullInput(Struct, frozen=True):
    """How much higher the held-out cross-entropy is without a condition: by stream, and under ``all`` of the streams
    together; paired by clip."""

    gaps: Mapping[Stream, Gap]
    step: int | None = None


class Reload(Struct, frozen=True):
    """The held-out cross-entropy before saving and after loading; tensors that only one of the two models has."""

    ce_before: float | None = None
    ce_after: float | None = None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    step: int | None = None


class HeldOutStream(Struct, frozen=True):
    """One stream on held-out clips: its cross-entropy, the baselines on the same targets, and how far it lies above
    each of them (negative: below), paired by clip."""

    ce_nats: float | None = None
    interval: Interval | None = None
    counted: int | None = None
    clips: int | None = None
    uniform_nats: float | None = None
    unigram_nats: float | None = None
    unigram_gap: Gap | None = None
    bigram_nats: float | None = None
    bigram_gap: Gap | None = None

    @property
    def gaps(self) -> dict[str, Gap | None]:
        """By name of the baseline."""
        return {"unigram": self.unigram_gap, "bigram": self.bigram_gap}


class HeldOut(Struct, frozen=True):
    """The newest evaluation, by stream."""

    streams: Mapping[Stream, HeldOutStream]
    step: int | None = None


class Crops(Struct, frozen=True):
    """Windows drawn per clip, how many of them differ, and how many different ones there could be; means over the clips
    drawn from, and the number of these."""

    draws: float
    distinct: float
    possible: float
    clips: int | None = None


class Unconditional(Struct, frozen=True):
    """How many of the clips that were drawn for training were drawn without their condition."""

    without: int
    clips: int


class GeneratorStep(Struct, frozen=True):
    """Whether the generator's step left gradients in the discriminator that its own step then used, and whether
    generated audio stays attached to the generator in the discriminator's step.

    cleared: what the discriminator's loss leaves in the generator is set to zero before the generator's step ·
    unjudged: steps of the generator, all so far, before which a discriminator that is trained was given nothing that a
    gradient could go back through.
    """

    discriminator_changed: bool = False
    fake_attached: bool = False
    cleared: bool = False
    unjudged: int = 0


class KeptGradients(Struct, frozen=True):
    """Optimizers, by their names, whose steps used gradients that were there before the step before. steps: of the
    optimizer that made most."""

    optimizers: tuple[str, ...]
    steps: int


class WrongInput(Struct, frozen=True):
    """A loss function, what its input should be, and what it is instead. where: file and line of the call."""

    function: str
    expected: str
    given: str
    where: str | None = None


class EvaluationMode(Struct, frozen=True):
    """A model whose trained parameters were stepped on in evaluation mode: its dropout and batch normalisation layers,
    and the first of the steps since which that is so at every look. steps: how many were looked at since."""

    model: str
    layers: tuple[str, ...]
    since_step: int
    steps: int


class LostClipping(Struct, frozen=True):
    """Optimizers, by their names, whose gradients were clipped, but never between a backward pass and the step."""

    optimizers: tuple[str, ...]
    steps: int


class Remainders(Struct, frozen=True):
    """Micro-batches at the end of an epoch that fill no step. usual: micro-batches of most steps, of so many · added:
    how many more some steps took, and how often that was · dropped: how many were cleared before any step used them,
    and how often. 0 if they were of different numbers."""

    usual: int
    steps: int
    added: int = 0
    added_times: int = 0
    dropped: int = 0
    dropped_times: int = 0


class NoStep(Struct, frozen=True):
    """Backward passes after which no optimizer has made a step, and whether the weights are as they were."""

    passes: int
    same_weights: bool


class Results(Struct, frozen=True):
    """Every probe's result, None if that probe did not run."""

    alignment: Mapping[Stream, Alignment] | None = None
    inputs: Inputs | None = None
    optimizer: Optimizer | None = None
    low_precision: tuple[LowPrecision, ...] | None = None
    moved: Moved | None = None
    accumulation: Accumulation | None = None
    duplicates: Duplicates | None = None
    noise: Noise | None = None
    gradients: Gradients | None = None
    frozen: FrozenTensors | None = None
    ranks: Ranks | None = None
    conditioning: Mapping[str, Conditioning] | None = None
    null_input: NullInput | None = None
    reload: Reload | None = None
    held_out: HeldOut | None = None
    baselines: Mapping[Stream, Mapping[str, float]] | None = None
    crops: Crops | None = None
    unconditional: Unconditional | None = None
    generator_step: GeneratorStep | None = None
    targets: Mapping[Stream, Targets] | None = None
    delays: Delays | None = None
    micro_batches: MicroBatches | None = None
    remainders: Remainders | None = None
    alike_rows: tuple[AlikeRows, ...] | None = None
    kept_gradients: KeptGradients | None = None
    wrong_inputs: tuple[WrongInput, ...] | None = None
    evaluation_mode: tuple[EvaluationMode, ...] | None = None
    lost_clipping: LostClipping | None = None
    no_step: NoStep | None = None

    @classmethod
    def read(
        cls, stored: object, what: str = "probes", fix: str = "write what earnest.probes.results says"
    ) -> "Results":
        """Plain JSON -> results; a name that is no probe is passed over. Raises UserError if a result has another
        form."""
        return records.read(cls, stored, what, fix)

    def updated(self, newer: "Results") -> "Results":
        """These results, with the newer ones in their place."""
        return replace(self, **newer.known())

    def without(self, *names: str) -> "Results":
        """These results, but for some."""
        return replace(self, **dict.fromkeys(names))

    def known(self) -> dict[str, Any]:
        """The results that are there, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

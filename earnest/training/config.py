"""What every language-model recipe is made of; a recipe returns one configuration, a system's own kind of `LMConfig`,
whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from earnest.codecs import Codec
from earnest.data.batch import Example
from earnest.data.corpus import Corpus, Layout, TooLong, layout_of
from earnest.data.row import Row, Vary
from earnest.data.vary import Variation
from earnest.errors import TooLongError, UserError
from earnest.losses.tokens import stream_weights
from earnest.models import load_model
from earnest.streams import Stream
from earnest.training.precision import Precision


@dataclass(frozen=True)
class Data:
    path: str = "espeak"
    """A folder in Hugging Face's audiofolder form (metadata.csv or .jsonl with file_name and text), a dataset on the
    Hub, for higgs a file of conversations (.json, .jsonl), or "espeak": the embedded corpus of spoken digits and short
    phrases."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    held_out: Literal["clips", "speakers"] = "clips"
    """What is held out: clips of speakers who are trained on too, or all clips of some speakers."""
    max_duration_s: float = 15.0
    """The longest clip, where no windows are cut from clips; what becomes of longer ones, `too_long` says."""
    too_long: TooLong = "leave_out"
    """What becomes of a clip that is longer than `max_duration_s`, or with its text longer than the model's context:
    "leave_out" lists it in the run's facts, "cut" keeps its first part, counted there, and does not train that it ends,
    "refuse" stops before training."""
    window_s: float | None = None
    """Length of the random stretch of a clip that a step sees; evaluation sees all of a clip, stretch by stretch. Whole
    clips if not given."""
    positions_per_batch: int = 2048
    """Positions in one micro-batch, padding included."""

    def variation(self, frame_rate_hz: float) -> Variation:
        return Variation(None if self.window_s is None else round(self.window_s * frame_rate_hz))

    def limited(self, model: Any, frame_rate_hz: float) -> Layout:
        """The model's own layout, for clips within `max_duration_s`."""
        lay_out_any = layout_of(model)

        def lay_out(row: Row) -> Example:
            if self.window_s is None and row.frames > self.max_duration_s * frame_rate_hz:
                raise TooLongError(
                    f"{row.frames / frame_rate_hz:.1f} s, longer than {self.max_duration_s:g} s",
                    f"at most {self.max_duration_s:g} s",
                    "raise data.max_duration_s, or set data.too_long",
                )
            return lay_out_any(row)

        return lay_out


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decay of matrices; vectors are not decayed."""
    warmup_steps: int = 50
    """Linear warm-up, then a cosine to a tenth of the peak."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; how often is measured."""
    accumulation_steps: int = 1
    """Micro-batches per optimizer step."""
    ema_decay: float = 0.0
    """Decay of a running average of the weights, which is then what is evaluated, heard and saved; 0 for none. 0.999
    remembers about a thousand steps."""


@dataclass(frozen=True)
class Demos:
    every_steps: int = 200
    """How often demos are generated; 0 for none. A last set is made at the end."""
    texts: tuple[str, ...] = ("seven", "three")
    """What is said."""
    speaker: str = ""
    """Whose voice; empty for the first speaker of the data."""
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Each text is generated at each temperature."""
    guidance: float = 1.0
    """Of the unconditional branch, where the system has one: null + guidance * (conditional - null); 1 is conditional
    only."""
    seed: int = 0
    """Fixed, so that demos of different steps differ only by the model."""
    max_duration_s: float = 3.0
    """Where a demo is cut if the model does not end it."""


@dataclass(frozen=True)
class LMConfig(ABC):
    """What all systems have in common; each adds its model, and builds it."""

    codec: str = "amy-tiny"
    """An embedded codec, a codec directory, or a checkpoint that transformers knows (DAC, EnCodec, Mimi, Higgs
    tokenizer)."""
    data: Data = field(default_factory=Data)
    epochs: float = 6.0
    """Passes over the data; the learning rate's schedule ends with them."""
    steps: int | None = None
    """Optimizer steps, instead of `epochs`."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    text_weight: float = 0.1
    """Weight of the text stream's mean cross-entropy."""
    audio_weight: float = 1.0
    """Weight of the mean over codebooks of their mean cross-entropies."""
    codebook_weights: tuple[float, ...] = ()
    """Weight of each codebook in that mean, in any scale, the last one for all that follow; equal if empty. What is
    reported per codebook stays unweighted."""
    demos: Demos = field(default_factory=Demos)
    evaluate_every_steps: int = 100
    """How often the held-out clips are scored."""
    predictions: int = 3
    """Held-out clips whose predictions are logged at every evaluation, beside their targets; 0 for none."""
    save_every_steps: int = 200
    """How often a checkpoint is written."""
    mixed_precision: Precision = "no"
    """Autocast of the forward pass; the cross-entropy stays in fp32. "auto" is bf16 on a GPU that has it, or a CPU with
    AVX-512 BF16 or AMX."""
    seed: int = 0
    """Of weights, order of clips and everything else that is random."""

    @abstractmethod
    def build(self, codec: Codec) -> Any:
        """The model to start from, for this codec. Raises UserError where the two do not fit."""

    def load(self, checkpoint: Path) -> Any:
        """The model to continue from."""
        return load_model(checkpoint)

    def begin(self, model: Any, train: Corpus) -> None:  # noqa: B027 (most models take nothing)
        """Give a model that was built, not loaded, what it takes from the data before the first step."""

    def variation(self, rows: Sequence[Row], model: Any, frame_rate_hz: float) -> Vary:
        """What an epoch changes about these rows."""
        return self.data.variation(frame_rate_hz)

    def weights(self, codebooks: int) -> dict[Stream, float]:
        """Weight of every stream's mean cross-entropy in the loss."""
        return stream_weights(codebooks, self.text_weight, self.audio_weight, self.codebook_weights)

    def due(self, step: int, last: bool) -> set[str]:
        """What a run makes at this step; at its last one everything, but no demos where none are wanted."""
        every = {
            "evaluation": self.evaluate_every_steps,
            "demos": self.demos.every_steps,
            "checkpoint": self.save_every_steps,
        }
        made = {name for name, steps in every.items() if last or (steps and step % steps == 0)}
        return made if self.demos.every_steps else made - {"demos"}

    def measured(self, model: Any) -> dict[str, float]:
        """Signals that every evaluation of the model logs beside the held-out cross-entropies."""
        return {}

    def size_note(self, model: Any) -> str:
        """What tells the model's count of parameters from a published one, if anything does."""
        return ""


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two configurations differ, as ``name: stored -> wanted``."""
    found = []
    for name in sorted(stored.keys() | wanted.keys()):
        before, after = stored.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{name}.")
        elif _plain(before) != _plain(after):
            found.append(f"{prefix}{name}: {before} -> {after}")
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_same(stored: dict[str, Any], config: Any) -> None:
    """Raises UserError where a run would be continued with another configuration than it was started with."""
    changed = differences(stored, asdict(config))
    if changed:
        raise UserError(
            f"another configuration than the run was started with ({'; '.join(changed)})",
            "the same configuration, so that the curve continues as if never interrupted",
            "drop these options, or start a new run with --out",
        )

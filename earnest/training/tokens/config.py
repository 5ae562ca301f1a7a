"""The configuration of a language model's training: values, each documented and an option of the command line.

A recipe's `configure` returns one, of its system's own kind of `TokenConfig`; `assemble` makes a run of it.
"""

from dataclasses import dataclass, field
from typing import Literal

from earnest.data.corpus import TooLong
from earnest.data.layouts.paths import Source
from earnest.models.precision import Precision


@dataclass(frozen=True)
class Data(Source):
    path: str = "espeak"
    """A folder with a list of its clips and their texts (metadata.csv, LJSpeech, Common Voice, manifests, 1.wav beside
    1.txt, ...), such a list, parquet, a data set on the Hub (owner/name, owner/name:configuration), for higgs a file of
    conversations (.json, .jsonl), or "espeak": the embedded corpus of spoken digits and short phrases."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    held_out: Literal["clips", "speakers"] = "clips"
    """What is held out: clips of speakers who are trained on too, or all clips of some speakers."""
    max_duration_s: float = 15.0
    """The longest clip, if no windows are cut from clips; `too_long` says what becomes of longer ones."""
    too_long: TooLong = "leave_out"
    """What becomes of a clip that is longer than `max_duration_s`, or with its text longer than the model's context:
    "leave_out" lists it in the run's facts; "cut" keeps its first part, counts it there, and does not train that it
    ends; "refuse" stops before training."""
    window_s: float | None = None
    """Length of the random stretch of a clip that a step sees; evaluation sees all of a clip, stretch by stretch. Whole
    clips if not given."""
    positions_per_batch: int = 2048
    """Positions in one micro-batch, padding included."""


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float | None = 2e-3
    """Peak learning rate of AdamW. None: what suits a fine-tune, 2e-5 for whole weights and 2e-4 for adapters."""
    weight_decay: float = 0.01
    """Decay of matrices; vectors are not decayed."""
    warmup_steps: int = 50
    """Linear warm-up, then a cosine to a tenth of the peak."""
    states: Literal["float32", "int8"] = "float32"
    """In what AdamW keeps its two means of each trained weight: int8, in blocks, takes a quarter of the memory and
    needs the package bitsandbytes."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; how often is measured."""
    accumulation_steps: int = 1
    """Micro-batches per optimizer step."""
    ema_decay: float = 0.0
    """Decay of a running average of the weights; the average is then evaluated, played and saved in place of the
    weights. 0 for none; 0.999 remembers about a thousand steps."""


@dataclass(frozen=True)
class Demos:
    every_steps: int = 200
    """How often demos are generated; 0 for none. A last set is made at the end."""
    texts: tuple[str, ...] = ("seven", "three")
    """The texts that are generated."""
    speaker: str = ""
    """The speaker of the demos; empty for the first speaker of the data."""
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Each text is generated at each temperature."""
    guidance: float = 1.0
    """Guidance by the unconditional branch, of a system that has one: null + guidance * (conditional - null); 1 is
    conditional only."""
    seed: int = 0
    """Of the demos' random numbers: the same at every step, so that demos differ only by the model."""
    max_duration_s: float = 3.0
    """A demo that the model does not end is cut here."""


@dataclass(frozen=True)
class TokenConfig:
    """What all systems have in common; each adds its model."""

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
    """Weight of each codebook in that mean, in any scale; the last one is for all that follow. Equal if empty. The
    cross-entropies that are reported per codebook stay unweighted."""
    demos: Demos = field(default_factory=Demos)
    evaluate_every_steps: int = 100
    """How often the held-out clips are scored."""
    predictions: int = 3
    """Held-out clips whose predictions are logged at every evaluation, beside their targets; 0 for none."""
    save_every_steps: int = 200
    """How often a checkpoint is written."""
    keep_checkpoints: int = 2
    """How many checkpoints stay, the newest; the one of the lowest held-out loss stays too."""
    mixed_precision: Precision = "no"
    """Autocast of the forward pass; the cross-entropy stays in fp32. "auto" is bf16 on a GPU that has it, or a CPU with
    AVX-512 BF16 or AMX."""
    recompute: bool = False
    """Compute the activations of each layer again in the backward pass, in place of keeping them: a third more time,
    and about a tenth of their memory."""
    compile: bool = False
    """Compile the layers with torch.compile, which fuses their small operators: up to a minute before the first step,
    and a tenth less in each one on a CPU (docs/performance.md)."""
    seed: int = 0
    """Of weights, order of clips and everything else that is random."""
    tracker: tuple[str, ...] = ()
    """Where its curves and findings are shown too: wandb, tensorboard, trackio, mlflow, or several with commas between;
    each reads its own environment variables (WANDB_MODE=offline, MLFLOW_TRACKING_URI, ...)."""

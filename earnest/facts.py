"""Facts: what is known about a run beside its signals. Training writes these and no others; logs and ``--fact`` fill
the same.

Every field says its unit, what it means, and where a user of somebody else's trainer finds the value. The command line,
``earnest explain facts``, the JSON schema and the docs are made from this class.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from msgspec import Meta

from earnest.errors import UserError
from earnest.records import plain, read
from earnest.streams import Stream

GanLoss = Literal["hinge", "lsgan", "vanilla", "wasserstein"]
# of a printed loss · nats, bits: the mean per counted target · sum: over tokens, frames, codebooks or clips, so that it
# grows with the batch · divided: in training, the mean divided by the accumulation steps · other: none of these
Unit = Literal["nats", "bits", "sum", "divided", "other"]
MOST = 2**53  # beyond it JSON numbers are not exact


def _fact(
    unit: str,
    meaning: str,
    where: str = "written by earnest's own training",
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of `Facts`: None until known. `where` a user finds it; a number lies in [low, high]."""
    return field(default=None, metadata={"unit": unit, "meaning": meaning, "where": where, "low": low, "high": high})


@dataclass(frozen=True)
class Facts:
    """Every fact may be missing; None means not known."""

    recipe: str | None = _fact("name", "which of earnest's recipes trained it", "the command that started it")
    system: str | None = _fact("name", "which of the four systems, or the model's class", "config.json: architectures")
    text_vocab: int | None = _fact(
        "ids", "ids that can occur as a text target", "config.json: vocab_size of the text side", low=2, high=MOST
    )
    audio_vocab: int | None = _fact(
        "ids",
        "ids that can occur as a target of one codebook, special tokens included",
        "config.json: the audio vocabulary of one codebook, specials added (Higgs 1026, Dia 1028)",
        low=2,
        high=MOST,
    )
    classes: Mapping[Stream, int] | None = _fact(
        "ids", "stream -> ids that can occur as its target: the width of its softmax", "measured by `earnest.watch`"
    )
    joint_vocab: int | None = _fact(
        "ids",
        "ids of the one vocabulary of a language model whose text ids were continued with audio ids",
        "config.json: vocab_size after the audio ids were added (Orpheus 156940)",
        low=2,
        high=MOST,
    )
    codebooks: int | None = _fact(
        "codebooks", "number of codebooks", "config.json: num_codebooks, n_q, num_quantizers", low=1, high=MOST
    )
    codebook_size: int | None = _fact(
        "entries",
        "entries of one codebook of the codec, special tokens not included",
        "config.json of the codec: codebook_size, bins",
        low=2,
        high=MOST,
    )
    codebook_groups: tuple[int, ...] | None = _fact(
        "codebooks", "codebooks per group of the codec; each group quantises the whole latent", "the codec's code"
    )
    usage_window_frames: int | None = _fact(
        "frames",
        "frames over which the use of a codebook's entries is counted",
        "batch size * frames of a clip",
        low=1,
        high=MOST,
    )
    gan_loss: GanLoss | None = _fact(
        "name",
        "form of the adversarial loss",
        "the trainer's discriminator loss: relu(1 - x) is hinge, (1 - x)^2 lsgan",
    )
    sub_discriminators: int | None = _fact(
        "discriminators",
        "sub-discriminators whose losses are added up; 1 if they are averaged",
        "the discriminator's code: periods + scales + resolutions (HiFi-GAN 8, VITS 6)",
        low=1,
        high=MOST,
    )
    baselines: Mapping[Stream, float] | None = _fact(
        "as the loss",
        "stream -> what a predictor that has learnt nothing scores, in the numbers that the log prints",
        "the loss's formula, e.g. ln(classes); what silence, the mean frame or shuffled inputs score",
    )
    units: Mapping[Stream, Unit] | None = _fact(
        "name",
        "stream -> what its printed loss is: nats or bits per target, sum, divided (in training by the accumulation "
        "steps), other",
        "the trainer's loss: its reduction, and what it is divided by before it is logged",
    )
    repeat_frac: Mapping[Stream, float] | None = _fact(
        "fraction",
        "stream -> share of counted targets that equal the token before them",
        "measured on the training data",
    )
    delays: tuple[int, ...] | None = _fact("frames", "delay of each codebook", "config.json: delay_pattern, delays")
    label_counts: Mapping[Stream, Mapping[int, int]] | None = _fact(
        "targets",
        "stream -> how often each id is a counted target in the training data",
        "counted over one epoch of labels",
    )
    eos_id: int | None = _fact(
        "id",
        "id of the end of the audio stream, among a codebook's targets",
        "config.json: audio_eos_token_id, eos_token_id",
        high=MOST,
    )
    pad_id: int | None = _fact(
        "id", "id of padding, among a codebook's targets", "config.json: audio_pad_token_id, pad_token_id", high=MOST
    )
    pretrained: bool | None = _fact(
        "yes or no", "whether training started from pretrained weights", "the trainer's --model or --init"
    )
    unconditional_frac: float | None = _fact(
        "fraction",
        "configured share of clips trained without their condition",
        "trainer's arguments: cfg_dropout, p_uncond",
        low=0,
        high=1,
    )
    guidance: float | None = _fact(
        "factor",
        "guidance scale used for demos (1 = conditional only, uncond + s * (cond - uncond))",
        "generation arguments: guidance_scale, cfg_coef",
        low=-1000,
        high=1000,
    )
    max_grad_norm: float | None = _fact(
        "norm", "gradient norm at which clipping starts", "trainer's arguments: max_grad_norm, gradient_clip_val", low=0
    )
    accumulation_steps: int | None = _fact(
        "micro-batches",
        "micro-batches per optimizer step",
        "trainer's arguments: gradient_accumulation_steps",
        low=1,
        high=MOST,
    )
    schedule_steps: int | None = _fact(
        "steps",
        "optimizer steps that the learning-rate schedule was made for",
        "trainer's arguments: max_steps",
        low=1,
        high=MOST,
    )
    warmup_steps: int | None = _fact(
        "steps", "optimizer steps of warm-up", "trainer's arguments: warmup_steps", low=0, high=MOST
    )
    steps_per_epoch: int | None = _fact(
        "steps", "optimizer steps in one pass over the data", "clips / (batch size * accumulation)", low=1, high=MOST
    )
    train_clips: int | None = _fact("clips", "clips trained on", "the training manifest", low=0, high=MOST)
    train_s: float | None = _fact("seconds", "duration of the clips trained on", low=0)
    held_out_clips: int | None = _fact("clips", "clips evaluated on", "the validation manifest", low=0, high=MOST)
    left_out_clips: tuple[str, ...] | None = _fact("clips", "clips that were not used, each with its reason")
    cut_clips: int | None = _fact("clips", "clips of which only the first part was used", low=0, high=MOST)
    cut_texts: int | None = _fact(
        "texts",
        "texts of which only the beginning was used, as they are longer than the model's window",
        low=0,
        high=MOST,
    )
    skipped_clips: int | None = _fact("clips", "clips left out because they could not be read", low=0, high=MOST)
    speakers: tuple[str, ...] | None = _fact("names", "speakers trained on")
    held_out_speakers: tuple[str, ...] | None = _fact("names", "speakers evaluated on")
    teachers: Mapping[str, Mapping[str, Any]] | None = _fact(
        "", "stream -> the frozen model that its loss imitates, and how it was read"
    )
    train_targets: int | None = _fact(
        "targets", "counted targets in one epoch", "clips * frames * codebooks", low=0, high=MOST
    )
    trainable_parameters: int | None = _fact(
        "parameters",
        "number of trainable parameters",
        "printed by PEFT and most trainers at the start",
        low=0,
        high=MOST,
    )
    parameters: int | None = _fact("parameters", "number of parameters", low=0, high=MOST)
    discriminator_parameters: int | None = _fact(
        "parameters", "number of parameters of the discriminator", low=0, high=MOST
    )
    loss_weights: Mapping[Stream, float] | None = _fact(
        "factor", "stream -> weight in the optimised loss", "trainer's arguments: lambda_*, *_weight"
    )
    sample_rate_hz: int | None = _fact(
        "Hz", "audio sample rate", "config.json of the codec: sampling_rate", low=1, high=MOST
    )
    frame_rate_hz: float | None = _fact(
        "Hz", "codec frames per second", "config.json of the codec: frame_rate, or sampling_rate / hop_length", low=0
    )
    codec: str | None = _fact("name", "the codec that the codes come from")
    mixed_precision: str | None = _fact(
        "name", "autocast of the forward pass: no, fp16, bf16", "trainer's arguments: bf16, fp16"
    )
    ranks: int | None = _fact(
        "processes", "processes that train together", "torchrun --nproc-per-node", low=1, high=MOST
    )
    command: str | None = _fact("", "how the training was started", "the shell's history")
    commit: str | None = _fact(
        "", "git commit of the folder that it was started in, with + if files were changed", "git rev-parse HEAD"
    )
    device: str | None = _fact("name", "what the model was trained on, and how many of it", "nvidia-smi")
    machine: str | None = _fact("name", "processor and threads")
    versions: Mapping[str, str] | None = _fact("", "package -> version")
    config: Mapping[str, Any] | None = _fact("", "the whole resolved configuration")
    trainer: str | None = _fact("name", "the public trainer that wrote the log", "`earnest explain trainers`")
    format: str | None = _fact("name", "kind of log that the run was read from", "written when the log is read")
    mapping: Mapping[str, str] | None = _fact(
        "", "column of a foreign log -> the signal it was taken for", "written when the log is read"
    )
    unmapped: Mapping[str, str] | None = _fact(
        "", "numeric column of a foreign log -> why it was not taken for a signal", "written when the log is read"
    )
    fact_sources: Mapping[str, str] | None = _fact(
        "", "fact -> where a foreign log or its configuration said it", "written when the log is read"
    )

    def updated(self, values: "Mapping[str, Any] | Facts") -> "Facts":
        """These facts, with others in their place where `values` has them (plain JSON values or typed ones, by name).

        Raises UserError if a name is no fact or a value has another type or sign than the fact.
        """
        if isinstance(values, Facts):
            values = {name: value for name, value in vars(values).items() if value is not None}
        return replace(
            self, **{name: None if value is None else checked(name, value) for name, value in values.items()}
        )

    def known(self) -> dict[str, Any]:
        """The facts that are known, as JSON holds them."""
        return plain(self)


class Fact(NamedTuple):
    """What is said of one field of `Facts`."""

    name: str
    type: Any
    unit: str
    meaning: str
    where: str


def _facts() -> dict[str, Fact]:
    hints = get_type_hints(Facts)
    found: dict[str, Fact] = {}
    for one in fields(Facts):
        known, about = get_args(hints[one.name])[0], dict(one.metadata)
        bounds = Meta(ge=about.pop("low"), le=about.pop("high"))
        found[one.name] = Fact(one.name, Annotated[known, bounds] if known in (int, float) else known, **about)
    return found


FACTS = _facts()


def checked(name: str, value: Any) -> Any:
    """The value of one fact in its type. Raises UserError if there is no such fact, or it does not take this value."""
    if name not in FACTS:
        close = get_close_matches(name, FACTS, 1)
        raise UserError(
            f"fact {name!r}",
            f"one of {', '.join(FACTS)}",
            f"did you mean {close[0]}?" if close else "`earnest explain facts` says what each means",
        )
    fact = FACTS[name]
    if get_origin(fact.type) is Literal and value not in get_args(fact.type):
        raise UserError(f"fact {name} = {value!r}", f"one of {', '.join(get_args(fact.type))}", fact.meaning)
    result = read(fact.type, plain(value), f"fact {name}", f"{fact.meaning}; found in: {fact.where}")
    if isinstance(result, float) and not math.isfinite(result):
        raise UserError(f"fact {name} = {value}", "a finite number", f"leave it out if it is not known: {fact.meaning}")
    return result

"""Higgs: text in, speech out; in the voice of a reference, if it was trained with references."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from earnest.codecs import Codec
from earnest.data.layouts.chatml import Cloning
from earnest.data.row import Row, Vary
from earnest.data.vary import Variation
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.higgs import Higgs, HiggsShape
from earnest.models.shapes import on_meta, released
from earnest.training.tokens.assembly import ADAPTER_RATE, WHOLE_RATE, TokenAssembly, weights_of, window_frames
from earnest.training.tokens.config import Data, Demos, Optimizer, TokenConfig
from earnest.training.tokens.lora import Lora, add_lora, refuse_from_scratch, train_adapters


@dataclass(frozen=True)
class References:
    """Voice cloning: training clips that follow a reference of the same speaker."""

    frac: float = 0.0
    """Share of the training clips that follow a reference: another clip of the same speaker, and its text. If it is
    above 0, every held-out clip follows one."""
    max_duration_s: float = 5.0
    """Longer clips are not taken as references."""


@dataclass(frozen=True)
class HiggsConfig(TokenConfig):
    model: str = ""
    """A checkpoint to start from, in a directory or on the Hub; from scratch in the form of `shape` if empty."""
    shape: HiggsShape = field(default_factory=HiggsShape)
    lora: Lora = field(default_factory=Lora)
    cloning: References = field(default_factory=References)
    instruction: str | None = None
    """The system turn, with {speaker} in place of the speaker's name; the model's own if not given."""
    specials_count: bool = True
    """Whether the ends of audio and of turns are in the loss; a model that is not trained on them does not know when to
    stop."""


def assemble(config: HiggsConfig, codec: Codec, checkpoint: Path | None = None) -> TokenAssembly:
    """What a run is made of: model, weights of the streams, variation; with `checkpoint`, the model as saved there."""
    model = load(config, checkpoint) if checkpoint else build(config, codec)
    variation = Variation(window_frames(config.data, codec))

    def vary(rows: Sequence[Row]) -> Vary:
        max_frames = round(config.cloning.max_duration_s * codec.frame_rate_hz)
        return Cloning(rows, variation, config.cloning.frac, max_frames, model.instruction.replace("{speaker}", ""))

    return TokenAssembly(
        model,
        load=partial(load, config),
        pretrained=bool(config.model),
        base=config.model,
        weights=weights_of(config, model.codebooks),
        variation=variation,
        learning_rate=ADAPTER_RATE if config.lora.rank else WHOLE_RATE,
        vary=vary if config.cloning.frac else None,
    )


def build(config: HiggsConfig, codec: Codec) -> Higgs:
    """The model to start from."""
    if not config.model:
        refuse_from_scratch(config.lora)
        return _instructed(config, config.shape.build(codec.codebooks, codec.codebook_size))
    if on_meta():
        return cast(Higgs, released(config.model))
    # Adapters name the model they belong to, so a folder goes by a path that is right from everywhere.
    model = load_model(Path(config.model).resolve() if Path(config.model).exists() else config.model)
    if not isinstance(model, Higgs):
        raise UserError(f"{config.model}, a {model.name} model", "a Higgs model", "take the recipe of that system")
    if config.lora.rank:
        add_lora(model.lm, config.lora)
    return _instructed(config, model)


def load(config: HiggsConfig, checkpoint: Path) -> Higgs:
    """The model of a checkpoint of this run."""
    model = load_model(checkpoint)
    assert isinstance(model, Higgs)
    if config.lora.rank:
        train_adapters(model.lm, config.lora)
    return _instructed(config, model)


def _instructed(config: HiggsConfig, model: Higgs) -> Higgs:
    if config.instruction is not None:
        model.instruct(config.instruction)
    model.specials_count = config.specials_count
    return model


def higgs_tiny() -> HiggsConfig:
    """A Higgs of 8.5 million parameters that learns to say digits and short phrases on two CPU cores in minutes."""
    # The first codebooks carry the words; the others are mostly noise to so small a model. With equal weights fewer of
    # its words were recognised (docs/log.md).
    return HiggsConfig(codebook_weights=(6.0, 3.0, 2.0, 1.0))


def higgs() -> HiggsConfig:
    """Higgs Audio v2, 5.8 billion parameters, as released, with its own tokenizer of audio: to fine-tune for a voice or
    a language."""
    return HiggsConfig(
        model="bosonai/higgs-audio-v2-generation-3B-base",
        codec="bosonai/higgs-audio-v2-tokenizer",
        data=Data(path="voices"),
        epochs=3.0,
        optimizer=Optimizer(learning_rate=None, warmup_steps=100),
        demos=Demos(texts=("The quick brown fox jumps over the lazy dog.",), max_duration_s=10.0),
        mixed_precision="bf16",
    )

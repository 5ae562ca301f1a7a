"""Amy: the trainable codec, small from scratch or around Mimi."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import MimiModel

from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.mimi import ENCODER, AmyMimi
from earnest.codecs.pretrained import load_pretrained
from earnest.errors import UserError
from earnest.training.codec_config import CodecConfig, CodecData, CodecOptimizer, DiscriminatorConfig, LossWeights


@dataclass(frozen=True)
class AmyTinyConfig(CodecConfig):
    shape: AmyShape = field(default_factory=AmyShape)
    """`semantic_dim` counts where there is a language model to teach it."""

    def build(self) -> Amy:
        if self.shape.parallel and self.shape.codebooks < 3:
            raise UserError(
                f"{self.shape.codebooks} codebooks, parallel",
                "two and at least one beside them",
                "set --shape.codebooks 3",
            )
        shape = self.shape if self.llm else replace(self.shape, semantic_dim=0)
        if not 0 <= shape.semantic_dim <= shape.codebook_dim:
            raise UserError(
                f"{shape.semantic_dim} semantic dimensions of a latent of {shape.codebook_dim}",
                f"0 to {shape.codebook_dim}",
                f"set --shape.semantic-dim {shape.codebook_dim // 2}",
            )
        return Amy(shape, self.name)

    def load(self, directory: Path) -> Amy:
        return Amy.from_pretrained(directory)


@dataclass(frozen=True)
class Mimi:
    init: str = "kyutai/mimi"
    """The Mimi to start from: a directory or a checkpoint on the Hub; also a checkpoint of an earlier run of this
    recipe."""
    acoustic_codebooks: int = 7
    """How many of its acoustic codebooks are kept, beside the semantic one and the prosody one."""
    train_encoder: bool = False
    """Train the encoder and its transformer too; otherwise only its last convolution, the projections and all of the
    decoder."""


@dataclass(frozen=True)
class AmyConfig(CodecConfig):
    codec: Mimi = field(default_factory=Mimi)

    def build(self) -> AmyMimi:
        mimi = load_pretrained(self.codec.init).model
        if not isinstance(mimi, MimiModel):
            raise UserError(
                f"{self.codec.init}: a {type(mimi).__name__}", "a Mimi", "give --codec.init the checkpoint of a Mimi"
            )
        frames_per_step = round(self.data.clips_per_batch * self.data.window_s * mimi.config.frame_rate)
        return self._frozen(AmyMimi.from_mimi(mimi, (2, self.codec.acoustic_codebooks), frames_per_step, self.name))

    def load(self, directory: Path) -> AmyMimi:
        return self._frozen(AmyMimi.from_pretrained(directory))

    def _frozen(self, codec: AmyMimi) -> AmyMimi:
        codec.freeze(() if self.codec.train_encoder else ENCODER)
        return codec


def amy_tiny() -> AmyTinyConfig:
    """The embedded codec: 16 kHz, 50 frames/s, 8 codebooks of 1024 (4 kbit/s), 2.9 M weights; an hour or so on two CPU
    cores.

    Its teachers' weights count where teachers are named: at 30 each has a third to two thirds of the mel loss's
    gradient at the latent (measured; at 1 it has a hundredth). With a language model, codebook 0 is chosen in a space
    of 24 dimensions that it teaches, and pitch and level are left to codebook 1.
    """
    weights = LossWeights(adv_g=1.0, feat=15.0, msspec=0.0, mel=100.0, wavlm=30.0, llm=30.0, commitment=5.0)
    return AmyTinyConfig(name="amy-tiny", shape=AmyShape(semantic_dim=24), loss_weights=weights)


def amy() -> AmyConfig:
    """Mimi with a prosody codebook: 24 kHz, 12.5 frames/s, 9 codebooks of 2048 (1.2 kbit/s), 79 M weights; wants a GPU.

    Weights, optimizer and discriminator are those of Amy-LM (commit 7f31ef6) but for windows of whole frames, a
    commitment loss that is used, and a discriminator that is clipped.
    """
    return AmyConfig(
        data=CodecData(window_s=1.04),
        steps=100_000,
        discriminator=DiscriminatorConfig(
            window_samples=(1024, 2048, 512, 256, 128), channels=32, from_step=1, stretch_s=1.04
        ),
        optimizer=CodecOptimizer(learning_rate=3e-4, discriminator_learning_rate=3e-4, max_grad_norm=1.0),
    )

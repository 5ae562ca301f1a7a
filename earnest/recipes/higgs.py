"""Higgs: text in, speech out; in the voice of a reference, where it was trained on such samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earnest.codecs import Codec
from earnest.data.chatml import Cloning
from earnest.data.corpus import Row, Vary
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.higgs import Higgs, HiggsShape
from earnest.training.config import Data, Demos, LMConfig, Optimizer
from earnest.training.lora import Lora, add_lora, train_adapters


@dataclass(frozen=True)
class References:
    frac: float = 0.0
    """Share of the training clips that follow a reference: another clip of the same speaker, and its text. Above 0
    every held-out clip does."""
    max_duration_s: float = 5.0
    """Longer clips are not taken as references."""


@dataclass(frozen=True)
class HiggsConfig(LMConfig):
    model: str = ""
    """A checkpoint to start from, in a directory or on the Hub; from scratch in the form of `shape` if empty."""
    shape: HiggsShape = field(default_factory=HiggsShape)
    lora: Lora = field(default_factory=Lora)
    cloning: References = field(default_factory=References)
    instruction: str | None = None
    """The system turn, {speaker} standing for who speaks; the model's own if not given."""
    specials_count: bool = True
    """Whether the ends of audio and of turns are in the loss; a model that is not trained on them does not know when to
    stop."""

    def build(self, codec: Codec) -> Higgs:
        if not self.model:
            if self.lora.rank:
                raise UserError(
                    "LoRA on a model from scratch",
                    "a trained model to adapt",
                    "name it with --model, or set --lora.rank 0",
                )
            return self._set(self.shape.build(codec.codebooks, codec.codebook_size))
        # Adapters name the model they belong to, so a folder goes by a path that is right from everywhere.
        model = load_model(Path(self.model).resolve() if Path(self.model).exists() else self.model)
        if not isinstance(model, Higgs):
            raise UserError(f"{self.model}, a {model.name} model", "a Higgs model", "take the recipe of that system")
        if self.lora.rank:
            add_lora(model.lm, self.lora)
        return self._set(model)

    def load(self, checkpoint: Path) -> Higgs:
        model = load_model(checkpoint)
        assert isinstance(model, Higgs)
        if self.lora.rank:
            train_adapters(model.lm)
        return self._set(model)

    def _set(self, model: Higgs) -> Higgs:
        if self.instruction is not None:
            model.instruct(self.instruction)
        model.specials_count = self.specials_count
        return model

    def variation(self, rows: Sequence[Row], model: Any, frame_rate_hz: float) -> Vary:
        vary = super().variation(rows, model, frame_rate_hz)
        if not self.cloning.frac:
            return vary
        max_frames = round(self.cloning.max_duration_s * frame_rate_hz)
        return Cloning(rows, vary, self.cloning.frac, max_frames, model.instruction.replace("{speaker}", ""))


def higgs_tiny() -> HiggsConfig:
    """A Higgs of 8.5 million parameters that learns to say digits and short phrases on two CPU cores in minutes."""
    # The first codebooks say which word it is, the others are mostly noise to so small a model: with equal weights it
    # read less well (docs/log.md).
    return HiggsConfig(codebook_weights=(6.0, 3.0, 2.0, 1.0))


def higgs() -> HiggsConfig:
    """Higgs Audio v2, 5.8 billion parameters, as released, with its own tokenizer of audio: to fine-tune for a voice or
    a language."""
    return HiggsConfig(
        model="bosonai/higgs-audio-v2-generation-3B-base",
        codec="bosonai/higgs-audio-v2-tokenizer",
        data=Data(path="voices"),
        epochs=3.0,
        optimizer=Optimizer(learning_rate=2e-5, warmup_steps=100),
        demos=Demos(texts=("The quick brown fox jumps over the lazy dog.",), max_duration_s=10.0),
        mixed_precision="bf16",
    )

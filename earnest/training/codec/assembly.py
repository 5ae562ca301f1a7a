"""What a codec recipe puts together for one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from earnest.codecs.trainable import TrainableCodec
from earnest.losses.adversarial import Adversary
from earnest.losses.balancer import Balancer
from earnest.losses.codec import CodecObjective
from earnest.losses.distillation import Statistics
from earnest.training.codec.config import CodecConfig


@dataclass(frozen=True)
class Teaching:
    """A teacher: its name (directory or Hub) and which of its hidden states are imitated; `codebook`: the last codebook
    that they are predicted from."""

    name: str
    layer: int
    codebook: int


@dataclass(frozen=True)
class CodecAssembly:
    """Everything that training asks a recipe for."""

    system: str
    """Of the run, in its facts."""
    codec: TrainableCodec[Any]
    """A fresh codec, or that of the checkpoint that the run continues from."""
    pretrained: bool
    """Whether the run started from weights that were trained before."""
    discriminator: Callable[[], nn.Module]
    """Makes the discriminator: wave_BN -> judgements by scale (`earnest.losses.adversarial`)."""
    adversary: Adversary
    """The adversarial losses of discriminator and codec."""
    objective: Callable[[Mapping[str, Statistics]], CodecObjective]
    """Makes the losses that need no discriminator, once the features of the teachers are known, by stream."""
    weights: Callable[[int], Mapping[str, float]]
    """Step -> the weights of all losses, by stream: those of the objective, of the quantiser, adv_g and feat."""
    teachers: Mapping[str, Teaching] = field(default_factory=dict[str, Teaching])
    """By the stream of the loss that imitates them."""
    balancer: Balancer | None = None
    """Makes the weights of the losses on the waveform shares of the gradient."""
    phases: Mapping[int, str] = field(default_factory=dict[int, str])
    """First step of a later phase of training -> what begins, in words."""


class AssembleCodec(Protocol):
    """A recipe's `assemble`: configuration -> a run, new or (checkpoint) continued."""

    def __call__(self, config: CodecConfig, checkpoint: Path | None = None) -> CodecAssembly: ...

"""What a language-model recipe puts together for one run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from earnest.codecs import Codec
from earnest.data.corpus import Corpus
from earnest.data.row import Row, Vary
from earnest.data.vary import Variation
from earnest.losses.tokens import stream_weights
from earnest.models.system import System
from earnest.streams import Stream
from earnest.training.tokens.config import Data, TokenConfig

# Peak learning rates of a fine-tune. Adapters want about ten times what whole weights do (Schulman et al. 2025, "LoRA
# Without Regret"): their product starts at zero, and moves with both factors.
WHOLE_RATE, ADAPTER_RATE = 2e-5, 2e-4


@dataclass(frozen=True)
class TokenAssembly:
    """Everything that training asks a recipe for."""

    model: System
    """A fresh model, or that of the checkpoint that the run continues from."""
    load: Callable[[Path], System]
    """Reads the model of a checkpoint of this run, as a resumed run does."""
    pretrained: bool
    """Whether the run started from weights that were trained before."""
    weights: Mapping[Stream, float]
    """Weight of every stream's mean cross-entropy in the loss."""
    variation: Variation
    """What an epoch changes about a clip."""
    base: str = ""
    """The checkpoint that the model, or most of it, was read from; empty if it starts from scratch."""
    learning_rate: float = WHOLE_RATE
    """The peak, if the configuration names none."""
    vary: Callable[[Sequence[Row]], Vary] | None = None
    """What an epoch changes about the rows of one side, if it is more than `variation`."""
    before_training: Callable[[Corpus], None] | None = None
    """What a fresh model takes from the training data before the first step."""
    evaluate: Callable[[System], Mapping[str, float]] | None = None
    """Signals that every evaluation logs beside the held-out cross-entropies."""
    note: str = ""
    """What tells the model's count of parameters from a published one, if anything does."""


class AssembleTokens(Protocol):
    """A recipe's `assemble`: configuration and codec -> a run, new or (checkpoint) continued."""

    def __call__(self, config: TokenConfig, codec: Codec, checkpoint: Path | None = None) -> TokenAssembly: ...


def weights_of(config: TokenConfig, codebooks: int) -> dict[Stream, float]:
    """The configured weight of every stream of a model with so many codebooks."""
    return stream_weights(codebooks, config.text_weight, config.audio_weight, config.codebook_weights)


def window_frames(data: Data, codec: Codec) -> int | None:
    """Length of the windows that are drawn from clips, None for whole clips."""
    return None if data.window_s is None else round(data.window_s * codec.frame_rate_hz)

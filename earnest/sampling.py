"""How tokens are drawn, the same for every row of a batch; defaults are here and nowhere else."""

from dataclasses import dataclass
from typing import Literal

Weights = Literal["exact", "bfloat16", "int8"]


@dataclass(frozen=True)
class Repetition:
    """Repetition-aware sampling (VALL-E 2, arXiv:2406.05370 §4.1): a token that is `most` times or more among the last
    `window_frames` tokens of its codebook is drawn again, from the whole distribution. A window of 0 allows
    repetitions."""

    window_frames: int = 0
    most: int = 2


@dataclass(frozen=True)
class Sampling:
    """`top_k`: how many of the likeliest tokens are drawn from. `top_p`: of these, the smallest set that holds this
    much probability.

    filter_by_guidance: the guided logits choose the likeliest tokens, which are then drawn by their conditional logits,
    as Dia was published. repetition: None for the model's own rule. weights: exact, or rounded once before the first
    frame, which is faster and changes some tokens (docs/performance.md). compile: let torch.compile make one program of
    a model's step, and a GPU replay it; for long audio, as it takes a minute before the first frame.
    """

    top_k: int = 50
    top_p: float = 0.95
    filter_by_guidance: bool = False
    repetition: Repetition | None = None
    weights: Weights = "exact"
    compile: bool = False


@dataclass(frozen=True)
class Published:
    """How a model was published to be sampled, in the words of `generate.Request` and `Sampling`."""

    temperature: float = 0.0
    guidance: float = 1.0
    sampling: Sampling = Sampling()


USUAL = Sampling()

"""The configuration of a codec's training: values, each documented and an option of the command line.

A recipe's `configure` returns one, of its codec's own kind of `CodecConfig`; `assemble` makes a run of it.
"""

from dataclasses import dataclass, field

from earnest.data.layouts.paths import Source
from earnest.models.precision import Precision


@dataclass(frozen=True)
class CodecData(Source):
    path: str = ""
    """A folder of audio files, at any depth, any rate; a list of them, parquet, a data set on the Hub; or "espeak", the
    embedded corpus of spoken digits and short phrases. Texts are needed by a language model as teacher only;
    a column `words` ([["hello", 0.12, 0.48], ...]) says when each is spoken."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    window_s: float = 1.0
    """Length of the random stretch of a clip that a step sees; shorter clips are followed by silence."""
    clips_per_batch: int = 16
    """Stretches in one step, drawn in proportion to the clips' durations."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    from_step: int = 1501
    """The first step with a discriminator; before it, the codec learns without adversarial losses, which is three times
    as fast."""
    stretch_s: float = 0.5
    """How much of every clip the discriminator judges."""


@dataclass(frozen=True)
class CodecOptimizer:
    learning_rate: float = 1e-3
    """Peak learning rate of the codec."""
    discriminator_learning_rate: float = 5e-4
    """Peak learning rate of the discriminator."""
    warmup_steps: int = 100
    """Linear warm-up of each, from its own first step; then a cosine to a tenth of the peak."""
    max_grad_norm: float = 100.0
    """Gradients of the codec are clipped to this norm; how often is measured."""
    discriminator_max_grad_norm: float = 10.0
    """The same for the discriminator."""


@dataclass(frozen=True)
class CodecConfig:
    """What all codecs have in common; each recipe adds its codec, losses and discriminator."""

    data: CodecData = field(default_factory=CodecData)
    steps: int = 3400
    """Optimizer steps of the codec; the schedules end with them."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: CodecOptimizer = field(default_factory=CodecOptimizer)
    log_every_steps: int = 10
    """How often a row of signals is written: the means over the steps since the last one."""
    monitor_every_steps: int = 100
    """How often the gradient of each loss is measured at the latent, where all of them meet; 0 for never."""
    evaluate_every_steps: int = 250
    """How often the held-out clips are scored and the codebooks are probed."""
    probe_s: float = 240.0
    """Seconds of training audio that the tables of the probes are filled with; 0 for no probes."""
    demo_every_steps: int = 1000
    """How often held-out clips are reconstructed as wavs; 0 for never. A last set is made at the end."""
    demo_clips: int = 4
    """How many clips are reconstructed."""
    save_every_steps: int = 250
    """How often a checkpoint is written."""
    keep_checkpoints: int = 2
    """How many checkpoints stay, the newest; the one of the lowest held-out loss stays too."""
    mixed_precision: Precision = "auto"
    """Autocast of the networks; spectra, quantiser and losses stay in fp32. "auto" is bf16 on a GPU that has it, or a
    CPU with AVX-512 BF16 or AMX."""
    seed: int = 0
    """Of weights, windows and everything else that is random."""
    tracker: tuple[str, ...] = ()
    """Where its curves and findings are shown too: wandb, tensorboard, trackio, mlflow, or several with commas between;
    each reads its own environment variables (WANDB_MODE=offline, MLFLOW_TRACKING_URI, ...)."""

"""What a codec recipe is made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from earnest.codecs.amy import TrainableCodec
from earnest.losses.codec import MEL_LOSSES, TAUGHT
from earnest.training.precision import Precision


@dataclass(frozen=True)
class CodecData:
    path: str = ""
    """A folder of audio files, at any depth, any rate; or a dataset on the Hub. Texts are needed by a language model as
    teacher only; a column `words` ([["hello", 0.12, 0.48], ...]) says when each is spoken."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    window_s: float = 1.0
    """Length of the random stretch of a clip that a step sees; shorter clips are followed by silence."""
    clips_per_batch: int = 16
    """Stretches in one step, drawn in proportion to the clips' durations."""


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
    """Of the distance between codebooks 0 and 1 and the audio teacher; counts where there is one."""
    llm: float = 1.0
    """Of the distance between codebook 0 and the language model; counts where there is one."""
    commitment: float = 0.25
    """Of the distance between the latents and their codebook entries."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    window_samples: tuple[int, ...] = (1024, 512, 256)
    """Windows of the STFTs, one sub-discriminator each."""
    channels: int = 24
    """Maps of the first layer; the later ones have twice as many."""
    from_step: int = 1501
    """The first step with a discriminator; before it, the codec learns from the spectral losses alone, which is three
    times as fast."""
    stretch_s: float = 0.5
    """How much of every clip the discriminator hears."""


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
class CodecConfig(ABC):
    """What every codec recipe is made of; a recipe's own class says how its codec is built."""

    name: str = "amy"
    """What the codec calls itself."""
    data: CodecData = field(default_factory=CodecData)
    llm: str = ""
    """Teacher of codebook 0: a language model that reads the transcript, by directory or Hub name; empty for none."""
    wavlm: str = ""
    """Teacher of codebooks 0 and 1 together: WavLM, HuBERT, wav2vec 2.0 or Whisper, by directory or Hub name; empty for
    none."""
    llm_layer: int = -2
    """Which of the language model's hidden states: 0 the input, -1 the last."""
    wavlm_layer: int = -1
    """Which of the audio teacher's hidden states."""
    steps: int = 3400
    """Optimizer steps of the codec; the schedules end with them."""
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
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: CodecOptimizer = field(default_factory=CodecOptimizer)
    log_every_steps: int = 10
    """How often a row of signals is written: the means over the steps since the last one."""
    monitor_every_steps: int = 100
    """How often the gradient of each loss is measured where all meet, at the latent; 0 for never."""
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
    mixed_precision: Precision = "auto"
    """Autocast of the networks; spectra, quantiser and losses stay in fp32. "auto" is bf16 on a GPU that has it, or a
    CPU with AVX-512 BF16 or AMX."""
    seed: int = 0
    """Of weights, windows and everything else that is random."""

    @abstractmethod
    def build(self) -> TrainableCodec:
        """A codec to start from. Raises UserError where that is something that cannot be had."""

    @abstractmethod
    def load(self, directory: Path) -> TrainableCodec:
        """The codec of a checkpoint of this run."""

    def weights_at(self, step: int, teachers: Sequence[str]) -> dict[str, float]:
        """The weights in force at a step, of the losses that there are."""
        weights = {
            name: weight for name, weight in asdict(self.loss_weights).items() if name not in TAUGHT or name in teachers
        }
        if self.adversarial_only_from_step and step >= self.adversarial_only_from_step:
            weights |= {loss.stream: weights[loss.stream] * self.adversarial_only_spectral_frac for loss in MEL_LOSSES}
        return weights

    def logged_weights(self, step: int, teachers: Sequence[str]) -> dict[str, float]:
        """The weights of the losses that a log holds from this step on: those of the discriminator from its first
        step."""
        absent = () if step >= self.discriminator.from_step else ("adv_g", "feat")
        return {name: weight for name, weight in self.weights_at(1, teachers).items() if weight and name not in absent}

    def due(self, step: int, last: bool, ready: bool) -> set[str]:
        """What a run makes at this step, at its last one everything; codebooks that hold nothing yet are neither scored
        nor heard.

        A checkpoint comes with a row of signals: a resumed run averages over the same steps.
        """
        every = {"row": self.log_every_steps, "checkpoint": self.save_every_steps}
        every |= {"evaluation": self.evaluate_every_steps, "demos": self.demo_every_steps} if ready else {}
        made = {name for name, steps in every.items() if last or (steps and step % steps == 0)}
        made |= {"row"} if "checkpoint" in made else set()
        return made if self.demo_every_steps else made - {"demos"}

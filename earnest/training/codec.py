"""Amy, the trainable codec: its configuration, and training it from one.

Distillation into codebook 0, a prosody codebook and a phase of adversarial losses alone are not here yet.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.data.audio import ClipError, write_wave
from earnest.data.folder import load_clips, read_clips, split_clips
from earnest.losses.waveform import MultiScaleMelLoss
from earnest.run import Artifact, RunWriter
from earnest.signals import key
from earnest.training.checkpoint import load_training_state, save_checkpoint
from earnest.training.gan_steps import Player, gan_steps
from earnest.training.optim import warmup_cosine
from earnest.training.session import OnProgress, interruptible, silent, starting_point


@dataclass(frozen=True)
class CodecData:
    path: str = ""
    """A folder of audio files, at any depth, any rate; or a dataset on the Hub. Texts are not needed."""
    held_out_frac: float = 0.05
    """Share of the clips kept for evaluation, unless the folder has a validation split."""
    window_s: float = 1.0
    """Length of the random stretch of a clip that a step sees; shorter clips are followed by silence."""
    clips_per_batch: int = 16
    """Stretches in one step, drawn in proportion to the clips' durations."""


@dataclass(frozen=True)
class LossWeights:
    mel: float = 100.0
    """Of the multi-scale mel loss: the mean difference of log10 magnitudes."""
    commitment: float = 5.0
    """Of the distance between the latents and their codebook entries."""
    adversarial: float = 1.0
    """Of the hinge loss against the discriminator."""
    features: float = 15.0
    """Of the difference of the discriminator's maps, relative to the real ones."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    window_samples: tuple[int, ...] = (1024, 512, 256)
    """Windows of the STFTs, one sub-discriminator each."""
    channels: int = 24
    """Maps of the first layer; the later ones have twice as many."""
    from_step: int = 1501
    """The first step with a discriminator; before it, the codec learns from the mel loss alone, which is three times as fast."""
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
class CodecConfig:
    name: str = "amy-tiny"
    """What the codec calls itself."""
    shape: AmyShape = field(default_factory=AmyShape)
    data: CodecData = field(default_factory=CodecData)
    steps: int = 3400
    """Optimizer steps of the codec; the schedules end with them."""
    init_frames: int = 20_480
    """Frames collected, and passed through unquantised, before k-means places the codebooks."""
    loss_weights: LossWeights = field(default_factory=LossWeights)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimizer: CodecOptimizer = field(default_factory=CodecOptimizer)
    log_every_steps: int = 10
    """How often a row of signals is written: the means over the steps since the last one."""
    evaluate_every_steps: int = 250
    """How often the held-out clips are scored."""
    demo_every_steps: int = 1000
    """How often held-out clips are reconstructed as wavs; 0 for never. A last set is made at the end."""
    demo_clips: int = 4
    """How many clips are reconstructed."""
    save_every_steps: int = 250
    """How often a checkpoint is written."""
    mixed_precision: str = "bf16"
    """"no" or "bf16": autocast of the networks; spectra, quantiser and losses stay in fp32."""
    seed: int = 0
    """Of weights, windows and everything else that is random."""


def train_codec(config: CodecConfig, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> None:
    """Train into `run_dir`; with `resume`, continue what stands there, bit-identically on a CPU.

    Ctrl-C ends the step under way, writes a checkpoint and returns. Raises UserError on anything a user can mend.
    """
    start = starting_point(config, run_dir, resume)
    set_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=not torch.cuda.is_available())
    train, held_out, data_facts = load_waves(config)
    codec = Amy.from_pretrained(start) if start else Amy(config.shape, config.name)
    codec.quantiser.init_frames = config.init_frames
    discriminator = MultiScaleSTFTDiscriminator(config.discriminator.window_samples, config.discriminator.channels)
    mel_loss = MultiScaleMelLoss(config.shape.sample_rate_hz).to(accelerator.device)

    def player(model: torch.nn.Module, learning_rate: float, max_grad_norm: float, steps: int) -> Player:
        # betas: DAC's; a short memory of the gradient follows an opponent that moves
        optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)
        model, optimizer = accelerator.prepare(model.train(), optimizer)
        return Player(model, optimizer, warmup_cosine(optimizer, config.optimizer.warmup_steps, steps), max_grad_norm)

    settings = config.optimizer
    ours = player(codec, settings.learning_rate, settings.max_grad_norm, config.steps)
    game_steps = max(1, config.steps - config.discriminator.from_step + 1)
    theirs = player(discriminator, settings.discriminator_learning_rate, settings.discriminator_max_grad_norm, game_steps)
    done = 0
    if start:
        state = load_training_state(start)
        discriminator.load_state_dict(state["discriminator"])
        codec.quantiser.collected_ND = state["collected_ND"].to(accelerator.device)
        for side, name in ((ours, "codec"), (theirs, "discriminator")):
            side.optimizer.load_state_dict(state[f"{name}_optimizer"])
            side.schedule.load_state_dict(state[f"{name}_schedule"])
        torch.set_rng_state(state["torch_rng"])
        done = state["step"]

    writer = RunWriter(run_dir)
    writer.event(done, "resumed" if resume else "started")
    writer.facts(data_facts | _facts(config, codec, discriminator))

    def evaluate(step: int) -> None:
        codec.eval()
        scores = [_score(codec, mel_loss, torch.from_numpy(wave_N)[None].to(accelerator.device)) for wave_N in held_out]
        writer.step(step, {name: float(np.mean([score[name] for score in scores])) for name in scores[0]})
        codec.train()

    def demos(step: int) -> None:
        folder = writer.path / "demos" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        codec.eval()
        for index, wave_N in enumerate(held_out[: config.demo_clips]):
            wave_BN = torch.from_numpy(wave_N)[None].to(accelerator.device)
            decoded_BN = codec.decode(codec.encode(wave_BN))[:, : len(wave_N)]
            for kind, sound_BN in (("reference", wave_BN), ("demo", decoded_BN)):
                path = folder / f"clip_{index}_{kind}.wav"
                write_wave(path, sound_BN[0].cpu().numpy(), config.shape.sample_rate_hz)
                facts = {"clip": data_facts["held_out_names"][index]}
                writer.artifact(Artifact(kind, path.relative_to(writer.path).as_posix(), step, facts))
        codec.train()

    def save(step: int) -> None:
        state = {"step": step, "discriminator": discriminator.state_dict(), "torch_rng": torch.get_rng_state()}
        state["collected_ND"] = codec.quantiser.collected_ND
        for side, name in ((ours, "codec"), (theirs, "discriminator")):
            state |= {f"{name}_optimizer": side.optimizer.state_dict(), f"{name}_schedule": side.schedule.state_dict()}
        save_checkpoint(run_dir, step, codec.save_pretrained, state, {"config": asdict(config)})

    steps = gan_steps(
        ours,
        theirs,
        (batch.to(accelerator.device) for batch in random_windows(train, config, done)),
        mel_loss,
        asdict(config.loss_weights),
        accelerator,
        config.discriminator.from_step,
        round(config.discriminator.stretch_s * config.shape.sample_rate_hz),
        done + 1,
    )
    rows: list[dict[str, float]] = []
    with interruptible() as interrupted:
        before = time.perf_counter()
        for step in steps:
            rows.append({**step.signals, key("step_s"): time.perf_counter() - before})
            last = step.index >= config.steps or interrupted()
            saving = last or step.index % config.save_every_steps == 0
            if saving or step.index % config.log_every_steps == 0:  # saving: a resumed run averages over the same steps
                writer.step(step.index, {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[-1]})
                rows.clear()
            if codec.quantiser.ready and (last or step.index % config.evaluate_every_steps == 0):
                evaluate(step.index)
            if codec.quantiser.ready and config.demo_every_steps and (last or step.index % config.demo_every_steps == 0):
                demos(step.index)
            if saving:
                save(step.index)
            on_progress("train", step.index, config.steps, f"mel {step.signals[key('loss', 'mel')]:.3f}")
            if last:
                break
            before = time.perf_counter()
        writer.event(step.index, "interrupted" if interrupted() else "finished")
    writer.close()


def load_waves(config: CodecConfig) -> tuple[list[np.ndarray], list[np.ndarray], dict]:
    """Read all clips: training waves as int16 (115 MB an hour, kept in memory), held-out ones as float32, and the facts.

    Held-out clips are cut at ten seconds: their scores are means over clips, and a long one would take the time of many.
    """
    rate_hz = config.shape.sample_rate_hz
    sides = split_clips(load_clips(config.data.path, needed=()), config.data.held_out_frac, config.seed)
    skipped: list[ClipError] = []
    train, held_out = [list(read_clips(side, rate_hz, skipped)) for side in sides]
    facts = {
        "train_clips": len(train),
        "train_s": sum(len(wave_N) for _, wave_N in train) / rate_hz,
        "held_out_clips": len(held_out),
        "held_out_names": [clip.name for clip, _ in held_out],
        "left_out_clips": [str(error) for error in skipped],
    }
    quantise = lambda wave_N: np.rint(wave_N.clip(-1, 1) * 32767).astype(np.int16)  # noqa: E731
    return [quantise(wave_N) for _, wave_N in train], [wave_N[: 10 * rate_hz] for _, wave_N in held_out], facts


def random_windows(waves: Sequence[np.ndarray], config: CodecConfig, skip: int = 0) -> Iterator[Tensor]:
    """Yield wave_BN for each step, without end: windows at random places of clips drawn in proportion to their durations.

    A function of (seed, step): `skip` steps are left out without being drawn, as a resumed run needs.
    """
    window = round(config.data.window_s * config.shape.sample_rate_hz)
    share = np.array([len(wave_N) for wave_N in waves], dtype=np.float64)
    share /= share.sum()
    for step in range(skip, 2**62):
        random = np.random.default_rng([config.seed, step])
        wave_BN = np.zeros((config.data.clips_per_batch, window), dtype=np.float32)
        for row_N, clip in zip(wave_BN, random.choice(len(waves), config.data.clips_per_batch, p=share), strict=True):
            start = random.integers(max(len(waves[clip]) - window, 0) + 1)
            piece_N = waves[clip][start : start + window]
            row_N[: len(piece_N)] = piece_N / 32767
        yield torch.from_numpy(wave_BN)


@torch.no_grad()
def _score(codec: Amy, mel_loss: MultiScaleMelLoss, wave_BN: Tensor) -> dict[str, float]:
    result = codec(wave_BN)
    return {
        key("loss", "mel", "eval"): mel_loss(result.wave_BN, wave_BN)[0].item(),
        **{name: value for name, value in result.quantised.signals.items() if "/residual_frac/" in name},
    }


def _facts(config: CodecConfig, codec: Amy, discriminator: torch.nn.Module) -> dict:
    frames = config.data.clips_per_batch * math.ceil(config.data.window_s * codec.frame_rate_hz)
    return {
        "system": "amy",
        "config": asdict(config),
        "codebooks": codec.codebooks,
        "codebook_size": codec.codebook_size,
        "sample_rate_hz": codec.sample_rate_hz,
        "frame_rate_hz": codec.frame_rate_hz,
        "pretrained": False,
        "usage_window_frames": frames,
        "loss_weights": asdict(config.loss_weights),
        "max_grad_norm": config.optimizer.max_grad_norm,
        "warmup_steps": config.optimizer.warmup_steps,
        "schedule_steps": config.steps,
        "trainable_parameters": sum(p.numel() for p in codec.parameters()),
        "discriminator_parameters": sum(p.numel() for p in discriminator.parameters()),
        "versions": {package: version(package) for package in ("earnest", "torch", "accelerate")},
        "machine": f"{torch.get_num_threads()} threads",
    }

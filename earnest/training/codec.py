"""Training a codec from a configuration: clips, teachers and both players are put together, and the game is played."""

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from earnest.codecs.amy import Reconstruction
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.losses.balancer import Balancer
from earnest.losses.codec import CodecBatch, CodecObjective
from earnest.losses.distillation import statistics
from earnest.signals import key
from earnest.training.checkpoint import load_training_state
from earnest.training.codec_clips import batches, listen
from earnest.training.codec_config import CodecConfig
from earnest.training.codec_reporter import CodecReporter
from earnest.training.gan_steps import Player, gan_steps
from earnest.training.optim import warmup_cosine
from earnest.training.precision import resolve_precision
from earnest.training.session import OnProgress, interruptible, silent, starting_point


def train_codec(config: CodecConfig, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> None:
    """Train into `run_dir`; with `resume`, continue what stands there, bit-identically on a CPU.

    Ctrl-C ends the step under way, writes a checkpoint and returns. Raises UserError on anything a user can mend.
    """
    start = starting_point(config, run_dir, resume)
    set_seed(config.seed)
    accelerator = Accelerator(
        mixed_precision=resolve_precision(config.mixed_precision), cpu=not torch.cuda.is_available()
    )
    device = accelerator.device
    codec = config.load(start) if start else config.build()
    quantiser = codec.quantiser
    quantiser.init_frames = config.init_frames
    quantiser.dropout_frac, quantiser.bypass_frac = config.quantiser_dropout_frac, config.quantiser_bypass_frac
    train, held_out, data_facts = listen(config, codec, device, on_progress)
    of_teachers = {name: statistics(table.sample()) for name, table in train.features.items()}
    discriminator = MultiScaleSTFTDiscriminator(config.discriminator.window_samples, config.discriminator.channels)
    objective = CodecObjective(
        config.weights_at(1, list(of_teachers)), codec.sample_rate_hz, quantiser, of_teachers
    ).to(device)

    settings = config.optimizer
    ours = _player(
        accelerator,
        codec,
        settings.learning_rate,
        settings.max_grad_norm,
        settings.warmup_steps,
        config.steps,
        objective,
    )
    game_steps = max(1, config.steps - config.discriminator.from_step + 1)
    norm = settings.discriminator_max_grad_norm
    theirs = _player(
        accelerator, discriminator, settings.discriminator_learning_rate, norm, settings.warmup_steps, game_steps
    )
    balancer = Balancer() if config.balancer else None
    stateful = {"discriminator": discriminator, "objective": objective}
    for side, name in ((ours, "codec"), (theirs, "discriminator")):
        stateful |= {f"{name}_optimizer": side.optimizer, f"{name}_schedule": side.schedule}
    stateful |= {"balancer": balancer} if balancer else {}
    done = 0
    if start:
        state = load_training_state(start)
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        quantiser.collected_ND = state["collected_ND"].to(device)
        torch.set_rng_state(state["torch_rng"])
        done = state["step"]

    def losses(reconstruction: Reconstruction, batch: CodecBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        if quantiser.erasure is not None and batch.prosody_BT2 is not None:
            quantiser.erasure.learn(reconstruction.latent_BDT, batch.prosody_BT2)
        return objective(reconstruction, batch)

    reporter = CodecReporter(config, run_dir, codec, objective, train, held_out, data_facts)
    reporter.begin(discriminator, done, resume)
    steps = gan_steps(
        ours,
        theirs,
        batches(train, config, codec, device, done),
        losses,
        lambda step: config.weights_at(step, list(of_teachers)),
        accelerator,
        config.discriminator.from_step,
        round(config.discriminator.stretch_s * codec.sample_rate_hz),
        done + 1,
        balancer,
        config.monitor_every_steps,
    )
    with interruptible() as interrupted:
        before = time.perf_counter()
        for step in steps:
            reporter.watch(step.index, {**step.signals, key("step_s"): time.perf_counter() - before})
            last = step.index >= config.steps or interrupted()
            due = config.due(step.index, last, bool(quantiser.ready))
            state = {name: part.state_dict() for name, part in stateful.items()} if "checkpoint" in due else {}
            reporter.report(step.index, due, state | {"collected_ND": quantiser.collected_ND})
            on_progress("train", step.index, config.steps, f"loss {step.signals[key('loss')]:.3f}")
            if last:
                break
            before = time.perf_counter()
        reporter.end(step.index, "interrupted" if interrupted() else "finished")


def _player(
    accelerator: Accelerator,
    model: nn.Module,
    learning_rate: float,
    max_grad_norm: float,
    warmup_steps: int,
    steps: int,
    *others: nn.Module,
) -> Player:
    """A side of the game; its optimizer holds the parameters of `others` too."""
    parameters = [parameter for one in (model, *others) for parameter in one.parameters() if parameter.requires_grad]
    # betas: DAC's; a short memory of the gradient follows an opponent that moves
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    return Player(model, optimizer, warmup_cosine(optimizer, warmup_steps, steps), max_grad_norm)

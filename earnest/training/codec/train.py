"""Training a codec: a run is put together, and stepped."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from earnest.codecs.rounded import refuse_wrong_convolutions
from earnest.codecs.trainable import Reconstruction, Signals
from earnest.losses.codec import CodecBatch
from earnest.losses.distillation import statistics
from earnest.monitors.clock import Clock
from earnest.run import Step
from earnest.training.codec.assembly import AssembleCodec, CodecAssembly
from earnest.training.codec.clips import CodecClips, batches, read_and_teach
from earnest.training.codec.config import CodecConfig
from earnest.training.codec.gan_steps import Side, gan_steps
from earnest.training.codec.reporter import CodecReporter
from earnest.training.optim import warmup_cosine
from earnest.training.run import OnProgress, Outcome, Start, Training, finished, run, silent, started


def train_codec(
    assemble: AssembleCodec,
    config: CodecConfig,
    run_dir: Path,
    resume: bool = False,
    on_progress: OnProgress = silent,
    recipe: str = "",
) -> Outcome:
    """Train into `run_dir`; with `resume`, continue the run that is there, bit-identically on a CPU.

    Ctrl-C, SIGTERM and SIGHUP end the step under way; a checkpoint is written, and the outcome says so. Raises
    UserError on anything a user can mend.
    """
    if resume and (before := finished(config, run_dir)):
        return before
    with started(config, run_dir, resume, recipe) as start:
        assembly = assemble(config, start.checkpoint)
        if start.accelerator.mixed_precision == "bf16":
            refuse_wrong_convolutions(assembly.codec, start.accelerator.device)
        clips = read_and_teach(config, assembly, start.accelerator.device, on_progress)
        outcome = run(CodecTraining(config, assembly, clips, start), start, on_progress)
    return outcome


class CodecTraining(Training[CodecReporter]):
    """A codec's run, put together."""

    def __init__(self, config: CodecConfig, assembly: CodecAssembly, clips: CodecClips, start: Start):
        self.config, self.assembly, self.clips, self.start = config, assembly, clips, start
        self.last_step = config.steps
        self.codec, self.discriminator = assembly.codec, assembly.discriminator()
        self.objective = assembly.objective(
            {name: statistics(table.sample()) for name, table in clips.train.features.items()}
        ).to(start.accelerator.device)
        self.codec_side, self.discriminator_side = self._sides(start.accelerator)
        self.clock = Clock()
        self.monitors = [self.clock]
        self.reporter = CodecReporter(config, start.run_dir, assembly, self.discriminator, self.objective, clips)

    @property
    def every(self) -> Mapping[str, int]:
        """Codebooks that hold nothing yet are neither scored nor played."""
        config = self.config
        every = {"row": config.log_every_steps, "checkpoint": config.save_every_steps}
        if self.codec.quantiser.is_ready:
            every["evaluation"] = config.evaluate_every_steps
            every |= {"demos": config.demo_every_steps} if config.demo_every_steps else {}
        return every

    def begin(self) -> None:
        if self.reporter:
            self.reporter.begin(self.reporter.facts(), self.start.step, self.start.resumed)

    def steps(self) -> Iterator[Step]:
        config, start = self.config, self.start
        windows = batches(self.clips.train, config, self.codec, start.accelerator.device, start.step)
        for step in gan_steps(
            self.codec_side,
            self.discriminator_side,
            self.assembly.adversary,
            self.clock.timed(windows),
            self._losses,
            self.assembly.weights,
            start.accelerator,
            config.discriminator.from_step,
            round(config.discriminator.stretch_s * self.codec.sample_rate_hz),
            start.step + 1,
            self.assembly.balancer,
            config.monitor_every_steps,
        ):
            yield step
            self.codec.train()  # it may have been evaluated

    def _losses(self, reconstruction: Reconstruction, batch: CodecBatch) -> tuple[dict[str, Tensor], Signals]:
        if batch.pitch_and_level_BT2 is not None:
            self.codec.quantiser.learn(reconstruction.latent_BDT, batch.pitch_and_level_BT2)
        return self.objective(reconstruction, batch)

    def state(self) -> dict[str, Any]:
        state = {name: part.state_dict() for name, part in self._stateful().items()}
        return {**state, "quantiser": self.codec.quantiser.training_state()}

    def load(self, state: Mapping[str, Any]) -> None:
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.codec.quantiser.load_training_state(state["quantiser"])

    def _stateful(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"discriminator": self.discriminator, "objective": self.objective}
        for name, side in (("codec", self.codec_side), ("discriminator", self.discriminator_side)):
            parts |= {f"{name}_optimizer": side.optimizer, f"{name}_schedule": side.schedule}
        return parts | ({"balancer": self.assembly.balancer} if self.assembly.balancer else {})

    def _sides(self, accelerator: Accelerator) -> tuple[Side, Side]:
        """The codec, whose optimizer holds the objective's parameters too, and the discriminator."""
        config, settings = self.config, self.config.optimizer

        def side(modules: list[nn.Module], learning_rate: float, max_grad_norm: float, steps: int) -> Side:
            parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
            # betas: DAC's; a short memory of the gradient follows an opponent that moves
            optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)
            model, prepared = accelerator.prepare(modules[0].train(), optimizer)
            return Side(model, prepared, warmup_cosine(prepared, settings.warmup_steps, steps), max_grad_norm)

        discriminator_steps = max(1, config.steps - config.discriminator.from_step + 1)
        return (
            side([self.codec, self.objective], settings.learning_rate, settings.max_grad_norm, config.steps),
            side(
                [self.discriminator],
                settings.discriminator_learning_rate,
                settings.discriminator_max_grad_norm,
                discriminator_steps,
            ),
        )

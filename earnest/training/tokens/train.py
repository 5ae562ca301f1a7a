"""Training a language model: a run is put together, and stepped."""

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from earnest.codecs import Codec, load_codec
from earnest.data.ahead import ahead
from earnest.data.batch import Batch
from earnest.errors import UserError
from earnest.generate import check_guidance
from earnest.models.precision import train_in_float32
from earnest.monitors.clock import Clock
from earnest.monitors.draws import Targets
from earnest.monitors.gradients import Reached, Updates
from earnest.probes.parameters import Frozen, fingerprints, not_trained
from earnest.run import Step
from earnest.training.processes import is_lost, lost
from earnest.training.run import OnProgress, Outcome, Start, Training, finished, run, silent, started
from earnest.training.tokens.assembly import AssembleTokens, TokenAssembly
from earnest.training.tokens.config import TokenConfig
from earnest.training.tokens.learner import Learner, check_parallel
from earnest.training.tokens.lm_steps import lm_steps
from earnest.training.tokens.memory import out_of_memory
from earnest.training.tokens.preparation import Corpora, encode_share, prepare
from earnest.training.tokens.reporter import TokenReporter


def train_tokens(
    assemble: AssembleTokens,
    config: TokenConfig,
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
        check_parallel(start.accelerator, config)
        codec = load_codec(config.codec, start.accelerator.device)
        assembly = assemble(config, codec, start.checkpoint)
        train_in_float32(assembly.model)
        assembly.model.recompute_layers(config.recompute)
        check_guidance(config.demos.guidance, assembly.variation.unconditional_frac)
        if (ranks := start.accelerator.num_processes) > 1:
            encode_share(config, assembly, codec, start.accelerator.process_index, ranks, on_progress)
            start.accelerator.wait_for_everyone()  # from here on all find every clip encoded
        corpora = prepare(config, assembly, codec, on_progress)
        if assembly.before_training and not start.checkpoint:
            assembly.before_training(corpora.train)
        if not start.accelerator.is_fsdp2:  # accelerate brings each process its shards, and no whole model
            assembly.model.to(start.accelerator.device)
        assembly.model.compile_layers(config.compile)
        try:
            outcome = run(TokenTraining(config, assembly, codec, corpora, start), start, on_progress)
        except torch.OutOfMemoryError as error:
            raise UserError(*out_of_memory(config, error)) from error
        except RuntimeError as error:
            if ranks == 1 or not is_lost(error):
                raise
            raise UserError(*lost(run_dir, ranks, error)) from error
    return outcome


class TokenTraining(Training[TokenReporter]):
    """A language model's run, put together."""

    def __init__(self, config: TokenConfig, assembly: TokenAssembly, codec: Codec, corpora: Corpora, start: Start):
        self.config, self.corpora, self.start, self.weights = config, corpora, start, assembly.weights
        ranks = start.accelerator.num_processes
        steps_per_epoch = math.ceil(len(corpora.train.plan()) / (config.optimizer.accumulation_steps * ranks))
        self.last_step = config.steps or math.ceil(config.epochs * steps_per_epoch)
        self.facts = {"schedule_steps": self.last_step, "steps_per_epoch": steps_per_epoch, "ranks": ranks}
        model = assembly.model
        self.learner = learner = Learner(
            model, self.weights, config.optimizer, assembly.learning_rate, self.last_step, start.accelerator
        )
        self.reporter = None
        if start.accelerator.is_main_process:
            self.reporter = TokenReporter(
                config, start.run_dir, assembly, learner.evaluated, codec, corpora, start.accelerator.device
            )
        self.clock, self.targets = Clock(), Targets(model.codebooks, model.codes)
        self.monitors = [self.targets, self.clock, corpora.draws]

    @property
    def every(self) -> Mapping[str, int]:
        every = {"row": 1, "evaluation": self.config.evaluate_every_steps, "checkpoint": self.config.save_every_steps}
        return every | ({"demos": self.config.demos.every_steps} if self.config.demos.every_steps else {})

    def begin(self) -> None:
        """Before the first step: facts, and of a new run the probes and scores of a model that has learnt nothing."""
        learner = self.learner
        if self.reporter:
            self.reporter.begin(self.reporter.facts().updated(self.facts), self.start.step, self.start.resumed)
            if not self.start.checkpoint:
                self.reporter.at_start(learner.objective, learner.optimizer)
        self.frozen = Frozen(not_trained(learner.evaluated if learner.sharded else learner.model))
        learner.distribute()

    def steps(self) -> Iterator[Step]:
        learner, settings, accelerator = self.learner, self.config.optimizer, self.start.accelerator
        self._watch_weights()
        groups = self.corpora.train.groups(
            settings.accumulation_steps,
            self.config.seed,
            self.start.step,
            accelerator.process_index,
            accelerator.num_processes,
        )
        steps = lm_steps(
            learner.objective,
            self.clock.timed(self.targets.counted(self._ahead(groups))),
            learner.optimizer,
            learner.schedule,
            settings.max_grad_norm,
            accelerator,
            self.start.step + 1,
        )
        learner.model.train()  # a loaded model has no dropout
        for step in steps:
            learner.stepped()
            yield step
            learner.model.train()  # an evaluated model has no dropout

    def _ahead(self, groups: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """Beside an accelerator the processor makes the next batches, pinned; on a processor alone it would only wait
        for itself."""
        if self.start.accelerator.device.type == "cpu":
            return groups
        left = islice(groups, self.last_step - self.start.step)
        return ahead([batch.pinned() for batch in group] for group in left)

    def _watch_weights(self) -> None:
        """Of shards these monitors would show a part; and nothing reaches what only a stream without weight would
        train."""
        if not self.learner.sharded:
            self.monitors.append(Updates(self.learner.model.named_parameters()))
            if min(self.weights.values()) > 0:
                self.monitors.append(Reached(self.learner.model))

    def report(self, step: Step, due: Collection[str]) -> None:
        if set(due) - {"row", "probes"}:
            self.learner.gather()
        super().report(step, due)

    def at_end(self, step: int) -> None:
        self.learner.gather()
        whole = not self.learner.sharded
        of_ranks = gather_object([fingerprints(dict(self.learner.model.named_parameters()))]) if whole else []
        if self.reporter:
            self.reporter.at_end(self.frozen, of_ranks, step)

    def state(self) -> dict[str, Any]:
        return {**self.learner.state(), "seen": self.targets.counts_CV}

    def load(self, state: Mapping[str, Any]) -> None:
        self.learner.load(state)
        self.targets.counts_CV = state["seen"]

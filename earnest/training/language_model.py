"""Training a language model from a configuration: corpora, model and optimizer are put together, and the steps are
run."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, gather_object, set_seed

from earnest.codecs import load_codec
from earnest.errors import UserError
from earnest.generate import check_guidance
from earnest.losses.tokens import TokenObjective
from earnest.monitors.clock import Clock
from earnest.monitors.draws import Draws, Targets
from earnest.monitors.gradients import Reached, Updates
from earnest.probes.parameters import Frozen, prints
from earnest.probes.results import Results
from earnest.signals import key
from earnest.training.checkpoint import load_training_state
from earnest.training.config import LMConfig
from earnest.training.lm_steps import lm_steps
from earnest.training.optim import adamw, running_average, warmup_cosine
from earnest.training.precision import resolve_precision
from earnest.training.preparation import prepare
from earnest.training.reporter import Reporter
from earnest.training.session import OnProgress, interruptible, silent, starting_point
from earnest.training.sharding import gather_weights, load_optimizer_state, optimizer_state


def train_lm(config: LMConfig, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> None:
    """Train into `run_dir`; with `resume`, continue what stands there, bit-identically on a CPU.

    Ctrl-C ends the step under way, writes a checkpoint and returns. Raises UserError on anything a user can mend.
    """
    accelerator = Accelerator(
        mixed_precision=resolve_precision(config.mixed_precision),
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True)
        ],  # a batch in which nothing counts uses no head
    )
    _check_parallel(accelerator, config)
    _train(accelerator, config, run_dir, resume, on_progress)
    # The wrapper of data parallelism first, the group of processes after it: the other way round the wrapper's
    # destructor, which holds the interpreter, waits for a thread of the group that waits for the interpreter (seen with
    # torch 2.13 and gloo, one run in four).
    accelerator.free_memory()
    accelerator.end_training()


def _train(accelerator: Accelerator, config: LMConfig, run_dir: Path, resume: bool, on_progress: OnProgress) -> None:
    start = starting_point(config, run_dir, resume)
    accelerator.wait_for_everyone()  # before the first one writes there
    set_seed(config.seed)
    codec = load_codec(config.codec)
    check_guidance(config.demos.guidance, config.data.variation(codec.frame_rate_hz).unconditional_frac)
    model = config.load(start) if start else config.build(codec)
    with accelerator.main_process_first():  # the others find the clips encoded
        train, held_out, data_facts = prepare(config, model, codec, on_progress)
    if not start:
        config.begin(model, train)
    model.to(accelerator.device)
    draws = train.vary = Draws(train.vary)
    targets = Targets(model.codebooks, model.codes)
    clock = Clock()

    ranks = accelerator.num_processes
    steps_per_epoch = math.ceil(len(train.plan()) / (config.optimizer.accumulation_steps * ranks))
    steps = config.steps or math.ceil(config.epochs * steps_per_epoch)

    optimizer = adamw(model, config.optimizer.learning_rate, config.optimizer.weight_decay)
    schedule = warmup_cosine(optimizer, config.optimizer.warmup_steps, steps)
    weights = config.weights(model.codebooks)
    objective: Any = TokenObjective(model, weights)
    # What is evaluated, heard and saved as the model: its running average, a whole copy of its shards, or itself.
    average = running_average(model, config.optimizer.ema_decay) if config.optimizer.ema_decay else None
    sharded, first = accelerator.is_fsdp2, accelerator.is_main_process
    shown: Any = average.module if average else copy.deepcopy(model) if sharded and first else model
    state = load_training_state(start) if start else {}
    done = state.get("step", 0)
    if start and average:
        average.n_averaged.fill_(done)
        _take_trained(model, state)

    # The first process evaluates, writes and reports; the others wait for it at the next step's gradients.
    reporter = Reporter(config, run_dir, shown, codec, train, held_out, draws, data_facts) if first else None
    if reporter:
        reporter.begin({"schedule_steps": steps, "steps_per_epoch": steps_per_epoch, "ranks": ranks}, done, resume)
        if done == 0:
            reporter.at_start(objective, optimizer)
    frozen = Frozen(shown if sharded else model)
    objective, optimizer = accelerator.prepare(objective, optimizer)
    if start:
        load_optimizer_state(objective, optimizer, state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        targets.counts_CV = state["seen"]
        torch.set_rng_state(state["torch_rng"])
    # Of shards these would show a part; and nothing reaches what only a stream without weight would train.
    updates = None if sharded else Updates(model)
    reached = None if sharded or min(weights.values()) <= 0 else Reached(model)

    groups = train.groups(config.optimizer.accumulation_steps, config.seed, done, accelerator.process_index, ranks)
    model.train()  # a loaded model, and one that was evaluated, has no dropout
    with interruptible() as interrupted:
        watched = clock.watch(targets.watch(groups))
        for step in lm_steps(
            objective, watched, optimizer, schedule, config.optimizer.max_grad_norm, accelerator, done + 1
        ):
            times = clock.signals()
            if average:
                average.update_parameters(model)
            last = step.index >= steps or any(gather_object([interrupted()]))
            due = config.due(step.index, last)
            if sharded and due:
                gather_weights(objective, shown)
            if "checkpoint" in due:
                state = {
                    "optimizer": optimizer_state(objective, optimizer),
                    "schedule": schedule.state_dict(),
                    "seen": targets.counts_CV,
                }
                state |= (
                    {"trained": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}}
                    if average
                    else {}
                )
            of_ranks = gather_object([prints(dict(model.named_parameters()))]) if last and not sharded else []
            if reporter:
                reporter.writer.step(
                    step.index, {**step.signals, **targets.signals(), **times, **(updates.signals() if updates else {})}
                )
                reporter.report(step.index, due, state)
                if reached and (gradients := reached.watch(step.index)):
                    reporter.writer.probes(Results(gradients=gradients))
                if last:
                    reporter.at_end(frozen, of_ranks, step.index)
                on_progress("train", step.index, steps, f"loss {step.signals[key('loss')]:.3f}")
            model.train()
            if last:
                break
        if reporter:
            reporter.end(step.index, "interrupted" if interrupted() else "finished")


def _take_trained(model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """The weights that were trained, beside the average that the model was loaded with; what is frozen is the same in
    both."""
    stored, wanted = (
        state.get("trained", {}),
        {name for name, parameter in model.named_parameters() if parameter.requires_grad},
    )
    if stored.keys() != wanted:
        raise UserError(
            f"a checkpoint with {len(stored.keys() & wanted)} of {len(wanted)} trained tensors beside their average",
            "all of them, and no others",
            "continue with the version of earnest that wrote it, or start anew",
        )
    model.load_state_dict(stored, strict=False)


def _check_parallel(accelerator: Accelerator, config: LMConfig) -> None:
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (
        kind == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        raise UserError(
            f"accelerate set to {kind.value}",
            "one process, data parallel, or FSDP2",
            "accelerate launch --multi_gpu, or --use_fsdp --fsdp_version 2",
        )
    if accelerator.is_fsdp2 and config.optimizer.ema_decay:
        raise UserError(
            f"a running average of the weights (optimizer.ema_decay {config.optimizer.ema_decay:g}) of a model in shards",
            "one of the two",
            "--optimizer.ema-decay 0, or accelerate launch --multi_gpu",
        )

"""Training a language model from a configuration: data → codes → batches → steps → evaluation, demos, checkpoints."""

import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, gather_object, set_seed

from earnest import probes
from earnest.codecs import Codec, load_codec
from earnest.data.chatml import Conversation, load_conversations
from earnest.data.corpus import Corpus, Row
from earnest.data.folder import Clip, load_clips, split_clips
from earnest.data.music import music, music_name
from earnest.data.sources import embedded_name, espeak
from earnest.data.store import cache_dir, encode_clips
from earnest.errors import UserError
from earnest.generate import check_guidance
from earnest.losses.tokens import TokenObjective
from earnest.monitors.clock import Clock
from earnest.monitors.draws import Draws, Targets
from earnest.monitors.gradients import Reached, Updates
from earnest.signals import key
from earnest.training.checkpoint import load_training_state
from earnest.training.config import LMConfig
from earnest.training.lm_steps import lm_steps
from earnest.training.optim import adamw, running_average, warmup_cosine
from earnest.training.reporter import Reporter
from earnest.training.session import OnProgress, interruptible, silent, starting_point
from earnest.training.sharding import gather_weights, load_optimizer_state, optimizer_state

log = logging.getLogger(__name__)

EMBEDDED = {"espeak": (embedded_name, espeak), "music": (music_name, music)}
ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC = 20, 0.05  # assumed: below, one odd clip moves the mean


def train_lm(config: LMConfig, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> None:
    """Train into `run_dir`; with `resume`, continue what stands there, bit-identically on a CPU.

    Ctrl-C ends the step under way, writes a checkpoint and returns. Raises UserError on anything a user can mend.
    """
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # a batch in which nothing counts uses no head
    )
    _check_parallel(accelerator, config)
    _train(accelerator, config, run_dir, resume, on_progress)
    # The wrapper of data parallelism first, the group of processes after it: the other way round the wrapper's destructor, which holds the
    # interpreter, waits for a thread of the group that waits for the interpreter (seen with torch 2.13 and gloo, one run in four).
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
    sharded = accelerator.is_fsdp2
    shown = average.module if average else copy.deepcopy(model) if sharded else model
    state = load_training_state(start) if start else {}
    done = state.get("step", 0)
    if start and average:
        average.n_averaged.fill_(done)
        model.load_state_dict(state["weights"])

    # The first process evaluates, writes and reports; the others wait for it at the next step's gradients.
    first = accelerator.is_main_process
    reporter = Reporter(config, run_dir, shown, codec, train, held_out, draws, data_facts) if first else None
    if reporter:
        reporter.begin({"schedule_steps": steps, "steps_per_epoch": steps_per_epoch, "ranks": ranks}, done, resume)
        if done == 0:
            reporter.at_start(objective, optimizer)
    frozen = probes.Frozen(shown if sharded else model)
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
        for step in lm_steps(objective, watched, optimizer, schedule, config.optimizer.max_grad_norm, accelerator, done + 1):
            times = clock.signals()
            if average:
                average.update_parameters(model)
            last = step.index >= steps or any(gather_object([interrupted()]))
            due = config.due(step.index, last)
            if sharded and due:
                gather_weights(objective, shown)
            state = {"step": step.index, "schedule": schedule.state_dict(), "torch_rng": torch.get_rng_state(), "seen": targets.counts_CV}
            if "checkpoint" in due:
                state["optimizer"] = optimizer_state(objective, optimizer)
            if average:
                state["weights"] = model.state_dict()
            of_ranks = gather_object([probes.prints(dict(model.named_parameters()))]) if last and not sharded else []
            if reporter:
                reporter.writer.step(step.index, {**step.signals, **targets.signals(), **times, **(updates.signals() if updates else {})})
                reporter.report(step.index, due, state)
                if reached and (gradients := reached.watch(step.index)):
                    reporter.writer.probe("gradients", gradients)
                if last:
                    reporter.at_end(frozen, of_ranks, step.index)
                on_progress("train", step.index, steps, f"loss {step.signals[key('loss')]:.3f}")
            model.train()
            if last:
                break
        if reporter:
            reporter.end(step.index, "interrupted" if interrupted() else "finished")


def prepare(config: LMConfig, model, codec: Codec, on_progress: OnProgress = silent) -> tuple[Corpus, Corpus, dict[str, Any]]:
    """Read, split and encode the data; returns the training and held-out corpora, and the facts about them."""
    _check_codec(model, codec)
    vary = config.data.variation(codec.frame_rate_hz)
    found = find_clips(config.data.path, vary.described_by)
    if isinstance(found[0], Conversation) and model.system != "higgs":
        raise UserError(f"conversations in {config.data.path} for a {model.system} model", "a folder of clips", "take a higgs recipe")
    sides = split_clips(found, config.data.held_out_frac, config.seed, "speaker" if config.data.held_out == "speakers" else "name")
    corpora, left_out, unreadable = [], [], 0
    lay_out = config.data.limited(model, codec.frame_rate_hz)
    for side in sides:
        rows, skipped = encoded(side, codec, on_progress)
        left_out += skipped
        unreadable += len(skipped)
        varied = config.variation(rows, model, codec.frame_rate_hz)
        corpora.append(Corpus(rows, lay_out, model.pad_id, config.data.positions_per_batch, varied, config.data.too_long))
        left_out += corpora[-1].left_out
    train, held_out = corpora
    if not (len(train) and len(held_out)):
        raise UserError(
            f"no clip left to {'evaluate' if len(train) else 'train'} on: {'; '.join(left_out[:3])}",
            "at least one that fits, on either side",
            "shorten the clips, raise data.max_duration_s or the model's context, or set data.too_long to cut",
        )
    _check_windows(vary.window_frames, train)
    clips = len(train) + len(held_out)
    if len(held_out) < max(ENOUGH_HELD_OUT, ENOUGH_HELD_OUT_FRAC * clips):
        log.warning(
            "%d of %d clips are held out; with fewer than %d, or than %.0f %%, the held-out cross-entropy is rough, and its interval says "
            "how rough. Add clips to validation/, or raise data.held_out_frac",
            *(len(held_out), clips, ENOUGH_HELD_OUT, 100 * ENOUGH_HELD_OUT_FRAC),
        )
    return (
        train,
        held_out,
        {
            "train_clips": len(train),
            "held_out_clips": len(held_out),
            "left_out_clips": left_out,
            "cut_clips": sum(corpus.cut for corpus in corpora),
            "skipped_clips": unreadable,
            "speakers": sorted({row["speaker"] for row in train.rows}),
            "held_out_speakers": sorted({row["speaker"] for row in held_out.rows}),
        },
    )


def _check_windows(window_frames: int | None, train: Corpus) -> None:
    longest = max((row["codes_CT"].shape[-1] for row in train.rows), default=0)
    if window_frames and longest and window_frames > longest:
        raise UserError(
            f"windows of {window_frames} frames, and no clip longer than {longest}",
            "windows shorter than the longest clip: every epoch would show the same frames",
            "lower data.window_s, or leave it out to train on whole clips",
        )


def encoded(found: Sequence[Clip | Conversation], codec: Codec, on_progress: OnProgress = silent) -> tuple[Sequence[Row], list[str]]:
    """Rows with the codes of their audio, and a line for each clip that was skipped; a conversation that lacks one is left out."""
    clips = list(dict.fromkeys(clip for one in found for clip in (one.clips if isinstance(one, Conversation) else [one])))
    table, skipped = encode_clips(clips, codec, cache_dir() / "codes", lambda done, total: on_progress("encode", done, total, "clips"))
    codes = {Path(row["source"]): row["codes_CT"] for row in table}
    talks = [one for one in found if isinstance(one, Conversation)]
    return [one.row(codes) for one in talks if all(clip.path in codes for clip in one.clips)] if talks else table, skipped


def find_clips(path: str, needed: Sequence[str] = ("text",)) -> list[Clip] | list[Conversation]:
    """The clips of a folder or Hub dataset, or of a corpus that installs with pip, which is made on first use; or conversations."""
    if path.endswith((".json", ".jsonl")):
        return load_conversations(path)
    if path not in EMBEDDED:
        return load_clips(path, needed)
    name, make = EMBEDDED[path]
    folder = cache_dir() / name()
    if not folder.exists():
        make(folder)
    return load_clips(folder, needed)


def _check_parallel(accelerator: Accelerator, config: LMConfig) -> None:
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
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


def _check_codec(model, codec: Codec) -> None:
    if (codec.codebooks, codec.codebook_size) != (model.codebooks, model.codes):
        raise UserError(
            f"codec {codec.name} with {codec.codebooks} codebooks of {codec.codebook_size}",
            f"{model.codebooks} codebooks of {model.codes}, as the model has",
            "take the codec that the model was made for",
        )

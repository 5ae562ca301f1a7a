"""What watching costs: the same training with and without it, in two processes that take their steps in turns, so that
a busy machine slows both.

``python -m benchmarks.watch_overhead [--only plain] [--parameters 50] [--steps 100]``: a Llama of so many million
parameters on the CPU, in a plain loop, transformers' Trainer, Lightning and Accelerate. Printed: what watching adds to
the CPU time of a step at the default interval (with its rows and its looks at the run), with a 95 % interval; what its
probes add at the start (the traced first step, and rows at each of the first 20); and the memory that it takes.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import earnest

VOCAB, POSITIONS, CLIPS = 8192, 128, 4
EARLY, INTERVAL = 20, 10  # steps that are all looked at, and the default between two rows
Batch = dict[str, torch.Tensor]


def model_of(millions: float) -> LlamaForCausalLM:
    torch.manual_seed(0)
    width = 512
    layers = max(1, round((millions * 1e6 - 2 * VOCAB * width) / (12 * width * width)))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=width, intermediate_size=4 * width * 2 // 3, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=8, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def rows(steps: int) -> list[Batch]:
    ids = torch.randint(3, VOCAB, (steps * CLIPS, POSITIONS))
    return [{"input_ids": one, "labels": one.clone()} for one in ids]


class Turns:
    """A process waits for its turn, takes a step, and tells how many seconds of CPU it took."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def begin(self) -> None:
        self.connection.recv()
        self.began_s = time.process_time()

    def end(self) -> None:
        """A step is over."""
        self.connection.send(time.process_time() - self.began_s)
        self.begin()


def plain(model: LlamaForCausalLM, steps: int, watched: bool, out: Path, turns: Turns) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    with earnest.watch(model, optimizer, out) if watched else contextlib.nullcontext():
        for batch in DataLoader(rows(steps), CLIPS):  # pyright: ignore[reportArgumentType]
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            turns.end()


def trainer(model: LlamaForCausalLM, steps: int, watched: bool, out: Path, turns: Turns) -> None:
    class AtEnd(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turns.end()

    args = TrainingArguments(
        str(out), use_cpu=True, report_to=[], per_device_train_batch_size=CLIPS, max_steps=steps, logging_steps=10,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    callbacks: list[TrainerCallback] = [*([earnest.TrainerCallback(out / "earnest")] if watched else []), AtEnd()]
    Trainer(model, args, train_dataset=rows(steps), callbacks=callbacks).train()  # pyright: ignore[reportArgumentType]


def lightning(model: LlamaForCausalLM, steps: int, watched: bool, out: Path, turns: Turns) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lm = model

        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            return self.lm(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 1e-4)

    class AtEnd(pl.Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            turns.end()

    callbacks: list[Any] = [*([earnest.LightningCallback(out / "earnest")] if watched else []), AtEnd()]
    pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, default_root_dir=out,
    ).fit(Module(), DataLoader(rows(steps), CLIPS))  # fmt: skip # pyright: ignore[reportArgumentType]


def accelerate(model: LlamaForCausalLM, steps: int, watched: bool, out: Path, turns: Turns) -> None:
    from accelerate import Accelerator

    trackers: list[Any] = [earnest.AccelerateTracker(out)] if watched else []
    accelerator = Accelerator(cpu=True, log_with=trackers)
    accelerator.init_trackers("run")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    loader: Any = DataLoader(rows(steps), CLIPS)  # pyright: ignore[reportArgumentType]
    prepared: Any = accelerator.prepare(model, optimizer, loader)
    model, optimizer, loader = prepared
    for batch in loader:
        accelerator.backward(model(**batch).loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.end()
    accelerator.end_training()


LOOPS: dict[str, Callable[..., None]] = {
    "plain": plain,
    "trainer": trainer,
    "lightning": lightning,
    "accelerate": accelerate,
}


def train(name: str, millions: float, steps: int, watched: bool, folder: str, connection: Connection) -> None:
    """A process of its own. Its last words: the most memory it held, what it holds now, and how long the end took."""
    os.chdir(folder)
    sys.stderr = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        model, turns = model_of(millions).train(), Turns(connection)
        turns.begin()
        LOOPS[name](model, steps, watched, Path(folder) / "run", turns)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send((peak, psutil.Process().memory_info().rss, time.process_time() - turns.began_s))


def compare(name: str, millions: float, steps: int) -> None:
    """Print what watching adds to one kind of loop."""
    context = multiprocessing.get_context("spawn")
    times: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        doors: dict[bool, Connection] = {}
        for watched in (False, True):
            own = Path(folder) / str(watched)
            own.mkdir()
            doors[watched], theirs = context.Pipe()
            context.Process(target=train, args=(name, millions, steps, watched, str(own), theirs), daemon=True).start()
        for step in range(steps):
            for watched in (False, True) if step % 2 else (True, False):
                doors[watched].send(None)
                times[watched].append(doors[watched].recv())
        ends: dict[bool, tuple[int, int, float]] = {}
        for watched, door in doors.items():
            door.send(None)
            ends[watched] = door.recv()
    intervals = range(EARLY, steps - INTERVAL + 1, INTERVAL)
    added = [sum(times[True][i : i + INTERVAL]) / sum(times[False][i : i + INTERVAL]) - 1 for i in intervals]
    alone_s = statistics.mean(times[False][EARLY:])
    wide = 1.96 * statistics.stdev(added) / len(added) ** 0.5
    start_s = sum(times[True][:EARLY]) - sum(times[False][:EARLY])
    per_run = (start_s + statistics.mean(added) * alone_s * 1000) / (1000 * alone_s)
    peak, held = (ends[True][which] - ends[False][which] for which in (0, 1))
    print(
        f"{name}: a step {alone_s:.3f} s, watched {statistics.mean(added):+.1%} ± {wide:.1%}; "
        f"the probes of the first {EARLY} steps {start_s:.1f} s ({start_s / alone_s:.1f} steps), "
        f"so a run of 1000 steps {per_run:+.1%}; the end {ends[True][2] - ends[False][2]:+.1f} s; "
        f"memory {held / 1e6:+.0f} MB, at its peak {peak / 1e6:+.0f} MB of {ends[False][0] / 1e6:.0f} MB",
        flush=True,
    )


def main(parameters: float = 50, steps: int = 100, only: str = "") -> None:
    """parameters: in millions. only: one kind of loop."""
    count = sum(p.numel() for p in model_of(parameters).parameters()) / 1e6
    print(f"{count:.0f} M parameters, {CLIPS * POSITIONS} tokens a step, {steps} steps", flush=True)
    for name in LOOPS:
        if only in ("", name):
            compare(name, parameters, steps)


if __name__ == "__main__":
    tyro.cli(main)

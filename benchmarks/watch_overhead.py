"""What watching costs, told in two ways.

``python -m benchmarks.watch_overhead [--only plain] [--parameters 50] [--steps 100] [--no-twin]``: a Llama of so many
million parameters on the CPU, in a plain loop, transformers' Trainer, Lightning and Accelerate.

- By accounts: the CPU time that the training's thread spends within the functions by which watching is entered
  (`ENTRIES`), beside that of the whole step. Both are of one step, so that a busy machine slows both alike.
- By a twin: the same training without watching, in a process of its own; the two take their steps in turns. This
  includes what no account holds (caches that are colder, wrappers around torch's functions), with all the machine's
  noise. It tells the memory too.

Printed: the share of a step at the default interval, after the first 20 steps (rows, and looks at the run, included),
with a 95 % interval over stretches of 10 steps; and what the first 20 take (the traced first step, a row for each).
"""

import contextlib
import functools
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
from earnest.loops.discover import Discovery
from earnest.loops.seen import Seen
from earnest.monitors.sides import Sides

VOCAB, POSITIONS, CLIPS = 8192, 128, 4
EARLY, INTERVAL = 20, 10  # steps that are all looked at, and the default between two rows
Batch = dict[str, torch.Tensor]
ENTRIES: dict[type, tuple[str, ...]] = {
    Seen: ("called", "scored", "before_backward", "after_backward", "scaled", "clipped", "before_step", "after_step"),
    Sides: ("_called",),
    Discovery: ("_before_step", "_root"),
    earnest.TrainerCallback: ("on_step_end",),
    earnest.LightningCallback: ("on_train_batch_end",),
    earnest.AccelerateTracker: ("log",),
}


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


class Accounts:
    """Seconds of CPU that the training's thread has spent within `ENTRIES`, each counted once however they nest."""

    def __init__(self) -> None:
        self.spent_s, self.depth = 0.0, 0
        for owner, names in ENTRIES.items():
            for name in names:
                setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.depth += 1
            began_s = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.spent_s += time.thread_time() - began_s

        return counted


class Turns:
    """A process waits for its turn, takes a step, and tells how many seconds of CPU it took, and watching of these."""

    def __init__(self, connection: Connection):
        self.connection, self.accounts = connection, Accounts()

    def begin(self) -> None:
        self.connection.recv()
        self.began_s, self.spent_s = time.process_time(), self.accounts.spent_s

    def end(self) -> None:
        """A step is over."""
        self.connection.send((time.process_time() - self.began_s, self.accounts.spent_s - self.spent_s))
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
    terminal, sys.stderr = sys.stderr, io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model, turns = model_of(millions).train(), Turns(connection)
            turns.begin()
            LOOPS[name](model, steps, watched, Path(folder) / "run", turns)
    except BaseException:
        print(sys.stderr.getvalue(), file=terminal)
        raise
    finally:
        sys.stderr = terminal
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send((peak, psutil.Process().memory_info().rss, time.process_time() - turns.began_s))


def compare(name: str, millions: float, steps: int, twin: bool) -> None:
    """Print what watching adds to one kind of loop."""
    context = multiprocessing.get_context("spawn")
    sides = (False, True) if twin else (True,)
    times: dict[bool, list[float]] = {False: [], True: []}
    ours: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        doors: dict[bool, Connection] = {}
        for watched in sides:
            own = Path(folder) / str(watched)
            own.mkdir()
            doors[watched], theirs = context.Pipe()
            context.Process(target=train, args=(name, millions, steps, watched, str(own), theirs), daemon=True).start()
            theirs.close()  # so that a process that dies is noticed
        for step in range(steps):
            for watched in sides if step % 2 else sides[::-1]:
                doors[watched].send(None)
                took_s, spent_s = doors[watched].recv()
                times[watched].append(took_s)
                ours += [spent_s] if watched else []
        ends: dict[bool, tuple[int, int, float]] = {}
        for watched, door in doors.items():
            door.send(None)
            ends[watched] = door.recv()
    alone_s = statistics.median(took - spent for took, spent in zip(times[True][EARLY:], ours[EARLY:], strict=True))
    start = sum(ours[:EARLY]) / alone_s  # in steps
    per_run = (start + (1000 - EARLY) * statistics.mean(ours[EARLY:]) / alone_s) / 1000
    print(
        f"{name}: a step {alone_s:.3f} s; by accounts {interval([spent / alone_s for spent in ours])}; "
        f"the first {EARLY} steps {sum(ours[:EARLY]):.1f} s ({start:.1f} steps), a run of 1000 steps {per_run:+.2%}; "
        f"the end {ends[True][2]:.1f} s",
        flush=True,
    )
    if twin:
        added = [watched / plain - 1 for watched, plain in zip(times[True], times[False], strict=True)]
        start_s = sum(times[True][:EARLY]) - sum(times[False][:EARLY])
        peak, held = (ends[True][which] - ends[False][which] for which in (0, 1))
        print(
            f"{name}: by a twin {interval(added)}; the first {EARLY} steps {start_s:.1f} s; "
            f"memory {held / 1e6:+.0f} MB, at its peak {peak / 1e6:+.0f} MB of {ends[False][0] / 1e6:.0f} MB",
            flush=True,
        )


def interval(added: list[float]) -> str:
    """The mean of what is added to a step after the first ones, with a 95 % interval over stretches."""
    stretches = [statistics.mean(added[i : i + INTERVAL]) for i in range(EARLY, len(added) - INTERVAL + 1, INTERVAL)]
    wide = 1.96 * statistics.stdev(stretches) / len(stretches) ** 0.5
    return f"{statistics.mean(stretches):+.2%} ± {wide:.2%}"


def main(parameters: float = 50, steps: int = 100, only: str = "", twin: bool = True) -> None:
    """parameters: in millions. only: one kind of loop. steps: 40 at least, of which an interval can be told."""
    steps = max(steps, EARLY + 2 * INTERVAL)
    count = sum(p.numel() for p in model_of(parameters).parameters()) / 1e6
    print(f"{count:.0f} M parameters, {CLIPS * POSITIONS} tokens a step, {steps} steps", flush=True)
    for name in LOOPS:
        if only in ("", name):
            compare(name, parameters, steps, twin)


if __name__ == "__main__":
    tyro.cli(main)

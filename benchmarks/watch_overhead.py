"""What watching costs: the same training with and without it, step by step in turns, in one process.

``python -m benchmarks.watch_overhead [--parameters 50] [--steps 60]``: a Llama of so many million parameters on the
CPU, by integration; prints the share of time that watching adds in the median step and in the mean one (with rows and
looks), and the memory that it holds.
"""

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import earnest

VOCAB, POSITIONS = 8192, 128


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


def count(model: torch.nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def batch_of(clips: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCAB, (clips, POSITIONS))
    return {"input_ids": ids, "labels": ids.clone()}


def plain(millions: float, clips: int, steps: int, watched: bool, out: Path, skip: int) -> list[float]:
    """Seconds of CPU of every step after the first `skip`."""
    model, times = model_of(millions).train(), list[float]()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    with earnest.watch(model, optimizer, out) if watched else contextlib.nullcontext():
        for step in range(steps):
            began_s = time.process_time()
            model(**batch_of(clips)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step >= skip:
                times.append(time.process_time() - began_s)
    return times


class Timer(TrainerCallback):
    """Seconds of CPU between the ends of two steps."""

    def __init__(self) -> None:
        self.last_s, self.times = time.process_time(), list[float]()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        now_s = time.process_time()
        self.times.append(now_s - self.last_s)
        self.last_s = now_s


def trainer(millions: float, clips: int, steps: int, watched: bool, out: Path, skip: int) -> list[float]:
    rows = [{name: value[0] for name, value in batch_of(1).items()} for _ in range(64)]
    timer = Timer()
    args = TrainingArguments(
        str(out), use_cpu=True, report_to=[], per_device_train_batch_size=clips, max_steps=steps, logging_steps=10,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    callbacks: list[TrainerCallback] = [timer, *([earnest.TrainerCallback(out / "earnest")] if watched else [])]
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(model_of(millions), args, train_dataset=rows, callbacks=callbacks).train()  # pyright: ignore[reportArgumentType]
    return timer.times[skip:]


def main(parameters: float = 50, clips: int = 4, steps: int = 60, skip: int = 20, rounds: int = 2) -> None:
    """parameters: in millions. skip: the first steps, all of which are looked at, are left out."""
    print(f"{count(model_of(parameters)):.0f} M parameters, {clips * POSITIONS} tokens a step")
    for name, run in (("plain loop", plain), ("transformers Trainer", trainer)):
        times: dict[bool, list[float]] = {False: [], True: []}
        memory: dict[bool, int] = {}
        for _ in range(rounds):
            for watched in (False, True):
                with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
                    times[watched] += run(parameters, clips, steps, watched, Path(folder) / "run", skip)
                memory[watched] = psutil.Process().memory_info().rss
        median = {watched: statistics.median(values) for watched, values in times.items()}
        mean = {watched: statistics.mean(values) for watched, values in times.items()}
        print(
            f"{name}: median step {median[False]:.3f} s, watched {median[True] / median[False] - 1:+.1%}; "
            f"mean {mean[True] / mean[False] - 1:+.1%}; resident memory {(memory[True] - memory[False]) / 1e6:+.0f} MB"
        )


if __name__ == "__main__":
    tyro.cli(main)

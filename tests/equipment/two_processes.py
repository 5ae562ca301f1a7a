"""Run by torchrun: trainings of several processes under watch, one after the other, whose labels are not shifted
(those of the first are). Each process prints what it knows of each: kind, findings, what broke, steps, and what is not
looked at."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import TrainingArguments

import earnest
from tests.equipment.loops import CLASSES, PAD, Unshifted, clips, collate, unshifted
from tests.trainers.case import llama

STEPS = 12
Told = tuple[Any, int]  # a watch or a callback, and the steps that were made


class Waits(nn.Module):
    """A model whose forward pass waits for the other processes."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = llama(CLASSES, pad_token_id=PAD)

    def forward(self, **batch: Tensor) -> Any:
        output = self.lm(**batch)
        dist.all_reduce(output.logits.detach().sum())
        return output


def in_parts() -> nn.Module:
    model = llama(CLASSES, pad_token_id=PAD)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def batches() -> Iterator[dict[str, Tensor]]:
    torch.manual_seed(dist.get_rank())
    return iter(DataLoader(clips(4 * STEPS), 4, shuffle=True, collate_fn=collate))  # pyright: ignore[reportArgumentType]


def plain(model: nn.Module, out: Path, wrong: bool = True) -> Told:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with earnest.watch(model, optimizer, out) as watch:
        for batch in batches():
            (unshifted(model, batch) if wrong else model(**batch).loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return watch, STEPS


def transformers(out: Path) -> Told:
    callback = earnest.TrainerCallback(out, stop_on="critical")
    args = TrainingArguments(
        str(out.with_name("trainer")), use_cpu=True, report_to=[], per_device_train_batch_size=4, max_steps=STEPS,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows: Any = [{"input_ids": one} for one in clips()]
    trainer = Unshifted(
        llama(CLASSES, pad_token_id=PAD), args, train_dataset=rows, data_collator=collate, callbacks=[callback]
    )
    trainer.train()
    return callback, trainer.state.global_step


def lightning(out: Path) -> Told:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lm = llama(CLASSES, pad_token_id=PAD)

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            return unshifted(self.lm, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 1e-3)

    callback: Any = earnest.LightningCallback(out, stop_on="critical")
    trainer = pl.Trainer(
        max_steps=STEPS, max_epochs=-1, accelerator="cpu", devices=2, strategy="ddp", callbacks=[callback],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(clips(), 4, collate_fn=collate))  # pyright: ignore[reportArgumentType]
    return callback, trainer.global_step


def accelerate(out: Path) -> Told:
    tracker = earnest.AccelerateTracker(out)
    accelerator = Accelerator(cpu=True, log_with=[tracker])
    accelerator.init_trackers("run")
    model: Any = llama(CLASSES, pad_token_id=PAD)
    loader: Any = DataLoader(clips(8 * STEPS), 4, collate_fn=collate)  # pyright: ignore[reportArgumentType]
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3), loader)
    for batch in loader:
        accelerator.backward(unshifted(model, batch))
        optimizer.step()
        optimizer.zero_grad()
    accelerator.end_training()
    return tracker, STEPS


def tiny() -> nn.Module:
    return llama(CLASSES, pad_token_id=PAD)


KINDS: dict[str, Callable[[Path], Told]] = {
    "right": lambda out: plain(DistributedDataParallel(tiny()), out, wrong=False),
    "DDP": lambda out: plain(DistributedDataParallel(tiny()), out),
    "waits": lambda out: plain(DistributedDataParallel(Waits()), out),
    "FSDP": lambda out: plain(in_parts(), out),
    "FSDP 1": lambda out: plain(
        FullyShardedDataParallel(tiny(), device_id=torch.device("cpu"), use_orig_params=True), out
    ),
    "Trainer": transformers,
    "Lightning": lightning,
    "Accelerate": accelerate,  # the last one: its end is that of the group of processes
}


def main(out: Path) -> None:
    dist.init_process_group("gloo")
    for kind, train in KINDS.items():
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            told, steps = train(out / kind)
        watch = told if hasattr(told, "guard") else told.watch
        broken = dict(watch.guard.broken) if watch is not None else {}
        lines = [line for line in said.getvalue().splitlines() if "is not looked at" in line]
        print(json.dumps([kind, [one.rule for one in told.findings], broken, steps, lines]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

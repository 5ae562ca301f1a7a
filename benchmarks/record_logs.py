"""Record real logs: small runs of the field's own trainers and loggers, healthy and with one planted fault each.

    python -m benchmarks.record_logs OUT [NAME ...]
    python -m benchmarks.record_logs --tensorboard-says OUT

needs torch, transformers, accelerate, lightning, tensorboard, wandb, trackio and mlflow, and no network. What it wrote
once is kept in tests/logs with a human reading of each (tests/logs/READINGS.md). A fault is planted in data, model or
optimiser, never in a log. The task: predict the next of 64 codes of a Markov chain (its own entropy about 2.1 nats,
chance ln 64 = 4.159).
"""

import csv
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "TRACKIO_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
V, LENGTH, WIDTH = 64, 48, 64
RECORDINGS: dict[str, Callable[[Path], None]] = {}


def recording(run: Callable[[Path], None]) -> Callable[[Path], None]:
    """Makes a function one of the recordings, by its name."""
    RECORDINGS[run.__name__] = run
    return run


def codes(clips: int, seed: int) -> torch.Tensor:
    """Clips of a Markov chain whose table is the same for every seed."""
    generator = torch.Generator().manual_seed(0)
    table = torch.softmax(2.2 * torch.randn(V, V, generator=generator), -1)
    generator.manual_seed(seed)
    clip = torch.randint(V, (clips, 1), generator=generator)
    for _ in range(LENGTH - 1):
        clip = torch.cat([clip, torch.multinomial(table[clip[:, -1]], 1, generator=generator)], 1)
    return clip


class Small(torch.nn.Module):
    """Embedding, GRU, head."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embed = torch.nn.Embedding(V, WIDTH)
        self.body = torch.nn.GRU(WIDTH, 2 * WIDTH, batch_first=True)
        self.drop = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(2 * WIDTH, V)

    def loss(self, clip: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.drop(self.body(self.embed(clip[:, :-1]))[0]))
        return F.cross_entropy(logits.reshape(-1, V), clip[:, 1:].reshape(-1))


def batches(clips: torch.Tensor, size: int, steps: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield clips[torch.randint(len(clips), (size,), generator=generator)]


def small_steps(steps=300, lr=3e-3, clips=512, seed=0, frozen=False, schedule=None, sabotage=None):
    """Yield (step, signals) of a plain training loop; evaluates every 50 steps."""
    torch.manual_seed(seed)
    model, train, held_out = Small(), codes(clips, 1), codes(64, 2)
    if frozen:
        model.requires_grad_(False)
        model.embed.weight.requires_grad_(True)  # the optimiser would not start with nothing at all
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0 if frozen else lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: min(1.0, (step + 1) / 20)))
    for step, clip in enumerate(batches(train, 16, steps), 1):
        loss = model.loss(clip)
        if sabotage:
            loss = sabotage(step, loss)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        signals = {"train/loss": loss.item(), "train/grad_norm": norm.item(), "train/lr": scheduler.get_last_lr()[0]}
        scheduler.step()
        if step % 50 == 0:
            with torch.no_grad():
                signals["eval/loss"] = model.loss(held_out).item()
        yield step, signals


def root_of_zero(step, loss):
    """sqrt at 0: a finite loss whose gradient is infinity times 0, once; everything after is NaN."""
    return loss + torch.sqrt(loss - loss) if step == 200 else loss


# --- transformers.Trainer: trainer_state.json, TensorBoard, what it prints ------------------------


def _hf(out: Path, lr=3e-3, steps=300, clips=512, labels="right", resume=False, eval_steps=50):
    import transformers

    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )

    class Unshifted(transformers.GPT2LMHeadModel):
        def forward(self, input_ids=None, labels=None, **_):
            logits = super().forward(input_ids=input_ids).logits
            assert logits is not None and labels is not None
            return {"loss": F.cross_entropy(logits.reshape(-1, V), labels.reshape(-1)), "logits": logits}

    model = (Unshifted if labels == "unshifted" else transformers.GPT2LMHeadModel)(config)

    def rows(clips, seed) -> Any:  # a list is a Dataset to transformers, but not to its types
        return [
            {"input_ids": clip, "labels": torch.full_like(clip, -100) if labels == "masked" else clip}
            for clip in codes(clips, seed)
        ]

    def arguments(steps):
        return transformers.TrainingArguments(
            str(out / "hf"),
            max_steps=steps,
            learning_rate=lr,
            per_device_train_batch_size=16,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=eval_steps,
            save_steps=150 if resume else 10_000,
            warmup_steps=20,
            report_to=["tensorboard"],
            use_cpu=True,
            disable_tqdm=False,
            seed=0,
        )

    def trainer(steps) -> Any:
        return transformers.Trainer(model, arguments(steps), train_dataset=rows(clips, 1), eval_dataset=rows(64, 2))

    if resume:
        stopped = trainer(steps)
        stopped.add_callback(_stop_at(180))
        stopped.train()
        trainer(steps).train(resume_from_checkpoint=True)
        newest = max((out / "hf").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        shutil.copy(newest / "trainer_state.json", out / "hf")
    else:
        run = trainer(steps)
        run.train()
        run.save_state()
        run.model.config.save_pretrained(out / "hf")
    for checkpoint in (out / "hf").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _stop_at(step):
    import transformers

    class StopAt(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step >= step

    return StopAt()


@recording
def hf_healthy(out: Path) -> None:
    _hf(out)


@recording
def hf_learning_rate_x100(out: Path) -> None:
    _hf(out, lr=0.3)


@recording
def hf_labels_unshifted(out: Path) -> None:
    _hf(out, labels="unshifted")


@recording
def hf_labels_all_masked(out: Path) -> None:
    _hf(out, labels="masked", steps=100)


@recording
def hf_overfit_few_clips(out: Path) -> None:
    _hf(out, clips=16, steps=300, lr=1e-3, eval_steps=15)


@recording
def hf_resumed(out: Path) -> None:
    _hf(out, resume=True)


# --- Lightning: metrics.csv and TensorBoard -------------------------------------------------------


def _lightning(out: Path, frozen=False, lr=3e-3, steps=300):
    import lightning  # pyright: ignore[reportMissingImports]

    lightning.seed_everything(0, verbose=False)
    clips: Any = codes(512, 1)
    held_out: Any = codes(64, 2)

    class Module(lightning.LightningModule):
        def __init__(self, learning_rate, vocab_size=V):
            super().__init__()
            self.save_hyperparameters()
            self.model = Small()

        def training_step(self, clip, _):
            loss = self.model.loss(clip)
            if frozen:
                loss = loss.detach() + 0 * self.model.head.bias.sum()  # the loss does not reach the model
            self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, clip, _):
            self.log("val_loss", self.model.loss(clip), prog_bar=True)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        log_every_n_steps=5,
        val_check_interval=1.0,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
        logger=[
            lightning.pytorch.loggers.CSVLogger(out, name="csv"),
            lightning.pytorch.loggers.TensorBoardLogger(out, name="tb"),
        ],
        callbacks=[lightning.pytorch.callbacks.LearningRateMonitor("step")],
    )
    trainer.fit(
        Module(lr),
        torch.utils.data.DataLoader(clips, batch_size=16, shuffle=True),
        torch.utils.data.DataLoader(held_out, batch_size=16),
    )


@recording
def lightning_healthy(out: Path) -> None:
    _lightning(out)


@recording
def lightning_loss_detached(out: Path) -> None:
    _lightning(out, frozen=True)


# --- Accelerate with TensorBoard ------------------------------------------------------------------


def _accelerate(out: Path, **fault):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=out)
    accelerator.init_trackers("run", config={"learning_rate": 3e-3, "vocab_size": V, "max_grad_norm": 1.0})
    for step, signals in small_steps(**fault):
        accelerator.log(signals, step=step)
    accelerator.end_training()


@recording
def accelerate_healthy(out: Path) -> None:
    _accelerate(out)


@recording
def accelerate_schedule_too_short(out: Path) -> None:
    """Stepped by every worker: the schedule made for 300 steps has ended after 40."""
    _accelerate(out, schedule=lambda step: max(0.0, 1 - step / 40))


@recording
def tensorboard_everything(out: Path) -> None:
    """All that a writer can write beside scalars, both kinds of scalars, odd steps."""
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0)
    with SummaryWriter(out / "run") as writer:
        for step in [*range(0, 300), 2**20, 2**34 + 1]:
            writer.add_scalar("train/loss", 4 / (1 + step), step)
            writer.add_scalar("eval/loss", torch.tensor(5 / (1 + step)), step, new_style=True)
            writer.add_scalar(
                "train/grad_norm", float("nan") if step == 7 else -float("inf") if step == 8 else step * 1e-30, step
            )
            if step % 100 == 0:
                writer.add_histogram("weights", torch.randn(1000), step)
                writer.add_image("picture", np.random.rand(3, 8, 8), step)
                writer.add_text("note", "words " * 200, step)
                writer.add_audio("sound", torch.rand(1, 500), step, 8000)
            writer.add_scalar("a/very/long/name/" + "x" * 150, step, step)


# --- W&B offline, Trackio, MLflow -----------------------------------------------------------------


def _wandb(out: Path, **fault):
    import wandb  # pyright: ignore[reportMissingImports]

    run = wandb.init(project="small", dir=out, config={"learning_rate": 3e-3, "vocab_size": V, "max_grad_norm": 1.0})
    for step, signals in small_steps(**fault):
        run.log(signals, step=step)
    run.finish()


@recording
def wandb_healthy(out: Path) -> None:
    _wandb(out)


@recording
def wandb_loss_nan(out: Path) -> None:
    _wandb(out, sabotage=root_of_zero)


def _trackio(out: Path, **fault):
    os.environ["TRACKIO_DIR"] = str(out / "trackio")
    import trackio  # pyright: ignore[reportMissingImports]

    run = trackio.init(project="small", config={"learning_rate": 3e-3, "vocab_size": V}, embed=False)
    for step, signals in small_steps(steps=150, **fault):
        trackio.log(signals, step=step)
    trackio.finish()
    del run


@recording
def trackio_healthy(out: Path) -> None:
    _trackio(out)


@recording
def trackio_frozen(out: Path) -> None:
    _trackio(out, frozen=True)


def _mlflow(out: Path, **fault):
    import mlflow  # pyright: ignore[reportMissingImports]

    mlflow.set_tracking_uri((out / "mlruns").as_uri())
    with mlflow.start_run(run_name="small"):
        mlflow.log_params({"learning_rate": 3e-3, "vocab_size": V, "max_grad_norm": 1.0})
        for step, signals in small_steps(steps=200, **fault):
            mlflow.log_metrics(signals, step=step)


@recording
def mlflow_healthy(out: Path) -> None:
    _mlflow(out)


@recording
def mlflow_overfit_few_clips(out: Path) -> None:
    _mlflow(out, clips=8)


# --- plain loops: tqdm, print, CSV ----------------------------------------------------------------


def _tqdm(out: Path, epochs=5, per_epoch=60, **fault):
    """A bar an epoch, on stderr, as `python train.py 2> train.log` keeps it."""
    from tqdm import tqdm

    steps = small_steps(steps=epochs * per_epoch, **fault)
    with open(out / "train.log", "w") as file:
        for epoch in range(epochs):
            bar = tqdm(range(per_epoch), desc=f"Epoch {epoch + 1}/{epochs}", file=file, mininterval=0.0, ncols=100)
            held_out = None
            for _ in bar:
                _, signals = next(steps)
                held_out = signals.get("eval/loss", held_out)
                bar.set_postfix(loss=f"{signals['train/loss']:.4f}", lr=f"{signals['train/lr']:.1e}")
            file.write(f"\nEpoch {epoch + 1} done, val loss: {held_out or math.nan:.4f}\n")


@recording
def tqdm_healthy(out: Path) -> None:
    _tqdm(out)


@recording
def tqdm_learning_rate_x100(out: Path) -> None:
    _tqdm(out, lr=0.3)


def _gan(out: Path, lr_d: float, steps=600):
    """A hinge GAN on waves of 256 samples: sums of two sines; generator from noise, with an L1 on the spectrum."""
    torch.manual_seed(0)
    n, phase = torch.arange(256), torch.rand
    generator = torch.nn.Sequential(
        torch.nn.Linear(16, 128), torch.nn.GELU(), torch.nn.Linear(128, 256), torch.nn.Tanh()
    )
    judge = torch.nn.Sequential(
        torch.nn.Conv1d(1, 16, 15, 4, 7),
        torch.nn.LeakyReLU(0.3),
        torch.nn.Conv1d(16, 32, 15, 4, 7),
        torch.nn.LeakyReLU(0.3),
        torch.nn.Conv1d(32, 1, 5),
    )
    opt_g = torch.optim.AdamW(generator.parameters(), 1e-3, betas=(0.5, 0.9))
    opt_d = torch.optim.AdamW(judge.parameters(), lr_d, betas=(0.5, 0.9))

    def real(count=16):
        low, high = 0.02 + 0.04 * phase(count, 1), 0.1 + 0.1 * phase(count, 1)
        return 0.5 * torch.sin(6.283 * (low * n + phase(count, 1))) + 0.3 * torch.sin(
            6.283 * (high * n + phase(count, 1))
        )

    with open(out / "losses.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "loss_d", "d_real", "d_fake", "adv_g", "feat", "loss_g", "grad_norm_g", "grad_norm_d"])
        for step in range(1, steps + 1):
            wave, made = real(), generator(torch.randn(16, 16))
            d_real, d_fake = judge(wave[:, None]), judge(made[:, None].detach())
            loss_d = F.relu(1 - d_real).mean() + F.relu(1 + d_fake).mean()
            opt_d.zero_grad()
            loss_d.backward()
            norm_d = torch.nn.utils.clip_grad_norm_(judge.parameters(), 10.0)
            opt_d.step()
            adv_g = -judge(made[:, None]).mean()
            feat = F.l1_loss(judge[:2](made[:, None]).mean(0), judge[:2](wave[:, None]).mean(0).detach())
            loss_g = adv_g + 4 * feat
            opt_g.zero_grad()
            loss_g.backward()
            norm_g = torch.nn.utils.clip_grad_norm_(generator.parameters(), 10.0)
            opt_g.step()
            if step % 5 == 0:
                table.writerow(
                    [
                        step,
                        *(
                            f"{x.mean().item():.6f}"
                            for x in (loss_d, d_real, d_fake, adv_g, feat, loss_g, norm_g, norm_d)
                        ),
                    ]
                )


@recording
def gan_healthy(out: Path) -> None:
    _gan(out, lr_d=1e-3)


@recording
def gan_discriminator_lr_x30(out: Path) -> None:
    _gan(out, lr_d=3e-2)


def tensorboard_says(folder: Path) -> None:
    """What TensorBoard's own reader says of every event file: tag -> number of values, first, last, sum of steps, sum
    of values."""
    import json

    import numpy as np
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    told = {}
    for path in sorted(folder.rglob("*tfevents*")):
        reader = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
        reader.Reload()
        tags = {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
        for tag in reader.Tags()["tensors"]:
            events = [(event.step, event.tensor_proto) for event in reader.Tensors(tag)]
            if events[0][1].dtype == 1:  # DT_FLOAT
                tags[tag] = [(step, tensor.float_val[0]) for step, tensor in events]
        told[path.relative_to(folder).as_posix()] = {
            tag: [
                len(rows),
                rows[0],
                rows[-1],
                sum(step for step, _ in rows),
                float(np.sum([value for _, value in rows if np.isfinite(value)])),
            ]
            for tag, rows in tags.items()
        }
    (folder / "tensorboard_says.json").write_text(json.dumps(told, indent=0))


def main(out: Path, names: list[str]) -> None:
    """Each recording in a process of its own, its output kept as output.log where a trainer prints the log."""
    for name in names or RECORDINGS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--one", name, folder]
            with open(Path(folder) / "output.log", "wb") as log:
                result = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
            print(f"{name} exit {result.returncode}", flush=True)
            shutil.copytree(folder, out / name, dirs_exist_ok=True, symlinks=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        RECORDINGS[sys.argv[2]](Path(sys.argv[3]))
    elif sys.argv[1] == "--tensorboard-says":
        tensorboard_says(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), sys.argv[2:])

"""The log readers: every format on a real recorded file, names, steps, facts and bad input."""

# ruff: noqa: E501  (log lines stand as they were printed)

import csv
import gzip
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from earnest import logs
from earnest.columns import Column, JsonLines, Table
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.logs import FORMATS, read
from earnest.logs.find import discover
from earnest.logs.format import Format
from earnest.logs.formats import jsonl, table, tensorboard
from earnest.logs.log import Log
from earnest.logs.names import guess
from earnest.logs.source import Source
from earnest.run import Run, RunWriter
from earnest.signals import ALIASES, SIGNALS

LOGS = Path(__file__).parent / "logs"


def written(folder: Path, text: str | bytes, name: str = "log.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def told(run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        str(key): list(zip(series.step.tolist(), series.value.round(6).tolist(), strict=True))
        for key, series in run.series.items()
    }


# --- real recorded files ----------------------------------------------------------------------------------------------

RECORDED = [  # log, format, steps of train/loss, its first and last value, number of evaluations
    ("hf_healthy", "trainer_state", (10, 300), (3.9685, 2.2451), 6),
    ("hf_learning_rate_x100", "trainer_state", (10, 300), (4.4355, 3.9404), 6),
    ("hf_labels_unshifted", "trainer_state", (10, 300), (3.2331, 0.0066), 6),
    ("hf_labels_all_masked", "trainer_state", (10, 100), (0.0, 0.0), 2),
    ("hf_overfit_few_clips", "trainer_state", (10, 300), (3.995, 0.2441), 20),
    ("hf_resumed", "trainer_state", (10, 300), (3.9685, 2.2451), 6),
    ("hf_healthy/hf/runs", "tensorboard", (10, 300), (3.9685, 2.2451), 6),
    ("lightning_healthy/csv", "csv", (4, 299), (3.9077, 2.0628), 9),
    ("lightning_healthy/tb", "tensorboard", (4, 299), (3.9077, 2.0628), 9),
    ("lightning_loss_detached/csv/version_0/metrics.csv", "csv", (4, 299), (4.1713, 4.1571), 9),
    ("accelerate_healthy", "tensorboard", (1, 300), (4.1755, 2.0801), 6),
    ("accelerate_schedule_too_short", "tensorboard", (1, 300), (4.1755, 2.7577), 6),
    ("wandb_healthy", "wandb", (1, 300), (4.1755, 2.0801), 6),
    ("wandb_loss_nan", "wandb", (1, 300), (4.1755, math.nan), 6),
    ("trackio_healthy", "trackio", (1, 150), (4.1755, 2.2916), 3),
    ("trackio_frozen", "trackio", (1, 150), (4.1755, 4.1661), 3),
    ("mlflow_healthy", "mlflow", (1, 200), (4.1755, 2.2103), 4),
    ("mlflow_overfit_few_clips", "mlflow", (1, 200), (4.1883, 0.0076), 4),
    ("tqdm_healthy", "text", (0, 300), (4.1755, 2.0801), 5),
    ("tqdm_learning_rate_x100", "text", (0, 300), (4.1755, 10.985), 5),
]


@pytest.mark.parametrize(("name", "format", "steps", "values", "evaluations"), RECORDED)
def test_recorded(name, format, steps, values, evaluations):
    run = read(LOGS / name)
    loss = run["train/loss"]
    assert run.facts.format == format
    assert (loss.step[0], loss.step[-1]) == steps
    assert (np.diff(loss.step) > 0).all()
    np.testing.assert_allclose([loss.value[0], loss.value[-1]], values, atol=6e-5)
    assert len(run["eval/loss"]) == evaluations
    assert "train/learning_rate" in run


def test_a_recorded_gan():
    run = read(LOGS / "gan_healthy")
    assert set(map(str, run.series)) >= {
        "train/loss/loss_d",
        "train/loss/adv_g",
        "train/loss/feat",
        "train/loss/loss_g",
        "train/d_real",
        "train/d_fake",
    }
    assert run["train/d_real"].step[-1] == 600


def test_one_run_reads_the_same_from_every_format():
    runs = {name: read(LOGS / f"{name}_healthy") for name in ("wandb", "trackio", "mlflow", "accelerate")}
    for key in ("train/loss", "train/grad_norm", "train/learning_rate", "eval/loss"):
        whole = runs["wandb"][key]
        for name, run in runs.items():
            series = run[key]
            assert (series.step == whole.step[: len(series)]).all()
            np.testing.assert_allclose(
                series.value, whole.value[: len(series)], rtol=1e-6 if name == "accelerate" else 0
            )  # TensorBoard keeps float32
    printed, state = read(LOGS / "hf_healthy/output.log"), read(LOGS / "hf_healthy/hf/trainer_state.json")
    assert (printed["eval/loss"].step == state["eval/loss"].step).all()
    np.testing.assert_allclose(printed["train/loss"].value, state["train/loss"].value, rtol=1e-3)


@pytest.mark.parametrize(("path", "tags"), json.loads((LOGS / "tensorboard_says.json").read_text()).items())
def test_tensorboard_reads_what_tensorboards_own_reader_does(path, tags):
    if not tags:
        with pytest.raises(UserError, match="without a scalar"):
            tensorboard.read(Source(LOGS / path))
        return
    log = tensorboard.read(Source(LOGS / path))
    assert set(log.columns) == set(tags)
    for tag, (count, first, last, steps, total) in tags.items():
        row, value = log.columns[tag]
        step = log.step[row]
        assert len(value) == count and step.sum() == steps
        np.testing.assert_equal([step[0], step[-1]], [first[0], last[0]])
        np.testing.assert_equal([value[0], value[-1]], [first[1], last[1]])
        np.testing.assert_allclose(value[np.isfinite(value)].sum(), total, rtol=1e-12)


def test_tensorboard_cut_anywhere(tmp_path):
    """A file cut at any byte gives the values before the cut; so does one read in tiny blocks."""
    path = next((LOGS / "accelerate_healthy").rglob("*tfevents*"))
    data, whole = path.read_bytes(), tensorboard.read(Source(path))
    for cut in (len(data) // 2, len(data) // 2 + 1, len(data) - 1, len(data) - 5):
        part = tensorboard.read(Source(written(tmp_path, data[:cut], "events.out.tfevents.1")))
        for tag, (_, value) in part.columns.items():
            assert (value == whole.columns[tag].value[: len(value)]).all()
            assert len(value) >= 0.45 * len(whole.columns[tag].value)
    source = Source(path)
    blocks = source.blocks
    source.blocks = lambda size=1: blocks(777)  # type: ignore[method-assign]
    assert all(
        (column.value == whole.columns[tag].value).all() for tag, column in tensorboard.read(source).columns.items()
    )


def test_tensorboard_damaged_in_the_middle(tmp_path):
    data = bytearray(next((LOGS / "accelerate_healthy").rglob("*tfevents*")).read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    run = read(written(tmp_path, bytes(data), "events.out.tfevents.1"))
    assert len(run["train/loss"]) > 100 and any("breaks" in note or "cut" in note for note in run.notes)


def test_a_tree_of_events(tmp_path):
    """Keras' train/ and validation/ are one run; two run folders are two."""
    data = next((LOGS / "lightning_healthy").rglob("*tfevents*")).read_bytes()
    for folder in ("keras/train", "keras/validation", "two/a", "two/b"):
        (tmp_path / folder).mkdir(parents=True)
        written(tmp_path / folder, data, "events.out.tfevents.1700000000.host.1.v2")
    run = read(tmp_path / "keras")
    assert {"train/hp_metric", "validation/hp_metric"} <= set(run.facts.unmapped)
    with pytest.raises(UserError, match="2 runs"):
        read(tmp_path / "two")
    assert read(tmp_path / "two", run="b").series.keys() == read(tmp_path / "two" / "a").series.keys()


def test_wandb_records_over_blocks_and_cut(tmp_path):
    """A record may span 32 KiB blocks; a cut file keeps what came before."""
    path = next((LOGS / "wandb_healthy").rglob("*.wandb"))
    data = path.read_bytes()
    assert len(data) > 3 * 32768
    run = read(written(tmp_path, data[:70_001], "run-x.wandb"))
    assert 50 < len(run["train/loss"]) < 300 and any("cut short" in note for note in run.notes)
    holed = data[:40_000] + bytes(20_000) + data[60_000:]
    assert read(written(tmp_path, holed, "run-y.wandb")).last_step == 300
    assert read(written(tmp_path, gzip.compress(data), "run-z.wandb.gz")).last_step == 300


# --- text -------------------------------------------------------------------------------------------------------------

TEXTS = {
    "pipes": (
        "step 120/300 | loss 5.75 | lr 1e-4\nstep 121/300 | loss nan | lr 1e-4\n",
        {"train/loss": [(120, 5.75), (121, math.nan)], "train/learning_rate": [(120, 1e-4), (121, 1e-4)]},
    ),
    "a document's arrows": (
        "Epoch 1: 6.01 → 5.76 (avg loss)\nEpoch 2: 5.76 → 5.75 (avg loss)  ← Plateauing!\nEpoch 3: Currently ~5.75\n",
        {"train/loss": [(0, 6.01), (1, 5.76), (2, 5.75)]},
    ),
    "one name a line": (
        "train/adv_g_epoch:0.32\ntrain/loss_d_epoch:1.97\n",
        {"train/loss/adv_g": [(0, 0.32)], "train/loss/loss_d": [(0, 1.97)]},
    ),
    "transformers with a bar": (
        "  3%|▎  | 10/300 [00:05<02:25,  1.99it/s]{'loss': 2.3, 'grad_norm': 1.5, 'learning_rate': 0.5, 'epoch': 0.1}\r  7%|▎  | 20/300 "
        "[00:05<02:25,  1.99it/s]\n{'loss': '2.1', 'grad_norm': nan, 'learning_rate': 0.5, 'epoch': 0.2}\n\r 100%|▎ | 5/5 [00:05<02:25,  1.99it/s]\n"
        "{'eval_loss': 2.2, 'eval_runtime': 3.2, 'epoch': 0.2}\n",
        {
            "train/loss": [(10, 2.3), (20, 2.1)],
            "train/grad_norm": [(10, 1.5), (20, math.nan)],
            "train/learning_rate": [(10, 0.5), (20, 0.5)],
            "eval/loss": [(20, 2.2)],
        },
    ),
    "transformers without a bar": (
        "{'loss': 2.3, 'epoch': 0.1}\n{'loss': 2.2, 'epoch': 0.2}\n{'eval_loss': 2.4, 'epoch': 0.2}\n{'loss': 2.1, 'epoch': 0.3}\n",
        {"train/loss": [(0, 2.3), (1, 2.2), (3, 2.1)], "eval/loss": [(2, 2.4)]},
    ),
    "tqdm, an epoch a bar": (
        "".join(
            f"\rEpoch {e}:  {i}0%|██  | {i}/10 [00:0{i % 10}<00:09, 1.2it/s, loss={5 - e - i / 10:.1f}]"
            for e in range(2)
            for i in (5, 10)
        ),
        {"train/loss": [(5, 4.5), (10, 4.0), (15, 3.5), (20, 3.0)]},
    ),
    "tqdm, endless": (
        "".join(f"\r{i}it [00:0{i}, 11.9it/s, loss={5 - i}]" for i in range(1, 4)),
        {"train/loss": [(1, 4), (2, 3), (3, 2)]},
    ),
    "fairseq": (
        '2023-01-01 10:00:00 | INFO | train_inner | {"epoch": 1, "update": 0.1, "loss": "10", "ppl": "1024", "num_updates": "100", "gnorm": "2"}\n'
        '2023-01-01 10:00:00 | INFO | train_inner | {"epoch": 1, "update": 0.2, "loss": "9", "ppl": "512", "num_updates": "200", "gnorm": "2"}\n'
        '2023-01-01 10:00:00 | INFO | valid | {"epoch": 1, "valid_loss": "8", "valid_ppl": "256", "valid_num_updates": "200"}\n',
        {
            "train/loss": [(100, 6.931472), (200, 6.238325)],  # bits become nats: ppl is 2 ** loss
            "train/grad_norm": [(100, 2), (200, 2)],
            "eval/loss": [(200, 5.545177)],
        },
    ),
    "old fairseq": (
        "| epoch 001:     10 / 100 loss=10.5, wps=1000, gnorm=2.2, lr=0.1, num_updates=10\n"
        "| epoch 001:     20 / 100 loss=9.5, wps=1000, gnorm=2.2, lr=0.1, num_updates=20\n",
        {
            "train/loss": [(10, 10.5), (20, 9.5)],
            "train/grad_norm": [(10, 2.2), (20, 2.2)],
            "train/learning_rate": [(10, 0.1), (20, 0.1)],
        },
    ),
    "espnet": (
        "[h] 2024-01-01 00:00:00,123 (trainer:732) INFO: 1epoch:train:1-50batch: iter_time=0.1, loss=33.2, acc=0.5, optim0_lr0=0.1\n"
        "[h] 2024-01-01 00:00:00,123 (trainer:732) INFO: 1epoch:train:51-100batch: iter_time=0.1, loss=30.2, acc=0.5, optim0_lr0=0.1\n"
        "[h] 2024-01-01 00:00:00,123 (trainer:338) INFO: 1epoch results: [train] iter_time=0.1, loss=31, acc=0.6, [valid] loss=29, acc=0.7\n",
        {
            "train/loss": [(50, 33.2), (100, 31)],
            "train/accuracy_frac": [(50, 0.5), (100, 0.6)],
            "train/learning_rate": [(50, 0.1), (100, 0.1)],
            "eval/loss": [(100, 29)],
            "eval/accuracy_frac": [(100, 0.7)],
        },
    ),
    "audiocraft": (
        "[01-01 12:00:00][solvers.base][INFO] - Train | Epoch 1 | 200/2000 | 3.1 it/sec | ce 7.1E+00 | ce_q1 6.9E+00 | ce_q2 7.1E+00\n"
        "[01-01 12:00:00][solvers.base][INFO] - Train | Epoch 1 | 400/2000 | 3.1 it/sec | ce 6.1E+00 | ce_q1 5.9E+00 | ce_q2 6.1E+00\n"
        "[01-01 12:10:00][solvers.base][INFO] - Valid Summary | Epoch 1 | ce 6.0E+00\n",
        {
            "train/ce_nats/audio": [(200, 7.1), (400, 6.1)],
            "train/ce_nats/codebook_0": [(200, 6.9), (400, 5.9)],
            "train/ce_nats/codebook_1": [(200, 7.1), (400, 6.1)],
            "eval/ce_nats/audio": [(400, 6.0)],
        },
    ),
    "megatron": (
        " [2024-01-01 10:00:00] iteration      100/  500000 | consumed samples:   6400 | learning rate: 1.500E-01 | lm loss: 7.5E+00 | grad norm: 1.2 |\n"
        " [2024-01-01 10:00:10] iteration      200/  500000 | consumed samples:  12800 | learning rate: 1.500E-01 | lm loss: 7.1E+00 | grad norm: 1.2 |\n",
        {
            "train/learning_rate": [(100, 0.15), (200, 0.15)],
            "train/loss": [(100, 7.5), (200, 7.1)],
            "train/grad_norm": [(100, 1.2), (200, 1.2)],
        },
    ),
    "nanoGPT": (
        "step 0: train loss 4.2, val loss 4.3\niter 0: loss 4.25, time 100.5ms, mfu -100.00%\niter 10: loss 3.25, time 100.5ms, mfu 3.00%\n"
        "step 20: train loss 3.2, val loss 3.3\niter 20: loss 3.21, time 100.5ms, mfu 3.00%\n",
        {"train/loss": [(0, 4.25), (10, 3.25), (20, 3.21)], "eval/loss": [(0, 4.3), (20, 3.3)]},
    ),
    "torchvision": (
        "Epoch: [0]  [ 10/100]  eta: 0:01:00  lr: 0.1  loss: 2.30 (2.40)  time: 0.3\nEpoch: [0]  [ 20/100]  eta: 0:01:00  lr: 0.1  loss: 2.20 (2.40)\n"
        "Epoch: [1]  [ 10/100]  eta: 0:01:00  lr: 0.1  loss: 2.10 (2.40)  time: 0.3\n",
        {"train/learning_rate": [(10, 0.1), (20, 0.1), (30, 0.1)], "train/loss": [(10, 2.3), (20, 2.2), (30, 2.1)]},
    ),
    "PyTorch's first example": (
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.3\nTrain Epoch: 1 [640/60000 (1%)]\tLoss: 1.3\n\n"
        "Test set: Average loss: 0.05, Accuracy: 9836/10000 (98%)\n\nTrain Epoch: 2 [0/60000 (0%)]\tLoss: 0.3\n",
        {
            "train/loss": [(0, 2.3), (640, 1.3), (1280, 0.3)],
            "test/loss": [(640, 0.05)],
            "test/accuracy_frac": [(640, 0.98)],
        },
    ),
    "Keras": (
        "Epoch 1/3\n 50/100 [==>....] - ETA: 1s - loss: 0.53\n100/100 [=====] - 3s 30ms/step - loss: 0.43 - val_loss: 0.5\nEpoch 2/3\n"
        " 50/100 [==>....] - ETA: 1s - loss: 0.33\n",
        {"train/loss": [(50, 0.53), (100, 0.43), (150, 0.33)], "eval/loss": [(100, 0.5)]},
    ),
    "torchtitan in colour": (
        "\x1b[32mstep:  1  \x1b[0mloss: 12.25  \x1b[1mgrad_norm:  1.2  memory: 3.2GiB(10%)  tps: 1,234\nstep:  2  loss: 11.25  grad_norm:  1.2\n",
        {"train/loss": [(1, 12.25), (2, 11.25)], "train/grad_norm": [(1, 1.2), (2, 1.2)]},
    ),
    "a fork of Higgs": (
        "2025-08-01 10:00:00,123 - INFO - Step 100 | Text Loss: 11.5 | Audio Loss: 6.8 | Total Loss: 18.3\n"
        "  First 10 Text Labels:      [-100, -100]\n"
        "2025-08-01 10:00:00,123 - INFO - Step 200 | Text Loss: 11.6 | Audio Loss: 6.7 | Total Loss: 18.3\n",
        {
            "train/loss/text": [(100, 11.5), (200, 11.6)],
            "train/loss/audio": [(100, 6.8), (200, 6.7)],
            "train/loss": [(100, 18.3), (200, 18.3)],
        },
    ),
    "CosyVoice": (
        "2026-11-01 10:00:00,123 DEBUG TRAIN Batch 0/10 loss 4.25 acc 0.1 lr 0.5 grad_norm 1.5 rank 0\n"
        "2026-11-01 10:00:01,123 DEBUG TRAIN Batch 0/20 loss 4.0 acc 0.1 lr 0.5 grad_norm 1.5 rank 0\n"
        "2026-11-01 10:00:02,123 DEBUG TRAIN Batch 0/30 loss 3.5 acc 0.1 lr 0.5 grad_norm 1.5 rank 0\n"
        "2026-11-01 10:10:00,123 INFO Epoch 0 Step 31 CV info lr 0.5 0 rank loss 2.5 acc 0.25\n",
        {
            "train/loss": [(10, 4.25), (20, 4), (30, 3.5)],
            "train/accuracy_frac": [(10, 0.1), (20, 0.1), (30, 0.1)],
            "train/learning_rate": [(10, 0.5), (20, 0.5), (30, 0.5)],
            "train/grad_norm": [(10, 1.5), (20, 1.5), (30, 1.5)],
            "eval/loss": [(30, 2.5)],
            "eval/accuracy_frac": [(30, 0.25)],
            "eval/learning_rate": [(30, 0.5)],
        },
    ),
    "Coqui, evaluation in blocks": (
        "".join(
            f" > EPOCH: {e}/3\n > TRAINING\n   --> STEP: 9/9 -- GLOBAL_STEP: {e * 9 + 9}\n     | > loss_kl: {3 - e}  (9.9)\n"
            f" --> EVAL PERFORMANCE\n     | > avg_loss_kl: {4 - e} (+0.01)\n"
            for e in range(3)
        ),
        {"train/loss/kl": [(9, 3), (18, 2), (27, 1)], "eval/loss/kl": [(9, 4), (18, 3), (27, 2)]},
    ),
    "a heading that begins no blocks": (
        "***** Running Evaluation *****\nValidation\nstep 1 loss 3\nstep 2 loss 2\n",
        {"train/loss": [(1, 3), (2, 2)]},
    ),
    "a codebook a line": (
        "".join(f"Codebook {c} loss: {5 - c - step}\n" for step in range(2) for c in range(2)),
        {"train/loss/codebook_0": [(0, 5), (1, 4)], "train/loss/codebook_1": [(0, 4), (1, 3)]},
    ),
    "icefall": (
        "".join(
            f"Epoch 4, batch {i}, train_loss[loss={5 - i}, over 9.00 frames. ], tot_loss[loss={('2.5', 'nan')[i]}, over 70.0 frames. ], lr: 2e-03\n"
            for i in range(2)
        ),
        {"train/loss": [(0, 2.5), (1, math.nan)], "train/learning_rate": [(0, 0.002), (1, 0.002)]},
    ),
    "iterations beside records": (
        "[Epoch 3 5000/50000][Iteration 780] Trained 64 records in 1.1 seconds. Loss is 4.5. Current learning rate is 0.5.\n"
        "[Epoch 3 5064/50000][Iteration 781] Trained 64 records in 1.1 seconds. Loss is 4.25. Current learning rate is 0.5.\n",
        {"train/loss": [(780, 4.5), (781, 4.25)], "train/learning_rate": [(780, 0.5), (781, 0.5)]},
    ),
    "typographic quotes and bold": (
        "{‘loss’: 2.5, “lr”: 0.5, ‘step’: 1}\nstep **2** | **loss** **2.25** | lr 0.5\n",
        {"train/loss": [(1, 2.5), (2, 2.25)], "train/learning_rate": [(1, 0.5), (2, 0.5)]},
    ),
    "audiotools' boxes": (
        "".join(
            f"╭──── Iteration {i * 100} ────╮\n│ train │ key      │ value │ mean │\n│       │ mel/loss │ {9 - i} │ 9.9 │\n╰────╯\n"
            for i in (1, 2)
        ),
        {"train/loss/mel": [(100, 8), (200, 7)]},
    ),
    "one report, a metric a line": (
        "(trainer:87) INFO: (Steps: 300) train/mel_loss = 38.5.\n(trainer:87) INFO: (Steps: 300) train/ppl_0 = 1.5.\n"
        "(trainer:87) INFO: (Steps: 300) train/ppl_1 = 1.25.\n(trainer:87) INFO: (Steps: 300) train/lr = 0.5.\n",
        {
            "train/loss/mel": [(300, 38.5)],
            "train/perplexity/codebook_0": [(300, 1.5)],
            "train/perplexity/codebook_1": [(300, 1.25)],
            "train/learning_rate": [(300, 0.5)],
        },
    ),
    "decimal commas": (
        "Schritt; step: 1; loss: 0,53\nSchritt; step: 2; loss: 0,43\n",
        {"train/loss": [(1, 0.53), (2, 0.43)]},
    ),
    "whole numbers with thousands": (
        "step: 1,000 loss: 12\nstep: 2,000 loss: 11\n",
        {"train/loss": [(1000, 12), (2000, 11)]},
    ),
    "thousands": ("step 1,000 loss 2.5\nstep 2,000 loss 2.25\n", {"train/loss": [(1000, 2.5), (2000, 2.25)]}),
    "key=value": (
        "step=1 loss=3.5 gnorm=2\nstep=2 loss=inf gnorm=2\n",
        {"train/loss": [(1, 3.5), (2, math.inf)], "train/grad_norm": [(1, 2), (2, 2)]},
    ),
    "JSON within a line": (
        'INFO:root:{"step": 1, "train": {"loss": 3.5}, "eval": {"loss": 4.5}}\nINFO:root:{"step": 2, "train": {"loss": NaN}}\n',
        {"train/loss": [(1, 3.5), (2, math.nan)], "eval/loss": [(1, 4.5)]},
    ),
    "tensors printed": (
        "step 1 loss: tensor(3.5, device='cuda:0', grad_fn=<NllLossBackward0>)\nstep 2 loss: tensor(3.25, device='cuda:0', grad_fn=<NllLossBackward0>)\n",
        {"train/loss": [(1, 3.5), (2, 3.25)]},
    ),
}


@pytest.mark.parametrize("rows", [100, 10_000])
def test_an_empty_column_of_a_table_of_any_size_is_left_out(rows, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,note,run\n" + "".join(f"{i},{5 - i / rows},,first\n" for i in range(rows)))
    run = read(path)
    assert list(map(str, run.series)) == ["train/loss"] and len(run["train/loss"]) == rows


@pytest.mark.parametrize("name", TEXTS)
def test_text(name, tmp_path):
    text, expected = TEXTS[name]
    np.testing.assert_equal(
        told(read(written(tmp_path, text, "train.log"))),
        {key: [(s, float(v)) for s, v in rows] for key, rows in expected.items()},
    )


@pytest.mark.parametrize("name", [name for name in TEXTS if "document" not in name])
def test_text_has_the_same_values_with_windows_newlines_and_under_gzip(name, tmp_path):
    text = TEXTS[name][0]
    plain = told(read(written(tmp_path, text, "a.log")))
    np.testing.assert_equal(told(read(written(tmp_path, text.replace("\n", "\r\n"), "b.log"))), plain)
    np.testing.assert_equal(told(read(written(tmp_path, gzip.compress(text.encode()), "c.log.gz"))), plain)
    np.testing.assert_equal(told(read(written(tmp_path, text.encode("utf-16"), "d.log"))), plain)


def test_text_many_lines_alike_read_as_one_by_one(tmp_path):
    """The fast way for lines of one skeleton and the slow one agree, evaluation lines between."""
    lines = []
    for step in range(1, 25_001):
        lines.append(f"2026-01-01 10:00:{step % 60:02} step {step} | loss {1 / step:.6f} | lr {step}e-07")
        if step % 777 == 0:
            lines.append(f"eval loss: {2 / step:.6f}")
    run = read(written(tmp_path, "\n".join(lines) + "\n"))
    assert (run["train/loss"].step == np.arange(1, 25_001)).all()
    np.testing.assert_allclose(run["train/loss"].value, [float(f"{1 / step:.6f}") for step in range(1, 25_001)])
    np.testing.assert_allclose(run["train/learning_rate"].value, np.arange(1, 25_001) * 1e-7)
    assert (run["eval/loss"].step == np.arange(777, 25_001, 777)).all()


def test_text_settings_printed_once_are_facts(tmp_path):
    text = "Namespace(lr=0.0001, max_grad_norm=1.0, num_codebooks=8)\ntext vocab size: 128256\n"
    run = read(written(tmp_path, text + "".join(f"step {i} text_loss {12 - i / 10} lr 1e-3\n" for i in range(1, 6))))
    assert (run.facts.max_grad_norm, run.facts.codebooks, run.facts.text_vocab) == (1, 8, 128256)
    assert (run["train/learning_rate"].value == 1e-3).all()


def test_text_a_last_line_cut_within_a_number_is_left_out(tmp_path):
    run = read(written(tmp_path, "step 1 lr 1e-4 loss 5.5123\nstep 2 lr 1e-4 loss 5.4999\nstep 3 lr 1e-4 loss 5"))
    assert run.last_step == 2 and any("cut short" in note for note in run.notes)


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_tables(separator, tmp_path):
    text = "step,train_loss,note\n1,3.5,a\n2,nan,b\n3,,c\n4,-inf,d\n".replace(",", separator)
    run = read(written(tmp_path, text, "table.csv"))
    np.testing.assert_equal(told(run), {"train/loss": [(1, 3.5), (2, math.nan), (4, -math.inf)]})


def test_table_of_lightning_has_sparse_rows(tmp_path):
    text = "epoch,step,train_loss_step,train_loss_epoch,val_loss,lr-AdamW/pg1\n0,0,3.1,,,0.5\n0,10,2.9,,,0.5\n0,10,,3.0,2.95,\n1,20,2.5,,,0.5\n"
    run = read(written(tmp_path, text, "metrics.csv"))
    assert told(run)["train/loss"] == [(0, 3.1), (10, 2.9), (20, 2.5)]
    assert told(run)["eval/loss"] == [(10, 2.95)]
    assert "train/learning_rate" in run and "as many values" in run.facts.unmapped["train_loss_epoch"]


def test_table_with_odd_cells(tmp_path):
    assert told(read(written(tmp_path, "step;loss;acc\n1;0,53;12,5\n2;0,43;50,5\n"))) == {
        "train/loss": [(1, 0.53), (2, 0.43)],
        "train/accuracy_frac": [(1, 0.125), (2, 0.505)],
    }
    tensors = "step,loss\n1,\"tensor(2.3, device='cuda:0')\"\n2,\"tensor(2.2, device='cuda:0')\"\n"
    assert told(read(written(tmp_path, tensors)))["train/loss"] == [(1, 2.3), (2, 2.2)]
    commented = "# run of today\n# step,loss\n1,2.5\n2,2.25\n"
    assert told(read(written(tmp_path, commented)))["train/loss"] == [(1, 2.5), (2, 2.25)]
    assert read(written(tmp_path, "step,loss\n1,2.5\n2,2.4\n3,2")).last_step == 2
    assert read(written(tmp_path, "loss\n3\n2\n1\n")).notes[0].startswith("no step column")


def test_table_without_header(tmp_path):
    path = written(tmp_path, "1,2.5\n2,2.25\n")
    with pytest.raises(UserError, match="no column is a known signal"):
        read(path)
    run = read(path, overrides={"column_1": "step", "column_2": "loss"})
    assert told(run) == {"train/loss": [(1, 2.5), (2, 2.25)]}


CELLS = {
    "numbers": ["1", "2.5", "-3e-4", "", "nan", "-inf", "NA", "+7", " 8 "],
    "decimal commas": ["0,53", "1,5", "", "2"],
    "thousands": ["1,000", "12,345.5", "1,234,567"],
    "percent": ["53%", "54.5 %", "--", "55"],
    "tensors": ["tensor(2.3, device='cuda:0')", "tensor(2.25, device='cuda:0')", "tensor(nan)"],
    "some words": ["1", "2", "3", "bad", "4"],
    "words": ["a", "b", "", "c"],
    "underscores": ["1_000", "2_000", "1"],
    "quotes": ['a "b" c', "'x'", "1"],
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_read_alike_by_polars_and_by_the_standard_library(kind, tmp_path, monkeypatch):
    rows = [[f"{i}", cell, f"{9 - i}"] for i, cell in enumerate(CELLS[kind])]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["step", "x", "loss"], *rows, *rows, ["99", "", "1"]])
    read_by = {}
    for small in (0, 1 << 16):
        monkeypatch.setattr("earnest.columns.SMALL_BYTES", small)
        log = table.read(Source(tmp_path / "a.csv"))
        columns = {name: (row.tolist(), value.tolist()) for name, (row, value) in log.columns.items() if len(row)}
        read_by[small] = columns, log.notes
    np.testing.assert_equal(read_by[0], read_by[1 << 16])


def test_wandb_export_of_two_runs(tmp_path):
    text = '"Step","a - train/loss","a - train/loss__MIN","a - train/loss__MAX","b - train/loss","b - train/loss__MIN","b - train/loss__MAX"\n'
    path = written(
        tmp_path,
        text + '"0","3.2","3.2","3.2","4.2","4.2","4.2"\n"10","3.0","3.0","3.0","4.0","4.0","4.0"\n',
        "wandb_export.csv",
    )
    with pytest.raises(UserError, match="2 runs side by side"):
        read(path)
    assert told(read(path, run="b")) == {"train/loss": [(0, 4.2), (10, 4.0)]}


def test_jsonl(tmp_path):
    text = '{"step": 1, "loss": 3.5, "text": "NaN, x", "deep": {"train": {"acc": 0.5}}}\n{"step": 2, "loss": NaN}\n\n{"step": 3, "loss": "2.5"}\n{"step": 4, "lo'
    run = read(written(tmp_path, text, "log.jsonl"))
    np.testing.assert_equal(
        told(run), {"train/loss": [(1, 3.5), (2, math.nan), (3, 2.5)], "train/accuracy_frac": [(1, 0.5)]}
    )
    assert any("no JSON" in note for note in run.notes)
    history = '{"_step": 0, "_runtime": 1.5, "_timestamp": 1e9, "train/loss": 3.5}\n{"_step": 1, "_runtime": 2, "_timestamp": 1e9, "train/loss": "NaN"}\n'
    run = read(written(tmp_path, history, "wandb-history.jsonl"))
    np.testing.assert_equal(told(run), {"train/loss": [(0, 3.5), (1, math.nan)]})
    assert run.facts.format == "wandb history"


def test_jsonl_infinities_fast_and_slow(tmp_path):
    text = "".join(
        f'{{"step": {i}, "loss": {value}}}\n' for i, value in enumerate(["1.5", "-Infinity", "Infinity", "NaN", "1"])
    )
    expected = {"train/loss": [(0, 1.5), (1, -math.inf), (2, math.inf), (3, math.nan), (4, 1.0)]}
    np.testing.assert_equal(told(read(written(tmp_path, text))), expected)
    np.testing.assert_equal(told(read(written(tmp_path, text + "{broken\n"))), expected)


LINES = {
    "numbers": [{"step": i, "loss": 5 - i / 3, "acc": i / 9} for i in range(9)],
    "texts, truths and nothing": [
        {"step": i, "loss": str(5 - i), "done": i > 3, "note": "x", "lr": None} for i in range(5)
    ],
    "gaps": [{"step": i} | ({"loss": 5 - i} if i % 2 else {"val_loss": 6 - i}) for i in range(9)],
    "nested": [{"step": i, "train": {"loss": 5 - i, "text": {"acc": i / 9}}} for i in range(5)],
    "not finite": [{"step": i, "loss": value} for i, value in enumerate([1.5, math.nan, math.inf, -math.inf, 2])],
    "splits": [{"step": i, "phase": ["train", "val"][i % 2], "loss": 5 - i} for i in range(8)],
    "one split": [{"step": i, "split": "val", "loss": 5 - i} for i in range(4)],
    "metrics": [{"step": i, "tag": ["loss", "val/loss"][i % 2], "value": 5 - i} for i in range(8)],
    "nested metrics": [{"name": ["loss", "lr"][i % 2], "data": {"step": i, "value": 5 - i}} for i in range(8)],
    "runs": [{"run": f"r{i // 4}", "step": i % 4, "loss": 5 - i} for i in range(8)],
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_are_read_alike_by_polars_and_by_the_standard_library(kind, tmp_path, monkeypatch):
    path = written(tmp_path, as_lines(LINES[kind]), "a.jsonl")
    read_by = {}
    for small in (0, 1 << 16):
        monkeypatch.setattr("earnest.columns.SMALL_BYTES", small)
        log = jsonl.read(Source(path))
        columns = {name: (row.tolist(), value.tolist()) for name, (row, value) in log.columns.items() if len(row)}
        read_by[small] = {name: columns[name] for name in sorted(columns)}, log.runs, log.notes
    np.testing.assert_equal(read_by[0], read_by[1 << 16])


NEXT = {
    "alike": '{"step": 9, "loss": 2.5, "in": {"acc": 1}, "note": "x"}',
    "another name": '{"step": 9, "loss": 2.5, "val": 3}',
    "another nested name": '{"step": 9, "in": {"acc": 1, "top5": 2}}',
    "another name after a space": '{"step" : 9, "loss" : 2.5, "val" : 3}',
    "no name": '{"step": 9}',
    "null": '{"step": 9, "loss": null, "val": null}',
    "null and another name": '{"step": 9, "loss": null, "val": 1}',
    "texts with colons": '{"step": 9, "loss": 1, "note": "at 10:00, \\"a\\": 3"}',
    "numbers as texts": '{"step": 9, "loss": "2.5"}',
    "texts as numbers": '{"step": 9, "note": 5}',
    "lists": '{"step": 9, "loss": [1, {"a": 2}]}',
    "truths": '{"step": 9, "loss": true}',
    "an object in place of a number": '{"step": 9, "loss": {"a": 2}}',
    "not finite": '{"step": 9, "loss": NaN, "in": {"acc": -Infinity}}',
    "broken": '{"step": 9, "lo',
    "twice": '{"step": 9, "loss": 1, "loss": 2}',
    "large": '{"step": 9007199254740993, "loss": 18446744073709551615}',
}


@pytest.mark.parametrize("kind", NEXT)
def test_a_block_is_read_by_the_names_of_the_one_before_as_it_is_by_its_own(kind, monkeypatch):
    monkeypatch.setattr("earnest.columns.SMALL_BYTES", 0)
    first = as_lines([{"step": i, "loss": 5 - i, "in": {"acc": i}, "note": f"{i}"} for i in range(5)]).encode()
    block = (first.splitlines()[0] + b"\n" + NEXT[kind].encode() + b"\n") * 3
    after, alone = JsonLines(["note"]), JsonLines(["note"])
    assert after.frame(first) is not None
    one, other = after.frame(block), alone.frame(block)
    if one is None or other is None:
        assert one is other
        return
    kept = [name for name in one.columns if one[name].null_count() < len(one)]
    assert kept == one.columns and set(kept) == {
        name for name in other.columns if other[name].null_count() < len(other)
    }
    assert one.select(sorted(kept)).equals(other.select(sorted(kept)), null_equal=True)


def test_parquet(tmp_path):
    pl.DataFrame({"step": [1, 2, 3], "train/loss": [3.5, None, float("nan")], "name": ["a", "b", "c"]}).write_parquet(
        tmp_path / "x.parquet"
    )
    np.testing.assert_equal(told(read(tmp_path / "x.parquet")), {"train/loss": [(1, 3.5), (3, math.nan)]})


def test_documents(tmp_path):
    history = [
        {"train": {"ce": 7.1, "ce_q1": 7.0, "ce_q2": 7.2}, "valid": {"ce": 7.0}},
        {"train": {"ce": 6.1, "ce_q1": 6.0, "ce_q2": 6.2}, "valid": {"ce": 6.0}},
    ]
    run = read(written(tmp_path, json.dumps(history, indent=2), "history.json"))
    assert told(run)["train/ce_nats/codebook_1"] == [(1, 7.2), (2, 6.2)]
    assert told(run)["eval/ce_nats/audio"] == [(1, 7.0), (2, 6.0)]
    assert told(read(written(tmp_path, json.dumps({"loss": [3, 2], "val_loss": [4, 3]}), "keras.json")))[
        "eval/loss"
    ] == [
        (1, 4.0),
        (2, 3.0),
    ]
    assert told(read(written(tmp_path, json.dumps([{"step": 5, "loss": 3}, {"step": 6, "loss": 2}]), "rows.json")))[
        "train/loss"
    ] == [
        (5, 3.0),
        (6, 2.0),
    ]


def test_a_trainer_state_cut_short_keeps_its_rows(tmp_path):
    text = (LOGS / "hf_healthy/hf/trainer_state.json").read_text()
    run = read(written(tmp_path, text[: len(text) // 2], "trainer_state.json"))
    assert 100 < run.last_step < 200 and any("damaged" in note for note in run.notes)


def test_our_own_run(tmp_path):
    writer = RunWriter(tmp_path / "run")
    writer.facts(Facts(codebooks=8))
    writer.step(1, {"train/ce_nats/text": 3.5})
    writer.close()
    run = read(tmp_path / "run", facts={"text_vocab": 100})
    assert run.facts.format == "earnest" and run.facts.text_vocab == 100
    assert told(run) == {"train/ce_nats/text": [(1, 3.5)]}


def test_trackio_with_two_runs(tmp_path):
    path = tmp_path / "project.db"
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        file.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name TEXT, config TEXT)")
        for run in "ab":
            file.executemany(
                "INSERT INTO metrics (run_name, step, metrics) VALUES (?, ?, ?)",
                [(run, i, json.dumps({"train/loss": i})) for i in range(3)],
            )
    with pytest.raises(UserError, match="2 runs"):
        read(path)
    assert told(read(path, run="b")) == {"train/loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}


# --- steps ------------------------------------------------------------------------------------------------------------


def table_of(folder: Path, rows) -> Path:
    return written(folder, "step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in rows), "steps.csv")


def test_a_resume_supersedes_what_it_repeats(tmp_path):
    run = read(table_of(tmp_path, [(10, 5), (20, 4), (30, 9), (40, 9), (30, 3), (40, 2)]))
    assert told(run) == {"train/loss": [(10, 5.0), (20, 4.0), (30, 3.0), (40, 2.0)]}
    assert any("resumed" in note for note in run.notes)
    # what the new life never reached is gone too
    run = read(table_of(tmp_path, [(10, 5), (20, 4), (30, 9), (40, 9), (25, 3), (35, 2)]))
    assert told(run) == {"train/loss": [(10, 5.0), (20, 4.0), (25, 3.0), (35, 2.0)]}


def test_runs_one_after_another(tmp_path):
    path = table_of(tmp_path, [(0, 5), (10, 4), (0, 7), (10, 6), (20, 5)])
    run = read(path)
    assert told(run) == {"train/loss": [(0, 7.0), (10, 6.0), (20, 5.0)]}
    assert any("2 runs follow one another" in note for note in run.notes)
    assert told(read(path, run="1")) == {"train/loss": [(0, 5.0), (10, 4.0)]}
    with pytest.raises(UserError, match="from 1 to 2"):
        read(path, run="3")


def test_two_tables_in_one_file(tmp_path):
    path = written(tmp_path, "step,loss\n0,5\n10,4\nstep,loss\n0,3\n10,2\n")
    assert told(read(path)) == {"train/loss": [(0, 3.0), (10, 2.0)]}


def test_duplicates_and_disorder(tmp_path):
    assert told(read(table_of(tmp_path, [(1, 5), (1, 4), (2, 3), (2, 2)]))) == {"train/loss": [(1, 4.0), (2, 2.0)]}
    assert told(read(table_of(tmp_path, [(30, 1), (20, 2), (10, 3)]))) == {
        "train/loss": [(10, 3.0), (20, 2.0), (30, 1.0)]
    }


def test_steps_within_epochs_are_laid_end_to_end(tmp_path):
    text = "epoch,batch,loss\n" + "".join(
        f"{epoch},{batch},{3 - epoch}\n" for epoch in range(3) for batch in range(0, 100, 10)
    )
    run = read(written(tmp_path, text))
    assert (run["train/loss"].step == np.arange(0, 300, 10)).all() and run.facts.steps_per_epoch == 100
    restarted = "epoch,batch,loss\n" + "".join(
        f"{epoch},{batch},1\n" for epoch in (0, 1, 0) for batch in range(0, 100, 10)
    )
    assert any("runs follow" in note for note in read(written(tmp_path, restarted)).notes)


def test_rows_without_a_step(tmp_path):
    run = read(written(tmp_path, "loss,lr\n3,0.5\n2,0.5\n"))
    assert told(run)["train/loss"] == [(0, 3.0), (1, 2.0)] and "no step column" in run.notes[0]
    assert told(read(written(tmp_path, "epoch,loss\n1,3\n2,2\n")))["train/loss"] == [(1, 3.0), (2, 2.0)]


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = """
loss: train/loss | train/loss: train/loss | train_loss: train/loss | loss/train: train/loss | Loss/train: train/loss | trainLoss: train/loss
eval_loss: eval/loss | val_loss: eval/loss | valid/loss: eval/loss | loss/val: eval/loss | validation_loss: eval/loss | test_loss: test/loss
val/loss_epoch: eval/loss | metrics/val_loss: eval/loss | my-run/train/loss: train/loss | Validation Loss: eval/loss | total_loss: train/loss
grad_norm: train/grad_norm | gnorm: train/grad_norm | gradient_norm: train/grad_norm | train/grad_norm: train/grad_norm | grad norm: train/grad_norm
lr: train/learning_rate | learning_rate: train/learning_rate | lr-Adam: train/learning_rate | lr-AdamW/pg1: train/learning_rate | optim0_lr0: train/learning_rate
charts/learning_rate: train/learning_rate | lr-AdamW-momentum: - | learning rate: train/learning_rate | train/lr: train/learning_rate
text_loss: train/loss/text | audio_loss: train/loss/audio | eval_text_loss: eval/loss/text | train/audio_loss: train/loss/audio
ce: train/ce_nats | ce_q1: train/ce_nats/codebook_1 | valid/ce_q4: eval/ce_nats/codebook_4 | text_ce: train/ce_nats/text
audio_loss_codebook_0: train/loss/codebook_0 | loss_cb0: train/loss/codebook_0 | codebook_3_loss: train/loss/codebook_3 | cb3/loss: train/loss/codebook_3
train/codebook_2/accuracy: train/accuracy_frac/codebook_2 | perplexity_cb1: train/perplexity/codebook_1 | usage/codebook_5: train/used_frac/codebook_5
train/llm_epoch: train/loss/llm | wavlm_epoch: train/loss/wavlm | train/msspec_epoch: train/loss/msspec | feat_epoch: train/loss/feat
adv_g_epoch: train/loss/adv_g | loss_d_epoch: train/loss/loss_d | loss_g_epoch: train/loss/loss_g
d_loss: train/loss/loss_d | g_loss: train/loss/loss_g | loss_disc: train/loss/loss_d | Loss/D: train/loss/loss_d | discriminator_loss: train/loss/loss_d
adv/gen_loss: train/loss/adv_g | adv/disc_loss: train/loss/loss_d | adv/feat_loss: train/loss/feat | mel/loss: train/loss/mel | vq/commitment_loss: train/loss/commitment
acc: train/accuracy_frac | train/accuracy: train/accuracy_frac | mean_token_accuracy: train/accuracy_frac | entropy: train/entropy_nats
grad_norm_d: train/grad_norm/discriminator | lr_d: train/learning_rate/discriminator | clip_fraction: train/clipped_frac
train/my_part_loss: train/loss/my_part | eval/ce_nats/text: eval/ce_nats/text | train/loss/msspec: train/loss/msspec
CV/loss: eval/loss | held_out/loss: eval/loss | HELD_OUT_loss: eval/loss | reduced_train_loss: train/loss | Loss is: train/loss | rank loss: train/loss
loss_metrics/global_avg_loss: train/loss | loss_metrics/global_max_loss: - | tot_loss/loss: train/loss | mel loss_mel_loss: train/loss/mel
best_loss: - | loss_weights: - | val_loss_every: - | l1_time_loss: train/loss/l1_time | loss/g/fm: train/loss/feat | discriminator/total: train/loss/loss_d
train/ppl_3: train/perplexity/codebook_3 | codebook_usage/0: train/used_frac/codebook_0 | grad_scale: train/loss_scale | token_acc: train/accuracy_frac
step: - | epoch: - | _runtime: - | tokens_per_second: - | train_runtime: - | total_flos: - | temperature: - | num_tokens: - | loss_time: - | memory/allocated: -
"""


@pytest.mark.parametrize(
    "pair", [pair.strip() for line in NAMES.split("\n") for pair in line.split(" | ") if pair.strip()]
)
def test_names(pair):
    name, _, expected = pair.rpartition(": ")
    found = guess(name)
    assert (str(found.key) if found else "-") == expected


def test_aliases_name_signals():
    spellings = [spelling for names in ALIASES.values() for spelling in names.split()]
    assert len(spellings) == len(set(spellings))
    assert all(target.partition("/")[0] in SIGNALS for target in ALIASES)


def test_the_users_word_wins(tmp_path):
    path = written(tmp_path, "when,loss,metric_a\n5,3.5,1\n6,3.25,2\n")
    run = read(path, overrides={"when": "step", "loss": "ignore", "metric_a": "eval/ce_nats/text"})
    assert told(run) == {"eval/ce_nats/text": [(5, 1.0), (6, 2.0)]}
    assert run.facts.mapping == {"when": "step", "metric_a": "eval/ce_nats/text"}
    with pytest.raises(UserError, match=r"metric_b.*one of 'metric_a'"):
        try:
            read(path, overrides={"metric_b": "loss"})
        except UserError as error:
            raise UserError(error.seen + error.expected, "", "") from None
    with pytest.raises(UserError, match="no signal"):
        read(path, overrides={"loss": "los"})


def test_what_only_folders_tell_apart_is_not_guessed(tmp_path):
    text = "step,train/loss,encoder/grad_norm,decoder/grad_norm,optim/lr\n1,3,1,2,0.1\n2,2,1,2,0.1\n"
    run = read(written(tmp_path, text))
    assert (
        set(map(str, run.series)) == {"train/loss", "train/learning_rate"}
        and "name one" in run.facts.unmapped["encoder/grad_norm"]
    )
    assert "train/grad_norm" in read(written(tmp_path, text.replace("decoder/grad_norm", "x")))
    counts = "step,loss,codebook_usage\n1,3,800\n2,2,900\n"
    assert "no fraction" in read(written(tmp_path, counts)).facts.unmapped["codebook_usage"]


def test_rows_that_say_their_split_or_metric(tmp_path):
    rows = '{"split": "train", "step": 1, "loss": 3}\n{"split": "val", "step": 1, "loss": 3.5}\n{"split": "train", "step": 2, "loss": 2}\n'
    expected = {"train/loss": [(1, 3.0), (2, 2.0)], "eval/loss": [(1, 3.5)]}
    assert told(read(written(tmp_path, rows, "a.jsonl"))) == expected
    assert told(read(written(tmp_path, rows + "{broken\n", "b.jsonl"))) == expected
    assert told(read(written(tmp_path, "phase,step,loss\ntrain,1,3\nval,1,3.5\ntrain,2,2\n", "c.csv"))) == expected
    long = "step,tag,value\n1,train/loss,3\n1,val/loss,3.5\n2,train/loss,2\n"
    assert told(read(written(tmp_path, long, "d.csv"))) == expected


RUNS = [
    {"run": f"exp_{run}", "step": 10 * step + run, "loss": 5.0 - step - run} for run in range(3) for step in range(4)
]
NUMBERED = [row | {"run": index // 4} for index, row in enumerate(RUNS)]


def as_csv(rows: list[dict]) -> str:
    return ",".join(rows[0]) + "\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows)


def as_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", as_csv(RUNS)),
        ("b.csv", as_csv(NUMBERED)),
        ("c.csv", as_csv(sorted(RUNS, key=lambda row: row["step"]))),
        ("a.jsonl", as_lines(RUNS)),
        ("b.jsonl", as_lines(NUMBERED)),
        ("c.jsonl", as_lines(RUNS) + "{broken\n"),
        ("a.json", json.dumps(RUNS)),
    ],
)
def test_several_runs_in_one_table_are_told_apart(name, text, tmp_path):
    path = written(tmp_path, text, name)
    with pytest.raises(UserError, match="3 runs side by side") as error:
        read(path)
    runs = ["0", "1", "2"] if name.startswith("b") else ["exp_0", "exp_1", "exp_2"]
    assert error.value.expected == f"one run: {', '.join(runs)}"
    assert told(read(path, run=runs[1])) == {"train/loss": [(10 * step + 1, 4.0 - step) for step in range(4)]}


def test_a_run_column_with_one_run_or_a_name_for_each_row_tells_no_runs(tmp_path):
    one = [row | {"run": "mine"} for row in RUNS[:4]]
    assert told(read(written(tmp_path, as_csv(one), "a.csv"))) == {
        "train/loss": [(0, 5.0), (10, 4.0), (20, 3.0), (30, 2.0)]
    }
    for each in (str, int):
        rows = [row | {"trial": each(index)} for index, row in enumerate(one)]
        for name, text in {
            "b.csv": as_csv(rows),
            "b.jsonl": as_lines(rows),
            "c.jsonl": as_lines(rows) + "{b\n",
        }.items():
            assert len(read(written(tmp_path, text, name))["train/loss"]) == 4


def test_runs_and_splits_in_one_table(tmp_path):
    rows = [
        {"seed": seed, "split": split, "step": step, "loss": 3.0 + seed - step}
        for seed in (1, 2)
        for step in range(3)
        for split in ("train", "val")
    ]
    run = read(written(tmp_path, as_csv(rows)), run="2")
    assert told(run) == {key: [(0, 5.0), (1, 4.0), (2, 3.0)] for key in ("train/loss", "eval/loss")}


def test_long_rows_with_a_nested_value(tmp_path):
    rows = [
        {"name": name, "data": {"step": step, "value": 5.0 - step}}
        for step in range(3)
        for name in ("loss", "val_loss")
    ]
    run = read(written(tmp_path, as_lines(rows), "a.jsonl"))
    assert told(run) == {key: [(0, 5.0), (1, 4.0), (2, 3.0)] for key in ("train/loss", "eval/loss")}


def test_a_sum_of_parts_takes_no_unit_from_a_perplexity(tmp_path):
    rows = [
        {"step": i, "loss": 5.0 - i / 4, "text_loss": 2.0, "audio_loss": 3 - i / 4, "ppl": 2 ** (5 - i / 4)}
        for i in range(8)
    ]
    run = read(written(tmp_path, as_csv(rows), "a.csv"))
    assert run["train/loss"].value[0] == 5 and any("tells no unit" in note for note in run.notes)
    del rows[0]["audio_loss"]
    alone = [{name: row[name] for name in ("step", "loss", "ppl")} for row in rows]
    assert read(written(tmp_path, as_csv(alone), "b.csv"))["train/loss"].value[0] == pytest.approx(5 * math.log(2))


def test_steps_that_say_how_many_there_will_be(tmp_path):
    rows = [{"loss": 5.0 - i, "global_step/max_steps": f"{10 * i}/40"} for i in range(1, 4)]
    for text in (as_lines(rows), as_lines(rows) + "{broken\n"):
        assert told(read(written(tmp_path, text, "a.jsonl"))) == {"train/loss": [(10, 4.0), (20, 3.0), (30, 2.0)]}


def test_lists_without_names_are_told(tmp_path):
    lines = "".join(f"10:00:0{i},100 INFO [{9 - i}, 3.5, 0.1]\n" for i in range(5))
    with pytest.raises(UserError) as error:
        read(written(tmp_path, lines))
    assert "list_1" in error.value.seen and "--map list_1=train/loss" in error.value.fix
    assert len(read(written(tmp_path, lines), overrides={"list_1": "train/loss"})["train/loss"]) == 5


def test_parts_of_one_printed_log_are_read_as_one(tmp_path):
    for part, steps in {"job.o1": range(1, 4), "job.o2": range(4, 7)}.items():
        written(tmp_path, "".join(f"step {i} loss {9 - i}\n" for i in steps), part)
    assert told(read(tmp_path)) == {"train/loss": [(i, 9.0 - i) for i in range(1, 7)]}
    written(tmp_path, "step 5 loss 1\nstep 6 loss 1\n", "job.o3")
    with pytest.raises(UserError, match="3 runs"):
        read(tmp_path)


def test_a_folder_without_a_log_says_what_its_texts_say(tmp_path):
    written(tmp_path, "loading\nValueError: no clips\n", "train.log")
    with pytest.raises(UserError, match=r"holds no log; the program failed: train\.log ends with .*no clips"):
        read(tmp_path)


def test_perplexity_is_told_apart(tmp_path):
    lm = "step,loss,perplexity\n" + "".join(f"{i},{5 - i / 10},{math.exp(5 - i / 10)}\n" for i in range(10))
    run = read(written(tmp_path, lm))
    assert "train/perplexity" not in run and "e ** it" in run.facts.unmapped["perplexity"]
    assert any("cross-entropy in nats" in note for note in run.notes)
    codec = "step,commit_loss,perplexity\n" + "".join(f"{i},{5 - i / 10},{100 + i}\n" for i in range(10))
    assert "train/perplexity" in read(written(tmp_path, codec))
    alone = "step,loss,perplexity\n" + "".join(f"{i},{5 - i / 10},{100 + i}\n" for i in range(10))
    assert "neither" in read(written(tmp_path, alone)).facts.unmapped["perplexity"]
    named = "step,loss,codebook_perplexity\n1,3,100\n2,2,200\n"
    assert "train/perplexity" in read(written(tmp_path, named))


# --- facts that logs hold (of configurations: test_logs_settings.py) --------------------------------------------------


def test_facts_that_logs_hold():
    assert read(LOGS / "wandb_healthy").facts.text_vocab == 64
    # transformers writes its arguments into TensorBoard
    assert read(LOGS / "hf_healthy/hf/runs").facts.max_grad_norm == 1
    assert read(LOGS / "hf_healthy").facts.schedule_steps == 300
    assert read(LOGS / "hf_healthy").facts.steps_per_epoch == 32


# --- directories ------------------------------------------------------------------------------------------------------


def test_directories(tmp_path):
    assert set(discover(LOGS, FORMATS)) >= {"gan_healthy", "hf_healthy/hf", "tqdm_healthy"}
    with pytest.raises(UserError, match="holds no log"):
        read(tmp_path)
    written(tmp_path, "step,loss\n1,3\n2,2\n", "a.csv")
    written(tmp_path, "step,loss\n1,4\n2,3\n", "b.csv")
    with pytest.raises(UserError, match="2 runs") as error:
        read(tmp_path)
    assert "a.csv, b.csv" in str(error.value)
    assert told(read(tmp_path, run="b.csv"))["train/loss"][0] == (1, 4.0)


def test_the_folder_of_a_transformers_run(tmp_path):
    """Checkpoints, TensorBoard and printed output of one run are one run: the newest state tells it."""
    state = json.loads((LOGS / "hf_healthy/hf/trainer_state.json").read_text())
    for step in (90, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
        rows = [row for row in state["log_history"] if row["step"] <= step]
        written(tmp_path / f"checkpoint-{step}", json.dumps(state | {"log_history": rows}), "trainer_state.json")
    shutil.copytree(LOGS / "hf_healthy/hf/runs", tmp_path / "runs")
    shutil.copy(LOGS / "hf_healthy/output.log", tmp_path / "train.log")
    run = read(tmp_path)
    assert run.facts.format == "trainer_state" and run.last_step == 200


def test_the_folder_of_wandb_runs(tmp_path):
    for name in "ab":
        shutil.copytree(LOGS / "wandb_healthy/wandb", tmp_path / name / "wandb")
    run = next((tmp_path / "a").rglob("*.wandb")).parent
    (run / "files").mkdir()
    shutil.copy(LOGS / "hf_healthy/output.log", run / "files")
    written(run / "files", '{"train/loss": 2.0, "_step": 300}', "wandb-summary.json")
    assert read(tmp_path / "a").facts.format == "wandb"
    with pytest.raises(UserError, match="2 runs"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["run.md", "job.o123", "job.e123", "solver.log.0", "train.log.12.gz", "console", "slurm-17.out", "out.err"]
)
def test_names_of_printed_logs(name, tmp_path):
    text = b"step 1 loss 3\nstep 2 loss 2\n"
    written(tmp_path, gzip.compress(text) if name.endswith("gz") else text, name)
    written(tmp_path, "loss: 3", ".hidden")
    written(tmp_path, "loss 1: bad\nloss 2: good\n", "README.md")
    assert told(read(tmp_path)) == {"train/loss": [(1, 3.0), (2, 2.0)]}


def test_a_file_without_a_signal_is_no_run(tmp_path):
    written(tmp_path, "epoch,loss\n0,3\n1,2\n", "log.csv")
    written(tmp_path, "kind,current_epoch,time_usage\nepoch,0,0.1\nepoch,5,0.2\n", "watch.csv")
    written(tmp_path, "loading 3 files: a=1\nloading 4 files: a=2\n", "watch.log")
    assert told(read(tmp_path)) == {"train/loss": [(0, 3.0), (1, 2.0)]}
    (tmp_path / "log.csv").unlink()
    with pytest.raises(UserError, match="no column is a known signal"):
        read(tmp_path)


class Aim:
    """A format of somebody else: a file with a suffix of its own, and a directory with a mark."""

    @staticmethod
    def claims(source: Source) -> bool:
        return (source.path / "aim.mark").is_file() if source.is_dir else source.raw.startswith(b"AIM")

    @staticmethod
    def read(source: Source) -> Log:
        file = source.path / "losses" if source.is_dir else source.path
        values = np.array([float(word) for word in file.read_text().split()[1:]])
        return Log("aim", {"loss": Column(np.arange(len(values)), values)})


def test_a_format_is_one_file_and_one_line(tmp_path, monkeypatch):
    """It is found in a directory beside other logs, read, counted as the richer one, and listed in errors."""
    monkeypatch.setitem(vars(logs), "FORMATS", [Format("aim", "Aim", 45, Aim.claims, Aim.read, (".aim",)), *FORMATS])
    for folder in ("file", "directory", "table"):
        (tmp_path / folder).mkdir()
    written(tmp_path / "file", "AIM 5 4 3", "a.aim")
    written(tmp_path / "file", "step,loss\n1,3\n2,2\n", "a.csv")
    written(tmp_path / "directory", "", "aim.mark")
    written(tmp_path / "directory", "AIM 4 3 2", "losses")
    written(tmp_path / "directory", "step,loss\n1,3\n2,2\n", "part.csv")
    written(tmp_path / "table", "step,loss\n1,3\n2,2\n", "a.csv")
    with pytest.raises(UserError, match="3 runs"):
        read(tmp_path)
    for name, values in {"file": [5, 4, 3], "directory": [4, 3, 2], "table": [3, 2]}.items():
        run = read(tmp_path, run=name)
        assert run.facts.format == ("csv" if name == "table" else "aim")
        assert run["train/loss"].value.tolist() == values
    with pytest.raises(UserError) as error:
        read(written(tmp_path, "", "empty.txt"))
    assert "Aim" in error.value.expected


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "empty": b"",
    "blank": b"\n\n   \n",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95" + bytes(100),
    "binary": bytes(range(256)) * 50,
    "zeros": bytes(10_000),
    "HTML": b"<!DOCTYPE html><html><body>loss: 3.5</body></html>",
    "prose": b"Once upon a time there was a model.\nIt never trained.\n",
    "one row": b"step,loss\n1,2\n",
    "no numeric column": b"name,colour\na,red\nb,blue\n",
    "no known signal": b"step,height\n1,2\n2,3\n",
    "header only": b"step,loss\n",
    "JSON of nothing": b"{}",
    "JSON list": b"[1, 2, 3]",
    "deep JSON": b"[" * 100_000,
    "damaged parquet": b"PAR1" + bytes(100) + b"PAR1",
    "damaged gzip": b"\x1f\x8b\x08\x00" + bytes(20),
    "damaged sqlite": b"SQLite format 3\0" + bytes(100),
    "events without scalars": b'\x18\0\0\0\0\0\0\0\xa3\x7fK"\t\0\0\xc0\xda\xd4U\xd9A\x1a\rbrain.Event:2\xec\x98(\x95',
    "wandb without history": b":W&B\xe1\xbe\x00" + bytes(100),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_told(kind, tmp_path):
    with pytest.raises(UserError) as error:
        read(written(tmp_path, BAD[kind], "log"))
    assert error.value.seen and error.value.expected and error.value.fix


def test_missing_and_forbidden(tmp_path):
    written(tmp_path, "step,loss\n1,2\n2,1\n", "train.csv")
    with pytest.raises(UserError, match="no such file") as error:
        read(tmp_path / "trian.csv")
    assert "train.csv" in error.value.fix
    with pytest.raises(UserError):
        read(tmp_path / ("x" * 5000))
    (tmp_path / "train.csv").chmod(0)
    if not os.access(tmp_path / "train.csv", os.R_OK):  # root may read anything
        with pytest.raises(UserError, match="no permission"):
            read(tmp_path / "train.csv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither file nor directory"):
        read(tmp_path / "pipe")


def test_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("earnest.logs.source.LONGEST_LINE_BYTES", 10 << 20)
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(b"step,loss\n")
        for _ in range(20):
            file.write(b"1,2\n" * 250_000)
    with pytest.raises(UserError, match="times its size"):
        read(path)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"step,loss\n1,3\n2,2\n",
        b"step 1 loss 3\nstep 2 loss 2\n",
        b'{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n',
    ],
)
def test_ten_gigabytes_of_nothing(head, tmp_path):
    path = written(tmp_path, head, "big.csv")
    os.truncate(path, 10 << 30)  # a sparse file
    if head:
        assert told(read(path)) == {"train/loss": [(1, 3.0), (2, 2.0)]}
    else:
        with pytest.raises(UserError):
            read(path)


def test_more_text_than_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("earnest.logs.source.LARGEST_TEXT_BYTES", 1000)
    with pytest.raises(UserError, match="GiB"):
        read(written(tmp_path, "step,loss\n" + "1,2\n" * 1000))
    monkeypatch.setattr("earnest.logs.source.LONGEST_LINE_BYTES", 1000)
    with pytest.raises(UserError):
        read(written(tmp_path, "step,loss\n1,2\n" + "x" * 5000))


@pytest.mark.parametrize("name", ["wide.csv", "wide.jsonl"])
def test_five_thousand_columns(name, tmp_path):
    names = ["step", *(f"layer_{index}/weight_mean" for index in range(4998)), "loss"]
    rows = [[step, *range(4998), 5 - step] for step in range(3)]
    text = ",".join(names) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    if name.endswith("jsonl"):
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    run = read(written(tmp_path, text, name))
    assert told(run) == {"train/loss": [(0, 5.0), (1, 4.0), (2, 3.0)]} and len(run.facts.unmapped) == 4998


def test_not_utf8(tmp_path):
    text = "step,loss,größe\n1,3,5\n2,2,5\n"
    assert told(read(written(tmp_path, text.encode("latin-1"), "a.csv")))["train/loss"] == [(1, 3.0), (2, 2.0)]
    assert told(read(written(tmp_path, text.encode("utf-8-sig"), "b.csv")))["train/loss"] == [(1, 3.0), (2, 2.0)]
    assert told(read(written(tmp_path, text.encode("utf-16"), "c.csv")))["train/loss"] == [(1, 3.0), (2, 2.0)]
    assert told(read(written(tmp_path, "step 1 größe 5 loss 3\nstep 2 größe 5 loss 2\n".encode("latin-1"), "d.log")))[
        "train/loss"
    ] == [
        (1, 3.0),
        (2, 2.0),
    ]


def test_reading_needs_no_torch():
    code = "import sys, earnest.logs; print([name for name in ('torch', 'transformers', 'pandas', 'tensorboard', 'wandb') if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_column_without_a_value_is_empty():
    gathered = Table([])
    gathered.cells("none", np.zeros(0, np.int64), np.zeros(0))
    gathered.rows = 3
    assert len(gathered.columns()["none"].value) == 0

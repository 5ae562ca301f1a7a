"""Two processes (gloo, on the CPU) give the numbers of one process that takes the same clips a step."""

import csv
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from earnest.cli import main
from earnest.data.audio import write_wave
from earnest.data.sources import SAMPLE_RATE_HZ, Voice, speak
from earnest.run import checkpoints, read_run

OPTIONS = [
    *("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64", "--data.positions-per-batch", "512"),
    *("--demos.every-steps", "0", "--evaluate-every-steps", "100", "--optimizer.warmup-steps", "2", "--steps", "7"),
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """Twenty-five spoken digits: an odd number of batches, so that one process runs out of them before the other."""
    folder = tmp_path_factory.mktemp("speech")
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for number in range(25):
            text = ("zero", "one", "two")[number % 3]
            write_wave(folder / f"{number}.wav", speak(text, Voice(pitch=30 + number)), SAMPLE_RATE_HZ)
            writer.writerow([f"{number}.wav", text])
    return folder


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train(processes: int, cache: Path, *args) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={free_port()}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "earnest.cli", "train", "higgs-tiny", *map(str, args)]
    env = {**os.environ, "EARNEST_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)


def series(run_dir: Path, name: str) -> list[float]:
    return read_run(run_dir).series[name].value.tolist()


def test_two_processes_are_one(speech, tmp_path):
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    options = [*OPTIONS, "--data.path", speech, "--save-every-steps", "4"]
    ended = train(1, tmp_path / "cache", *options, "--optimizer.accumulation-steps", "2", "--out", one)
    assert ended.returncode == 0, ended.stderr
    ended = train(2, tmp_path / "cache", *options, "--out", two)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Streams") == 1  # one of them reports
    for name in ("train/loss", "train/ce_nats/codebook_3", "train/ce_nats/text", "train/grad_norm", "train/counted_frac/codebook_0"):
        assert series(two, name) == pytest.approx(series(one, name), rel=1e-4), name
    assert read_run(two).series["train/loss"].step.tolist() == list(range(1, 8))
    assert series(two, "eval/ce_nats/codebook_0") == pytest.approx(series(one, "eval/ce_nats/codebook_0"), rel=1e-4)
    # and they continue what two processes began
    shutil.copytree(two, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    ended = train(2, tmp_path / "cache", *options, "--out", resumed, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert series(resumed, "train/loss") == pytest.approx(series(two, "train/loss"), rel=1e-5)


def test_several_processes_need_a_directory_that_all_know(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "higgs-tiny"]) == 2
    assert "no --out" in capsys.readouterr().err


SHARDED = """
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from earnest.losses.tokens import TokenObjective, stream_weights
from tests.tiny import CODEBOOKS, random_batch, tiny_higgs

dist.init_process_group("gloo")
batches = [random_batch(tiny_higgs(), frames, seed) for seed, frames in enumerate([(5, 9), (7, 12)])]
counted = {stream: sum(batch.counted()[stream] for batch in batches) for stream in batches[0].counted()}
whole, sharded = (TokenObjective(tiny_higgs(), stream_weights(CODEBOOKS, 0.5, 1.0)) for _ in range(2))
expected = 0
for batch in batches:
    loss, _ = whole(batch, counted)
    loss.backward()
    expected += loss.item()
for layer in sharded.model.lm.model.layers:
    fully_shard(layer)
fully_shard(sharded)
loss, _ = sharded(batches[dist.get_rank()], counted)
(loss * 2).backward()  # as lm_steps does: the ranks' gradients are averaged
total = loss.detach().clone()
dist.all_reduce(total)
assert abs(total.item() - expected) < 1e-5 * expected, (total, expected)
for ours, theirs in zip(sharded.parameters(), whole.parameters(), strict=True):
    assert (ours.grad.full_tensor() - theirs.grad).abs().max() < 1e-6
dist.destroy_process_group()
"""


def test_the_objective_has_the_same_loss_and_gradients_when_sharded(tmp_path):
    """FSDP2 (`fully_shard`): the heads' weights are read within the sharded module's forward pass, so they are gathered for it."""
    (tmp_path / "sharded.py").write_text(SHARDED)
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", tmp_path / "sharded.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert ended.returncode == 0, ended.stderr

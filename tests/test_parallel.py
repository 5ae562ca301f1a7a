"""Two processes (gloo, on the CPU) give the numbers of one process that takes the same clips a step."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import distributed
from torch.distributed import DistNetworkError

from earnest.checkpoints import checkpoints, damage, described, latest_checkpoint
from earnest.cli import main
from earnest.data.audio import write_wave
from earnest.data.batch import IGNORE, Batch
from earnest.data.layouts.sources import SAMPLE_RATE_HZ, Voice, speak
from earnest.loops.processes import largest
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models import load_model
from earnest.run import read_run
from earnest.training.processes import is_lost
from earnest.training.tokens.lm_steps import lm_steps
from earnest.training.tokens.sharding import on_device
from tests.equipment.processes import in_processes
from tests.equipment.tiny import CODEBOOKS, random_batch, tiny_higgs

OPTIONS = [
    *("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64"),
    *("--data.positions-per-batch", "512"),
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


def command_of(
    processes: int, cache: Path, *args, program: Sequence[str | Path] = ("-m", "earnest.cli"), **env: str
) -> tuple[list[str], dict[str, str]]:
    """The command of a training by so many processes, and its environment."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={free_port()}"]
    words = ["train", "higgs-tiny", *map(str, args)]
    command = [sys.executable, *(launcher if processes > 1 else []), *map(str, program), *words]
    env = {
        **os.environ,
        **env,
        "EARNEST_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    return command, env


def train(*args, **kwargs):
    command, env = command_of(*args, **kwargs)
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)


def series(run_dir: Path, name: str) -> list[float]:
    return read_run(run_dir)[name].value.tolist()


def test_two_processes_are_one(speech, tmp_path):
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    options = [*OPTIONS, "--data.path", speech, "--save-every-steps", "4"]
    ended = train(1, tmp_path / "cache", *options, "--optimizer.accumulation-steps", "2", "--out", one)
    assert ended.returncode == 0, ended.stderr
    ended = train(2, tmp_path / "cache", *options, "--out", two)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Streams") == 1  # one of them reports
    for name in (
        "train/loss",
        "train/ce_nats/codebook_3",
        "train/ce_nats/text",
        "train/grad_norm",
        "train/counted_frac/codebook_0",
    ):
        assert series(two, name) == pytest.approx(series(one, name), rel=1e-4), name
    assert read_run(two)["train/loss"].step.tolist() == list(range(1, 8))
    assert series(two, "eval/ce_nats/codebook_0") == pytest.approx(series(one, "eval/ce_nats/codebook_0"), rel=1e-4)
    # and they continue what two processes began
    shutil.copytree(two, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    ended = train(2, tmp_path / "cache", *options, "--out", resumed, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert series(resumed, "train/loss") == pytest.approx(series(two, "train/loss"), rel=1e-5)


def rank_of_two(rank: int, port: int) -> tuple[list[dict[str, float]], list[int]]:
    """The signals of two steps of one of two processes, and how many numbers were exchanged each time beside gradients.
    Nothing may be pickled."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    exchanged, reduce = list[int](), distributed.all_reduce

    def counting(tensor, *args, **kwargs):
        exchanged.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    distributed.all_reduce = counting
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    distributed.distributed_c10d._object_to_tensor = None  # all collectives of objects call it
    steps = two_steps(accelerator, [[group[rank]] for group in batches_of_two()])
    assert largest(rank * 15, accelerator.device) == 15  # a signal that one of them was sent
    accelerator.free_memory()
    accelerator.end_training()
    return steps, exchanged


def batches_of_two() -> list[list[Batch]]:
    """Two steps of two micro-batches; in one of these nothing counts."""
    model = tiny_higgs()
    first, second, third = (random_batch(model, seed=seed) for seed in range(3))
    silent = replace(
        third,
        text_targets_BS=torch.full_like(third.text_targets_BS, IGNORE),
        audio_targets_BSC=torch.full_like(third.audio_targets_BSC, IGNORE),
    )
    return [[first, second], [third, silent]]


def two_steps(accelerator: Accelerator, groups: list[list[Batch]]) -> list[dict[str, float]]:
    objective = TokenObjective(tiny_higgs(), stream_weights(CODEBOOKS, 0.1, 1.0))
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-3)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    return [dict(step.signals) for step in lm_steps(wrapped, groups, optimizer, schedule, 1.0, accelerator)]


def test_two_processes_exchange_two_small_tensors_a_step_and_pickle_nothing():
    (first, exchanged), (second, others) = in_processes(2, rank_of_two, free_port())
    whole = two_steps(Accelerator(cpu=True, mixed_precision="no"), batches_of_two())
    for one, two, expected in zip(first, second, whole, strict=True):
        assert one.keys() == two.keys() == expected.keys()
        shared = expected.keys() - {"train/padding_frac"}  # of a rank's own batches
        assert {name: one[name] for name in shared} == pytest.approx(
            {name: expected[name] for name in shared}, rel=1e-4
        )
    streams = CODEBOOKS + 1
    # counts and positions; then signals, each with how many ranks have it; and the signal that asks for an end
    assert exchanged == others == [2 * streams, 2 * (1 + 5 * streams)] * 2 + [1]


def test_a_process_that_dies_ends_the_other_with_what_was_kept(speech, tmp_path):
    """No launcher ends the other one here: it finds out by itself, says so in three lines, and what it kept goes on."""
    run_dir, told = tmp_path / "run", [tmp_path / "0.txt", tmp_path / "1.txt"]
    words = [*OPTIONS[:-2], "--data.path", speech, "--save-every-steps", "2", "--out", run_dir]
    command, env = command_of(1, tmp_path / "cache", *words, "--steps", "100000")
    env |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pair = list[subprocess.Popen]()
    try:
        for rank, path in enumerate(told):
            of_rank = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with open(path, "w") as file:
                pair.append(subprocess.Popen(command, env=of_rank, stdout=file, stderr=subprocess.STDOUT))
        while not checkpoints(run_dir):
            assert pair[0].poll() is None and pair[1].poll() is None, told[0].read_text()[-2000:]
            time.sleep(0.05)
        pair[1].kill()
        assert pair[0].wait(timeout=200) == 2
    finally:
        for process in pair:
            process.kill()
    seen, expected, fix = told[0].read_text().strip().splitlines()[-3:]
    assert "another of the 2 processes is gone" in seen
    kept = latest_checkpoint(run_dir)
    assert "kept up to" in expected and kept.name in expected and damage(kept) is None
    assert "--resume" in fix
    steps = described(kept).step + 2
    ended = train(2, tmp_path / "cache", *words, "--steps", steps, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert read_run(run_dir)["train/loss"].step.tolist() == list(range(1, steps + 1))


def test_errors_of_collectives_are_known_from_others():
    gone = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
    assert is_lost(RuntimeError(gone)) and is_lost(DistNetworkError("no answer"))
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_whole_copy_is_on_the_device_while_it_is_evaluated_if_there_is_room(monkeypatch):
    class Moved(torch.nn.Linear):
        def to(self, device):
            moves.append(str(device))
            return self

    moves, model, gpu = list[str](), Moved(4, 4), torch.device("cuda")
    for free, expected in ((10**6, ["cuda", "cpu"]), (100, [])):
        moves.clear()
        monkeypatch.setattr("earnest.training.tokens.sharding._free", lambda device, free=free: free)
        with pytest.raises(KeyError), on_device(model, gpu):
            raise KeyError
        assert moves == expected
    with on_device(model, torch.device("cpu")):
        assert moves == []


def test_several_processes_need_a_directory_that_all_know(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "higgs-tiny"]) == 2
    assert "no --out" in capsys.readouterr().err


ON_A_CPU = """
import sys
import torch
import torch.distributed.fsdp as fsdp
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from earnest.cli import main
from earnest.models.system import System

def begin_sharded(self, *args, fsdp_plugin=None, begin=AcceleratorState.__init__, **kwargs):
    begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

def shard(module, *args, real=fsdp.fully_shard, **kwargs):
    for part in module if isinstance(module, list) else [module]:
        where.update(parameter.device.type for parameter in part.parameters())
    return real(module, *args, **kwargs)

def to(self, *args, real=torch.nn.Module.to, **kwargs):
    whole.append(args[0]) if isinstance(self, System) else None
    return real(self, *args, **kwargs)

where, whole = set(), []
fsdp.fully_shard, torch.nn.Module.to = shard, to
AcceleratorState.__init__ = begin_sharded
code = main(sys.argv[1:])
print(f"sharded on {'+'.join(sorted(where))}, whole models moved: {len(whole)}", flush=True)
sys.exit(code)
"""
FSDP2 = {  # what `accelerate launch --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP` sets
    **{"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"},
    **{"FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "FSDP_SYNC_MODULE_STATES": "true"},
}


def test_two_processes_with_half_of_the_weights_each_are_one(speech, tmp_path):
    """FSDP2 as accelerate does it. It takes the choice on accelerators only; everything behind that choice runs on a
    CPU as well."""
    (tmp_path / "on_a_cpu.py").write_text(ON_A_CPU)
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    options = [*OPTIONS, "--data.path", speech, "--save-every-steps", "4"]
    ended = train(1, tmp_path / "cache", *options, "--optimizer.accumulation-steps", "2", "--out", one)
    assert ended.returncode == 0, ended.stderr
    ended = train(2, tmp_path / "cache", *options, "--out", two, program=[tmp_path / "on_a_cpu.py"], **FSDP2)
    assert ended.returncode == 0, ended.stderr
    # no device is given the whole model: it is sharded without weights, and filled afterwards; the one that is moved is
    # what the first process reads back from its checkpoint, to compare
    moved = sorted(re.findall(r"sharded on (.*), whole models moved: (\d)", ended.stdout))
    assert moved == [("meta", "0"), ("meta", "1")], ended.stdout[-500:]
    for name in (
        "train/loss",
        "train/ce_nats/codebook_3",
        "train/grad_norm",
        "eval/ce_nats/codebook_0",
        "eval/ce_nats/text",
    ):
        assert series(two, name) == pytest.approx(series(one, name), rel=1e-4), name
    ours, theirs = (load_model(checkpoints(run)[-1]).state_dict() for run in (two, one))
    # whole weights, to load anywhere
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    shutil.copytree(two, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    ended = train(
        2, tmp_path / "cache", *options, "--out", resumed, "--resume", program=[tmp_path / "on_a_cpu.py"], **FSDP2
    )
    assert ended.returncode == 0, ended.stderr
    assert series(resumed, "train/loss") == pytest.approx(series(two, "train/loss"), rel=1e-5)

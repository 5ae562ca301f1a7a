"""Trainings of several processes under watch: the first one looks and writes, and nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

from earnest.run import read_run

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch without gloo"
)
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1")
SCRIPT = """
import sys, torch, torch.nn.functional as F, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Embedding(60, 16), torch.nn.Linear(16, 60)))
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(12):
    ids = torch.randint(0, 60, (4, 12))
    if sys.argv[1] == "dies" and step == 3 and dist.get_rank() == 1:
        sys.exit(7)
    shift = sys.argv[1] == "unshifted"
    logits, labels = (model(ids), ids) if shift else (model(ids)[:, :-1], ids[:, 1:])
    F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
print("to the end", flush=True)
"""


def launched(launcher: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", *launcher, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_faults_are_named_with_two_processes_as_with_one(tmp_path):
    """Where the model waits for the other processes, or each holds a part of it, that is said once."""
    done = launched(TORCHRUN, "-m", "tests.equipment.two_processes", str(tmp_path))
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    found = {}
    for kind, findings, broken, steps, lines in told:
        assert not broken, (kind, broken)
        found.setdefault(kind, []).append((findings, len(lines), steps))
    nothing = ([], 0, 12)
    whole, stopped = sorted([nothing, (["A203"], 0, 12)]), sorted([([], 0, 1), (["A203"], 0, 1)])
    in_one_line = sorted([nothing, ([], 1, 12)])
    assert {kind: sorted(both) for kind, both in found.items()} == {
        "right": [nothing, nothing],
        "DDP": whole,
        "waits": in_one_line,
        "FSDP": in_one_line,
        "FSDP 1": in_one_line,
        "Trainer": stopped,  # by stop_on, both at the same step
        "Accelerate": whole,
        "Lightning": stopped,
    }
    assert {path.name for path in tmp_path.iterdir()} == {*found, "trainer"}
    assert read_run(tmp_path / "FSDP")["train/loss"].step.tolist() == [*range(1, 13)]


@pytest.mark.parametrize(
    "launcher, fault, stop_on, code, ends",
    [
        (ACCELERATE, "unshifted", "warning", 1, 0),  # stopped: the launcher ends the other process
        (ACCELERATE, "unshifted", None, 0, 2),  # an exit code would be a crash to a launcher
        (TORCHRUN, "dies", None, 1, 0),
    ],
)
def test_a_script_of_two_processes_under_watch(launcher, fault, stop_on, code, ends, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    options = ["--stop-on", stop_on] if stop_on else []
    run = tmp_path / "run"
    done = launched(launcher, "-m", "earnest", "watch", "--out", str(run), *options, str(tmp_path / "train.py"), fault)
    assert (done.returncode, done.stdout.count("to the end")) == (code, ends), done.stderr
    assert done.stderr.count("A203 labels-misaligned") == (0 if fault == "dies" else 1 + bool(stop_on))
    assert [path.name for path in Path(tmp_path).iterdir() if path.is_dir()] == ["run"]

"""Two processes that train together (gloo), of which one is killed or stopped at a random moment: the other does not
wait for it for ever, and what two processes resume ends with the curve that nobody touched."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.campaigns.tally import TINY, Tally, tones, until
from earnest.run import read_run

STEPS = ["--steps", "12", "--save-every-steps", "2"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
LONGEST_S = 120.0  # that a pair may take to end once one of it is gone


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data, log = Tally("ranks"), tones(folder / "tones"), folder / "told.txt"
    train = ["higgs-tiny", "--data.path", str(data), *TINY, *STEPS]
    whole, run_dir = folder / "whole", folder / "killed"
    assert _started(log, [*train, "--out", str(whole)]).wait() == 0, log.read_text()[-500:]
    curve = read_run(whole)["train/loss"].value
    for random_ in until(seconds, seed):
        pair = _started(log, [*train, "--out", str(run_dir)])
        how = _one_dies(pair, run_dir, random_)
        try:
            pair.wait(LONGEST_S)
            tally.end(how)
        except subprocess.TimeoutExpired:
            tally.end(how, f"{how}: the other waits for ever")
            os.killpg(pair.pid, signal.SIGKILL)
            pair.wait()
        resume = ["--resume", "--out", str(run_dir)]
        more = resume if (run_dir / "run.json").exists() else [*train, "--out", str(run_dir)]
        code = _started(log, more).wait()
        same = code == 0 and np.allclose(read_run(run_dir)["train/loss"].value, curve, rtol=1e-5)
        tally.end("resumed", "" if same else f"{how}, then {code}: {log.read_text()[-400:]}")
        shutil.rmtree(run_dir)
    return tally


def _started(log: Path, words: list[str]) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    command = [sys.executable, *launcher, "-m", "earnest.cli", "train", *words]
    with open(log, "wb") as told:
        return subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT, start_new_session=True)


def _one_dies(pair: subprocess.Popen[bytes], run_dir: Path, random_: random.Random) -> str:
    """Send a signal to one of the two, a random while after the first step; -> how."""
    rows = run_dir / "steps.jsonl"
    while pair.poll() is None and not (rows.exists() and b"train/loss" in rows.read_bytes()):
        time.sleep(0.01)
    time.sleep(random_.uniform(0, 1.5))
    number, rank = random_.choice(SIGNALS), random_.randrange(2)
    try:
        of_rank = {each.environ().get("RANK"): each for each in psutil.Process(pair.pid).children()}
        of_rank[str(rank)].send_signal(number)
    except (psutil.Error, KeyError):
        return "had ended"
    return f"{number.name} of process {rank}"

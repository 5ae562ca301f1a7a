"""Trainings are killed and stopped at random moments and resumed: they must end bit for bit as one nobody touched.

Moments: anywhere (encoding, steps, checkpointing, pruning, report), and right when a file of a checkpoint appears.
"""

import random
import shutil
import signal
import time
from pathlib import Path

import torch

from benchmarks.campaigns.tally import Tally, tones, until
from earnest.checkpoints import checkpoints
from earnest.run import read_run
from tests.equipment.processes import Earnest
from tests.equipment.tiny_recipes import TINY

STEPS = ["--steps", "10", "--save-every-steps", "2"]
RECIPES: dict[str, tuple[str, ...]] = {
    **{name: options for name, options in TINY.items() if name != "mot-smol"},  # it starts from a checkpoint
    "higgs-tiny averaged": (*TINY["higgs-tiny"], "--optimizer.ema-decay", "0.9"),
    "dia-tiny accumulated": (*TINY["dia-tiny"], "--optimizer.accumulation-steps", "2"),
}
NUMBERS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data = Tally("kills"), tones(folder / "tones")
    whole = {name: _whole(folder, name, data) for name in RECIPES}
    for random_ in until(seconds, seed):
        name = random_.choice([name for name in RECIPES if whole[name]])
        run_dir = folder / "killed"
        kills = _survive(random_, name, data, run_dir, tally)
        if not _same(run_dir, folder / _slug(name)):
            tally.end("other end", f"{name}, {kills}")
        shutil.rmtree(run_dir)
    return tally


def _slug(name: str) -> str:
    return name.replace(" ", "_")


def _words(name: str, data: Path, run_dir: Path) -> list[str]:
    return ["train", name.split()[0], "--data.path", str(data), "--out", str(run_dir), *STEPS, *RECIPES[name]]


def _whole(folder: Path, name: str, data: Path) -> bool:
    code, said = Earnest(_words(name, data, folder / _slug(name))).end()
    if code:
        print(f"left out: {name}: {said.splitlines()[-3:]}")
    return code == 0


def _survive(random_: random.Random, name: str, data: Path, run_dir: Path, tally: Tally) -> list[str]:
    """Kill three times, resume, and let it end. A run that was not announced yet is started again."""
    kills: list[str] = []
    for _ in range(3):
        resume = ["--resume"] if (run_dir / "run.json").exists() else []
        process, number = Earnest([*_words(name, data, run_dir), *resume]), random_.choice(NUMBERS)
        seen = {path.name for path in (run_dir / "checkpoints").glob("*")}
        wait_s, at_write = random_.uniform(0, 3), random_.random() < 0.4
        end_s = time.monotonic() + wait_s
        while process.process.is_alive() and time.monotonic() < end_s:
            if at_write and {path.name for path in (run_dir / "checkpoints").glob("*")} - seen:
                break
            time.sleep(0.002)
        alive = process.process.is_alive()
        if alive:
            process.send(number)
        code, said = process.end()
        how = f"{number.name} after {wait_s:.2f} s: {code}" if alive else f"had ended: {code}"
        kills.append(how)
        good = (0, 128 + number, -number) if alive else (0,)
        tally.end(number.name if alive else "had ended", "" if code in good else f"{name}, {kills}: {said[-300:]}")
    if (run_dir / "run.json").exists():
        code, said = Earnest(["train", "--resume", "--out", str(run_dir)]).end()
    else:
        code, said = Earnest(_words(name, data, run_dir)).end()
    if code:
        tally.end("not resumed", f"{name}, {kills}: {said[-300:]}")
    return kills


def _same(run_dir: Path, whole: Path) -> bool:
    ours, theirs = (read_run(path)["train/loss"] for path in (run_dir, whole))
    if ours.step.tolist() != theirs.step.tolist() or ours.value.tolist() != theirs.value.tolist():
        return False
    mine, others = (
        torch.load(checkpoints(path)[-1] / "training_state.pt", weights_only=True) for path in (run_dir, whole)
    )
    files = [path.name for path in checkpoints(whole)[-1].glob("*.safetensors")]
    alike = all(
        (checkpoints(run_dir)[-1] / name).read_bytes() == (checkpoints(whole)[-1] / name).read_bytes() for name in files
    )
    return alike and torch.equal(mine["torch_rng"], others["torch_rng"]) and not list(run_dir.rglob("*.tmp"))

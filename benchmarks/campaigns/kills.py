"""Trainings are killed and stopped at random moments and resumed: they must end bit for bit as one nobody touched.

Moments: while clips are encoded into a new cache, between steps, when a checkpoint is written or an old one removed,
and when the report is written; right then or a random while later.
"""

import os
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
from tests.equipment.tiny_mot import save_backbone
from tests.equipment.tiny_recipes import TINY

STEPS = ["--steps", "10", "--save-every-steps", "2"]
RECIPES: dict[str, tuple[str, ...]] = {
    **TINY,
    "higgs-tiny averaged": (*TINY["higgs-tiny"], "--optimizer.ema-decay", "0.9"),
    "dia-tiny accumulated": (*TINY["dia-tiny"], "--optimizer.accumulation-steps", "2"),
}
NUMBERS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# seconds that a kill may wait after its moment, at most
AFTER_S = {"encoding": 0.8, "steps": 0.5, "checkpoint": 0.02, "pruning": 0.004, "report": 0.6}
LATER = ("steps", "checkpoint", "checkpoint", "pruning", "report")


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data = Tally("kills"), tones(folder / "tones")
    save_backbone(folder / "backbone")
    trained = [name for name in RECIPES if _whole(folder, name, data)]
    cache = os.environ["EARNEST_CACHE"]
    for number, random_ in enumerate(until(seconds, seed)):
        name = trained[number % len(trained)]
        run_dir = folder / "killed"
        kills = _survive(random_, name, data, run_dir, tally)
        if not _same(run_dir, folder / _slug(name)):
            tally.end("other end", f"{name}, {kills}")
        shutil.rmtree(run_dir)
    os.environ["EARNEST_CACHE"] = cache
    return tally


def _slug(name: str) -> str:
    return name.replace(" ", "_")


def _words(name: str, data: Path, run_dir: Path) -> list[str]:
    backbone = ["--backbone", str(data.with_name("backbone"))] if name == "mot-smol" else []  # in place of SmolLM2
    where = ["--data.path", str(data), "--out", str(run_dir)]
    return ["train", name.split()[0], *where, *STEPS, *RECIPES[name], *backbone]


def _whole(folder: Path, name: str, data: Path) -> bool:
    code, said = Earnest(_words(name, data, folder / _slug(name))).end()
    if code:
        print(f"left out: {name}: {said.splitlines()[-3:]}")
    return code == 0


def _survive(random_: random.Random, name: str, data: Path, run_dir: Path, tally: Tally) -> list[str]:
    """Kill at most five times, the first time while a new cache is filled, then let it end; -> the kills."""
    kills: list[str] = []
    os.environ["EARNEST_CACHE"] = str(run_dir.with_name("cache_of_killed"))
    for moment in ("encoding", *(random_.choice(LATER) for _ in range(4))):
        if not _is_under_way(run_dir):
            break
        process, number = Earnest(_next(name, data, run_dir)), random_.choice(NUMBERS)
        hit = _until(moment, process, run_dir, random_)
        if hit:
            process.send(number)
        code, said = process.end()
        kills.append(f"{number.name} at {moment}: {code}" if hit else f"ended before {moment}: {code}")
        good = (0, 128 + number, -number) if hit else (0,)
        how = f"{number.name} at {moment}" if hit else "ended before"
        tally.end(how, "" if code in good else f"{name}, {kills}: {said[-300:]}")
    code, said = Earnest(_next(name, data, run_dir)).end()
    tally.end("resumed", f"{name}, {kills}: {code} {said[-300:]}" if code else "")
    shutil.rmtree(os.environ["EARNEST_CACHE"], ignore_errors=True)
    return kills


def _next(name: str, data: Path, run_dir: Path) -> list[str]:
    """The words that go on. A run that was not announced yet is started again."""
    if (run_dir / "run.json").exists():
        return ["train", "--resume", "--out", str(run_dir)]
    return _words(name, data, run_dir)


def _is_under_way(run_dir: Path) -> bool:
    return not _told(run_dir, b'"finished"')


def _told(run_dir: Path, word: bytes) -> bool:
    rows = run_dir / "steps.jsonl"
    return rows.exists() and word in rows.read_bytes()


def _until(moment: str, process: Earnest, run_dir: Path, random_: random.Random) -> bool:
    """Wait for a moment of a training, or a while after it; False if the process has ended before."""
    before, rows = _names(run_dir), _size(run_dir)
    cache = Path(os.environ["EARNEST_CACHE"])
    begun = {
        "encoding": lambda: any(cache.rglob("*.*")),
        "steps": lambda: _size(run_dir) > rows,
        "checkpoint": lambda: bool(_names(run_dir) - before),
        "pruning": lambda: any(one.endswith(".old.tmp") for one in _names(run_dir)) or bool(before - _names(run_dir)),
        "report": lambda: _told(run_dir, b'"finished"'),
    }[moment]
    while process.process.is_alive() and not begun():
        before |= {one for one in _names(run_dir) if not one.endswith(".tmp")} if moment == "pruning" else set()
        time.sleep(0.001)
    end_s = time.monotonic() + random_.uniform(0, AFTER_S[moment])
    while process.process.is_alive() and time.monotonic() < end_s:
        time.sleep(0.001)
    return process.process.is_alive()


def _names(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "checkpoints").glob("*")}


def _size(run_dir: Path) -> int:
    rows = run_dir / "steps.jsonl"
    return rows.stat().st_size if rows.exists() else 0


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

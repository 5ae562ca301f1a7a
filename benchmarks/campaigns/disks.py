"""Disks that are full, fail, or are read-only: three lines and exit 2 at every place that writes or reads, and once the
disk is mended the run goes on with the curve that it would have had.

A small tmpfs, if it may be mounted, is a full disk, and a limit on the size of a file stands for one; strace, if it is
there, lets the N-th write, sync, rename or read of the run's process fail with ENOSPC, EIO or EROFS; /dev/full takes
what a command writes with --out.
"""

import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaigns.tally import TINY, Tally, earnest, tones, until
from earnest.run import read_run

STEPS = ["--steps", "4", "--save-every-steps", "2"]
CALLS = ("write", "fsync", "rename", "openat", "read")
ERRORS = ("ENOSPC", "EIO", "EROFS")


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data = Tally("disks"), tones(folder / "tones")
    train = ["train", "higgs-tiny", "--data.path", str(data), *TINY, *STEPS, "--out"]
    whole = folder / "whole"
    assert earnest(*train, whole)[0] == 0
    curve = read_run(whole)["train/loss"].value.tolist()
    _outputs(whole, folder, tally)
    for number, random_ in enumerate(until(seconds, seed)):
        way = _small_disk if number % 3 == 0 and _may_mount(folder) else _failing_call if number % 3 == 1 else _limit
        with way(folder, random_) as (how, run_dir, before, limit):
            code, said = _ended([*before, sys.executable, "-m", "earnest.cli", *train, str(run_dir)], limit)
            bad = "" if code in (0, 2) and (code == 0 or "fix:" in said) and "Traceback" not in said else said[-400:]
            tally.end(f"{how.split()[0]} {code}", f"{how}: {code} {bad}" if bad else "")
            _grow(folder)
            _mended(run_dir, train, curve, how, tally)
    return tally


class Way(NamedTuple):
    """How a disk is bad: in words, where the run is, what stands before its command, the largest file in bytes."""

    how: str
    run_dir: Path
    before: list[str]
    limit: int | None = None


@contextmanager
def _limit(folder: Path, random_: random.Random) -> Iterator[Way]:
    limit = random_.randrange(1_000, 400_000)
    yield Way(f"files of at most {limit}", folder / "run", [], limit)


@contextmanager
def _failing_call(folder: Path, random_: random.Random) -> Iterator[Way]:
    if not shutil.which("strace"):
        with _limit(folder, random_) as way:
            yield way
        return
    run_dir = folder / "run"
    call, error, when = random_.choice(CALLS), random_.choice(ERRORS), random_.randrange(1, 40)
    traced = ["-P", str(run_dir), "-P", str(run_dir / "steps.jsonl"), "-P", str(run_dir / "run.json")]
    inject = f"inject={call}:error={error}:when={when}+"
    before = ["strace", "-f", "-qq", "-o", "/dev/null", *traced, "-e", f"trace={call}", "-e", inject]
    yield Way(f"{call} {error} {when}", run_dir, before)


@contextmanager
def _small_disk(folder: Path, random_: random.Random) -> Iterator[Way]:
    disk, size_kb = folder / "disk", random_.randrange(8, 1600)
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", disk], check=True)
    try:
        yield Way(f"tmpfs of {size_kb} kB", disk / "run", [])
    finally:
        subprocess.run(["umount", disk], check=True)


def _may_mount(folder: Path) -> bool:
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        return False
    subprocess.run(["umount", disk], check=True)
    return True


def _grow(folder: Path) -> None:
    """Room on the small disk, if there is one."""
    if (folder / "disk").is_mount():
        subprocess.run(["mount", "-o", "remount,size=200m", folder / "disk"], check=True)


def _ended(command: list[str], limit: int | None) -> tuple[int, str]:
    def bounded() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=bounded, timeout=300)
    return ended.returncode, ended.stderr


def _mended(run_dir: Path, train: list[str], curve: list[float], how: str, tally: Tally) -> None:
    if (run_dir / "run.json").exists():
        code, said = earnest("train", "--resume", "--out", run_dir)
    else:
        code, said = earnest(*train, run_dir)
    same = code == 0 and read_run(run_dir)["train/loss"].value.tolist() == curve
    tally.end("mended", "" if same else f"{how}, then: {code} {said[-300:]}")
    shutil.rmtree(run_dir)


def _outputs(whole: Path, folder: Path, tally: Tally) -> None:
    """Places that a command is told to write to, or to read."""
    (folder / "file").write_text("")
    for name, words in {
        "page to a full disk": ["diagnose", whole, "--format", "html", "--out", "/dev/full"],
        "JSON to a full disk": ["diagnose", whole, "--format", "json", "--out", "/dev/full"],
        "page into no folder": ["diagnose", whole, "--format", "html", "--out", folder / "none" / "a.html"],
        "sound into no folder": ["generate", whole, "--text", "a", "--out", folder / "none" / "a.wav"],
        "sound to a full disk": ["generate", whole, "--text", "a", "--out", "/dev/full"],
        "a run into a file": ["train", "higgs-tiny", "--out", folder / "file"],
        "a run below a file": ["train", "higgs-tiny", "--out", folder / "file" / "run"],
        "a run on /proc": ["train", "higgs-tiny", "--out", "/proc/run"],
        "memory read as a log": ["diagnose", "/proc/self/mem"],
        "codes to a full disk": ["encode", folder / "tones" / "1.wav", "/dev/full"],
    }.items():
        code, said = earnest(*words)
        tally.end(f"output {code}", "" if code == 2 and "fix:" in said else f"{name}: {code} {said[-300:]}")

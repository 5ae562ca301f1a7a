"""Files of a run directory are damaged: each command answers, or says in three lines what is damaged."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.campaigns.tally import TINY, Tally, earnest, tones, until
from earnest.run import read_run


def _flip(path: Path, random_: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(bytes(data))


def _other(path: Path, random_: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "flip": _flip,
    "cut": lambda path, random_: os.truncate(path, random_.randrange(path.stat().st_size + 1)),
    "hole": lambda path, random_: os.truncate(path, path.stat().st_size + 100_000),
    "noise": lambda path, random_: path.write_bytes(random_.randbytes(1000)),
    "gone": lambda path, random_: path.unlink(),
    "a folder": _other,
    "empty object": lambda path, random_: path.write_text("{}"),
}


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data = Tally("damage"), tones(folder / "tones")
    whole, longer = folder / "whole", folder / "longer"
    train = ["train", "higgs-tiny", "--data.path", data, *TINY, "--save-every-steps", "2"]
    assert earnest(*train, "--steps", "4", "--out", whole)[0] == 0
    shutil.copytree(whole, longer)
    assert earnest("train", "--resume", "--out", longer, "--steps", "5")[0] == 0
    curve = read_run(longer)["train/loss"].value.tolist()
    for random_ in until(seconds, seed):
        run_dir = folder / "damaged"
        shutil.copytree(whole, run_dir)
        files = sorted(path for path in run_dir.rglob("*") if path.is_file())
        file, kind = random_.choice(files), random_.choice(list(DAMAGES))
        name = file.relative_to(run_dir).as_posix()
        DAMAGES[kind](file, random_)
        for words in (
            ["diagnose", run_dir, "--format", "html", "--out", folder / "page.html"],
            ["runs", folder / "damaged"],
            ["report", run_dir],
            ["generate", run_dir, "--text", "a", "--out", folder / "a.wav", "--max-duration-s", "0.1"],
            ["train", "--resume", "--out", run_dir, "--steps", "5"],
        ):
            code, said = earnest(*words)
            three = said.strip().splitlines()[-3:]
            bad = code not in (0, 1, 2) or (code == 2 and not three[-1].startswith("fix:"))
            tally.end(f"{words[0]} {code}", f"{kind} {name}: {words[0]} {code} {three}" if bad else "")
            if words[0] == "train" and code == 0 and read_run(run_dir)["train/loss"].value.tolist() != curve:
                told = any("left out" in note for note in read_run(run_dir).notes) or "steps.jsonl" in name
                tally.end("another curve, told" if told else "another curve", "" if told else f"{kind} {name}")
        shutil.rmtree(run_dir)
    return tally

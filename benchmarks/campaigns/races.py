"""Several processes at once: one run directory, one new cache, a resume beside its run, reports side by side."""

import os
import shutil
from pathlib import Path

from benchmarks.campaigns.tally import TINY, Tally, tones, until
from earnest.run import read_run
from tests.equipment.processes import Earnest


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally, data = Tally("races"), tones(folder / "tones")
    train = ["train", "higgs-tiny", "--data.path", str(data), *TINY]
    before = os.environ.get("EARNEST_CACHE", "")
    for random_ in until(seconds, seed):
        out = folder / "runs"
        os.environ["EARNEST_CACHE"] = str(folder / f"cache{random_.randrange(10**9)}")
        steps = [str(5 + random_.randrange(9) * 3 + index) for index in range(2)]
        same = [Earnest([*train, "--out", str(out / "same"), "--steps", one]) for one in steps]
        other = Earnest([*train, "--out", str(out / "other"), "--steps", "3"])
        ends = [process.end() for process in same]
        codes = sorted(code for code, _ in ends)
        told = all("fix:" in said for code, said in ends if code)
        tally.end("one of two into one directory", "" if codes == [0, 2] and told else f"{ends}")
        rows = len(read_run(out / "same")["train/loss"])
        tally.end("its rows are one run's", "" if str(rows) in steps else f"{rows} rows of {steps}")
        code, said = other.end()
        tally.end("another run on the same new cache", said[-300:] if code else "")
        both = [Earnest(["report", str(out / "same")]) for _ in range(3)]
        both += [Earnest(["train", "--resume", "--out", str(out / "same"), "--steps", "60"]) for _ in range(2)]
        ends = [process.end() for process in both]
        tally.end("three reports beside two resumes", "" if _fit(ends) else f"{ends}")
        shutil.rmtree(out)
    os.environ["EARNEST_CACHE"] = before
    return tally


def _fit(ends: list[tuple[int, str]]) -> bool:
    reports, resumes = ends[:3], sorted(code for code, _ in ends[3:])
    return all(code == 0 for code, _ in reports) and resumes in ([0, 0], [0, 2])

"""What campaigns share: a tally, small data, small trainings, and commands run in this process."""

import contextlib
import io
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from earnest.cli import main

TINY = [
    *("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64", "--predictions", "0"),
    *("--data.positions-per-batch", "512", "--demos.every-steps", "0", "--evaluate-every-steps", "100"),
    *("--optimizer.warmup-steps", "2", "--data.held-out-frac", "0.2"),
]


class Tally:
    """How many tries ended in which way; a bad end is kept with its seed."""

    def __init__(self, campaign: str):
        self.campaign, self.ends, self.bad = campaign, Counter[str](), list[str]()

    def end(self, how: str, bad: str = "") -> None:
        self.ends[how] += 1
        if bad:
            self.bad.append(bad)
            print(f"BAD {self.campaign}: {bad}", flush=True)

    def told(self) -> str:
        ends = ", ".join(f"{count} {how}" for how, count in self.ends.most_common())
        return f"{self.campaign}: {sum(self.ends.values())} tries: {ends}; {len(self.bad)} bad"


def until(seconds: float, seed: int) -> Iterator[random.Random]:
    """A generator of random numbers for every try, until the time is over; at least one."""
    end_s, number = time.monotonic() + seconds, 0
    while not number or time.monotonic() < end_s:
        yield random.Random(f"{seed}/{number}")
        number += 1


def tones(folder: Path, clips: int = 20) -> Path:
    """A folder of short tones, each with a text."""
    folder.mkdir(parents=True)
    rows = ["file_name,text,tags"]
    for index in range(clips):
        time_N = np.arange(6000 + 400 * index) / 16000
        soundfile.write(folder / f"{index}.wav", 0.3 * np.sin(2 * np.pi * (200 + 40 * index) * time_N), 16000)
        rows.append(f"{index}.wav,tone {index},tone")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def earnest(*words: object) -> tuple[int, str]:
    """(exit code, what was said) of a command run in this process; a traceback is code 99."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            return 99, f"{type(error).__name__}: {error}"
    return code, said.getvalue()

"""Clips on their way to a batch: `python -m benchmarks.data_path`, a minute on one core.

One clip of 75 frames and 36 words is laid out with a vocabulary of 128,256 ids, beside the tokenizer that only reads
its text. And what a corpus of 100,000 clips costs before its first batch (benchmarks/corpus.py), beside the goals of
20 us and 64 bytes a clip.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch

from benchmarks.side_by_side import Apart, Comparison, show
from earnest.models.higgs import Higgs
from tests.equipment.released import Released

CLIPS, GOAL_US, GOAL_BYTES = 100_000, 20, 64
FRAMES, TEXT = 75, "the quick brown fox jumps over the lazy dog " * 4


def comparisons() -> Iterator[Comparison | Apart]:
    with tempfile.TemporaryDirectory() as folder:
        higgs = Higgs.from_pretrained(Released(Path(folder))("higgs"))
    assert len(higgs.tokenizer) == 128_256
    codes_CT = torch.randint(0, higgs.codes, (higgs.codebooks, FRAMES))
    laid = higgs.lay_out(codes_CT, TEXT, "a")
    assert higgs.positions(FRAMES, TEXT, "a") == len(laid)
    yield Comparison(
        f"laying a clip of {FRAMES} frames out",
        "its tokenizer reads the text",
        partial(higgs.lay_out, codes_CT, TEXT, "a"),
        partial(higgs.tokenizer, TEXT, add_special_tokens=False),
        "as many positions as were computed",
        turns=9,
        calls=200,
    )
    for place, (unit, goal) in enumerate({"us": GOAL_US, "bytes": GOAL_BYTES}.items()):
        yield Apart(
            f"a clip of {CLIPS:,} before the first batch, {unit}",
            "goal",
            lambda place=place: corpus()[place],
            lambda goal=goal: goal,
            "none",
            unit,
        )


@cache
def corpus() -> tuple[float, float]:
    """us and bytes a clip."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.corpus", str(CLIPS), "--here"]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    [held] = re.findall(r"in all ([\d.]+) bytes", told)
    return sum(map(float, re.findall(r"([\d.]+) µs a clip", told))), float(held)


if __name__ == "__main__":
    show(comparisons())

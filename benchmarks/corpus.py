"""What a corpus costs before its first batch: time and memory for 10,000, 100,000 and 1,000,000 clips.

    python -m benchmarks.corpus [ROWS ...]

Rows are synthetic: short code tables (8 codebooks of 10 frames) in a store as `encode_clips` writes it, texts of four
words, a Higgs with a byte tokenizer. Each size runs in a process of its own. `clips`: the list of clips as the folder's
reader gives it; `corpus`: lengths, what is left out, the plan of an epoch; `batch`: the first one, laid out. Memory is
that of the process, beyond what it has before."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from earnest.data.clip import Clip
from earnest.data.corpus import Corpus, layout_of, length_of
from earnest.data.store import FEATURES, CodeTable
from earnest.models.higgs import HiggsShape
from earnest.models.system import System

SIZES = (10_000, 100_000, 1_000_000)
CODEBOOKS, CODES, FRAMES = 8, 1024, 10
WORDS = ("seven", "three", "nine", "one", "eight")


def stored(folder: Path, rows: int) -> Dataset:
    """A table of random codes on disk."""
    path = folder / "table.arrow"
    random = np.random.default_rng(0)
    with ArrowWriter(path=str(path), features=FEATURES) as writer:
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            codes = random.integers(0, CODES, count * CODEBOOKS * FRAMES, dtype=np.uint16)
            ends = np.arange(count + 1, dtype=np.int32) * CODEBOOKS * FRAMES
            columns = [
                pa.array([f"{start + row:064x}" for row in range(count)]),
                pa.ListArray.from_arrays(pa.array(ends), pa.array(codes)),
                pa.array(np.full(count, FRAMES, np.int32)),
                pa.array([""] * count),
            ]
            writer.write_table(pa.table(columns, schema=FEATURES.arrow_schema))
        writer.finalize()
    return Dataset.from_file(str(path))


def clips(rows: int) -> list[Clip]:
    return [
        Clip(Path(f"clips/{row}.wav"), f"{row}.wav", " ".join(WORDS[(row + at) % 5] for at in range(4)))
        for row in range(rows)
    ]


def model() -> System:
    return HiggsShape(width=32, layers=1, heads=2, ffn=32).build(CODEBOOKS, CODES)


def corpus_of(table: CodeTable, higgs: System) -> Corpus:
    lay_out = layout_of(higgs)
    return Corpus(table, lay_out, higgs.pad_id, 2048, length=length_of(higgs, lay_out))


def measure(rows: int) -> None:
    torch.set_num_threads(1)
    process, higgs = psutil.Process(), model()

    def lap(name: str, since: tuple[float, int]) -> tuple[float, int]:
        now = time.process_time(), process.memory_info().rss
        seconds, grown = now[0] - since[0], now[1] - since[1]
        print(f"  {name:<7} {seconds:7.2f} s {1e6 * seconds / rows:7.1f} µs a clip, {grown / rows:7.1f} bytes a clip")
        return now

    with tempfile.TemporaryDirectory() as folder:
        dataset = stored(Path(folder), rows)
        start = time.process_time(), process.memory_info().rss
        named = clips(rows)
        start = lap("clips", start)
        table = CodeTable([dataset], np.arange(rows), named, {"codebooks": CODEBOOKS})
        start = lap("table", start)
        corpus = corpus_of(table, higgs)
        start = lap("corpus", start)
        plan = corpus.plan(seed=0)
        start = lap("plan", start)
        corpus.batch(plan[0], seed=0)
        lap("batch", start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=SIZES)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    given = parser.parse_args()
    for rows in given.rows:
        print(f"{rows:,} clips", flush=True)
        if given.here:
            measure(rows)
        else:
            subprocess.run([sys.executable, "-m", "benchmarks.corpus", str(rows), "--here"], check=True)


if __name__ == "__main__":
    main()

"""What a corpus costs before its first batch: time and memory for 10,000, 100,000 and 1,000,000 clips.

    python -m benchmarks.corpus [ROWS ...] [--cloning]
    python -m benchmarks.corpus --speed

Rows are synthetic: short code tables (8 codebooks of 10 frames) in a store as `encode_clips` writes it, texts of four
words, a Higgs with a byte tokenizer. Each size runs in a process of its own. `read`: a folder of that many audio files
(empty ones: no audio is read) and its metadata.csv; `clips`: what was read, in columns; `corpus`: lengths, what is left
out, the plan of an epoch; `batch`: the first one, laid out; `cloning`: the corpus once more, each clip behind a
reference of its speaker (as --cloning.frac of a recipe).
Memory is that of the process, beyond what it has before, without mapped files; `peak` is the most of it up to there.

--speed: tokens a second of batches from such a store, clips of 10 s and 40 words, through a tokenizer of 128,256 ids as
Llama 3's, beside what a training step of a tiny Higgs of that vocabulary takes in, on one thread."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from benchmarks.gpu import step_of
from earnest.data.clip import Clip
from earnest.data.clips import Clips
from earnest.data.corpus import Corpus, layout_of, length_of
from earnest.data.layouts.chatml import Cloning
from earnest.data.layouts.folder import load_clips
from earnest.data.row import Vary
from earnest.data.store import FEATURES, CodeTable
from earnest.data.vary import Variation
from earnest.models.higgs import Higgs, HiggsShape
from earnest.models.precision import train_in_float32
from earnest.models.system import System
from tests.equipment.released import Released

SIZES = (10_000, 100_000, 1_000_000)
CODEBOOKS, CODES, FRAMES = 8, 1024, 10
WORDS = ("seven", "three", "nine", "one", "eight")


def stored(folder: Path, rows: int, frames: int = FRAMES) -> Dataset:
    """A table of random codes on disk."""
    folder.mkdir(exist_ok=True)
    path = folder / "table.arrow"
    random = np.random.default_rng(0)
    with ArrowWriter(path=str(path), features=FEATURES) as writer:
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            codes = random.integers(0, CODES, count * CODEBOOKS * frames, dtype=np.uint16)
            ends = np.arange(count + 1, dtype=np.int32) * CODEBOOKS * frames
            columns = [
                pa.array([f"{start + row:064x}" for row in range(count)]),
                pa.ListArray.from_arrays(pa.array(ends), pa.array(codes)),
                pa.array(np.full(count, frames, np.int32)),
                pa.array([""] * count),
            ]
            writer.write_table(pa.table(columns, schema=FEATURES.arrow_schema))
        writer.finalize()
    return Dataset.from_file(str(path))


def clips(rows: int, words: int = 4) -> Iterator[Clip]:
    for row in range(rows):
        text = " ".join(WORDS[(row + at) % 5] for at in range(words))
        yield Clip(Path(f"clips/{row}.wav"), f"{row}.wav", text, speaker=f"{row % 1000}")


def folder_of(folder: Path, rows: int) -> Path:
    """A folder of empty audio files, 1000 in each of its folders, and the list that names them."""
    folder.mkdir()
    with open(folder / "metadata.csv", "w", encoding="utf-8") as file:
        file.write("file_name,text,speaker\n")
        for row, clip in enumerate(clips(rows)):
            path = folder / f"{row // 1000}" / clip.name
            if not row % 1000:
                path.parent.mkdir()
            path.touch()
            file.write(f"{path.relative_to(folder)},{clip.text},{clip.speaker}\n")
    return folder


def model() -> System:
    return HiggsShape(width=32, layers=1, heads=2, ffn=32).build(CODEBOOKS, CODES)


def corpus_of(table: CodeTable, higgs: System, vary: Vary | None = None) -> Corpus:
    lay_out = layout_of(higgs)
    return Corpus(table, lay_out, higgs.pad_id, 2048, vary, length=length_of(higgs, lay_out))


def own(process: psutil.Process) -> int:
    """Bytes of memory without mapped files, of which the kernel drops what it likes."""
    memory = process.memory_info()
    return memory.rss - memory.shared


class Peak(Thread):
    """The most that a process ever held, looked at every 5 ms from now on."""

    def __init__(self, process: psutil.Process):
        super().__init__(daemon=True)
        self.process, self.bytes = process, 0
        self.start()

    def run(self) -> None:
        while True:
            self.bytes = max(self.bytes, own(self.process))
            time.sleep(0.005)


def measure(rows: int, cloning: bool = False) -> None:
    torch.set_num_threads(1)
    process, higgs = psutil.Process(), model()

    def held() -> tuple[float, int]:
        return time.process_time(), own(process)

    def lap(name: str, since: tuple[float, int]) -> tuple[float, int]:
        now = held()
        seconds, grown = now[0] - since[0], now[1] - since[1]
        print(
            f"  {name:<7} {seconds:7.2f} s {1e6 * seconds / rows:7.1f} µs a clip, {grown / rows:7.1f} bytes a clip, "
            f"peak {(peak.bytes - first[1]) / rows:7.1f}",
            flush=True,
        )
        return now

    with tempfile.TemporaryDirectory() as folder:
        dataset, listed = stored(Path(folder) / "codes", rows), folder_of(Path(folder) / "clips", rows)
        few = CodeTable([dataset], np.arange(8), list(clips(8)), {"codebooks": CODEBOOKS})
        corpus_of(few, higgs).batch([0])  # what the first batch of a process makes once
        peak, first = Peak(process), held()
        start = first
        read = load_clips(listed)
        start = lap("read", start)
        named = Clips.of(read)
        del read
        start = lap("clips", start)
        table = CodeTable([dataset], np.arange(rows), named, {"codebooks": CODEBOOKS})
        start = lap("table", start)
        corpus = corpus_of(table, higgs)
        start = lap("corpus", start)
        plan = corpus.plan(seed=0)
        start = lap("plan", start)
        corpus.batch(plan[0], seed=0)
        start = lap("batch", start)
        if cloning:
            corpus_of(table, higgs, Cloning(table, Variation(), 0.5, FRAMES, higgs.instruction))
            lap("cloning", start)
        print(f"  in all {(held()[1] - first[1]) / rows:.1f} bytes a clip, peak {(peak.bytes - first[1]) / rows:.1f}")


def speed(rows: int = 400, frames: int = 250, words: int = 40, batches: int = 20, steps: int = 5) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        higgs = Higgs.from_pretrained(Released(Path(folder))("higgs"))
        train_in_float32(higgs)
        assert len(higgs.tokenizer) == 128_256
        table = CodeTable(
            [stored(Path(folder) / "store", rows, frames)], np.arange(rows), list(clips(rows, words)), {"codebooks": 8}
        )
        corpus = corpus_of(table, higgs)
        plan = corpus.plan(seed=0)[:batches]
        corpus.batch(plan[0], seed=0)  # what is kept of headers and the system turn
        start = time.process_time()
        made = [corpus.batch(clips, seed=0) for clips in plan]
        making_s = time.process_time() - start
        tokens = sum(int(batch.exists_BS.sum()) + int(batch.is_audio_BS.sum()) * (CODEBOOKS - 1) for batch in made)
        step = step_of(higgs, made[0])
        step()
        start = time.process_time()
        for _ in range(steps):
            step()
        of_step = int(made[0].exists_BS.sum()) + int(made[0].is_audio_BS.sum()) * (CODEBOOKS - 1)
        eaten = steps * of_step / (time.process_time() - start)
        print(f"batches {tokens / making_s:,.0f} tokens/s ({1e6 * making_s / sum(map(len, plan)):.0f} µs a clip)")
        print(f"a step takes in {eaten:,.0f} tokens/s; batches are made {tokens / making_s / eaten:.1f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=SIZES)
    parser.add_argument("--speed", action="store_true", help="tokens a second of batches, beside those of a step")
    parser.add_argument("--cloning", action="store_true", help="measure clips behind references as well")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    given = parser.parse_args()
    if given.speed:
        speed()
        return
    for rows in given.rows:
        print(f"{rows:,} clips", flush=True)
        if given.here:
            measure(rows, given.cloning)
        else:
            cloning = ["--cloning"] if given.cloning else []
            subprocess.run([sys.executable, "-m", "benchmarks.corpus", str(rows), "--here", *cloning], check=True)


if __name__ == "__main__":
    main()

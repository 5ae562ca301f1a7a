"""Real recordings in five folders as people have them: `earnest data check`, and 20 steps of a small model from each.

``python -m benchmarks.folders [OUT]`` needs the Debian packages of `earnest data asterisk-en` (and fr, whose recordings
are checked whole too). Folders: LJSpeech's list beside m4a, Common Voice's tsv beside mp3, `save_to_disk`, parquet with
the audio in it, and the shards of a webdataset, which are to be refused in three lines.
"""

import contextlib
import csv
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import datasets
import numpy as np
import soundfile
import soxr

from earnest.cli import main
from earnest.data.layouts.sources import asterisk

CLIPS, SHORTEST = 60, 20  # clips of a folder, and letters of a text
LANGUAGES = ("en", "fr")  # whose prompts are checked whole
COMMON_VOICE = ("client_id", "path", "sentence_id", "sentence", "up_votes", "down_votes", "gender", "locale")
SMALL = [
    *("--steps", "20", "--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64"),
    *("--demos.every-steps", "0", "--optimizer.warmup-steps", "2"),
]


class Recording(NamedTuple):
    path: Path
    text: str

    def wave_N(self, rate_hz: int) -> np.ndarray:
        wave_N, own_hz = soundfile.read(self.path, dtype="float32")
        return soxr.resample(wave_N, own_hz, rate_hz)


def recordings(speech: Path) -> list[Recording]:
    with open(speech / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if len(row["text"]) > SHORTEST]
    return [Recording(speech / row["file_name"], row["text"]) for row in rows[:CLIPS]]


def write_m4a(path: Path, wave_N: np.ndarray, rate_hz: int) -> None:
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=rate_hz)
        stream.layout = "mono"
        for start in range(0, len(wave_N), 1024):
            frame = av.AudioFrame.from_ndarray(wave_N[None, start : start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def ljspeech(folder: Path, clips: Sequence[Recording]) -> None:
    (folder / "wavs").mkdir(parents=True)
    rows: list[str] = []
    for index, clip in enumerate(clips):
        write_m4a(folder / "wavs" / f"LJ001-{index:04}.m4a", clip.wave_N(22050), 22050)
        rows.append(f"LJ001-{index:04}|{clip.text}|{clip.text}\n")
    (folder / "metadata.csv").write_text("".join(rows), encoding="utf-8")


def common_voice(folder: Path, clips: Sequence[Recording]) -> None:
    (folder / "clips").mkdir(parents=True)
    for split, part in {"train": clips[:50], "dev": clips[50:55], "test": clips[55:]}.items():
        rows = ["\t".join(COMMON_VOICE)]
        for index, clip in enumerate(part):
            name = f"common_voice_en_{split}_{index}.mp3"
            soundfile.write(folder / "clips" / name, clip.wave_N(32000), 32000)
            rows.append("\t".join(["c0ffee", name, str(index), clip.text, "2", "0", "female", "en"]))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _dataset(clips: Sequence[Recording]) -> datasets.Dataset:
    audio = [{"bytes": clip.path.read_bytes(), "path": clip.path.name} for clip in clips]
    table = datasets.Dataset.from_dict({"audio": audio, "transcription": [clip.text for clip in clips]})
    return table.cast_column("audio", datasets.Audio(16000))


def saved_to_disk(folder: Path, clips: Sequence[Recording]) -> None:
    _dataset(clips).train_test_split(6, seed=0).save_to_disk(str(folder))


def parquet(folder: Path, clips: Sequence[Recording]) -> None:
    (folder / "data").mkdir(parents=True)
    _dataset(clips).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))


def webdataset(folder: Path, clips: Sequence[Recording]) -> None:
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:06}.tar", "w") as file:
            for index, clip in enumerate(clips[shard::2]):
                for end, data in {"wav": clip.path.read_bytes(), "txt": clip.text.encode()}.items():
                    info = tarfile.TarInfo(f"{index:06}.{end}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))


def told(words: Sequence[str]) -> tuple[int, str]:
    """(exit code, the lines that say something) of a command."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(list(words))
    marks = ("seen:", "fix:", "✗", "!")
    return code, " / ".join(line.strip() for line in said.getvalue().splitlines() if line.strip().startswith(marks))


FOLDERS: dict[str, Callable[[Path, Sequence[Recording]], None]] = {
    "LJSpeech, m4a": ljspeech,
    "Common Voice": common_voice,
    "save_to_disk": saved_to_disk,
    "parquet": parquet,
    "webdataset": webdataset,
}


def run(out: Path) -> None:
    for language in LANGUAGES:
        asterisk(language, out / language)
        words = ["data", "check", str(out / language), "--max-duration-s", "90", "--max-positions", "100000"]
        code, said = told([*words, "--out", str(out / f"{language}.html")])
        print(json.dumps({"recordings": language, "check": code, "said": said}, ensure_ascii=False), flush=True)
    clips = recordings(out / "en")
    for name, write in FOLDERS.items():
        folder = out / write.__name__
        write(folder, clips)
        page = str(out / f"{write.__name__}.html")
        check, checked = told(["data", "check", str(folder), "--language", "en", "--out", page])
        words = ["train", "higgs-tiny", "--data.path", str(folder), "--out", str(out / "runs" / write.__name__)]
        code, trained = told([*words, *SMALL])
        refused = trained if code else ""
        row = {"folder": name, "check": check, "said": checked, "train": code, "refused": refused}
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="earnest-folders-")))

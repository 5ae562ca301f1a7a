"""A folder of short tones, each with a text, and the words that train a small model on it."""

from pathlib import Path

import numpy as np
import soundfile

SMALL = [
    *("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64", "--predictions", "0"),
    *("--data.positions-per-batch", "512", "--demos.every-steps", "0", "--evaluate-every-steps", "100"),
    *("--optimizer.warmup-steps", "2", "--data.held-out-frac", "0.2"),
]


def write_tones(folder: Path, clips: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file_name,text"]
    for index in range(clips):
        time_N = np.arange(6000 + 400 * index) / 16000
        soundfile.write(folder / f"{index}.wav", 0.3 * np.sin(2 * np.pi * (200 + 40 * index) * time_N), 16000)
        rows.append(f"{index}.wav,tone {index}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def train(tones: Path, run_dir: Path, *options: str) -> list[str]:
    return ["train", "higgs-tiny", "--data.path", str(tones), "--out", str(run_dir), *SMALL, *options]

"""What each codebook of a codec says: `python -m benchmarks.codec_probes FOLDER --codec amy-tiny
runs/mine/checkpoints/step_0003400`.

FOLDER has English transcripts. Per codebook, from its code alone, on the clips that the training held out (same share,
same seed): how often the phone and the word of a frame are named (forced alignment, benchmarks/align.py), and how much
of the variance of pitch and level is explained; the tables are filled from the training clips
(`earnest/monitors/codes.py`). Baseline: the commonest phone or word.
"""

from pathlib import Path

import numpy as np
import soxr
import torch
import tyro

from benchmarks.align import RATE_HZ, Aligner
from earnest.codecs import load_codec
from earnest.data.decoding import read_clips
from earnest.data.layouts.folder import load_clips
from earnest.data.pitch import pitch_and_level
from earnest.data.sides import split_clips
from earnest.monitors.codes import accuracy, r2, word_at_frame
from earnest.recipes.amy import amy_tiny


def main(folder: tyro.conf.Positional[Path], codec: tuple[str, ...] = ("amy-tiny",)) -> None:
    """Print the table, as Markdown.

    Args:
        folder: what the codecs were trained on, or other speech.
        codec: embedded codecs or directories.
    """
    aligner = Aligner()
    sides = split_clips(load_clips(folder), amy_tiny().data.held_out_frac, amy_tiny().seed)
    aligned = [
        [(wave_N, found) for clip, wave_N in read_clips(side, RATE_HZ, []) if (found := aligner(wave_N, clip.text))]
        for side in sides
    ]
    seconds = [sum(len(wave_N) for wave_N, _ in side) / RATE_HZ for side in aligned]
    print(f"{seconds[0]:.0f} s fill the tables, {seconds[1]:.0f} s are asked\n")
    print("| codec | codebook | phone | word | pitch R² | level R² |\n|---|---|---|---|---|---|")
    for name in codec:
        loaded = load_codec(name)
        codes, labels = [], []
        for side in aligned:
            side_codes, side_labels = [], []
            for wave_N, found in side:
                wave_N = soxr.resample(wave_N, RATE_HZ, loaded.sample_rate_hz)
                codes_CT = loaded.encode(torch.from_numpy(wave_N)[None])[0].numpy()
                measured = pitch_and_level(wave_N, loaded.sample_rate_hz, loaded.hop_samples)
                frames = codes_CT.shape[1]
                phones, words = (
                    word_at_frame(spans, frames, loaded.frame_rate_hz) for spans in (found.phones, found.words)
                )
                side_codes.append(codes_CT)
                side_labels.append([phones, words, measured.pitch_log2_hz_T, measured.level_db_T])
            codes.append(np.concatenate(side_codes, 1))
            labels.append([np.concatenate(kind) for kind in zip(*side_labels, strict=True)])
        rows = {"commonest": [np.zeros_like(side[0]) for side in codes]} | {
            str(k): [side[k] for side in codes] for k in range(loaded.codebooks)
        }
        label = Path(name).parent.parent.name if Path(name).parent.name == "checkpoints" else Path(name).name
        for row, (fit_codes, test_codes) in rows.items():
            scores = (accuracy, accuracy, r2, r2)
            pairs = zip(scores, labels[0], labels[1], strict=True)
            cells = [
                f"{score(fit_codes, fit, test_codes, test, loaded.codebook_size):.3f}" for score, fit, test in pairs
            ]
            print(f"| {label} | {row} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)

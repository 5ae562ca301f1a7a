"""Do a Dia run's demos differ by prompt? Told by a classifier that had no part in training, not by ear.

    python -m benchmarks.dia_prompts RUN [--guidance 1 3] [--takes 4]

For a run on the tracks of immich-memories-music. Prompts differ in one word, acoustic or electronic. The classifier is
a linear discriminant on the mean spectrum of real training clips, after the codec; its accuracy on real held-out tracks
is the ceiling, and chance is one half. The second figure is the distance of the two groups of demos, in the
discriminant's own standard deviations, with the share of random splits of the same demos that lie as far apart (a
permutation test).
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.dia_experiments import spectrum_db
from earnest.data.audio import read_wave
from earnest.data.clip import Clip
from earnest.data.layouts.paths import Source
from earnest.generate import Request, generate
from earnest.speech import load_run
from earnest.training.clips import find_clips

KINDS = ("acoustic", "electronic")
MOODS = ("calm", "energetic", "happy", "nostalgic", "tender")
SPLITS = 5000
AT_ONCE = 10


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--takes", type=int, default=4, help="seeds of each prompt")
    args = parser.parse_args()
    model, codec, facts = load_run(args.run)
    frames = round(((facts.config or {})["data"]["window_s"] or 4) * codec.frame_rate_hz)
    samples = frames * codec.hop_samples

    real: dict[str, list[tuple[np.ndarray, bool]]] = {"train": [], "validation": []}
    for clip in find_clips(Source("music"), ("tags",)):
        assert isinstance(clip, Clip)
        wave_N = read_wave(clip.path, codec.sample_rate_hz)[:samples]
        heard_N = codec.decode(codec.encode(torch.from_numpy(wave_N)[None]))[0].numpy()
        real[clip.split or "train"].append((spectrum_db(heard_N), KINDS[1] in clip.tags))
    features, labels = (np.array(column) for column in zip(*real["train"], strict=True))
    means = np.stack([features[labels == kind].mean(0) for kind in (False, True)])
    within = features - means[labels.astype(int)]
    # Shrunk towards a diagonal: 66 clips do not tell 30 variances and their covariances.
    covariance = within.T @ within / len(within)
    covariance = 0.5 * covariance + 0.5 * np.diag(np.diag(covariance))
    direction = np.linalg.solve(covariance, means[1] - means[0])
    score = lambda spectra: (spectra - means.mean(0)) @ direction / np.sqrt(direction @ covariance @ direction)  # noqa: E731
    held_out, truth = (np.array(column) for column in zip(*real["validation"], strict=True))
    print(f"real held-out tracks: {np.mean((score(held_out) > 0) == truth):.0%} of {len(truth)} told right")

    asked = [
        (f"{mood}, {kind}", seed, kind == KINDS[1]) for mood in MOODS for seed in range(args.takes) for kind in KINDS
    ]
    electronic = np.array([kind for *_, kind in asked])
    null_prompt = model.prompt(None)
    for guidance in args.guidance:
        results = []
        for start in range(0, len(asked), AT_ONCE):
            some = [
                Request(model.prompt(text), 1.0, seed, guidance, null_prompt)
                for text, seed, _ in asked[start : start + AT_ONCE]
            ]
            results += generate(model, some, max_frames=frames)
        demos = score(np.array([spectrum_db(codec.decode(result.codes_CT[None])[0].numpy()) for result in results]))
        distance = demos[electronic].mean() - demos[~electronic].mean()
        random = np.random.default_rng(0)
        shuffled = [random.permutation(electronic) for _ in range(SPLITS)]
        as_far = 1 + sum(demos[split].mean() - demos[~split].mean() >= distance for split in shuffled)
        right = np.mean((demos > np.median(demos)) == electronic)
        print(
            f"guidance {guidance:g}: {right:.0%} of {len(demos)} demos on their prompt's side of the median, "
            f"{distance:+.2f} standard deviations apart, p ≤ {as_far / (1 + SPLITS):.4f}"
        )


if __name__ == "__main__":
    main()

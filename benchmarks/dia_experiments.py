"""The experiments of a music model's research log, one change at a time, each with what it did and what the doctor
said.

    OMP_NUM_THREADS=2 python -m benchmarks.dia_experiments OUT [NAME ...]

The log (rubin-labs, November 2025) changed five things at once and found that "reverting the dataset" made music of
noise. Here a small Dia learns from 40 captioned clips (immich-memories-music; the codec is amy-tiny, made for speech)
and every row of the table differs from `base` in the one thing that its name says. `overfit` is one clip alone.
Held-out clips are of other tracks. Columns: nats per code in training (last 20 steps), held out, and held out with the
null input; share of codes that the nearest training clip shares with a demo at temperature 0, 0.5 and 1; and how far
the spectrum of guided demos (3, at temperature 1) lies from that of the data (dB), beside unguided ones.
"""

import argparse
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile
import torch

from earnest.codecs import load_codec
from earnest.data.audio import read_wave
from earnest.data.layouts.paths import Source
from earnest.generate import Request, generate
from earnest.models.dia import DiaShape
from earnest.recipes import RECIPES
from earnest.recipes.dia import DiaConfig, DiaData
from earnest.rules import diagnose
from earnest.run import Run, read_run
from earnest.speech import load_run
from earnest.training.clips import find_clips
from earnest.training.tokens.config import Demos, Optimizer

WINDOW_S = 2.0
CLIPS = 40
TEXTS = ("calm, acoustic", "energetic, electronic")
BASE = DiaConfig(
    data=DiaData(words="tags", window_s=WINDOW_S, positions_per_batch=1024, max_duration_s=60.0),
    shape=DiaShape(
        width=128,
        layers=3,
        heads=2,
        kv_heads=2,
        ffn=384,
        encoder_width=64,
        encoder_layers=1,
        encoder_heads=1,
        encoder_ffn=128,
    ),
    steps=240,
    optimizer=Optimizer(learning_rate=2e-3, warmup_steps=30),
    demos=Demos(texts=TEXTS, every_steps=80, max_duration_s=WINDOW_S),
    evaluate_every_steps=40,
    save_every_steps=240,
)


def experiments(folders: dict[str, Path]) -> dict[str, DiaConfig]:
    """Name -> configuration; all but `overfit` differ from `base` in one thing."""

    def changed(config: DiaConfig = BASE, folder: str = "clips", data: dict | None = None, **fields) -> DiaConfig:
        return replace(config, data=replace(config.data, path=str(folders[folder]), **(data or {})), **fields)

    by_heart = replace(
        BASE, steps=150, demos=replace(BASE.demos, texts=(folders["one text"].read_text(),), every_steps=10)
    )
    plain = {"window_s": None, "unconditional_frac": 0.0, "shuffle_tags": False, "drop_tags_frac": 0.0}
    overfit = changed(by_heart, "one", plain)
    return {
        "overfit": overfit,
        "overfit, unconditional": changed(by_heart, "one", plain | {"unconditional_frac": 1.0}),
        "overfit, specials none": replace(overfit, specials="none"),
        "overfit, specials all": replace(overfit, specials="all"),
        "base": changed(),
        "fixed crop": changed(folder="first 2 s"),
        "unconditional_frac 0": changed(data={"unconditional_frac": 0.0}),
        "unconditional_frac 1": changed(data={"unconditional_frac": 1.0}),
        "tags in order": changed(data={"shuffle_tags": False, "drop_tags_frac": 0.0}),
        "specials none": changed(specials="none"),
        "specials all": changed(specials="all"),
        "delays 0, 8, 9, ...": changed(delays=(0, *range(8, 15))),
        "delays all 0": changed(delays=(0,) * 8),
    }


def prepare(folder: Path) -> dict[str, Path]:
    """Folders of clips: 40 of the training tracks, the same cut to their first 2 s, and one clip of these alone."""
    clips = find_clips(Source("music"), ("tags",))
    train = [clip for clip in clips if clip.split == "train"]
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, CLIPS).round().astype(int)]
    held_out = [clip for clip in clips if clip.split == "validation"]
    sets = {
        "clips": [("train", chosen, None), ("validation", held_out, None)],
        "first 2 s": [("train", chosen, WINDOW_S), ("validation", held_out, WINDOW_S)],
        "one": [("train", chosen[:1], WINDOW_S), ("validation", chosen[:1], WINDOW_S)],
    }
    for name, sides in sets.items():
        for side, members, length_s in sides:
            here = folder / name / side
            if here.exists():
                continue
            here.mkdir(parents=True)
            lines = ["file_name,tags"]
            for clip in members:
                wave_NK, rate_hz = soundfile.read(clip.path)
                soundfile.write(
                    here / clip.path.name,
                    wave_NK if length_s is None else wave_NK[: round(length_s * rate_hz)],
                    rate_hz,
                )
                lines.append(f'{clip.path.name},"{clip.tags}"')
            (here / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "one.txt").write_text(chosen[0].tags)
    return {name: folder / name for name in sets} | {"one text": folder / "one.txt"}


def spectrum_db(wave_N: np.ndarray) -> np.ndarray:
    """Mean level in 32 bands a third of an octave or wider apart, up to half the rate: what a sound is like, not what
    it plays."""
    frames_FN = np.lib.stride_tricks.sliding_window_view(wave_N, 1024)[::512] * np.hanning(1024)
    power_B = (np.abs(np.fft.rfft(frames_FN)) ** 2).mean(0)[1:]
    edges = np.unique(np.geomspace(1, len(power_B), 33).round().astype(int))
    return np.array([10 * np.log10(power_B[low - 1 : high].mean() + 1e-9) for low, high in pairwise(edges)])


@torch.inference_mode()
def distance_db(run_dir: Path, guidance: float, data: Path) -> float:
    """Root mean square difference of the mean spectrum of demos at temperature 1 to that of the training clips."""
    model, codec, _ = load_run(run_dir)
    null = model.prompt(None)
    requests = [Request(model.prompt(text), 1.0, seed, guidance, null) for text in TEXTS for seed in range(4)]
    waves = [codec.decode(result.codes_CT[None])[0].numpy() for result in generate(model, requests, max_frames=100)]
    real = [read_wave(path, codec.sample_rate_hz) for path in sorted((data / "train").glob("*.flac"))]
    made, wanted = (
        np.mean([spectrum_db(wave_N) for wave_N in group if len(wave_N) >= 1024], axis=0) for group in (waves, real)
    )
    return float(np.sqrt(((made - wanted) ** 2).mean()))


def row(name: str, run: Run, run_dir: Path, data: Path) -> dict[str, object]:
    def nats(split: str, signal: str, last: int) -> float | None:
        series = [one for key, one in run.series.items() if str(key).startswith(f"{split}/{signal}/codebook_")]
        return mean(float(one.value[-last:].mean()) for one in series) if series else None

    demos = [one for one in run.artifacts if one.kind == "demo"]
    matches = {temperature: [] for temperature in (0.0, 0.5, 1.0)}
    for one in demos:
        if one.step == run.last_step:
            matches[one.facts["temperature"]].append(one.facts["match_frac"])
    music_from = {
        temperature: next(
            (one.step for one in demos if one.facts["temperature"] == temperature and one.facts["match_frac"] > 0.9),
            None,
        )
        for temperature in matches
    }
    judged = diagnose(run)
    words = [verdict.verdict for verdict in judged.verdicts]
    overfit = name.startswith("overfit")
    return {
        "name": name,
        "train": nats("train", "ce_nats", 20),
        "held out": nats("eval", "ce_nats", 1),
        "null": nats("eval", "null_ce_nats", 1),
        "match": {temperature: mean(values) for temperature, values in matches.items()},
        "copy from step": music_from,
        "distance": None if overfit else [distance_db(run_dir, guidance, data) for guidance in (1.0, 3.0)],
        "verdicts": {word: words.count(word) for word in dict.fromkeys(words)},
        "findings": [f"{finding.rule} {finding.name}" for finding in judged.findings],
    }


def table(rows: list[dict]) -> str:
    def shown(value: object) -> str:
        return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [
        "| changed | train | held out | null | match at 0 / 0.5 / 1 | a copy since step | guided 1 / 3, dB "
        "| the doctor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        said = ", ".join([*(f"{count} {word}" for word, count in one["verdicts"].items()), *one["findings"]])
        cells = [one["name"], *(shown(one[key]) for key in ("train", "held out", "null"))]
        cells += [" / ".join(shown(part) for part in one[key].values()) for key in ("match", "copy from step")]
        cells += [" / ".join(f"{part:.1f}" for part in one["distance"]) if one["distance"] else "–", said]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "names", nargs="*", help="which experiments; all if none is named. Those in OUT already are not made again"
    )
    args = parser.parse_args()
    folders = prepare(args.out / "data")
    load_codec(BASE.codec)
    rows = []
    for name, config in experiments(folders).items():
        saved = args.out / f"{name.replace(' ', '_').replace(',', '')}.json"
        run_dir = saved.with_suffix("")
        if not saved.exists() and (not args.names or name in args.names):
            RECIPES["dia-tiny"].train(config, run_dir, resume=(run_dir / "run.json").exists())
            saved.write_text(json.dumps(row(name, read_run(run_dir), run_dir, Path(config.data.path))))
        if saved.exists():
            rows.append(json.loads(saved.read_text()))
    print(table(rows))


if __name__ == "__main__":
    main()

"""A run as training writes it, with small real wavs, and a diagnosis with every field in use."""

import math
import re
import time
import wave
from pathlib import Path

import numpy as np

from earnest.facts import Facts
from earnest.probes.results import Accumulation, Results
from earnest.rules.finding import Baseline, Diagnosis, Finding, NotChecked, Verdict
from earnest.run import Artifact, Run, RunWriter, read_run
from earnest.streams import TEXT, Codebook, Part

HOSTILE = "<script>alert(1)</script> [red]|`**x**` \u202eevil\u202c \x1b[31m"
ARABIC = "سبعة"
STEPS, STEP_S = 600, 15.0
LEVELS = [5.31, 5.74, 5.92, 6.05, 6.2, 6.41, 6.83, 6.9]


def tone(path: Path, duration_s: float, rate_hz: int = 16_000, loudness: float = 0.3) -> None:
    """A voice-like tone: gliding harmonics that come and go, so that a spectrogram has something to show."""
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time_s)) / rate_hz
    voiced = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time_s)) ** 2
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes((np.clip(voiced * loudness / 2, -1, 1) * 32767).astype("<i2").tobytes())


def make_run(directory: Path) -> Run:
    """600 steps of nine streams, evaluated every 50, with demos of two prompts at three temperatures."""
    random, writer = np.random.default_rng(7), RunWriter(directory)
    writer.facts(Facts(system="higgs-tiny", audio_vocab=1026, codebooks=8, max_grad_norm=1.0, sample_rate_hz=16_000))
    writer.facts(Facts(steps_per_epoch=150))
    optim = {"learning_rate": 1e-3, "betas": [0.9, 0.95]}
    writer.facts(Facts(config={"optim": optim, "note": HOSTILE, "ids": list(range(2000))}))
    writer.probes(Results(accumulation=Accumulation(1.0, 0.02, steps=2)))
    for step in range(1, STEPS + 1):
        signals = {"train/grad_norm": float(random.lognormal(0.3, 0.4) * (1 + 6 * math.exp(-step / 30)))}
        signals["train/learning_rate"] = 1e-3 * min(step / 50, 0.5 + 0.5 * math.cos(math.pi * step / STEPS))
        for codebook, level in enumerate(LEVELS):
            mean = level + (7.1 - level) * math.exp(-step / 120)
            signals[f"train/ce_nats/codebook_{codebook}"] = mean + random.normal(0, 0.06)
            signals[f"train/accuracy_frac/codebook_{codebook}"] = math.exp(-mean) * 5
            if step % 50 == 0:
                signals[f"eval/ce_nats/codebook_{codebook}"] = mean + 0.08
        signals["train/ce_nats/text"] = math.nan if step > 580 else 9.0 + random.normal(0, 0.1)
        signals["train/loss"] = sum(signals[f"train/ce_nats/codebook_{codebook}"] for codebook in range(8)) / 8
        writer.step(step, signals)
    for step in (200, 400, 600):
        for text, duration_s in (("seven", 0.6), (ARABIC, 1.4)):
            for temperature in (0.0, 0.5, 1.0):
                path = Path("demos") / f"step_{step:07d}" / f"{len(text)}_t{temperature:g}.wav"
                tone(directory / path, duration_s * (1 + temperature / 4), rate_hz=24_000 if temperature else 16_000)
                writer.artifact(
                    Artifact(
                        "demo",
                        path.as_posix(),
                        step,
                        {"text": text, "temperature": temperature, "seed": 1, "stopped": step > 200},
                    )
                )
    tone(directory / "references" / "seven.wav", 0.7)
    writer.artifact(Artifact("reference", "references/seven.wav", 0, {"text": "seven"}))
    writer.artifact(Artifact("demo", "../outside.wav", 600, {"text": "seven", "temperature": 2.0}))
    writer.close()
    _pass_time(directory / "steps.jsonl")
    run = read_run(directory)
    run.notes.append(f"two runs stitched at step 300; {HOSTILE}")
    return run


def _pass_time(rows: Path) -> None:
    """A step takes STEP_S, and the last is done now."""
    started_s = time.time() - STEP_S * STEPS

    def at(row: re.Match[str]) -> str:
        return f'"step": {row[1]}, "time_s": {started_s + STEP_S * int(row[1])}'

    rows.write_text(re.sub(r'"step": (\d+), "time_s": [\d.]+', at, rows.read_text()))


def make_diagnosis() -> Diagnosis:
    """Every verdict word, every severity, and hostile text in every place that holds text."""
    ladder = [
        Baseline("uniform", math.log(1026)),
        Baseline("unigram", 6.412, (6.38, 6.444)),
        Baseline("bigram", 5.71, (5.6, 5.82)),
    ]
    words = [
        "learning",
        "converged",
        "learning",
        "unigram-only",
        "unigram-only",
        "memorising",
        "at-chance",
        "cannot-judge",
    ]
    verdicts = [
        Verdict(
            TEXT,
            "degenerate",
            math.nan,
            "nats",
            Baseline("uniform", 5.545),
            581,
            "not a number since step 581",
            [Baseline("uniform", 5.545)],
        )
    ]
    for codebook, (word, level) in enumerate(zip(words, LEVELS, strict=True)):
        rung = ladder[2] if level < 5.6 else ladder[1] if level < 6.38 else ladder[0]
        side = "below" if level < rung.value else "on"
        why = f"{level} nats lies {side} the {rung.name} baseline by {abs(rung.value - level):.2f}"
        verdicts.append(Verdict(Codebook(codebook), word, level, "nats", rung, 1, why, ladder))
    verdicts.append(
        Verdict(
            Part(f"{ARABIC} {HOSTILE}"),
            "worse-than-chance",
            8.0,
            "nats",
            Baseline("uniform", 6.9),
            None,
            "never went down",
            [],
        )
    )
    return Diagnosis(
        verdicts,
        [
            Finding(
                "E105",
                "held-out set small",
                "note",
                (),
                0.7,
                None,
                "4 held-out clips: the held-out loss is known to ±0.2 nats only",
                [],
                ["the corpus is small"],
                "evaluate on 50 clips",
                "--data.held-out-clips 50",
            ),
            Finding(
                "D402",
                "gradient always clipped",
                "warning",
                (Codebook(2),),
                0.83,
                400,
                "The gradient was clipped on 97% of the steps since step 400.",
                [
                    {"from_step": 400, "to_step": 500, "clipped_frac": 0.96, "expected_below": 0.9},
                    {"from_step": 500, "to_step": 600, "clipped_frac": 0.98, "expected_below": 0.9},
                ],
                ["learning rate too high", "initialisation too wide"],
                "train 50 steps at a third of the learning rate",
                "--optim.learning-rate 3e-4",
            ),
            Finding(
                "D501",
                "loss not a number",
                "critical",
                (TEXT,),
                0.99,
                581,
                f"The text loss is not a number since step 581. {HOSTILE} {ARABIC}",
                [{"step": 581, "value": math.nan, "gradient norm before": 1.7, "interval": (1.1, 2.4)}],
                [f"a logit overflowed {HOSTILE}", "a batch without text targets"],
                f"earnest trace higgs-tiny --step 581 {HOSTILE}",
                f"train in bfloat16, not float16 {HOSTILE}",
            ),
        ],
        [
            NotChecked("F301", "codebook_used_frac"),
            NotChecked("F302", "codebook_used_frac"),
            NotChecked("E201", "unconditional_frac"),
        ],
        {"train/loss": "train/loss", f"gnorm {HOSTILE}": "train/grad_norm"},
    )

"""What the model sounds like: demos by prompt and step, beside the recording and what the codec makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from earnest.report import charts, sounds, view
from earnest.report.files import inside
from earnest.report.page.fragment import Fragment, fill
from earnest.rules.finding import Diagnosis
from earnest.run import Artifact, Run, Series

MOST_BYTES = 8_000_000  # embedded; the newest demos first
SUBJECTS = ("text", "prompt", "clip")  # what a demo is of: clips of one subject stand together
ORIGINALS = {"reference": "recording", "reconstruction": "the codec's reconstruction"}
UNTOLD = ("seed", "digest", "frames", "entropy_nats", *SUBJECTS)  # artifacts.jsonl has them


@dataclass
class Clip:
    """One clip on the page: embedded, or with the reason why not. `name` tells its player from the others."""

    artifact: Artifact
    label: str
    name: str
    caption: str = ""
    sound: sounds.Sound | None = None
    problem: str = ""


@dataclass
class Prompt:
    """All clips of one prompt: what was recorded, and what the model made by step, the newest first."""

    text: str
    originals: list[Clip] = field(default_factory=list[Clip])
    steps: dict[int, list[Clip]] = field(default_factory=dict[int, list[Clip]])

    @property
    def clips(self) -> list[Clip]:
        return [*self.originals, *(clip for clips in self.steps.values() for clip in clips)]


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """The demos, by prompt, with players; empty if there are none."""
    prompts, left_out = _prompts(run)
    matches = _match_chart(run)
    if not prompts and not left_out:
        return Fragment("sound", "Sound", "")
    lengths = [clip.sound.length_s for prompt in prompts for clip in prompt.clips if clip.sound]
    html = fill(
        "sound.html",
        prompts=prompts,
        left_out=left_out,
        matches=matches,
        matches_key=[(line.name, line.hue) for line in matches.lines] if matches else [],
        longest_s=max([0.1, *lengths]),
        most_bytes=MOST_BYTES,
    )
    return Fragment("sound", "Sound", html)


def _prompts(run: Run) -> tuple[list[Prompt], list[str]]:
    """Embed the clips, recordings and the newest step first, until the page is full; -> (prompts, paths left out)."""
    wavs = [artifact for artifact in run.artifacts if Path(artifact.path).suffix.lower() == ".wav"]
    wavs.sort(key=lambda one: (one.kind not in ORIGINALS, -one.step))
    prompts: dict[str, Prompt] = {}
    left_out: list[str] = []
    room = MOST_BYTES
    for artifact in wavs:
        subject = next((str(artifact.facts[name]) for name in SUBJECTS if name in artifact.facts), "")
        clip = _clip(run, artifact, subject, room)
        if not clip.problem and (clip.sound is None or clip.sound.size > room):
            left_out.append(artifact.path)
            continue
        prompt = prompts.setdefault(subject, Prompt(subject))
        if artifact.kind not in ORIGINALS:
            prompt.steps.setdefault(artifact.step, []).append(clip)
        elif not any(clip.sound == other.sound for other in prompt.originals):  # the same may be named at every step
            prompt.originals.append(clip)
        else:
            continue
        room -= clip.sound.size if clip.sound else 0
    for prompt in prompts.values():
        for clips in prompt.steps.values():
            clips.sort(key=lambda clip: _temperature(clip.artifact) or 0)
    return list(prompts.values()), left_out


def _clip(run: Run, artifact: Artifact, subject: str, room: int) -> Clip:
    temperature = _temperature(artifact)
    kind = ORIGINALS.get(artifact.kind, artifact.kind)
    label = view.line(kind) if temperature is None else f"temperature {view.number(temperature)}"
    step = [] if artifact.kind in ORIGINALS else [f"step {view.number(artifact.step)}"]
    clip = Clip(artifact, label, ", ".join([view.line(subject) or "no prompt", *step, label]))
    try:
        clip.sound = sounds.load(inside(run, artifact)) if room > 0 else None
    except (OSError, ValueError) as error:
        clip.problem = f"{artifact.path} cannot be played: {error}"
    clip.caption = "; ".join(([clip.sound.said] if clip.sound else []) + in_words(artifact.facts))
    return clip


FAULTY = {
    "clipping_frac": "clipped",
    "silence_frac": "silence",
    "repeat_frac": "of its frames repeat earlier ones",
}


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """What is known of a demo, in words; measures that are as they should be are left out."""
    parts: list[str] = []
    for name, fact in facts.items():
        share = fact if _is_number(fact) else 0
        match name:
            case "stopped":
                parts.append("ended by itself" if fact else "cut at the longest that was allowed")
            case "clipping_frac" | "silence_frac" | "repeat_frac" if _is_number(fact):
                if share > 0:
                    parts.append(f"{view.percent(share)} {FAULTY[name]}")
            case "match_frac" if _is_number(fact):
                nearest = facts.get("nearest")
                file = f" ({Path(str(nearest)).name})" if nearest else ""
                parts.append(f"{view.percent(share)} of its codes are those of the nearest training clip{file}")
            case "nearest" | "temperature":
                pass
            case _ if name not in UNTOLD:
                parts.append(f"{view.line(name).replace('_', ' ')} {view.shown(fact)}")
            case _:
                pass
    return parts


def _match_chart(run: Run) -> charts.Chart | None:
    """How much of the demos of a step is their nearest training clip, a line for each temperature: when each became
    music."""
    found: dict[str, dict[int, list[float]]] = {}
    for demo in run.artifacts:
        temperature, match = _temperature(demo), demo.facts.get("match_frac")
        if demo.kind == "demo" and temperature is not None and _is_number(match):
            steps = found.setdefault(f"temperature {view.number(temperature)}", {})
            steps.setdefault(demo.step, []).append(float(match))
    lines = {
        name: Series(np.array(sorted(steps)), np.array([float(np.mean(steps[step])) for step in sorted(steps)]))
        for name, steps in sorted(found.items())
    }
    title = "demos against the nearest training clip"
    return charts.chart(title, lines, run.last_step, "share of codes", hues=list(lines)) if lines else None


def _temperature(artifact: Artifact) -> float | None:
    temperature = artifact.facts.get("temperature")
    return temperature if _is_number(temperature) else None


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float)

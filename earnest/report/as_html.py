"""The report as one HTML page that needs nothing but itself: no network, no other file.

The page carries a content security policy that allows only its own style and script (by their hashes) and
embedded pictures and audio, so text from a hostile log can neither run nor fetch anything even if it
slipped past the escaping.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from earnest.records import plain
from earnest.report import charts, sounds, view
from earnest.rules.finding import SEVERITIES, Baseline, Diagnosis, Verdict
from earnest.run import Artifact, Run, Series
from earnest.signals import SIGNALS
from earnest.streams import TOTAL, Stream

LOSSES = ("ce_nats", "loss")  # drawn with their baselines; the first that a stream has
OPTIMISATION = ("learning_rate", "grad_norm")
MOST_CHARTS = 80  # of each kind on one page
MOST_SOUND_BYTES = 8_000_000  # embedded; the newest demos first
SUBJECTS = ("text", "prompt", "clip")  # what a demo is of: clips of one subject stand together
MOST_PREDICTED = 3  # clips of the prediction log
# What is shown of a row of the prediction log, whoever wrote it.
PREDICTED = (
    *("step", "source", "stream", "counted", "masked", "correct", "written", "target_text", "predicted_text"),
    *(f"{end}_{whose}" for end in ("first", "last") for whose in ("target", "predicted")),
    *(f"{whose}_{kind}_frac" for whose in ("target", "predicted") for kind in ("codes", "bos", "eos")),
)
MOST_CHARACTERS = 400  # of one fact
MOST_ITEMS = 64  # of one fact


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": view.clean, "number": view.number, "shown": view.shown, "csp_hash": _csp_hash}
    signals = _signals(run)
    loss, left_out = _loss_charts(run, diagnosis, signals)
    demos, demos_left_out = _demos(run)
    predictions, no_predictions = _predictions(run)
    return environment.get_template("page.html").render(
        view=view,
        run=run,
        diagnosis=diagnosis,
        findings=view.in_order(diagnosis.findings),
        severities=SEVERITIES,
        ladders=[charts.ladder(verdict.value, _ladder(verdict)) for verdict in diagnosis.verdicts],
        loss=loss,
        loss_left_out=left_out,
        optimisation=_optimisation_charts(run, diagnosis, signals),
        splits=_splits(signals),
        others=_other_charts(run, signals),
        matches=_match_chart(run),
        demos=demos,
        demos_left_out=demos_left_out,
        predictions=predictions,
        no_predictions=no_predictions,
        unmapped=list(_flat(run.facts.unmapped or {})),
        facts=list(
            _flat({name: fact for name, fact in run.facts.known().items() if name not in ("mapping", "unmapped")})
        ),
        probes=list(_flat(plain(run.probes))),
        size=(charts.WIDTH, charts.HEIGHT),
    )


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()}'"


Signals = dict[str, dict[Stream | None, dict[str, Series]]]  # name -> stream -> split -> Series


def _signals(run: Run) -> Signals:
    """The run's series by name, stream and split: one chart shows the splits of one (name, stream)."""
    signals: Signals = {}
    for (split, name, stream), series in run.series.items():
        if name in LOSSES:
            stream = stream or TOTAL
        signals.setdefault(name, {}).setdefault(stream, {})[view.line(split)] = series
    return signals


def _splits(signals: Signals) -> list[str]:
    """The splits of the losses, train first: each has one colour on the whole page."""
    found = {split for name in LOSSES for splits in signals.get(name, {}).values() for split in splits}
    return sorted(found, key=lambda split: (split != "train", split))


def _loss_charts(run: Run, diagnosis: Diagnosis, signals: Signals) -> tuple[list[charts.Chart], int]:
    """One chart a stream, with its ladder drawn in; streams in the order of the verdicts, then the rest."""
    verdicts, hues = {verdict.stream: verdict for verdict in diagnosis.verdicts}, _splits(signals)
    known = {stream: name for name in reversed(LOSSES) for stream in signals.get(name, {})}
    streams = [stream for stream in dict.fromkeys([*verdicts, *known]) if stream in known]
    drawn: list[charts.Chart | None] = []
    for stream in streams[:MOST_CHARTS]:
        verdict, name = verdicts.get(stream or TOTAL), known[stream]
        ladder, word = (_ladder(verdict), verdict.verdict) if verdict else ([], None)
        drawn.append(
            charts.chart(
                view.line(stream),
                signals[name][stream],
                run.last_step,
                SIGNALS[name].unit,
                ladder,
                _marks(diagnosis, stream),
                word,
                hues=hues,
            )
        )
    return [chart for chart in drawn if chart], max(0, len(streams) - MOST_CHARTS)


def _optimisation_charts(run: Run, diagnosis: Diagnosis, signals: Signals) -> list[charts.Chart]:
    """Learning rate, and gradient norm with the norm at which it is clipped."""
    clip = run.facts.max_grad_norm
    clipped = [Baseline("clipped at", clip)] if clip else []
    marks, hues = _marks(diagnosis, None), _splits(signals)
    drawn = [
        charts.chart(
            _name(name, stream),
            splits,
            run.last_step,
            SIGNALS[name].unit,
            ladder=clipped
            if (name, stream) == ("grad_norm", None)
            else [],  # a group of its own may be clipped elsewhere
            marks=marks,
            may_log=name == "grad_norm",
            hues=hues,
        )
        for name in OPTIMISATION
        for stream, splits in signals.get(name, {}).items()
    ]
    return [chart for chart in drawn if chart][:MOST_CHARTS]


def _other_charts(run: Run, signals: Signals) -> tuple[list[tuple[str, str, list[charts.Chart]]], int]:
    """Everything else by name -> [(name, meaning, charts)], and how many charts were left out."""
    groups: list[tuple[str, str, list[charts.Chart]]] = []
    room, left_out = MOST_CHARTS, 0
    for name, streams in sorted(signals.items()):
        if name in OPTIMISATION or name == "ce_nats":
            continue
        if name == "loss":  # a stream drawn by its cross-entropy keeps its optimised loss down here
            streams = {stream: splits for stream, splits in streams.items() if stream in signals.get("ce_nats", {})}
        meaning, unit = (SIGNALS[name].meaning, SIGNALS[name].unit) if name in SIGNALS else ("", "")
        taken = list(streams.items())[:room]
        left_out += len(streams) - len(taken)
        room -= len(taken)
        drawn = [
            charts.chart(view.line(stream or name), splits, run.last_step, unit, may_log=True, hues=_splits(signals))
            for stream, splits in taken
        ]
        if any(drawn):
            groups.append((view.line(name), meaning, [chart for chart in drawn if chart]))
    return groups, left_out


def _match_chart(run: Run) -> charts.Chart | None:
    """How much of the demos of a step is their nearest training clip, a line for each temperature: when each became
    music."""
    found: dict[str, dict[int, list[float]]] = {}
    for demo in run.artifacts:
        temperature, match = demo.facts.get("temperature"), demo.facts.get("match_frac")
        if demo.kind == "demo" and _is_number(temperature) and _is_number(match):
            found.setdefault(f"temperature {view.number(temperature)}", {}).setdefault(demo.step, []).append(
                float(match)
            )
    lines = {
        name: Series(np.array(sorted(steps)), np.array([float(np.mean(steps[step])) for step in sorted(steps)]))
        for name, steps in sorted(found.items())
    }
    return (
        charts.chart(
            "demos against the nearest training clip", lines, run.last_step, "share of codes", hues=list(lines)
        )
        if lines
        else None
    )


def _ladder(verdict: Verdict) -> list[Baseline]:
    return verdict.ladder or [rung for rung in [verdict.baseline] if rung]


def _marks(diagnosis: Diagnosis, stream: Stream | None) -> list[tuple[int, str]]:
    """Where findings on this stream begin; those on the whole run are marked on the total and where no stream is
    named."""
    return [
        (finding.since_step, finding.rule)
        for finding in diagnosis.findings
        if finding.since_step and (stream in finding.streams or (not finding.streams and stream in (None, TOTAL)))
    ]


def _name(name: str, stream: Stream | None) -> str:
    return view.line(f"{name.replace('_', ' ')} {stream or ''}")


@dataclass
class Clip:
    """One demo on the page: embedded, or with the reason why not."""

    artifact: Artifact
    label: str
    details: str
    sound: sounds.Sound | None = None
    problem: str = ""


@dataclass
class Prompt:
    """All clips of one prompt, by step: the newest first, references before all."""

    text: str
    rows: dict[str, list[Clip]] = field(default_factory=dict[str, list[Clip]])


def _demos(run: Run) -> tuple[list[Prompt], list[str]]:
    """Embed the demos, newest step first, until the page is full; -> (prompts, paths left out)."""
    wavs = [artifact for artifact in run.artifacts if Path(artifact.path).suffix.lower() == ".wav"]
    wavs.sort(key=lambda one: (one.kind != "reference", -one.step))
    prompts: dict[str, Prompt] = {}
    left_out: list[str] = []
    room = MOST_SOUND_BYTES
    for artifact in wavs:
        clip = Clip(artifact, *_label(artifact))
        try:
            clip.sound = sounds.load(_inside(run, artifact)) if room > 0 else None
        except (OSError, ValueError) as error:
            clip.problem = f"{artifact.path} cannot be played: {error}"
        if not clip.problem and (clip.sound is None or clip.sound.size > room):
            left_out.append(artifact.path)
            continue
        subject = next((str(artifact.facts[name]) for name in SUBJECTS if name in artifact.facts), "")
        row = "reference" if artifact.kind == "reference" else f"step {artifact.step:,}"
        clips = prompts.setdefault(subject, Prompt(subject)).rows.setdefault(row, [])
        if row == "reference" and any(clip.sound == other.sound for other in clips):
            continue  # the same recording, named again at every step
        clips.append(clip)
        room -= clip.sound.size if clip.sound else 0
    for prompt in prompts.values():
        for clips in prompt.rows.values():
            clips.sort(
                key=lambda clip: (
                    clip.artifact.facts["temperature"] if _is_number(clip.artifact.facts.get("temperature")) else 0
                )
            )
    return list(prompts.values()), left_out


def _predictions(run: Run) -> tuple[list[list[dict[str, Any]]], str]:
    """The newest prediction log, as the rows of each of its first clips; or none, and why it cannot be read."""
    logged = [artifact for artifact in run.artifacts if artifact.kind == "prediction"]
    clips: dict[Any, list[dict[str, Any]]] = {}
    try:
        for words in _inside(run, logged[-1]).read_text(encoding="utf-8").splitlines() if logged else []:
            row = json.loads(words)
            clips.setdefault(row["clip"], []).append({name: row.get(name) for name in PREDICTED})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [], f"{logged[-1].path} cannot be read: {error!r}"
    return list(clips.values())[:MOST_PREDICTED], ""


def _label(artifact: Artifact) -> tuple[str, str]:
    """What the clip is (its temperature, or its kind), and what else is known of it."""
    known = {name: fact for name, fact in artifact.facts.items() if name not in (*SUBJECTS, "temperature")}
    temperature = artifact.facts.get("temperature")
    label = artifact.kind if temperature is None else f"temperature {view.shown(temperature)}"
    return view.line(label), " · ".join(f"{view.line(name)} {view.shown(fact)}" for name, fact in known.items())


def _inside(run: Run, artifact: Artifact) -> Path:
    """The artifact's file; a run may not name files outside its own directory."""
    home = (run.path or Path()).resolve()
    path = (home / artifact.path).resolve()
    if run.path is None or not path.is_relative_to(home):
        raise ValueError("it lies outside the run directory")
    return path


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float)


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts -> (dotted name, value in words), long ones cut short with a word on their length."""
    for name, fact in facts.items():
        entries = len(cast(Sized, fact)) if isinstance(fact, Mapping | list | tuple) else 0
        if isinstance(fact, Mapping) and 0 < entries <= MOST_ITEMS:
            yield from _flat(cast(Mapping[str, Any], fact), f"{before}{name}.")
        elif entries > MOST_ITEMS:
            yield f"{before}{name}", f"{entries:,} entries"
        else:
            words = view.shown(fact)
            yield (
                f"{before}{name}",
                words if len(words) <= MOST_CHARACTERS else f"{words[:MOST_CHARACTERS]}… ({len(words):,} characters)",
            )

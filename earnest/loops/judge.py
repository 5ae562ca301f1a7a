"""From what was traced to a diagnosis: results for the rules, and in words what was taken for what."""

import os
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from earnest.probes.results import Alignment, Results
from earnest.probes.trace.read import Reading, where
from earnest.probes.trace.streams import streams
from earnest.probes.trace.targets import delays, targets
from earnest.probes.trace.tracing import Traced
from earnest.rules import diagnose
from earnest.rules.finding import Diagnosis
from earnest.run import Run
from earnest.streams import Stream

ASKED = (  # of a batch
    "A103",
    "A203",
    "A205",
    "A206",
    "A302",
    "A305",
    "A306",
    "A307",
    "C102",
    "C104",
    "C105",
    "C106",
    "D403",
)


def judged(model: nn.Module, traced: Traced, end_id: int | None = None) -> Results:
    """What rules read of a traced batch."""
    named = streams(traced.readings)
    return Results(
        alignment=_alignment(named),
        targets=targets(model, named, traced.arrays, end_id) or None,
        delays=delays(model, named, traced.arrays),
    )


def _alignment(named: Mapping[Stream, Reading]) -> dict[Stream, Alignment] | None:
    found = {
        stream: Alignment(
            0 if reading.itself else reading.offset if reading.offset is not None else 1,
            codebook_matches=not reading.behind,
            later=reading.later,
            where=where(reading.lines),
            layer=reading.layer,
            tokens=reading.tokens,
        )
        for stream, reading in named.items()
        if reading.offset is not None or reading.itself or reading.behind is not None
    }
    return found or None


def diagnosis(results: Results, told: Mapping[str, str]) -> Diagnosis:
    """What the rules that read a batch say. told: stands as the diagnosis's mapping."""
    found = diagnose(Run.of(probes=results))
    not_checked = [one for one in found.not_checked if one.rule in ASKED]
    return replace(found, verdicts=[], not_checked=not_checked, mapping=dict(told))


def told(traced: Traced) -> dict[str, str]:
    """What was taken for what: stream -> output layer, vocabulary, tokens, and the line of the loss."""
    words: dict[str, str] = {}
    for stream, reading in streams(traced.readings).items():
        tokens = f"its tokens in {reading.tokens}" if reading.tokens else "its labels are no input of the model"
        exact = "" if reading.scores.exact else ", with label smoothing"
        layer = f"{reading.layer} ({reading.scores.classes} classes{exact})"
        words[str(stream)] = f"{layer}, {tokens}; scored at {_short(where(reading.lines))}"
    if not words:
        functions = ", ".join(traced.record.losses) or "no loss function"
        words["nothing"] = f"no cross-entropy over classes reaches backward() ({functions} was called): not judged"
    return words


def _short(line: str) -> str:
    return os.path.relpath(line) if line.startswith(os.getcwd() + os.sep) else line

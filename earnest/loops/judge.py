"""From what was traced to results for the rules, and in words what was taken for what."""

import os
import re
from collections.abc import Mapping, Sequence

from torch import nn

from earnest.probes.given import EXPECTED
from earnest.probes.results import Alignment, Results, WrongInput
from earnest.probes.trace.read import Reading, where
from earnest.probes.trace.scores import FEWEST_CLASSES
from earnest.probes.trace.streams import streams
from earnest.probes.trace.targets import delays, targets
from earnest.probes.trace.tracing import Traced
from earnest.streams import Codebook, Stream

NUMBERS = re.compile(r"\.\d+\.")
SEEN = {
    0: ", a label is scored where it has been seen itself",
    1: ", a label is scored where the one before it was seen last",
    2: ", a label is scored where the last but one was seen last",
}


def judged(model: nn.Module, traced: Traced, end_id: int | None = None) -> Results:
    """What rules read of a traced batch."""
    named = streams(traced.readings)
    return Results(
        alignment=_alignment(named),
        targets=targets(model, named, traced.arrays, end_id) or None,
        delays=delays(model, named, traced.arrays),
        alike_rows=traced.record.alike or None,
        wrong_inputs=_wrong_inputs(traced) or None,
    )


def _alignment(named: Mapping[Stream, Reading]) -> dict[Stream, Alignment] | None:
    found = {
        stream: Alignment(
            0 if reading.itself else reading.offset if reading.offset is not None else 1,
            codebook_matches=not reading.behind,
            later=reading.later,
            copied=reading.copied,
            where=where(reading.lines),
            layer=reading.layer,
            tokens=reading.tokens,
        )
        for stream, reading in named.items()
        if reading.offset is not None or reading.itself or reading.behind is not None
    }
    return found or None


def _wrong_inputs(traced: Traced) -> tuple[WrongInput, ...]:
    found = (
        WrongInput(one.function, EXPECTED[one.function], one.instead, where(one.lines)) for one in traced.record.given
    )
    return tuple(dict.fromkeys(found))


def told(traced: Traced) -> dict[str, str]:
    """What was taken for what: streams -> output layer, vocabulary, tokens, and the line of the loss. Streams of which
    the same is true are named together."""
    groups: dict[tuple[str, str], list[Stream]] = {}
    for stream, reading in streams(traced.readings).items():
        tokens = f"its tokens in {reading.tokens}" if reading.tokens else "its labels are no input of the model"
        exact = "" if reading.scores.exact else ", with label smoothing"
        seen = SEEN.get(0 if reading.itself else reading.offset or -1, "")
        layer = NUMBERS.sub(".*.", f"{reading.layer} ({reading.scores.classes} classes{exact}), {tokens}")
        words = f"{layer}{seen}; scored at {_short(where(reading.lines))}"
        groups.setdefault((words, "" if isinstance(stream, Codebook) else str(stream)), []).append(stream)
    if not groups:
        functions = ", ".join(traced.record.losses) or "no loss function"
        least = f"no cross-entropy over {FEWEST_CLASSES} classes or more"
        return {"nothing": f"{least} is known to reach backward() ({functions}): not judged"}
    return {_together(named): words for (words, _), named in groups.items()}


def _together(named: Sequence[Stream]) -> str:
    """Neighbours as a range: codebook_1 ... codebook_14."""
    return (
        str(named[0])
        if len(named) == 1
        else ", ".join(map(str, named))
        if len(named) < 4
        else f"{named[0]} ... {named[-1]}"
    )


def _short(line: str) -> str:
    return os.path.relpath(line) if line.startswith(os.getcwd() + os.sep) else line

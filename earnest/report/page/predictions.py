"""What the model predicts: the newest prediction log, id by id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from earnest.files import read_small
from earnest.records import loads
from earnest.report import view
from earnest.report.files import inside
from earnest.report.page.fragment import Fragment, fill
from earnest.rules.finding import Diagnosis
from earnest.run import Artifact, Run

MOST_CLIPS = 3
LARGEST_BYTES = 64 << 20  # of a prediction log
KINDS = ("codes", "bos", "eos")
TEXTS = (("written", "written"), ("should say", "target_text"), ("says", "predicted_text"))


@dataclass
class Row:
    """One stream of a clip: ids of its first and its last counted positions, as (targets, predicted)."""

    stream: str
    correct: Any
    counted: Any
    masked: Any
    shares: str
    first: tuple[list[str], list[str]]
    last: tuple[list[str], list[str]] | None


@dataclass
class Predicted:
    """One clip."""

    source: str
    step: Any
    texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    rows: list[Row] = field(default_factory=list[Row])


def section(run: Run, diagnosis: Diagnosis) -> Fragment:
    """What the model predicted for held-out clips, beside their targets; empty if none were written."""
    found, problem = _clips(run)
    clips = list(found.values())[:MOST_CLIPS]
    html = fill("predictions.html", clips=clips, problem=problem) if clips or problem else ""
    return Fragment("predictions", "Predictions", html)


def _clips(run: Run) -> tuple[dict[Any, Predicted], str]:
    """The clips of the newest prediction log; or none, and why it cannot be read."""
    logged = [artifact for artifact in run.artifacts if artifact.kind == "prediction"]
    clips: dict[Any, Predicted] = {}
    try:
        for words in _lines(run, logged[-1]) if logged else ():
            row: Any = loads(words)
            clip = clips.setdefault(row["clip"], Predicted(str(row.get("source", "")), row.get("step")))
            clip.texts += [(name, str(row[key])) for name, key in TEXTS if row.get(key)]
            clip.rows.append(_row(row))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{logged[-1].path} cannot be read: {error!r}"
    return clips, ""


def _lines(run: Run, artifact: Artifact) -> list[str]:
    return read_small(inside(run, artifact), LARGEST_BYTES).decode().splitlines()


def _row(row: Mapping[str, Any]) -> Row:
    first, last = _ids(row, "first"), _ids(row, "last")
    return Row(
        str(row["stream"]), row.get("correct"), row.get("counted"), row.get("masked"), _shares(row), first,
        None if last == first else last,
    )  # fmt: skip


def _ids(row: Mapping[str, Any], end: str) -> tuple[list[str], list[str]]:
    """Targets and predictions as written: an id is no quantity, and has no separators."""
    targets, predicted = ([str(id) for id in row.get(f"{end}_{whose}") or []] for whose in ("target", "predicted"))
    return targets, (predicted + [""] * len(targets))[: len(targets)]


def _shares(row: Mapping[str, Any]) -> str:
    """Which kinds of ids are among the targets and the predictions, in words."""
    parts: list[str] = []
    for whose in ("target", "predicted"):
        shares = {kind: row.get(f"{whose}_{kind}_frac") for kind in KINDS}
        known = [f"{kind} {view.percent(share)}" for kind, share in shares.items() if share]
        if known:
            parts.append(f"{whose} {', '.join(known)}")
    return " · ".join(parts)

"""Several runs beside each other: which is better on which stream by more than the interval, and what differs in
configuration, data and verdicts."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from earnest import logs, records
from earnest.errors import UserError
from earnest.rules import diagnose, gan
from earnest.rules.finding import Diagnosis
from earnest.rules.measure import Measure, end_of, last_of
from earnest.rules.streams import StreamView, token_streams
from earnest.run import Run
from earnest.streams import TOTAL, Part, Stream, in_order

MOST_RUNS = 12  # that a table has room for
# An interval from few evaluations is too narrow, as their noise is itself a guess: of pairs that differ by the seed of
# their noise alone, 13 of 150 were told apart without this factor, 4 of 200 with it (measured as in
# tests/test_comparison.py, 20 evaluations each).
FEW_EVALUATIONS = 1.3
SAME_LENGTH = 0.02  # runs whose last steps differ by less than this share are of one length (assumed)
AGAINST_ANOTHER = {*gan.DISCRIMINATOR, *gan.ADVERSARIAL, *gan.FEATURES, Part("loss_g")}
LONG_BEFORE = 0.1  # of the steps until then: a value is not one at that step (assumed)
DATA = {
    *("train_clips", "train_s", "held_out_clips", "left_out_clips", "cut_clips", "skipped_clips", "speakers"),
    *("held_out_speakers", "train_targets", "label_counts", "repeat_frac", "sample_rate_hz", "frame_rate_hz", "codec"),
}
MACHINE = {"command", "commit", "device", "machine", "versions"}
UNTOLD = {"mapping", "unmapped", "fact_sources", "format"}  # how a log was read, not what was trained
PEAK = "highest learning rate"
LABELS = "labels unlike the first run's, share"


class One(NamedTuple):
    """One of the runs, with the name that tells it from the others."""

    name: str
    run: Run
    diagnosis: Diagnosis


class Gap(NamedTuple):
    """How far a run lies above the best one, and how far it must, as the intervals of both allow; None without."""

    by: float
    interval: float | None

    @property
    def is_real(self) -> bool:
        return self.interval is not None and self.by > self.interval


@dataclass(frozen=True)
class Contest:
    """One stream in all runs: the same kind of loss of each, None of a run without it.

    why_not: why the values cannot be compared, if they cannot · void: runs whose loss says nothing, as it is no number,
    0, or too good to be true.
    """

    stream: Stream
    source: str
    measures: tuple[Measure | None, ...]
    why_not: str = ""
    void: frozenset[int] = frozenset()

    @property
    def best(self) -> int:
        """The index of the run with the lowest loss, among runs that are not `void` if there is one."""
        found = [(index in self.void, measure.value, index) for index, measure in enumerate(self.measures) if measure]
        return min(found)[2]

    def gap(self, index: int) -> Gap | None:
        """How far a run's value lies above the best run's, with the interval; None if the run has no value or is
        `void`."""
        one, best = self.measures[index], self.measures[self.best]
        if one is None or best is None or index in self.void:
            return None
        halves = [(measure.high - measure.low) / 2 if measure.interval else None for measure in (one, best)]
        known = [half for half in halves if half is not None]
        widened = FEW_EVALUATIONS if self.source == "evaluation" else 1.0
        return Gap(one.value - best.value, widened * math.hypot(*known) if len(known) == 2 else None)

    @cached_property
    def winner(self) -> int | None:
        """The run that is below every other by more than the interval."""
        others = [self.gap(index) for index in range(len(self.measures)) if index != self.best]
        gaps = [gap for gap in others if gap]
        return self.best if gaps and not self.why_not and all(gap.is_real for gap in gaps) else None


class Difference(NamedTuple):
    """Something known of the runs that is not the same of all; None where nothing is known of it."""

    group: str  # configuration, data or machine
    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    """At the end of every run, and, if they are of different lengths, at the last step that all have reached."""

    runs: tuple[One, ...]
    at_end: tuple[Contest, ...]
    common_step: int | None
    at_common: tuple[Contest, ...]
    differences: tuple[Difference, ...]


def read(paths: Sequence[Path], facts: Mapping[str, Any], model: str | None = None) -> list[One]:
    """The runs at these paths, ours or anybody's; a directory of several stands for all of them that can be read.

    Raises UserError if one cannot be read, or there are fewer than two or more than `MOST_RUNS`.
    """
    found: list[tuple[Path, Run]] = []
    for path in paths:
        try:
            found.append((path, logs.read(path, facts=facts, model=model)))
        except logs.SeveralRuns as several:
            found += _readable(list(several.paths.values())[: MOST_RUNS + 1], facts, model)
    if not 2 <= len(found) <= MOST_RUNS:
        expected = f"2 to {MOST_RUNS}: run directories, logs, or a directory of several"
        fix = "earnest compare A B" if len(found) < 2 else "name the best of them: `earnest runs DIR` lists any number"
        raise UserError(f"{len(found)} run{'s' * (len(found) != 1)}", expected, fix)
    names = names_of([path for path, _ in found])
    return [One(name, run, diagnose(run)) for name, (_, run) in zip(names, found, strict=True)]


def _readable(paths: Iterable[Path], facts: Mapping[str, Any], model: str | None) -> Iterator[tuple[Path, Run]]:
    for path in paths:
        with suppress(UserError):
            yield path, logs.read(path, facts=facts, model=model)


def names_of(paths: Sequence[Path]) -> list[str]:
    """What tells paths apart, in few words: the folders that all end in are left out, and so are those before the last
    that is needed; a path that is named twice gets a number."""
    parts = [path.resolve().parts for path in paths]
    while min(map(len, parts)) > 1 and len({one[-1] for one in parts}) == 1 and len(set(parts)) > 1:
        parts = [one[:-1] for one in parts]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names, 1)]


def compare(runs: Sequence[One]) -> Comparison:
    """Compare runs stream by stream. Runs of different length are compared at the last step that all have reached
    too."""
    last = [one.run.last_step for one in runs]
    common = min(last) if min(last) < (1 - SAME_LENGTH) * max(last) else None
    cut = [one._replace(run=_until(one.run, common)) for one in runs] if common is not None else []
    return Comparison(
        tuple(runs),
        tuple(contests(runs)),
        common,
        tuple(contests(cut, common)) if cut else (),
        tuple(differences(runs)),
    )


def _until(run: Run, step: int) -> Run:
    """The run as it was at a step; what the probes of its end found is left out."""
    cut = {key: series.where(series.step <= step) for key, series in run.series.items()}
    kept = {key: series for key, series in cut.items() if len(series)}
    return replace(run, series=kept, probes=run.probes.without("held_out"))


def contests(runs: Sequence[One], at: int | None = None) -> Iterator[Contest]:
    """Every stream that at least two of the runs have; `at` a step that all have reached."""
    views = [_views(one.run) for one in runs]
    for stream in in_order({stream for known in views for stream in known}):
        of_stream = [known.get(stream) for known in views]
        measured = [_measures(view) if view else {} for view in of_stream]
        holding = [found for found in measured if found]
        if len(holding) < 2:
            continue
        common = [source for source in holding[0] if all(source in found for found in holding)]
        void = frozenset(index for index, one in enumerate(runs) if of_stream[index] and _says_nothing(one, stream))
        if common:
            measures = tuple(found.get(common[0]) for found in measured)
            why_not = _incomparable([view for view in of_stream if view], common[0])
            why_not = why_not or (_elsewhere(measures, at) if at is not None else "")
            if len(holding) - len(void) < 2:
                why_not = why_not or "a loss that is degenerate says nothing"
            yield Contest(stream, common[0], measures, why_not, void)
        else:
            measures = tuple(next(iter(found.values()), None) for found in measured)
            yield Contest(stream, "end", measures, "of one run the held-out loss is known, of another that of training")


def _says_nothing(one: One, stream: Stream) -> bool:
    return any(verdict.stream == stream and verdict.verdict == "degenerate" for verdict in one.diagnosis.verdicts)


def _elsewhere(measures: Sequence[Measure | None], at: int) -> str:
    """That some were measured long before the step."""
    last = sorted({one.series.finite.last_step for one in measures if one and one.series})
    return f"measured at steps {' and '.join(map(str, last))}" if last and last[0] < (1 - LONG_BEFORE) * at else ""


def _views(run: Run) -> dict[Stream, StreamView]:
    tokens = token_streams(run)
    losses = {key.stream or TOTAL for key in run.series if key.name in ("loss", "ce_nats")}
    return {stream: StreamView(run, stream, tuple(tokens)) for stream in {*tokens, *losses}}


def _measures(view: StreamView) -> dict[str, Measure]:
    """The stream's loss at the end by where it was read, the most telling first."""
    found: dict[str, Measure] = {}
    if view.held_out.ce_nats is not None and math.isfinite(view.held_out.ce_nats):
        found["held out"] = Measure(view.held_out.ce_nats, view.held_out.interval, "held out", view.evaluated)
    if view.evaluated is not None and len(view.evaluated.finite):
        found["evaluation"] = last_of(view.evaluated, "evaluation")
    if view.train is not None and len(view.train.finite):
        found["training"] = end_of(view.train)
    return found


def _incomparable(views: Sequence[StreamView], source: str) -> str:
    """Why losses of these streams mean different things, or nothing."""
    if views[0].stream in AGAINST_ANOTHER:
        return "a loss of one network against another: lower is not better"
    asked: dict[str, list[Any]] = {
        "vocabulary": [view.vocabulary for view in views],
        "unit": [view.unit for view in views],
        "codec": [view.facts.codec for view in views] if views[0].stream.is_audio else [],
        "held-out clips": [view.facts.held_out_clips for view in views] if source != "training" else [],
    }
    for name, values in asked.items():
        known = list(dict.fromkeys(value for value in values if value is not None))
        if len(known) > 1:
            return f"another {name}: {' and '.join(map(str, known))}"
    return ""


def differences(runs: Sequence[One]) -> Iterator[Difference]:
    """What is known of the runs and not the same of all, by group."""
    known = [_settings(one.run) for one in runs]
    for one, settings in zip(runs, known, strict=True):
        settings |= {"last step": one.run.last_step, PEAK: _peak(one.run), LABELS: _unlike(runs[0].run, one.run)}
    names = list(dict.fromkeys(name for settings in known for name in settings))
    rows = [Difference(_group(name), name, tuple(settings.get(name) for settings in known)) for name in names]
    for group in ("configuration", "data", "machine"):
        for row in rows:
            if row.group == group and any(records.plain(value) != records.plain(row.values[0]) for value in row.values):
                yield row._replace(name=row.name.removeprefix("config."))


def _settings(run: Run) -> dict[str, Any]:
    facts = {name: value for name, value in run.facts.known().items() if name not in UNTOLD}
    facts.pop("label_counts", None)
    return {name: value for name, value in records.leaves(facts) if value != {}}


def _peak(run: Run) -> float | None:
    rate = run.get("train", "learning_rate")
    return float(f"{rate.finite.value.max():.4g}") if rate and len(rate.finite) else None


def _unlike(first: Run, other: Run) -> float | None:
    """The share of targets that would have to be others for both to have the same frequencies, mean of the streams."""
    mine, theirs = first.facts.label_counts or {}, other.facts.label_counts or {}
    shares: list[float] = []
    for stream in mine.keys() & theirs.keys():
        all_mine, all_theirs = sum(mine[stream].values()), sum(theirs[stream].values())
        if all_mine and all_theirs:
            ids = {*mine[stream], *theirs[stream]}
            apart = (mine[stream].get(id, 0) / all_mine - theirs[stream].get(id, 0) / all_theirs for id in ids)
            shares.append(sum(map(abs, apart)) / 2)
    return round(sum(shares) / len(shares), 6) if shares else None


def _group(name: str) -> str:
    first, _, rest = name.partition(".")
    if name == LABELS or first in DATA or (first == "config" and rest.partition(".")[0] in ("data", "codec")):
        return "data"
    return "machine" if first in MACHINE else "configuration"

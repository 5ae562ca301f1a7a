"""`Step` and `Run`: what a training run writes and what everything after it reads.

A run directory holds ``run.json`` (facts, probe results), ``steps.jsonl`` (one row per logged step, append-only),
``artifacts.jsonl`` and the files that these name. Each row is one ``write`` to a file opened for appending, so a killed
run keeps every step that it reported and a reader may follow a run that is being written.
"""

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earnest import records
from earnest.columns import Column, Json, JsonLines, Table, newlines
from earnest.errors import UserError
from earnest.facts import FACTS, MOST, Facts
from earnest.files import read_small, write_whole
from earnest.history import Event, History, are_dates, events_in, history
from earnest.messages import Message
from earnest.owner import is_held
from earnest.probes.results import Results
from earnest.records import loads
from earnest.rows import ROW_WORDS, RowSteps, add_block, blocks, numbers_of, objects, rows_of, tell
from earnest.signals import Key, parse
from earnest.streams import Stream

SCHEMA = 1
LARGEST_BYTES = 64 << 20  # of run.json
NUMBER_OF_DEMO = re.compile(r"_frac$|_ratio$|_nats$|temperature$|^wer$|^stopped$|^frames$")
TAIL_BYTES = 1 << 16  # read at a time, from the end, to find the last end of a line
BINS = 256  # the most points that `Series.binned` has
Steps, Values, Mask = NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One optimizer step: its number (from 1) and its signals."""

    index: int
    signals: Mapping[str, float]


class Stretch(NamedTuple):
    """Neighbouring points that all meet a condition: first and last step, the worst value, the number of points."""

    start: int
    stop: int
    worst: float
    points: int


@dataclass(frozen=True)
class Series:
    """One signal over steps, and the questions that rules ask of it.

    `step` (S,) is strictly increasing; `value` (S,) may hold NaN and infinities; `key` says which signal it is.
    """

    step: Steps
    value: Values
    key: Key = Key("train", "calculated")

    def __len__(self) -> int:
        return len(self.step)

    @property
    def stream(self) -> Stream | None:
        return self.key.stream

    @cached_property
    def finite(self) -> "Series":
        """The points that are numbers."""
        return self.where(np.isfinite(self.value))

    def where(self, keep: Mask) -> "Series":
        """The points for which `keep` (S,) is true."""
        return self if keep.all() else Series(self.step[keep], self.value[keep], self.key)

    def since(self, step: int) -> "Series":
        """The points from this step on."""
        return self.where(self.step >= step)

    def tail(self, share: float, at_least: int = 1) -> "Series":
        """The last `share` of the finite points, but no fewer than `at_least` (or all there are)."""
        finite = self.finite
        first = len(finite) - min(len(finite), max(at_least, round(share * len(finite))))
        return Series(finite.step[first:], finite.value[first:], self.key)

    def head(self, count: int) -> "Series":
        """The first `count` finite points."""
        finite = self.finite
        return Series(finite.step[:count], finite.value[:count], self.key)

    @cached_property
    def binned(self) -> "Series":
        """At most `BINS` means of neighbouring finite points: keeps the trend, loses no level, and makes any length
        cheap."""
        finite = self.finite
        if len(finite) <= BINS:
            return finite
        edges = np.linspace(0, len(finite), BINS + 1).astype(int)
        counts = np.diff(edges)
        means = np.add.reduceat(finite.value, edges[:-1]) / counts
        return Series(finite.step[edges[1:] - 1], means, self.key)

    def runs(self, condition: Mask, at_least: int = 1, worst: Callable[[Values], Any] = np.max) -> Iterator[Stretch]:
        """Stretches of at least `at_least` neighbouring points that meet the condition."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], condition.astype(np.int8), [0]])))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if stop - start >= at_least:
                first, last = int(self.step[start]), int(self.step[stop - 1])
                yield Stretch(first, last, float(worst(self.value[start:stop])), stop - start)

    def runs_below(self, level: float, at_least: int = 1) -> Iterator[Stretch]:
        """`runs` of values below a level; their worst value is the lowest."""
        return self.runs(self.value < level, at_least, np.min)

    def runs_above(self, level: float, at_least: int = 1) -> Iterator[Stretch]:
        """`runs` of values above a level; their worst value is the highest."""
        return self.runs(self.value > level, at_least, np.max)

    def rows(self, start: int | None = None, stop: int | None = None, most: int = 6) -> list[dict[str, Any]]:
        """Evidence: at most `most` points, evenly chosen, from step `start` to step `stop`."""
        keep = np.flatnonzero((self.step >= (start or 0)) & (self.step <= (self.last_step if stop is None else stop)))
        if len(keep):
            keep = keep[sorted(set(np.linspace(0, len(keep) - 1, min(most, len(keep))).round().astype(int).tolist()))]
        name = str(self.key)
        return [{"step": int(self.step[i]), name: float(self.value[i])} for i in keep.tolist()]

    @property
    def last_step(self) -> int:
        return int(self.step[-1]) if len(self) else 0


PlainSeries = Series | tuple[ArrayLike, ArrayLike]
NO_FACTS, NO_PROBES = Facts(), Results()
NO_SERIES: Mapping[Key, PlainSeries] = MappingProxyType({})


@dataclass(frozen=True)
class Artifact:
    """A file of the run: `kind` (demo, prediction, reference), its path relative to the run, and facts about it."""

    kind: str
    path: str
    step: int
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Run:
    """Everything known about a run, ours or anybody's.

    `notes`: what the reader repaired, stitched or could not read, in words · `messages`: what the program printed in
    words · `history`: when it was written; None if a log has no times · `elapsed`: seconds trained at each step,
    without the pauses before a resume; None if a log has no times · `counts_steps`: False if the steps are numbers of
    epochs or rows · `counts_epochs`: True if they are epochs.
    """

    facts: Facts = NO_FACTS
    series: dict[Key, Series] = field(default_factory=dict[Key, Series])
    probes: Results = NO_PROBES
    artifacts: list[Artifact] = field(default_factory=list[Artifact])
    notes: list[str] = field(default_factory=list[str])
    messages: list[Message] = field(default_factory=list[Message])
    path: Path | None = None
    history: History | None = None
    elapsed: Series | None = None
    counts_steps: bool = True
    counts_epochs: bool = False

    @classmethod
    def of(
        cls,
        facts: Mapping[str, Any] | Facts = NO_FACTS,
        series: Mapping[str, PlainSeries] | Mapping[Key, PlainSeries] = NO_SERIES,
        probes: Mapping[str, Any] | Results = NO_PROBES,
        artifacts: Iterable[Artifact] = (),
    ) -> "Run":
        """A run from plain values: facts and probes as JSON holds them, series as (steps, values) by key."""
        named: dict[Key, Series] = {}
        for name, signal in series.items():
            key = name if isinstance(name, Key) else parse(name)
            step, value = (signal.step, signal.value) if isinstance(signal, Series) else signal
            named[key] = Series(np.asarray(step, dtype=np.int64), np.asarray(value, dtype=np.float64), key)
        found = probes if isinstance(probes, Results) else Results.read(probes)
        return cls(Facts().updated(facts), named, found, list(artifacts))

    def __getitem__(self, key: str | Key) -> Series:
        """A signal by its key, as written or taken apart; raises KeyError if the run does not hold it."""
        return self.series[key if isinstance(key, Key) else parse(key)]

    def __contains__(self, key: str | Key) -> bool:
        return (key if isinstance(key, Key) else parse(key)) in self.series

    def get(self, split: str, name: str, stream: Stream | None = None) -> Series | None:
        """A signal, or None if the run does not hold it."""
        return self.series.get(Key(split, name, stream))

    @property
    def last_step(self) -> int:
        return max((series.last_step for series in self.series.values()), default=0)


class RunWriter:
    """Writes a run directory; open an existing one to continue it. `listeners` are called with every row of signals
    that was written: its step, and the signals."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.listeners: list[Callable[[int, Mapping[str, float]], None]] = []
        self.path.mkdir(parents=True, exist_ok=True)
        run_json = self.path / "run.json"
        stored = loads(read_small(run_json, LARGEST_BYTES)) if run_json.exists() else None
        self._run: dict[str, Any] = {"schema": SCHEMA, "facts": {}, "probes": {}}
        self._run |= stored if isinstance(stored, dict) else {}
        self._steps = _open_append(self.path / "steps.jsonl")
        self._artifacts = _open_append(self.path / "artifacts.jsonl")

    def facts(self, facts: Facts) -> None:
        """Add facts; a fact that is there already gets its new value."""
        self._run["facts"] |= facts.known()
        self._save()

    def probes(self, results: Results) -> None:
        """Add results of probes; each replaces an earlier one of that probe."""
        self._run["probes"] |= records.plain(results)
        self._save()

    def step(self, index: int, signals: Mapping[str, float]) -> None:
        """Write a row of signals after step `index`, and hand it to the listeners. Raises OSError on a full disk."""
        self._append(self._steps, {"step": index, "time_s": time.time(), **signals})
        for listener in self.listeners:
            listener(index, signals)

    def event(self, index: int, name: str) -> None:
        """Mark something that is not a measurement: started, resumed, interrupted, finished."""
        self._append(self._steps, {"step": index, "time_s": time.time(), "event": name})

    def artifact(self, artifact: Artifact) -> None:
        """Write down that a file belongs to the run."""
        self._append(self._artifacts, vars(artifact))

    def close(self) -> None:
        self._steps.close()
        self._artifacts.close()

    def _save(self) -> None:
        write_whole(self.path / "run.json", json.dumps(self._run, indent=1))

    @staticmethod
    def _append(file: FileIO, row: Mapping[str, Any]) -> None:
        # json writes NaN and Infinity, and the reader takes them: a NaN loss is a fact worth keeping.
        line = (json.dumps(row) + "\n").encode()
        if file.write(line) != len(line):  # what a disk does that fills up within a row
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))


def _open_append(path: Path) -> FileIO:
    """Open unbuffered for appending, after cutting a last line that a kill left unfinished."""
    if path.exists():
        with open(path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            tail = b""
            while end and b"\n" not in tail:
                step = min(end, TAIL_BYTES)
                file.seek(end - step)
                tail, end = file.read(step) + tail, end - step
            file.truncate(end + tail.rfind(b"\n") + 1)
    return open(path, "ab", buffering=0)


def read_run(path: Path) -> Run:
    """Read a run directory of our own.

    A step that was written twice (a resume repeats the steps after its checkpoint) counts once, as last written.
    A fact, a result of a probe or a row of another type than expected is left out, with a note. Raises UserError if the
    directory holds no run, or its run.json is not one.
    """
    path = Path(path)
    run_json = path / "run.json"
    restore = "restore the file or train again"
    if not run_json.is_file():
        raise UserError(
            f"no run.json in {path}",
            "a run directory written by `earnest train`",
            "pass the directory that `earnest train` printed",
        )
    try:
        stored: Json = loads(read_small(run_json, LARGEST_BYTES))
    except (ValueError, OSError) as error:
        raise UserError(f"{run_json} cannot be read ({error})", "the run.json of a run directory", restore) from error
    if not isinstance(stored, dict) or not isinstance(facts := stored.get("facts"), dict):
        raise UserError(f"{run_json} without facts", "the run.json of a run directory", restore)
    notes = [f"run.json: {name!r} is no fact and was left out" for name in facts if name not in FACTS]
    known = Facts()
    for name, value in facts.items():
        if name in FACTS:
            known = _unless_odd(lambda known, fact: known.updated(fact), known, {name: value}, notes)
    probes, written = Results(), stored.get("probes")
    for name, value in written.items() if isinstance(written, dict) else ():
        probes = _unless_odd(lambda known, result: known.updated(Results.read(result)), probes, {name: value}, notes)
    series, past, elapsed = _read_steps(path / "steps.jsonl", notes)
    past = replace(past, held=is_held(path)) if past else None
    artifacts = list[Artifact]()
    for row in rows_of(path / "artifacts.jsonl", notes):
        try:
            artifact = records.read(Artifact, row, "artifacts.jsonl: a row", restore)
            artifacts.append(replace(artifact, facts=_plain_facts(artifact, notes)))
        except UserError as error:
            tell(notes, f"{error.seen} is not {error.expected}, and was left out")
    return Run(known, series, probes, artifacts, notes, path=path, history=past, elapsed=elapsed)


def _plain_facts(artifact: Artifact, notes: list[str]) -> dict[str, Any]:
    """Texts and numbers; a fact that is neither, or no number though its name says so, is left out with a note."""
    facts: dict[str, Any] = {}
    for name, value in artifact.facts.items():
        is_number = isinstance(value, int | float) and (not isinstance(value, int) or abs(value) < MOST)
        if is_number or value is None or (isinstance(value, str) and not NUMBER_OF_DEMO.search(name)):
            facts[name] = value
        else:
            tell(notes, f"{artifact.path}: {name} = {records.shortened(value)} was left out")
    return facts


Record = TypeVar("Record", Facts, Results)


def _unless_odd(
    add: Callable[[Record, dict[str, Any]], Record], record: Record, value: dict[str, Any], notes: list[str]
) -> Record:
    """The record with one more value; if the value is not of its type, the record as it is and a note."""
    try:
        return add(record, value)
    except UserError as error:
        notes.append(f"run.json: {error.seen} is not {error.expected}, and was left out")
        return record


def _read_steps(path: Path, notes: list[str]) -> tuple[dict[Key, Series], History | None, Series | None]:
    """The signals of ``steps.jsonl``, of which the last value of a step wins, when its rows were written, and the time
    trained at each step."""
    table, reader, events, lines = Table(notes), JsonLines(), list[Event](), 0
    for block in blocks(path, notes):
        is_table = add_block(table, reader, block)
        if not is_table:
            for row in objects(block, path.name, lines, notes):
                table.row(numbers_of(row, notes))
        if not is_table or reader.texts:
            events += events_in(block)
        lines += newlines(block)
    if any(event.name == "resumed" for event in events):
        notes.append("resumed; steps written twice count once, as last written")
    columns = table.columns()
    step = columns.pop("step", Column(np.zeros(0, np.int64), np.zeros(0)))
    steps = RowSteps(step.row, step.value.astype(np.int64))
    times = columns.get("time_s", Column(np.zeros(0, np.int64), np.zeros(0)))
    kept = are_dates(times.value)
    times = Column(times.row[kept], times.value[kept])
    series: dict[Key, Series] = {}
    for name in [name for name in columns if name not in ROW_WORDS]:
        try:
            key = parse(name)
        except ValueError as error:
            notes.append(f"{error}: it was left out")
            continue
        series[key] = _last_of_each_step(steps, columns.pop(name), key)
    return series, history(times.value, events), _elapsed(steps, times, events) if len(times.value) > 1 else None


def _elapsed(steps: RowSteps, times: Column, events: Iterable[Event]) -> Series:
    """Seconds trained at each step. Rows that a resume follows are apart by a pause, which does not count."""
    passed = np.diff(times.value, prepend=times.value[:1])
    passed[np.isin(times.value, [event.time_s for event in events if event.name == "resumed"])] = 0
    return _last_of_each_step(steps, Column(times.row, np.cumsum(np.maximum(passed, 0))), Key("train", "elapsed_s"))


def _last_of_each_step(of_rows: RowSteps, column: Column, key: Key) -> Series:
    """The values of a signal by step."""
    steps = of_rows.at(column.row)
    if (np.diff(steps) > 0).all():
        return Series(steps, column.value, key)
    order = np.argsort(steps, kind="stable")
    last = np.append(np.diff(steps[order]) > 0, True)
    return Series(steps[order][last], column.value[order][last], key)

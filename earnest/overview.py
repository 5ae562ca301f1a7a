"""The runs below a directory, ours and anybody's: what each is, how far it went, how it ended, and what was said of it.

Of our own runs ``run.json`` and the two ends of ``steps.jsonl`` are read, so that hundreds take no time. A verdict is
shown if it was made of the files as they are and by the rules as they are (`Judged`, kept in the cache); else it is
made anew while there is time for it.
"""

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from earnest import logs, records
from earnest.errors import UserError
from earnest.files import cache_dir, open_regular, read_small, write_whole
from earnest.history import History, events_in, history
from earnest.logs.find import discover
from earnest.owner import LATEST_S, is_held
from earnest.records import loads
from earnest.run import Run
from earnest.signals import Key, parse

if TYPE_CHECKING:
    from earnest.rules.finding import Diagnosis

TAIL_BYTES, LONG_TAIL_BYTES = 1 << 17, 1 << 23
BUDGET_S = 0.5  # in which runs that were not judged before are judged
LARGEST_BYTES = 20 << 20  # of a log that is judged within the budget
LARGEST_RUN_BYTES = 64 << 20  # of run.json
MOST_FILES = 1000  # of one log, whose times are compared
JUDGING = ("rules", "logs", "profiles", "facts.py", "run.py", "signals.py", "streams.py", "columns.py")
TIMES = re.compile(rb'"time_s": ([\d.]+)')


class HeldOut(NamedTuple):
    """The newest evaluation in one number, and what it is of."""

    value: float
    of: str


@dataclass(frozen=True)
class Judged:
    """What was said of a run: how many streams have which verdict, how many findings which severity, and the rules that
    found something."""

    verdicts: Mapping[str, int]
    severities: Mapping[str, int]
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One run.

    last_step: that it was to reach · written_s: when its files were last written · history: None if the log tells no
    times · judged: None if it was not judged yet · problem: why it cannot be read.
    """

    name: str
    path: Path
    own: bool
    written_s: float
    system: str = ""
    step: int | None = None
    last_step: int | None = None
    history: History | None = None
    held_out: HeldOut | None = None
    judged: Judged | None = None
    problem: str = ""

    @property
    def started_s(self) -> float:
        return self.history.started_s if self.history else self.written_s


def overview(directory: Path, budget_s: float = BUDGET_S) -> list[Entry]:
    """Every run below a directory, the newest first. Raises UserError if there is none."""
    until_s = time.monotonic() + budget_s
    entries = sorted(entries_of(directory), key=lambda entry: -entry.started_s)
    return [_judged(entry, until_s) for entry in entries]


def entries_of(directory: Path) -> list[Entry]:
    """The runs below a directory as far as they are known without judging one."""
    if not directory.is_dir():
        raise UserError(f"no directory {directory}", "one that holds runs or logs", "earnest runs DIR")
    found = discover(directory, logs.FORMATS)
    if not found:
        fix = "train a run with `earnest train RECIPE`, or pass the directory that holds your logs"
        raise UserError(f"{directory} holds no run", "run directories of earnest, or logs", fix)
    return [_entry(name, log.path, log.format is logs.own.FORMAT, log.format.name) for name, log in found.items()]


def _entry(name: str, path: Path, own: bool, format: str) -> Entry:
    files = _files(path)
    entry = Entry(name, path, own, max((time_ns / 1e9 for _, _, time_ns in files), default=0.0), format)
    kept = _kept(path, files)
    if kept:
        entry = replace(entry, system=kept.system, step=kept.step, held_out=kept.held_out, judged=kept.judged)
    try:
        return _own(entry) if own else entry
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return replace(entry, problem=f"it cannot be read ({error})")


def _judged(entry: Entry, until_s: float) -> Entry:
    """The entry with its verdicts, if there is time to make them; kept for the next look."""
    too_large = until_s < float("inf") and sum(size for _, size, _ in _files(entry.path)) > LARGEST_BYTES
    if entry.judged or entry.problem or too_large or time.monotonic() > until_s:
        return entry
    from earnest import rules  # scipy takes a while to import

    try:
        run = logs.read(entry.path)
        return keep(entry, run, rules.diagnose(run))
    except UserError as error:
        return replace(entry, problem=error.seen)


# --- our own runs


class _Facts(msgspec.Struct):
    system: str | None = None
    trainer: str | None = None
    schedule_steps: int | None = None


class _RunFile(msgspec.Struct):
    facts: _Facts


def _own(entry: Entry) -> Entry:
    """What ``run.json`` and the ends of ``steps.jsonl`` say."""
    try:
        facts = msgspec.json.decode(read_small(entry.path / "run.json", LARGEST_RUN_BYTES), type=_RunFile).facts
    except (OSError, msgspec.DecodeError) as error:
        return replace(entry, problem=f"run.json cannot be read ({error})")
    past, step, evaluated = _ends(entry.path / "steps.jsonl")
    return replace(
        entry,
        system=facts.system or facts.trainer or entry.system,
        step=step,
        last_step=facts.schedule_steps,
        history=replace(past, held=is_held(entry.path)) if past else None,
        held_out=held_out(evaluated),
    )


def _ends(path: Path) -> tuple[History | None, int, dict[Key, float]]:
    """The history of a run, its last step, and the numbers of its newest evaluation."""
    with open_regular(path) as file:
        head = file.readline(TAIL_BYTES)
        tail = b""
        for size in (TAIL_BYTES, LONG_TAIL_BYTES):
            whole = file.seek(0, os.SEEK_END) <= size
            file.seek(0 if whole else -size, os.SEEK_END if not whole else os.SEEK_SET)
            tail = file.read(size)
            if whole or b'"eval/' in tail:
                break
    rows = (tail if whole else tail.partition(b"\n")[2]).rpartition(b"\n")[0]
    times = [float(time_s) for time_s in TIMES.findall(rows)]
    past = history(times, list(events_in(rows)))
    first = TIMES.search(head)
    if past and first and float(first[1]) < LATEST_S:
        past = replace(past, started_s=float(first[1]))
    last, evaluation = _row(rows, len(rows)), _row(rows, rows.rfind(b'"eval/'))
    step = last.get("step", 0)
    numbers = {name: value for name, value in evaluation.items() if name.startswith("eval/")}
    return past, step if isinstance(step, int) else 0, {parse(name): float(value) for name, value in numbers.items()}


def _row(rows: bytes, place: int) -> dict[str, float]:
    """The row that a place lies in; none is empty."""
    if place < 0:
        return {}
    try:
        row = loads(rows[rows.rfind(b"\n", 0, place) + 1 :].partition(b"\n")[0])
    except ValueError:
        return {}
    if not isinstance(row, dict):
        return {}
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


def held_out(evaluated: Mapping[Key, float]) -> HeldOut | None:
    """The newest evaluation in one number: the mean of the audio streams, else of the text, else the loss, else the
    first loss that there is."""
    for name in ("ce_nats", "loss"):
        found = {key.stream: value for key, value in evaluated.items() if key.name == name}
        audio = [value for stream, value in found.items() if stream and stream.is_audio]
        if audio:
            return HeldOut(sum(audio) / len(audio), f"{len(audio)} audio streams" if len(audio) > 1 else "audio")
        if found:
            stream = None if None in found else next(iter(found))
            return HeldOut(found[stream], str(stream or name))
    return None


# --- what is kept


@dataclass(frozen=True)
class _Kept:
    """What was said of a log, the files it was made of, and the code that said it."""

    files: tuple[tuple[str, int, int], ...]
    code: str
    system: str
    step: int
    judged: Judged
    held_out: HeldOut | None = None


def keep(entry: Entry, run: Run, diagnosis: "Diagnosis") -> Entry:
    """The entry with what is said of its run, kept in the cache for the next look."""
    judged = Judged(
        Counter(verdict.verdict for verdict in diagnosis.verdicts),
        Counter(finding.severity for finding in diagnosis.findings),
        tuple(finding.rule for finding in diagnosis.findings),
    )
    newest = {
        key: float(one.finite.value[-1]) for key, one in run.series.items() if key.split == "eval" and len(one.finite)
    }
    system = run.facts.trainer or run.facts.system or run.facts.format or ""
    kept = _Kept(_files(entry.path), _code(), system, run.last_step, judged, entry.held_out or held_out(newest))
    place = _place(entry.path)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, json.dumps(records.plain(kept)))
    return replace(
        entry, system=entry.system if entry.own else system, step=kept.step, judged=judged, held_out=kept.held_out
    )


def remember(path: Path, run: Run, diagnosis: "Diagnosis") -> None:
    """Keep what was said of one of our own runs, so that a list of runs has its verdict at once."""
    with suppress(OSError):  # without a cache it is judged again
        keep(_entry(path.name, path, True, logs.own.FORMAT.name), run, diagnosis)


def _kept(path: Path, files: tuple[tuple[str, int, int], ...]) -> _Kept | None:
    """What the cache holds for a log, if log files and earnest's code are unchanged since; else None."""
    try:
        kept = msgspec.json.decode(_place(path).read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return None
    return kept if (kept.files, kept.code) == (files, _code()) else None


def _place(path: Path) -> Path:
    return cache_dir() / "judged" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]}.json"


def _files(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of what a log is read from: its directory's files, as its configuration lies there too."""
    found: list[tuple[str, int, int]] = []
    with os.scandir(path if path.is_dir() else path.parent) as listed:
        for file in islice(listed, MOST_FILES):
            with suppress(OSError):  # a link to itself, or a file that was just removed
                if file.is_file() and not file.name.startswith("report."):
                    stat = file.stat()
                    found.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


@cache
def _code() -> str:
    """A fingerprint of the code that reads and judges."""
    home, digest = Path(__file__).parent, hashlib.sha256()
    for part in JUDGING:
        for file in sorted((home / part).rglob("*.*") if (home / part).is_dir() else [home / part]):
            if file.suffix in (".py", ".toml"):
                stat = file.stat()
                digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]

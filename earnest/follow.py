"""``earnest watch LOG``: a log that grows is judged again and again, and each finding is printed once.

Of a run directory of ours, and of CSV, JSONL and printed text, only what was appended is read (`logs.pieces`). Other
formats are read again once they have grown. The longer a look takes, the less often one is taken.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from earnest import logs
from earnest.columns import Json
from earnest.errors import UserError
from earnest.files import open_regular
from earnest.logs.pieces import Progress
from earnest.report import view
from earnest.report.told import told
from earnest.rules import diagnose
from earnest.rules.finding import SEVERITIES, Diagnosis, Finding, Severity
from earnest.rules.polling import LONGER, Believed
from earnest.run import ROW_WORDS, Run, Series, read_run
from earnest.signals import Key, parse

POLL_S = 1.0
SETTLED_S = 10.0  # without a new row: what there is is judged, however little it has grown
SHARE = 0.1  # of the time may be spent on looking, of one core
ENDED_S = 600.0  # without a new row: a log that cannot say so has ended


class Look(NamedTuple):
    """A log as it is now. judged: None if it has grown too little to be judged again; new: findings that are believed
    now and were not before; ended: that it grows no more, in words."""

    run: Run
    judged: Diagnosis | None
    new: list[Finding]
    ended: str | None


class OwnRun:
    """A run directory of ours that is being written: rows are read once."""

    def __init__(self, path: Path):
        self.path, self.offset, self.ended = path, 0, ""
        self.values: dict[Key, dict[int, float]] = {}
        self.about: tuple[int, int] | None = None
        self.base = Run()

    def read(self) -> Run | None:
        """The run, None if nothing has changed."""
        info = (self.path / "run.json").stat()
        about = info.st_mtime_ns, info.st_ino
        rows = self._rows()
        if not rows and about == self.about:
            return None
        if about != self.about:
            self.about, self.base = about, _without_steps(self.path)
        for row in rows:
            self.ended = str(row.get("event", ""))
            step = row.get("step")
            for name, value in row.items():
                if name not in ROW_WORDS and isinstance(value, int | float) and isinstance(step, int):
                    self.values.setdefault(parse(name), {})[step] = float(value)
        series: dict[Key, Series] = {}
        for key, points in self.values.items():
            steps = np.array(sorted(points), dtype=np.int64)
            series[key] = Series(steps, np.array([points[step] for step in steps.tolist()]), key)
        return replace(self.base, series=series)

    def _rows(self) -> list[dict[str, Any]]:
        """Whole rows that were appended since the last call."""
        with open_regular(self.path / "steps.jsonl") as file:
            if file.seek(0, 2) < self.offset:  # written anew
                self.offset, self.values = 0, {}
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        found: list[dict[str, Any]] = []
        for line in whole.splitlines():
            try:
                row: Json = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.append(row)
        return found


def _size(file: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None if it has just been removed."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class AnyLog:
    """A log in any other format: read on, or again, once a file of it has grown."""

    ended = ""

    def __init__(self, path: Path, options: Mapping[str, Any]):
        self.path, self.options = path, options
        self.sizes: dict[Path, tuple[int, int]] = {}
        self.progress = Progress()

    def read(self) -> Run | None:
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        sizes = {file: size for file in files if (size := _size(file))}
        if sizes == self.sizes:
            return None
        self.sizes = sizes
        try:
            return logs.read(self.path, **self.options, progress=self.progress)
        except UserError:
            if self.path.exists():  # a log that has only begun holds nothing that can be read yet
                return None
            raise


@dataclass
class Follower:
    """Looks at a log again and again. options: of `logs.read`."""

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ended_s: float = ENDED_S
    poll_s: float = POLL_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.believed = Believed()
        self.judged_at: int | None = None
        own = self.path / "run.json"
        self.log = OwnRun(self.path) if own.exists() else AnyLog(self.path, self.options)

    def looks(self) -> Iterator[Look]:
        """A look after every change, and a last one when the log has ended. Raises UserError if nothing can be read."""
        logs.read(self.path, **self.options) if isinstance(self.log, AnyLog) else None
        grown_s, run, stale = self.clock(), None, False
        while True:
            began_s = self.clock()
            now = self.log.read()
            if now is not None:
                grown_s, run, stale = self.clock(), now, True
            silent_s = self.clock() - grown_s
            ended = self._end(silent_s)
            if run is not None and (now is not None or ended or (stale and silent_s > SETTLED_S)):
                look = self._judged(run, ended, silent_s > SETTLED_S)
                stale &= look.judged is None
                yield look
            if ended:
                return
            self.sleep(max(self.poll_s, (self.clock() - began_s) * (1 / SHARE - 1)))

    def _end(self, silent_s: float) -> str | None:
        if self.log.ended in ("finished", "interrupted"):
            return f"the run has {'finished' if self.log.ended == 'finished' else 'been interrupted'}"
        return f"no new row for {silent_s:.0f} s" if silent_s > self.ended_s else None

    def _judged(self, run: Run, ended: str | None, settled: bool) -> Look:
        step = run.last_step
        grown = self.judged_at is None or step >= LONGER * self.judged_at or step < 50
        if not (grown or ended or settled):
            return Look(run, None, [], None)
        self.judged_at = max(1, step)
        diagnosis = diagnose(run)
        return Look(run, diagnosis, self.believed.look(diagnosis, step, bool(ended)), ended)


def _without_steps(path: Path) -> Run:
    """What run.json and the list of artifacts hold."""
    run = read_run(path)
    run.series = {}
    return run


def watch_log(
    path: Path,
    options: Mapping[str, Any],
    until: Severity | None = None,
    ended_s: float = ENDED_S,
    page: bool = False,
    port: int = 0,
) -> bool:
    """Follow a log until it ends, and print what is new; returns whether something of `until` (critical, if that is not
    given) is believed. until: do not wait for the end once that is so · page: show it on 127.0.0.1 too.

    Raises UserError if nothing can be read at the start.
    """
    from earnest.report.live import Page

    severe = SEVERITIES[: SEVERITIES.index(until or "critical") + 1]
    follower = Follower(path, options, ended_s)
    shown = Page(port) if page else None
    try:
        if shown is not None:
            print(f"earnest: {shown.url} (Ctrl-C ends it)", flush=True)
        for look in follower.looks():
            if shown is not None:
                shown.show(look.run, look.judged, follower.believed.findings, look.ended)
            for finding in look.new:
                print(told(finding, look.run.last_step), flush=True)
            found = any(finding.severity in severe for finding in follower.believed.findings)
            if until is not None and found:
                break
            if look.ended is not None:
                print(f"earnest: {look.ended}, at step {look.run.last_step}", file=sys.stderr)
                if look.judged is not None:
                    print(view.headline(look.judged))
                if shown is not None:
                    print("earnest: the page stays until Ctrl-C", file=sys.stderr)
                    shown.wait()
    finally:
        if shown is not None:
            shown.close()
    return any(finding.severity in severe for finding in follower.believed.findings)

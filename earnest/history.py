"""When a run was started and last written, how long it trained, and how it ended."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from earnest.owner import LATEST_S
from earnest.records import loads

State = Literal["running", "finished", "interrupted", "killed"]
ENDS: tuple[State, ...] = ("finished", "interrupted")
EVENT = b'"event": "'  # in a row that is one: a pattern of whole lines took 1 ms a run
# A run whose last row is older than this, and than so many times the longest pause between two rows, was killed: its
# own training would have written an end (assumed: an evaluation takes no longer than that).
PATIENCE_S, PATIENCE = 120.0, 5.0


class Event(NamedTuple):
    """Something that a run marked beside its measurements: started, resumed, interrupted, finished, ..."""

    step: int
    time_s: float
    name: str


@dataclass(frozen=True)
class History:
    """Times are seconds since the epoch.

    trained_s: from the first row to the last, without the pauses before a resume · pause_s: the longest pause between
    two rows · events: in the order in which they were written · ended: the event that is the last row, if it ends a
    run · held: whether a living process owns its directory, None if that is not known.
    """

    started_s: float
    written_s: float
    trained_s: float
    pause_s: float = 0.0
    events: tuple[Event, ...] = ()
    ended: State | None = None
    held: bool | None = None

    def state(self, now_s: float | None = None) -> State:
        """How the run ended; of one that did not say so, whether it may still be running."""
        if self.held:
            return "running"
        if self.ended:
            return self.ended
        if self.held is False:
            return "killed"
        silent_s = (time.time() if now_s is None else now_s) - self.written_s
        return "running" if silent_s < max(PATIENCE_S, PATIENCE * self.pause_s) else "killed"


def history(times: ArrayLike, events: Sequence[Event]) -> History | None:
    """The history that rows tell. times: of every row, in the order in which they were written; one that is no date, as
    NaN, is passed over."""
    time_s = np.asarray(times, np.float64)
    time_s = time_s[are_dates(time_s)]
    if not len(time_s):
        return None
    resumed = np.isin(time_s[1:], [event.time_s for event in events if event.name == "resumed"])
    pauses = np.maximum(np.diff(time_s)[~resumed], 0)
    last = events[-1] if events else None
    ended: State | None = next((end for end in ENDS if last and last.name == end and last.time_s >= time_s[-1]), None)
    longest_s = float(pauses.max(initial=0.0))
    return History(float(time_s[0]), float(time_s[-1]), float(pauses.sum()), longest_s, tuple(events), ended)


def are_dates(time_s: np.ndarray) -> np.ndarray:
    """Which times are dates: NaN, infinity and years above 9999 are none."""
    return (time_s >= 0) & (time_s < LATEST_S)


def events_in(lines: bytes) -> Iterator[Event]:
    """The events among lines of ``steps.jsonl``; a line that is none is passed over."""
    end = 0
    while (place := lines.find(EVENT, end)) >= 0:
        start, end = lines.rfind(b"\n", 0, place) + 1, lines.find(b"\n", place)
        end = len(lines) if end < 0 else end
        try:
            row: Any = loads(lines[start:end])
            yield Event(int(row["step"]), float(row["time_s"]), str(row["event"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            continue

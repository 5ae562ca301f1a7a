"""A monitor that raises is reported once and left out from then on: no training ends because it was looked at."""

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from earnest.monitors import Monitor
from earnest.probes.results import Results
from earnest.run import Step

T = TypeVar("T")


def _print(words: str) -> None:
    print(words, file=sys.stderr)


class Guard:
    """Calls parts of what watches a training. `broken`: the names of the parts that raised, and what · calls: what each
    part is called by, if not directly."""

    def __init__(
        self, report: Callable[[str], None] | None = None, calls: Callable[[Callable[[], Any]], Any] | None = None
    ):
        self.report, self.calls = report or _print, calls
        self.broken: dict[str, str] = {}

    def call(self, part: str, function: Callable[[], T], otherwise: T) -> T:
        """What the function returns; `otherwise` if it raises, or this part has raised before."""
        if part in self.broken:
            return otherwise
        try:
            return self.calls(function) if self.calls else function()
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = " ".join(str(error).split())[:200]
            self.broken[part] = (
                f"{type(error).__name__}: {message} ({place.filename.rpartition('/')[2]}:{place.lineno})"
            )
            self.report(f"earnest: the monitor {part} broke and is left out from here on: {self.broken[part]}")
            return otherwise


class Guarded(Monitor):
    """Any monitor, under a guard."""

    def __init__(self, monitor: Monitor, guard: Guard):
        self.monitor, self.guard, self.name = monitor, guard, type(monitor).__name__

    def step(self, step: Step) -> Mapping[str, float]:
        return self.guard.call(self.name, lambda: self.monitor.step(step), {})

    def probes(self) -> Results:
        return self.guard.call(self.name, self.monitor.probes, Results())

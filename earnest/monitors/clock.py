"""How long a step takes and waits for its data, and what memory it leaves in use."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import psutil
import torch

from earnest.monitors import Monitor
from earnest.run import Step
from earnest.signals import key

Group = TypeVar("Group")


class Clock(Monitor):
    """Between the data and the loop that takes them; a step lasts from asking for its data to `step`."""

    def __init__(self) -> None:
        self.asked = self.data_s = 0.0
        self.process = psutil.Process()

    def timed(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The same groups; the time for which each was waited is kept."""
        waiting = iter(groups)
        while True:
            self.asked = time.perf_counter()
            try:
                group = next(waiting)
            except StopIteration:
                return
            self.data_s = time.perf_counter() - self.asked
            yield group

    def step(self, step: Step) -> Mapping[str, float]:
        """step_s, data_s and memory_bytes: of the GPU if there is one, else the process' resident memory."""
        used = torch.cuda.memory_allocated() if torch.cuda.is_available() else self.process.memory_info().rss
        return {
            key("step_s"): time.perf_counter() - self.asked,
            key("data_s"): self.data_s,
            key("memory_bytes"): float(used),
        }

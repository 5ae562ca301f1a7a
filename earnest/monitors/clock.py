"""Where a step's time goes, and what memory it leaves in use."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import psutil
import torch

from earnest.signals import key

Group = TypeVar("Group")


class Clock:
    """Stands between the data and the loop that takes them; a step lasts from asking for its data to `signals`."""

    def __init__(self) -> None:
        self.asked = self.data_s = 0.0
        self.process = psutil.Process()

    def watch(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The same groups; how long each was waited for is remembered."""
        waiting = iter(groups)
        while True:
            self.asked = time.perf_counter()
            try:
                group = next(waiting)
            except StopIteration:
                return
            self.data_s = time.perf_counter() - self.asked
            yield group

    def signals(self) -> dict[str, float]:
        """step_s, data_s and memory_bytes: the GPU's where there is one, else the process' resident memory."""
        used = torch.cuda.memory_allocated() if torch.cuda.is_available() else self.process.memory_info().rss
        return {
            key("step_s"): time.perf_counter() - self.asked,
            key("data_s"): self.data_s,
            key("memory_bytes"): float(used),
        }

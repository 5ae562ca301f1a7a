"""What becomes of the micro-batches at the end of an epoch that do not fill a step of accumulation."""

from collections import Counter

import torch
from torch import Tensor

from earnest.probes.reach import has_gradient, is_whole
from earnest.probes.results import Remainders as Found
from earnest.probes.results import Results

FEWEST_STEPS = 4  # before the usual number of micro-batches is known
MOSTLY = 0.7  # of the steps take the usual number (assumed)


class Remainders:
    """Counts the backward passes of each step, and those whose gradients are cleared before any step uses them. Nothing
    is asked of a device, unless a gradient was written to between two backward passes."""

    def __init__(self) -> None:
        self.steps: Counter[int] = Counter()  # passes -> steps that used so many
        self.dropped: Counter[int] = Counter()  # passes -> times that so many were cleared
        self._waiting = 0
        self._probe: Tensor | None = None
        self._left: tuple[int, int] = (0, 0)  # the probe's gradient and its version after the last pass

    def before_backward(self) -> None:
        if self._waiting and self._probe is not None and self._is_cleared(self._probe):
            self.dropped[self._waiting] += 1
            self._waiting = 0

    def after_backward(self, optimizer: torch.optim.Optimizer) -> None:
        self._waiting += 1
        if self._probe is None:
            held = [p for group in optimizer.param_groups for p in group["params"] if has_gradient(p) and is_whole(p)]
            self._probe = min(held, key=lambda p: p.numel()) if held else None
        if self._probe is not None and self._probe.grad is not None:
            self._left = (id(self._probe.grad), self._probe.grad._version)

    def stepped(self) -> None:
        if self._waiting and self._probe is not None:
            self.steps[self._waiting] += 1
        self._waiting = 0

    def _is_cleared(self, probe: Tensor) -> bool:
        if probe.grad is None:
            return True
        return (id(probe.grad), probe.grad._version) != self._left and not has_gradient(probe)

    def probes(self) -> Results:
        """The probe ``remainders``, once the usual number of micro-batches is known, if it is more than one."""
        total = self.steps.total()
        usual, often = self.steps.most_common(1)[0] if self.steps else (1, 0)
        if total < FEWEST_STEPS or usual < 2 or often < MOSTLY * total:
            return Results()
        added = {count: number for count, number in self.steps.items() if usual < count < 2 * usual}
        lost = {count: number for count, number in self.dropped.items() if count < usual}
        return Results(
            remainders=Found(
                usual,
                total,
                *_same(added, usual),
                *_same(lost, 0),
            )
        )


def _same(times: dict[int, int], beyond: int) -> tuple[int, int]:
    """(micro-batches, how often), if all of them are of one number; (0, 0) if not."""
    if len(times) != 1:
        return 0, 0
    ((count, number),) = times.items()
    return count - beyond, number

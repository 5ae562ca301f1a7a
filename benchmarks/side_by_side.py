"""How a benchmark compares: ours and a peer's in one process, in turns, by CPU time of one thread; or by memory.

Wall time swings with whatever else runs on a machine, CPU time of one thread far less. What is left of the swing hits
both alike, so the ratio of a turn is steadier than its times; the median ratio over all turns is reported.
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

OURS = "earnest"
Contender = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """What was measured of a comparison, in `unit`. ratios: ours by the peer's, of each turn."""

    what: str
    peer: str
    ours: float
    theirs: float
    ratios: list[float]
    parity: str
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        return (
            f"{self.what}: earnest {amount(self.ours, self.unit)}, {self.peer} {amount(self.theirs, self.unit)}, "
            f"ratio {self.ratio:.2f} [{min(self.ratios):.2f} .. {max(self.ratios):.2f}]; {self.parity}"
        )


@dataclass(frozen=True)
class Comparison:
    """Two ways to the same result. parity: what was asserted equal before."""

    what: str
    peer: str
    ours: Contender
    theirs: Contender
    parity: str
    turns: int = 5
    calls: int = 1

    def measured(self) -> Line:
        times = in_turns({OURS: self.ours, self.peer: self.theirs}, self.turns, self.calls)
        ours, theirs = times[OURS], times[self.peer]
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        return Line(self.what, self.peer, statistics.median(ours), statistics.median(theirs), ratios, self.parity)


@dataclass(frozen=True)
class Apart:
    """Two ways to the same result, or ours and a goal, by figures that each brings from a process of its own."""

    what: str
    peer: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    parity: str
    unit: str
    turns: int = 1

    def measured(self) -> Line:
        pairs = [(self.ours(), self.theirs()) for _ in range(self.turns)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [mine / other for mine, other in pairs]
        return Line(self.what, self.peer, ours, theirs, ratios, self.parity, self.unit)


def show(comparisons: Iterable[Comparison | Apart]) -> None:
    """Measure and print one after the other."""
    for comparison in comparisons:
        print(comparison.measured(), flush=True)


def in_turns(contenders: dict[str, Contender], turns: int, calls: int = 1) -> dict[str, list[float]]:
    """CPU seconds of a call of each, per turn, with those of the processes that it started and waited for; the order
    alternates. Each is called once beforehand, which is not counted."""
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for turn in range(turns):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            start = cpu_s()
            for _ in range(calls):
                contenders[name]()
            spent[name].append((cpu_s() - start) / calls)
    return spent


def cpu_s() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def amount(value: float, unit: str) -> str:
    """A figure for people; seconds in the unit that suits them."""
    if unit != "s":
        return f"{value:,.{0 if value >= 100 else 1}f} {unit}"
    for name, factor in (("s", 1), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.3g} us"

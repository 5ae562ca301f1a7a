"""How a benchmark compares: ours and a peer's in one process, in turns, by CPU time of one thread.

Wall time swings with whatever else runs on a machine, CPU time of one thread far less; what is left swings for both, so
that the ratio of a turn is steadier than its times, and the median over turns is what is told.
"""

import statistics
import time
from collections.abc import Callable

import torch

OURS = "earnest"


def in_turns(contenders: dict[str, Callable[[], object]], turns: int, calls: int = 1) -> dict[str, list[float]]:
    """CPU seconds of a call of each, per turn; the order alternates. Each is called once beforehand, which is not
    counted."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for turn in range(turns):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            start = time.process_time()
            for _ in range(calls):
                contenders[name]()
            seconds[name].append((time.process_time() - start) / calls)
    return seconds


def ratio(seconds: dict[str, list[float]], peer: str) -> str:
    """How many times as long the peer takes: the median over the turns, and the range."""
    ratios = [theirs / ours for ours, theirs in zip(seconds[OURS], seconds[peer], strict=True)]
    return f"{statistics.median(ratios):.2f}x [{min(ratios):.2f} .. {max(ratios):.2f}]"

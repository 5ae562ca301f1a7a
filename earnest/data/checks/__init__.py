"""``earnest data check``: what is wrong with a data set, before anything is trained on it.

A check is a function of the measured clips that yields `Fault`s; a data set without faults yields none.
"""

from collections.abc import Callable, Iterator

from earnest.data.checks import audio, sides, texts
from earnest.data.checks.checked import Checked, Fault

CHECKS: list[Callable[[Checked], Iterator[Fault]]] = [
    *(audio.unreadable, sides.leakage, sides.duplicates, audio.silence, audio.clipping, audio.out_of_range),
    *(audio.quiet, audio.band_limit, audio.noise, texts.language, texts.repeated, texts.hallucinated, texts.speed),
    *(texts.unknown_characters, sides.lengths, sides.speakers),
]


def faults(checked: Checked) -> list[Fault]:
    """What is wrong, critical first, notes last."""
    found = [fault for check in CHECKS for fault in check(checked)]
    return sorted(found, key=lambda fault: ("critical", "warning", "note").index(fault.severity))

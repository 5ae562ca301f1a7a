"""earnest trains audio-token models and tells the truth about their training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earnest.answers import diagnose as diagnose
    from earnest.loops.accelerate import AccelerateTracker as AccelerateTracker
    from earnest.loops.check import check as check
    from earnest.loops.lightning import LightningCallback as LightningCallback
    from earnest.loops.trainer import TrainerCallback as TrainerCallback
    from earnest.loops.watching import watch as watch
    from earnest.monitors.tokens import measure as measure

__version__ = "0.1.0"
__all__ = ["AccelerateTracker", "LightningCallback", "TrainerCallback", "check", "diagnose", "measure", "watch"]
HOMES = {  # what is imported when it is asked for: `import earnest` brings no torch
    "AccelerateTracker": "earnest.loops.accelerate",
    "LightningCallback": "earnest.loops.lightning",
    "TrainerCallback": "earnest.loops.trainer",
    "check": "earnest.loops.check",
    "diagnose": "earnest.answers",
    "measure": "earnest.monitors.tokens",
    "watch": "earnest.loops.watching",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'earnest' has no attribute {name!r}")

"""earnest trains audio-token models and tells the truth about their training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earnest.loops.check import check as check

__version__ = "0.1.0"
__all__ = ["check"]


def __getattr__(name: str) -> Any:
    """`earnest.check`, imported when it is asked for: `import earnest` brings no torch."""
    if name == "check":
        from earnest.loops.check import check

        return check
    raise AttributeError(f"module 'earnest' has no attribute {name!r}")

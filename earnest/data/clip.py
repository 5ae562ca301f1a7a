"""One training example on disk; and how many of them may be bad."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earnest.data.audio import Segment

log = logging.getLogger(__name__)

BAD_CLIPS_FRAC = 0.05  # assumed: a few broken files are life, more are a broken corpus


@dataclass(frozen=True, slots=True)
class Clip:
    """One training example on disk. `name` is its path relative to the folder; fields that the folder lacks are empty.

    `words`: when each word of the text is spoken, as JSON: [[word, start_s, end_s], ...]. `segment`: which part of the
    file it is; None for all of it.
    """

    path: Path
    name: str
    text: str = ""
    speaker: str = ""
    language: str = ""
    tags: str = ""
    split: str | None = None
    source: str = ""
    words: str = ""
    segment: Segment | None = None

    @property
    def place(self) -> str:
        """The file, and for a part of it where it begins."""
        return f"{self.path}#{self.segment.start_s:g}" if self.segment and self.segment.start_s else str(self.path)


def allowed_bad(clips: int) -> float:
    """How many of `clips` clips may be broken or missing: 5 %, or one if that is less than one; never all of them."""
    return min(max(1, BAD_CLIPS_FRAC * clips), clips - 1)


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def log_left_out(reason: str, names: Sequence[str]) -> None:
    """Say which clips are not used, if any are not."""
    if names:
        log.warning("left out %d clips %s: %s", len(names), reason, some(names))

"""`Row`: an encoded clip or conversation, on its way from the store of codes to a model's layout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

Audio = TypeVar("Audio")


@dataclass(frozen=True)
class Turn(Generic[Audio]):
    """What one role says: texts and audio, which is a `Clip` as read from a file and a Tensor codes_CT once encoded.

    `counts`: whether an assistant's turn is trained on; a reference is given, not predicted.
    """

    role: str
    parts: tuple[str | Audio, ...]
    counts: bool = True

    @property
    def scored(self) -> bool:
        return self.role == "assistant" and self.counts


@dataclass(frozen=True, eq=False)
class Row:
    """One training example: codes (of any integer type), what is known of the clip, and what an epoch changed about
    it."""

    codes_CT: np.ndarray
    text: str | None  # None: the null input
    speaker: str = ""
    language: str = ""
    tags: str = ""
    """Tags between commas."""
    source: str = ""
    """Path of the clip, or file and number of the conversation."""
    turns: tuple[Turn[Tensor], ...] = ()
    """A whole conversation, in place of text, speaker and codes; its last audio is codes_CT."""
    ends: bool = True
    """False if the clip was cut: its end is no target."""
    start_frame: int = 0
    """Where in the clip the window begins."""

    @property
    def frames(self) -> int:
        return self.codes_CT.shape[-1]


Vary = Callable[[Row, np.random.Generator | None], Row]
"""An epoch's version of a row; without a random generator the version of evaluation."""

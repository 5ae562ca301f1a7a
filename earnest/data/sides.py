"""Clips -> train and held-out clips."""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np

from earnest.errors import UserError

Item = TypeVar("Item", bound="Named")


class Named(Protocol):
    """What can be split: a `Clip`, or a conversation."""

    @property
    def name(self) -> str: ...
    @property
    def speaker(self) -> str: ...
    @property
    def split(self) -> str | None: ...


def split_clips(
    clips: Sequence[Item], held_out_frac: float, seed: int, by: Literal["name", "speaker"] = "name"
) -> tuple[list[Item], list[Item]]:
    """Clips -> (train, held out), by a hash of seed and name: a clip keeps its side if others are added or removed.

    by: with "speaker", all clips of a speaker are on one side, so that whole voices are held out.
    A validation split of the folder wins over `held_out_frac`; a test split is in neither. Each side holds at least one
    name, or speaker. Raises UserError if there are too few.
    """
    train, held_out = sides_of(clips, held_out_frac, seed, by)
    return [clips[place] for place in train], [clips[place] for place in held_out]


def sides_of(
    clips: Sequence[Named], held_out_frac: float, seed: int, by: Literal["name", "speaker"] = "name"
) -> tuple[Sequence[int], Sequence[int]]:
    """`split_clips`, as places in `clips`: 4 bytes a clip."""
    train, held_out = array("i"), array("i")
    for at, clip in enumerate(clips):
        if clip.split == "validation":
            held_out.append(at)
        elif clip.split in (None, "train"):
            train.append(at)
    if not held_out:
        names = (clips[at].name if by == "name" else clips[at].speaker for at in train)
        uniform_N = np.fromiter((_uniform(f"{seed}/{name}") for name in names), np.float64, len(train))
        ordered = np.unique(uniform_N)  # one for each name
        count = min(max(int(np.searchsorted(ordered, held_out_frac)), 1), len(ordered) - 1)
        is_held_out_N = uniform_N < (ordered[count] if count > 0 else 0)
        held_out = array("i", np.asarray(train)[is_held_out_N].tobytes())
        train = array("i", np.asarray(train)[~is_held_out_N].tobytes())
    if not train or not held_out:
        few = f"clips of {len({clip.speaker for clip in clips})} speaker(s)" if by == "speaker" else "clip(s)"
        raise UserError(
            f"{len(clips)} {few}: {len(train)} to train on and {len(held_out)} to hold out",
            f"two{' speakers' if by == 'speaker' else ''} at least, beside a test split: one is evaluated on, and "
            "never trained on",
            "add clips" + (", or hold out clips: --data.held-out clips" if by == "speaker" else ""),
        )
    return train, held_out


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) / 2**64

"""One clip that several rows name: of two lists it is joined, of one list it is a mistake."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from earnest.data.clip import Clip
from earnest.data.clips import Clips
from earnest.errors import UserError

Key = tuple[str, str | None]  # name and split


def joined(lists: Iterable[tuple[Path, Iterator[Clip]]]) -> Clips:
    """The clips of all lists, each once. Raises UserError if one list names a clip twice, or two lists give it
    different texts.

    Clips are compared only if the hashes of their names are equal: a name for each would take ten times the memory.
    """
    hashes, paths, of_lists = array("q"), list[Path](), list[Clips]()
    for path, clips in lists:
        paths.append(path)
        of_lists.append(Clips.of(_hashed(clips, hashes)))
    hash_N, count_N = np.unique(np.asarray(hashes), return_counts=True)
    if again := set(hash_N[count_N > 1].tolist()):
        return Clips.of(_once(chain(*of_lists), _of_several(paths, of_lists, again)))
    return of_lists[0] if len(of_lists) == 1 else Clips.of(chain(*of_lists))


def _hashed(clips: Iterable[Clip], hashes: "array[int]") -> Iterator[Clip]:
    for clip in clips:
        hashes.append(hash(_key(clip)))
        yield clip


def _key(clip: Clip) -> Key:
    return clip.name, clip.split


def _of_several(paths: Sequence[Path], of_lists: Sequence[Clips], again: set[int]) -> dict[Key, Clip | None]:
    """What the rows say together of each clip that several name. again: hashes of these."""
    clips: dict[Key, Clip | None] = {}
    for path, of_list in zip(paths, of_lists, strict=True):
        of_this = set[str]()
        for clip in (clip for clip in of_list if hash(_key(clip)) in again):
            known = clips.get(_key(clip))
            if known and (known.text == clip.text or not (known.text and clip.text)) and clip.name not in of_this:
                clip = _with(known, clip)
            elif known:
                raise UserError(
                    f"{path} names {clip.name} a second time" + ("" if clip.name in of_this else ", with another text"),
                    "one line for each file" if len(paths) == 1 else "each file in one list of a split",
                    "remove the line that is wrong" + (", or name one list as the path" if len(paths) > 1 else ""),
                )
            clips[_key(clip)] = clip
            of_this.add(clip.name)
    return clips


def _with(known: Clip, other: Clip) -> Clip:
    """One clip of two lists: what the first leaves empty the second may say."""
    more = {
        field: getattr(other, field)
        for field in ("text", "speaker", "language", "tags", "words")
        if not getattr(known, field)
    }
    return replace(known, **more)


def _once(clips: Iterable[Clip], several: dict[Key, Clip | None]) -> Iterator[Clip]:
    """The clips, with one of `several` where the first of its rows stands."""
    for clip in clips:
        key = _key(clip)
        if key not in several:
            yield clip
        elif one := several[key]:
            several[key] = None
            yield one

"""One batch traced: the user's loss is run once with gradients, then a few dozen times with one changed id each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from earnest.probes.trace.match import MOST_CODEBOOKS, Ids, Place, gather, places
from earnest.probes.trace.merge import joined, joined_prints, pieces
from earnest.probes.trace.read import Reading, readings
from earnest.probes.trace.record import Changes, Key, Record
from earnest.probes.trace.scores import Scores
from earnest.probes.trace.sight import Prints, profiles

USUAL_FRAC = 0.9  # of the labels at one index of the rows are found in one codebook; a few others by chance (assumed)


class Replay(Protocol):
    """Somebody's loss, which can be run again and again from the same state."""

    def record(self) -> Record:
        """Run forward and backward, and write down what happens."""
        ...

    def look(self, changes: Changes, printed: Mapping[Key, int]) -> Prints:
        """Run forward with other ids; returns the prints of these output layers."""
        ...


@dataclass(frozen=True)
class Traced:
    """What a batch's tracing found."""

    record: Record
    arrays: Sequence[Ids]
    readings: Sequence[Reading]


def trace(replay: Replay, time_left: Callable[[], bool] = lambda: True) -> Traced:
    """Where each label is scored, and what was seen there; fewer places are looked at if no time is left."""
    record = replay.record()
    calls, shapes = pieces(record.scores), {key: one.shape for key, one in record.scores.items()}
    scores = {key: joined([record.scores[piece] for piece in of]) for key, of in calls.items()}
    printed = {key: one.codebooks for key, one in record.scores.items()}
    arrays = gather(
        [(lookup.index, lookup.number) for lookup in record.lookups], {one.classes for one in scores.values()}
    )
    found = {key: places(one.labels(), arrays) for key, one in scores.items()}
    for key in scores:
        scores[key], found[key] = _by_codebook(scores[key], found[key], arrays)
    record = replace(record, scores=scores)

    def look(changes: Changes) -> Prints:
        prints = replay.look(changes, printed)
        whole = {key: of for key, of in calls.items() if all(piece in prints for piece in of)}
        return {key: joined_prints([prints[p] for p in of], [shapes[p] for p in of]) for key, of in whole.items()}

    seen = profiles(scores, found, arrays, look, time_left) if scores else {}
    return Traced(record, arrays, readings(record, arrays, found, seen))


def _by_codebook(scores: Scores, found: list[Place], arrays: Sequence[Ids]) -> tuple[Scores, list[Place]]:
    """If one output layer scores several codebooks along an axis of its rows, that axis is taken for codebooks."""
    if scores.codebooks > 1:
        return scores, found
    for place in found:
        ids = arrays[place.ids]
        if ids.axis is None:
            continue
        for axis, size in enumerate(scores.shape):
            flat = np.moveaxis(place.flat.reshape(scores.shape), axis, 0).reshape(size, -1)
            own = [_usual(np.unravel_index(of[of >= 0], ids.values.shape)[ids.axis]) for of in flat]
            used = [one for one in own if one is not None]
            if 2 <= size <= MOST_CODEBOOKS and -1 not in used and len(set(used)) == len(used) > 1:
                return scores.by_codebook(axis), [_turned(one, scores.shape, axis) for one in found]
    return scores, found


def _turned(place: Place, shape: tuple[int, ...], axis: int) -> Place:
    """The same place, with one axis of the rows read as codebooks."""

    def turn(flat: np.ndarray) -> np.ndarray:
        return np.moveaxis(flat.reshape(shape), axis, -1).reshape(-1, shape[axis])

    return replace(place, flat=turn(place.flat), copy=None if place.copy is None else turn(place.copy))


def _usual(index: np.ndarray) -> int | None:
    """What nearly all of these are, -1 if they differ, None if there are none."""
    if not len(index):
        return None
    counts = np.bincount(index)
    return int(counts.argmax()) if counts.max() >= USUAL_FRAC * len(index) else -1

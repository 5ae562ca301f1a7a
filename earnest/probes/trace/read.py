"""What was traced, stream by stream: where its labels are scored, and what the logits there have seen."""

import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from earnest.probes.trace.match import MOST_CODEBOOKS, Ids, Place
from earnest.probes.trace.record import Key, Line, Record
from earnest.probes.trace.scores import Scores
from earnest.probes.trace.sight import REACH, Column, Profile

STANDARD_LIBRARY = sysconfig.get_path("stdlib")


@dataclass
class Reading:
    """One codebook of one output layer.

    layer: name of its weight · tokens: table in which its labels' own tokens are looked up, None if they are no input ·
    index: of the codebook among the ids of that array, if they have an axis of codebooks · offset: how far before a
    label is the last token of its own stream that its logits have seen (1 is right), None if that cannot be told ·
    itself, later: whether they have seen the label itself, and the tokens after it · copied: whether they have seen a
    copy of the labels, before them · behind: how many codebooks before
    the label's own its logits have not seen, though they have seen those before (None if there is no such order) ·
    time: the array of ids, and its axis, along which the offset was found.
    """

    column: Column
    layer: str
    scores: Scores
    lines: tuple[Line, ...]
    tokens: str | None = None
    index: int | None = None
    offset: int | None = None
    itself: bool = False
    later: bool = False
    copied: bool = False
    behind: int | None = None
    time: tuple[int, int] | None = None
    places: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])  # by array of ids: of each row's label


def readings(
    record: Record,
    arrays: Sequence[Ids],
    found: Mapping[Key, list[Place]],
    profiles: Mapping[tuple[Column, int], Profile],
) -> list[Reading]:
    """Every codebook of every output layer that is scored, in order of the layers."""
    result: list[Reading] = []
    for key, scores in record.scores.items():
        for codebook in sorted(set(scores.codebook.tolist())):
            column = Column(key, codebook)
            reading = Reading(column, record.layers[key], scores, record.lines.get(key, ()))
            reading.places = {place.ids: place.flat[:, codebook] for place in found.get(key, ())}
            result.append(reading)
    for number, ids in enumerate(arrays):
        here = [reading for reading in result if (reading.places.get(number, np.array([-1])) >= 0).any()]
        axis = _codebook_axis([reading.places[number] for reading in here], ids)
        for reading in here:
            _judge(reading, profiles.get((reading.column, number)), number, ids, axis, record)
    _settle_behind(result)
    return result


def _codebook_axis(places: Sequence[np.ndarray], ids: Ids) -> int | None:
    """The axis of the codebooks: as it is known, or along which every column keeps to one index, and columns differ."""
    if ids.axis is not None:
        return ids.axis
    for axis in reversed(range(ids.values.ndim)):
        if not 2 <= ids.values.shape[axis] <= MOST_CODEBOOKS:
            continue
        own = [set(np.unravel_index(flat[flat >= 0], ids.values.shape)[axis].tolist()) for flat in places]
        if own and all(len(one) == 1 for one in own) and len(set.union(*own)) > 1:
            return axis
    return None


def _judge(
    reading: Reading,
    profile: Profile | None,
    number: int,
    ids: Ids,
    codebook_axis: int | None,
    record: Record,
) -> None:
    """Add what one array of ids says."""
    flat = reading.places[number]
    at = np.unravel_index(flat[flat >= 0], ids.values.shape)
    index = int(np.bincount(at[codebook_axis]).argmax()) if codebook_axis is not None else None
    call = ids.source(int(flat[flat >= 0][0]))[0][0]
    table = record.lookups[call].table
    sequence = [axis for axis in range(ids.values.ndim) if axis != codebook_axis]
    offsets = {axis: _offset(profile, axis) for axis in sequence} if profile else {}
    known = {offset: axis for axis, offset in offsets.items() if offset is not None}
    if known and (reading.offset is None or min(known) < reading.offset):
        reading.offset, reading.tokens, reading.index = min(known), table, index
        reading.time = number, known[min(known)]
    if reading.tokens is None:
        reading.tokens, reading.index = table, index
    if profile is None:
        return
    reading.itself |= bool(profile.seen(0, 0))
    reading.copied |= bool(profile.copy[0])
    reading.later |= any(profile.seen(axis, -far) for axis in sequence for far in range(1, REACH + 1))
    if codebook_axis is not None and not profile.seen(codebook_axis, 0):
        before, further = profile.seen(codebook_axis, 1), profile.seen(codebook_axis, 2)
        if before:
            reading.behind = 0
        elif before is False and further and reading.behind is None:
            reading.behind = 1


def _offset(profile: Profile, axis: int) -> int | None:
    """The nearest distance along an axis at which tokens are seen, if all nearer ones are known to be unseen."""
    for distance in range(1, REACH + 1):
        seen = profile.seen(axis, distance)
        if seen is not False:
            return distance if seen else None
    return None


def _settle_behind(result: Sequence[Reading]) -> None:
    """One column alone may rightly see codebook c - 2 and not c - 1 (a delay); a whole chain of them does not."""
    behind = [reading for reading in result if reading.behind is not None]
    if len([reading for reading in behind if reading.behind]) < 2 or any(reading.behind == 0 for reading in behind):
        for reading in behind:
            reading.behind = 0 if reading.behind == 0 else None


def where(lines: Sequence[Line]) -> str:
    """file:line of the innermost line that is not in an installed package, else of the innermost."""
    own = [line for line in lines if "site-packages" not in line.path and not line.path.startswith(STANDARD_LIBRARY)]
    chosen = next(iter(own or lines), None)
    return f"{chosen.path}:{chosen.number}" if chosen else "an unknown line"

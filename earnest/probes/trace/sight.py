"""Which inputs a row of logits depends on: one id is changed at a time, and the rows whose logits move have seen it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from earnest.probes.trace.match import MOST_CODEBOOKS, Ids, Place
from earnest.probes.trace.record import Changes, Key
from earnest.probes.trace.scores import Scores

REACH = 3  # neighbours of a changed id whose rows are looked at, on either side
MOST_LOOKS = 96  # runs with one changed id each
SHARES = (0.382, 0.618, 0.854)  # of what a column scores; no simple fractions, at which clips of one length end
NOISE = 10.0  # a row has moved if its logits change by this many times what repeating the same run changes

Prints = Mapping[Key, np.ndarray]
Look = Callable[[Changes], Prints]  # the user's loss, run once more with other ids


@dataclass(frozen=True)
class Column:
    """One codebook of one output layer."""

    key: Key
    codebook: int


@dataclass
class Profile:
    """What the rows of one column have seen of ids in one array: by axis, and by how far the changed id stands before
    the row's own label (1: the token before it, 0: the label itself): how many rows were looked at, and moved.

    `itself` holds distance 0, which all axes share; `copy`, an earlier copy of the label.
    """

    axes: dict[int, dict[int, list[int]]] = field(default_factory=dict[int, dict[int, list[int]]])
    itself: list[int] = field(default_factory=lambda: [0, 0])
    copy: list[int] = field(default_factory=lambda: [0, 0])

    def seen(self, axis: int, distance: int) -> bool | None:
        """Whether ids at this distance are seen; None if no row could tell."""
        moved, looked = self.itself if distance == 0 else self.axes.get(axis, {}).get(distance, [0, 0])
        return None if not looked else 2 * moved >= looked


def profiles(
    scores: Mapping[Key, Scores],
    found: Mapping[Key, list[Place]],
    arrays: list[Ids],
    look: Look,
    time_left: Callable[[], bool],
) -> dict[tuple[Column, int], Profile]:
    """(column of an output layer, number of the array of ids) -> what its rows have seen there."""

    def seen(changes: Changes) -> Prints:
        return {key: scores[key].columns(print_) for key, print_ in look(changes).items()}

    base, again = seen({}), seen({})
    limits = {key: NOISE * np.abs(again[key] - base[key]).max(initial=0.0) for key in base}
    result: dict[tuple[Column, int], Profile] = {}
    for number, flat in _chosen(scores, found, arrays):
        if not time_left():
            break
        moved = _moved(seen(_change(arrays[number], flat, scores, found, number)), base, limits)
        for key, of_key in found.items():
            for place in of_key:
                if place.ids == number and key in moved:
                    _count(result, key, place, moved[key], flat, arrays[number].values.shape)
    return result


def _chosen(scores: Mapping[Key, Scores], found: Mapping[Key, list[Place]], arrays: list[Ids]) -> list[tuple[int, int]]:
    """(array of ids, flat place) to change: in the middle of what each column scores, then just before that along each
    axis (which may be no label itself), then elsewhere, while there is room."""
    wanted: dict[tuple[int, int], None] = {}
    columns = _scored_places(scores, found)
    for share in SHARES:
        chosen = [(ids, int(flat_N[int(share * (len(flat_N) - 1))])) for ids, flat_N in columns]
        wanted |= dict.fromkeys(chosen)
        if share == SHARES[0]:
            places = [place for each in found.values() for place in each]
            copies = [(place.ids, _middle(place.copy)) for place in places if place.copy is not None]
            wanted |= dict.fromkeys(copies)
            wanted |= dict.fromkeys((ids, before) for ids, flat in chosen for before in _before(flat, arrays[ids]))
    listed = list(wanted)
    if len(columns) > MOST_LOOKS // 2:  # more than can be looked at: spread evenly over the columns
        even = np.linspace(0, len(listed) - 1, min(len(listed), MOST_LOOKS)).astype(int)
        return [listed[k] for k in np.unique(even)]
    return listed[:MOST_LOOKS]


def _scored_places(scores: Mapping[Key, Scores], found: Mapping[Key, list[Place]]) -> list[tuple[int, np.ndarray]]:
    """(array of ids, flat places in it, (N,)) of what each column scores; columns that score nothing there left out."""
    columns: list[tuple[int, np.ndarray]] = []
    for key, places in found.items():
        for place in places:
            for codebook in range(scores[key].codebooks):
                flat_N = place.flat[:, codebook]
                flat_N = flat_N[flat_N >= 0]
                if len(flat_N):
                    columns.append((place.ids, flat_N))
    return columns


def _middle(flat: np.ndarray) -> int:
    """The middle one of the flat places that are known."""
    known = flat[flat >= 0]
    return int(known[len(known) // 2])


def _before(flat: int, ids: Ids) -> list[int]:
    """Flat places one before this one along each axis that may be of codebooks."""
    at, shape = np.unravel_index(flat, ids.values.shape), ids.values.shape
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return [flat - stride for axis, stride in enumerate(strides) if at[axis] and shape[axis] <= MOST_CODEBOOKS]


def _change(
    ids: Ids, flat: int, scores: Mapping[Key, Scores], found: Mapping[Key, list[Place]], number: int
) -> Changes:
    """Another id of the same stream at one place."""
    own = int(ids.values.reshape(-1)[flat])
    others: np.ndarray = np.zeros(0, dtype=np.int64)
    for key, of_key in found.items():
        for one_place in of_key:
            if one_place.ids != number:
                continue
            rows, codebooks = np.nonzero(one_place.flat == flat)
            if len(rows):
                one = scores[key]
                others = np.setdiff1d(one.label[one.codebook == codebooks[0]], [own])
    other = int(others[len(others) // 2]) if len(others) else max(own - 1, 0) or own + 1
    calls, place = ids.source(flat)
    return {call: (np.array([place]), np.array([other - own])) for call in calls}


def _moved(now: Prints, base: Prints, limits: Mapping[Key, float]) -> dict[Key, np.ndarray]:
    """Rows and codebooks whose logits changed; an output layer whose shape changed is left out."""
    return {
        key: np.abs(now[key] - base[key]).max(-1) > limits[key]
        for key in base
        if key in now and now[key].shape == base[key].shape
    }


def _count(
    result: dict[tuple[Column, int], Profile],
    key: Key,
    place: Place,
    moved: np.ndarray,
    changed: int,
    shape: tuple[int, ...],
) -> None:
    if place.copy is not None:
        for row, codebook in zip(*np.nonzero(place.copy == changed), strict=True):
            profile = result.setdefault((Column(key, int(codebook)), place.ids), Profile())
            profile.copy[0] += bool(moved[row, codebook])
            profile.copy[1] += 1
    rows, codebooks = np.nonzero(place.flat >= 0)
    away = (
        np.stack(np.unravel_index(place.flat[rows, codebooks], shape))
        - np.array(np.unravel_index(changed, shape))[:, None]
    )
    near = ((away != 0).sum(0) <= 1) & (np.abs(away).max(0) <= REACH)
    for n in np.flatnonzero(near):
        profile = result.setdefault((Column(key, int(codebooks[n])), place.ids), Profile())
        axes = np.flatnonzero(away[:, n])
        if len(axes):
            counts = profile.axes.setdefault(int(axes[0]), {}).setdefault(int(away[axes[0], n]), [0, 0])
        else:
            counts = profile.itself
        counts[0] += bool(moved[rows[n], codebooks[n]])
        counts[1] += 1

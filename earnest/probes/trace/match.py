"""Where a label's own token is an input: runs of labels are found again among the ids that the model looks up.

Nothing is assumed of shapes: labels and ids are compared as strings, by the differences of neighbours, so that ids with
an offset (``code + codebook * size``) are found too, and packed or gathered rows as well as padded ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

GRAM = 3  # differences that must agree for an anchor
COMMON = 32  # places of one gram in the ids; more say nothing (silence, padding)
MOST_CODEBOOKS = 64
FOUND_FRAC = 0.7  # of a layer's labels must be found for its place to be known (assumed)
PIECES = 256  # displacements that are tried
FAR_SHARE = 0.2  # of its votes that a move loses if it lies outside of those that are sure (assumed)
COPIED_FRAC, FEWEST_COPIED = 0.8, 12  # of the labels, and grams, for a second copy (assumed)


@dataclass(frozen=True)
class Ids:
    """Ids that the model looked up, as one array.

    parts: what the array is made of, one after the other in memory, or side by side along the last axis if `stacked`;
    each is the numbers of the lookups that read the same ids in the same table · axis: of the codebooks, if it is
    known: that of a stack of different tables, of ids with an offset for each codebook (which is taken off), or the
    shorter of the last two of three.
    """

    values: np.ndarray
    parts: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    stacked: bool
    axis: int | None

    def source(self, flat: int) -> tuple[tuple[int, ...], int]:
        """The lookups that read an id, and its place in them."""
        if self.stacked:
            return self.parts[flat % len(self.parts)], flat // len(self.parts)
        ends = np.cumsum(self.sizes)
        part = int(np.searchsorted(ends, flat, "right"))
        return self.parts[part], flat - int(ends[part] - self.sizes[part])


@dataclass(frozen=True)
class Place:
    """Where the labels of one output layer are inputs.

    ids: number of the `Ids` · flat (rows, codebooks): the flat place of each label there, -1 if it was not found or is
    not scored · copy (rows, codebooks): the same of a second copy of the labels at an earlier place, None if there is
    none · found_frac: of the scored labels.
    """

    ids: int
    flat: np.ndarray
    found_frac: float
    copy: np.ndarray | None = None


def gather(lookups: Sequence[tuple[np.ndarray, int]], classes: set[int]) -> list[Ids]:
    """The lookups (ids, and what names their table) as arrays to search: alone, those of one shape stacked, and those
    of one table joined if it is read in pieces. classes: sizes of the vocabularies."""
    again: dict[tuple[int, tuple[int, ...], bytes], list[int]] = {}
    for number, (index, table) in enumerate(lookups):
        if not index.size:  # nothing was looked up: a batch without references, say
            continue
        again.setdefault((table, index.shape, index.tobytes()), []).append(number)
    shapes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    tables: dict[int, list[tuple[int, ...]]] = {}
    for (table, shape, _), numbers in again.items():
        shapes.setdefault(shape, []).append(tuple(numbers))
        tables.setdefault(table, []).append(tuple(numbers))
    result: list[Ids] = []
    for shape, parts in shapes.items():
        alone = [_alone(numbers, lookups[numbers[0]][0], classes) for numbers in parts]
        if len(parts) == 1 or len(parts) > MOST_CODEBOOKS:
            result += alone
        else:
            values = np.stack([one.values.reshape(shape) for one in alone], axis=-1)
            several = len({lookups[numbers[0]][1] for numbers in parts}) > 1
            result.append(Ids(values, tuple(parts), (), True, len(shape) if several else None))
    for parts in tables.values():
        pieces = [lookups[numbers[0]][0] for numbers in parts]
        if len({piece.shape for piece in pieces}) > 1:
            values = np.concatenate([piece.reshape(-1) for piece in pieces])
            result.append(Ids(values, tuple(parts), tuple(piece.size for piece in pieces), False, None))
    return result


def _alone(numbers: tuple[int, ...], index: np.ndarray, classes: set[int]) -> Ids:
    values, axis = _without_offsets(index, classes)
    if axis is None and index.ndim == 3:
        shorter = min((2, 1), key=lambda a: index.shape[a])
        axis = shorter if 2 <= index.shape[shorter] <= MOST_CODEBOOKS else None
    return Ids(values, (numbers,), (index.size,), False, axis)


def _without_offsets(index: np.ndarray, classes: set[int]) -> tuple[np.ndarray, int | None]:
    """Ids of each codebook from 0, if every index along an axis has its own range of one vocabulary's size.

    Codebooks that were flattened into the last axis get an axis of their own.
    """
    for shaped in (index, *_unflattened(index)):
        for axis in reversed(range(shaped.ndim)):
            others = tuple(a for a in range(shaped.ndim) if a != axis)
            for size in sorted(classes):
                if not 2 <= shaped.shape[axis] <= MOST_CODEBOOKS:
                    continue
                low, high = shaped.min(others) // size, shaped.max(others) // size
                if (low == high).all() and len(set(low.tolist())) == len(low):
                    return shaped - np.expand_dims(low * size, others), axis
    return index, None


def _unflattened(index: np.ndarray) -> Iterator[np.ndarray]:
    *lead, last = index.shape
    for codebooks in range(2, MOST_CODEBOOKS + 1):
        if last % codebooks == 0 and last > codebooks:
            yield index.reshape(*lead, last // codebooks, codebooks)
            yield index.reshape(*lead, codebooks, last // codebooks)


def places(labels: np.ndarray, ids: Sequence[Ids]) -> list[Place]:
    """Every array of ids in which the labels (*rows, codebooks), -1 if not scored, are found again."""
    found: list[Place] = []
    for number, one in enumerate(ids):
        best, copy = np.full((2, *labels.shape), -1, dtype=np.int64)
        scored = 0
        for order in _orders(labels):
            string = labels.reshape(-1)[order]
            unsure = (string < 0) | _in_runs(string)
            for ids_order in _orders(one.values):
                there = _aligned(string, one.values.reshape(-1)[ids_order])
                there[:, unsure] = -1
                placed = np.full((2, labels.size), -1, dtype=np.int64)
                placed[:, order] = np.where(there >= 0, ids_order[there], -1)
                if (placed[0] >= 0).sum() > (best >= 0).sum():
                    best, copy = placed.reshape(2, *labels.shape)
                    scored = int((~unsure).sum())
                if scored and (best >= 0).sum() == scored:
                    break
        if scored and (frac := float((best >= 0).sum() / scored)) >= FOUND_FRAC:
            again = copy.reshape(-1, labels.shape[-1]) if (copy >= 0).any() else None
            found.append(Place(number, best.reshape(-1, labels.shape[-1]), frac, again))
    return found


def _in_runs(string: np.ndarray) -> np.ndarray:
    """Entries within runs of one value (padding, silence), which cannot be told from their neighbours."""
    same = _long_runs(np.diff(string) == 0, GRAM - 1)
    return np.append(same, False) | np.append(False, same)


def _orders(array: np.ndarray) -> Iterator[np.ndarray]:
    """The orders in which an array may be read as one string: each axis in turn as the innermost, the others in their
    order."""
    flat = np.arange(array.size).reshape(array.shape)
    seen: set[tuple[int, ...]] = set()
    for inner in reversed(range(array.ndim)):
        if array.shape[inner] > GRAM:
            axes = (*(axis for axis in range(array.ndim) if axis != inner), inner)
            real = tuple(axis for axis in axes if array.shape[axis] > 1)
            if real not in seen:
                seen.add(real)
                yield flat.transpose(axes).reshape(-1)


def _aligned(labels_N: np.ndarray, ids_M: np.ndarray) -> np.ndarray:
    """For each label its place in the string of ids, and that of an earlier copy; -1 if there is none."""
    found_N = np.full(len(labels_N), -1, dtype=np.int64)
    at_N, at_M = _anchors(labels_N, ids_M)
    if not len(at_N):
        return np.stack([found_N, found_N])
    offsets, votes = np.unique(ids_M[at_M] - labels_N[at_N], return_counts=True)
    plain = int(votes[offsets == 0].sum())  # ids that count up look like themselves with an offset
    offset = 0 if plain >= FOUND_FRAC * votes.max() else offsets[votes.argmax()]
    keep = ids_M[at_M] - labels_N[at_N] == offset
    moves, votes = np.unique((at_M - at_N)[keep], return_counts=True)
    scored_N = labels_N >= 0
    far = _far(at_N[keep], (at_M - at_N)[keep], moves)
    moves = moves[np.lexsort((-moves, -votes * (1 - FAR_SHARE * far)))]  # the later place first: an earlier is a copy
    for number, move in enumerate(moves[:PIECES]):
        same_N = _same(labels_N, ids_M, move, offset)
        same_N = same_N if not number else _long_runs(same_N, GRAM)
        take_N = same_N & (found_N < 0)
        found_N[take_N] = np.flatnonzero(take_N) + move
        if (found_N[scored_N] >= 0).all():
            break
    copy_N = np.full(len(labels_N), -1, dtype=np.int64)
    for move in moves[1:2][: int(votes.max() >= FEWEST_COPIED)]:
        same_N = _same(labels_N, ids_M, move, offset)
        if same_N.sum() >= COPIED_FRAC * scored_N.sum():
            copy_N[same_N] = np.flatnonzero(same_N) + move
    return np.stack([found_N, copy_N])


def _far(at_N: np.ndarray, move_N: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Which moves lie outside of those of labels that can be in one place only: if a clip is twice in the batch, its
    labels are found in both."""
    _, which, counts = np.unique(at_N, return_inverse=True, return_counts=True)
    sure = move_N[counts[which] == 1]
    if 2 * len(sure) < len(counts):
        return np.zeros(len(moves), dtype=bool)
    return (moves < sure.min()) | (moves > sure.max())


def _same(labels_N: np.ndarray, ids_M: np.ndarray, move: int, offset: int) -> np.ndarray:
    """(N,) whether each label that counts, plus `offset`, is the id `move` places further on."""
    there_N = np.arange(len(labels_N)) + move
    inside_N = (there_N >= 0) & (there_N < len(ids_M))
    return (labels_N >= 0) & inside_N & (ids_M[there_N.clip(0, len(ids_M) - 1)] == labels_N + offset)


def _anchors(labels_N: np.ndarray, ids_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of places at which `GRAM` differences in a row agree, and are not all the same."""
    grams_N, usable_N = _grams(labels_N, labels_N >= 0)
    grams_M, usable_M = _grams(ids_M, np.ones(len(ids_M), dtype=bool))
    at_N, at_M = usable_N.nonzero()[0], usable_M.nonzero()[0]
    order = np.argsort(grams_M[at_M], kind="stable")
    sorted_M = grams_M[at_M][order]
    first, last = np.searchsorted(sorted_M, grams_N[at_N]), np.searchsorted(sorted_M, grams_N[at_N], "right")
    count = np.where(last - first <= COMMON, last - first, 0)
    starts = np.repeat(first, count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return np.repeat(at_N, count), at_M[order][starts + within]


def _grams(string: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps = np.diff(string)
    length = len(steps) - GRAM + 1
    if length < 1:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    parts = [steps[k : k + length] for k in range(GRAM)]
    hashed = np.zeros(length, dtype=np.int64)
    for part in parts:
        hashed = hashed * 1_000_003 + part
    usable = np.logical_and.reduce([known[k : k + length] for k in range(GRAM + 1)])
    usable &= ~np.logical_and.reduce([part == 0 for part in parts])
    return hashed, usable


def _long_runs(true_N: np.ndarray, least: int) -> np.ndarray:
    """Only the runs of True of at least this length."""
    if least <= 1:
        return true_N
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true_N.astype(np.int8), [0]])))
    kept = np.zeros(len(true_N), dtype=bool)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        kept[start:end] = end - start >= least
    return kept

"""What the counted targets of a batch are: ends, padding, first tokens, tails; and what each is divided by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from earnest.probes.results import Delays, Targets
from earnest.probes.trace.match import Ids
from earnest.probes.trace.read import Reading, where
from earnest.probes.trace.special import delays as configured_delays
from earnest.probes.trace.special import special_ids
from earnest.streams import TEXT, Codebook, Stream

FEWEST_FILLED, SHORTEST_FILLED = 3, 8  # clips, and targets of each, that are asked whether most of them is one id
EVEN = 1e-3  # by how much weights of targets may differ, relative to the largest, to count as one


@dataclass(frozen=True)
class Clips:
    """The counted targets of one stream clip by clip, in order of time: labels, and flat places among the ids (-1)."""

    labels: Sequence[np.ndarray]
    places: Sequence[np.ndarray]


def targets(
    model: nn.Module, named: Mapping[Stream, Reading], arrays: Sequence[Ids], end_id: int | None = None
) -> dict[Stream, Targets]:
    """Stream -> what its counted targets are. end_id: the id that ends audio, if the caller knows it."""
    return {
        stream: _of_stream(model, stream, reading, arrays, len(named) == 1, end_id) for stream, reading in named.items()
    }


def _of_stream(
    model: nn.Module, stream: Stream, reading: Reading, arrays: Sequence[Ids], alone: bool, end_id: int | None
) -> Targets:
    audio, classes = None if alone else stream != TEXT, reading.scores.classes
    begins, paddings = (set(special_ids(model, kind, audio, classes)) for kind in ("begin", "padding"))
    ends = special_ids(model, "end", audio, classes)
    if end_id is not None and stream != TEXT:
        ends = {end_id: "end_id"}
    row, labels = _rows(reading)
    clips = clips_of(reading, arrays)
    tail = trailing(clips) or filled(clips, paddings - set(ends)) if clips else None
    end = _end_before(clips, tail[0], paddings - set(ends)) if clips and tail else None
    if end is None:
        end = _end(labels, clips, ends)
    if tail is None and clips is not None and reading.tokens:
        tail = mostly_filled(clips)
    begin = np.isin(labels, list(begins - set(ends))) & isinstance(stream, Codebook)
    return Targets(
        targets=len(labels),
        classes=classes,
        where=where(reading.lines),
        clips=len(clips.labels) if clips else None,
        lengths=tuple(map(len, clips.labels)) if clips else None,
        end_id=end,
        end_named=ends.get(end) if end is not None else None,
        end_taught=None if end is None else end in labels,
        repeated_id=tail[0] if tail else None,
        repeated=tail[1] if tail else 0,
        first_untaught=first_untaught(reading, clips, arrays) if clips else 0,
        begin_targets=int(begin.sum()),
        begin_after_end=_begin_after_end(
            row, begin, np.isin(labels, [] if end is None else [end]), reading.scores.shape
        ),
        codes=int((~np.isin(labels, [*ends, *begins, *paddings])).sum()),
        divided_by=_divided_by(reading),
        shape=reading.scores.shape,
    )


def _rows(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Scored rows of one codebook, in order, and their labels."""
    mine = reading.scores.codebook == reading.column.codebook
    order = np.argsort(reading.scores.row[mine], kind="stable")
    return reading.scores.row[mine][order], reading.scores.label[mine][order]


def _begin_after_end(row: np.ndarray, begin: np.ndarray, end: np.ndarray, shape: tuple[int, ...]) -> int:
    """Rows that are scored on a beginning, right behind a row that is scored on an end."""
    one_string = np.diff(row) == 1
    if len(shape) > 1:
        one_string &= row[1:] // shape[-1] == row[:-1] // shape[-1]
    return int((begin[1:] & end[:-1] & one_string).sum())


def clips_of(reading: Reading, arrays: Sequence[Ids]) -> Clips | None:
    """None if clips cannot be told apart."""
    scores = reading.scores
    row, label = _rows(reading)
    number, axis = reading.time or (next(iter(reading.places), None), None)
    flat = reading.places[number][row] if number is not None else np.full(len(row), -1)
    clip = _clip_of_rows(row, flat, scores.shape, arrays[number] if number is not None else None, axis)
    if clip is None:
        return None
    each = [np.flatnonzero(clip == one) for one in np.unique(clip)]
    return Clips([label[rows] for rows in each], [flat[rows] for rows in each])


def _clip_of_rows(
    row: np.ndarray, flat: np.ndarray, shape: tuple[int, ...], ids: Ids | None, time_axis: int | None
) -> np.ndarray | None:
    others = [] if ids is None else [a for a in range(ids.values.ndim) if a not in (ids.axis, time_axis)]
    if len(shape) == 2:
        clips = ids.values.shape[others[0]] if ids is not None and time_axis is not None and others else shape[0]
        return np.unravel_index(row, shape)[1 if clips == shape[1] != shape[0] else 0]
    if ids is None or time_axis is None or not others or not (flat >= 0).any():
        return None
    known = np.where(flat >= 0, np.unravel_index(np.maximum(flat, 0), ids.values.shape)[others[0]], -1)
    last = np.maximum.accumulate(np.where(known >= 0, np.arange(len(known)), -1))
    return known[np.where(last >= 0, last, int(np.argmax(known >= 0)))]


def trailing(clips: Clips) -> tuple[int, int] | None:
    """(id, targets too many) if clips of unequal length are filled up with one id that occurs at their ends only."""
    lasts = {int(labels[-1]) for labels in clips.labels if len(labels)}
    if len(clips.labels) < 2 or len(lasts) != 1:
        return None
    last = lasts.pop()
    runs = [int(np.argmin(np.append(labels[::-1] == last, False))) for labels in clips.labels]
    inside = sum(int((labels == last).sum()) for labels in clips.labels) - sum(runs)
    extra = sum(runs) - len(runs)
    return (last, extra) if extra and not inside and len(set(runs)) > 1 else None


def filled(clips: Clips, paddings: set[int]) -> tuple[int, int] | None:
    """(id, targets of it) if shorter clips end in runs of an id that the configuration calls padding, and that stands
    nowhere else."""
    for padding in paddings:
        runs = [int(np.argmin(np.append(labels[::-1] == padding, False))) for labels in clips.labels]
        inside = sum(int((labels == padding).sum()) for labels in clips.labels) - sum(runs)
        if sum(runs) and not inside and len(set(runs)) > 1:
            return padding, sum(runs)
    return None


def mostly_filled(clips: Clips) -> tuple[int, int] | None:
    """(id, targets of it) if more than half of every clip, at its end, is one id, which may well be a token too; what
    comes before it is not the same in all clips."""
    if len(clips.labels) < FEWEST_FILLED or min(map(len, clips.labels)) < SHORTEST_FILLED:
        return None
    last = int(clips.labels[0][-1])
    runs = [int(np.argmin(np.append(labels[::-1] == last, False))) for labels in clips.labels]
    heads = {
        tuple(labels[:-run][-SHORTEST_FILLED:].tolist()) for labels, run in zip(clips.labels, runs, strict=True) if run
    }
    mostly = all(2 * run > len(labels) for labels, run in zip(clips.labels, runs, strict=True))
    return (last, sum(runs)) if mostly and len(heads) > len(runs) / 2 else None


def _end(labels: np.ndarray, clips: Clips | None, ends: Mapping[int, str]) -> int | None:
    """The id that ends clips: as the configuration names it, or as the last target of all clips says."""
    lasts = {int(one[-1]) for one in clips.labels if len(one)} if clips and len(clips.labels) > 1 else set()
    if len(lasts) == 1 and (last := next(iter(lasts))) not in ends:
        inside = (labels == last).sum() - len(clips.labels if clips else ())
        if inside <= 0:
            return last
    taught = [one for one in ends if one in labels]
    return next(iter(taught or ends), None)


def _end_before(clips: Clips, fill: int, paddings: set[int]) -> int | None:
    """The id that ends clips which `fill` follows: the same in all of them and nowhere else, else `fill` itself if it
    is no padding."""
    whole = [labels[: len(labels) - int(np.argmin(np.append(labels[::-1] == fill, False)))] for labels in clips.labels]
    lasts = {int(labels[-1]) if len(labels) else None for labels in whole}
    last = lasts.pop() if len(lasts) == 1 and len(whole) > 1 else None
    if last is not None and not any((labels[:-1] == last).any() for labels in whole):
        return last
    return fill if fill not in paddings else None


def first_untaught(reading: Reading, clips: Clips, arrays: Sequence[Ids]) -> int:
    """How many clips leave their first token out of the targets although a row precedes it: the token before the first
    target is one like the targets, and the token before that is not."""
    if reading.time is None:
        return 0
    ids, axis = arrays[reading.time[0]], reading.time[1]
    stride = int(np.prod(ids.values.shape[axis + 1 :]))
    usual = np.concatenate([labels[:-1] for labels in clips.labels if len(labels) > 1] or [np.zeros(1, dtype=np.int64)])
    before: list[int] = []
    for places in clips.places:
        first = places[places >= 0][:1]
        at = int(np.unravel_index(first[0], ids.values.shape)[axis]) if len(first) else 0
        if at < 2:
            return 0
        one, two = (int(ids.values.reshape(-1)[first[0] - far * stride]) for far in (1, 2))
        if not usual.min() <= one <= usual.max() or usual.min() <= two <= usual.max():
            return 0
        before.append(one)
    return len(before) if len(set(before)) > 1 else 0


def _divided_by(reading: Reading) -> float | None:
    weight = reading.scores.weight[reading.scores.codebook == reading.column.codebook]
    return 1 / float(np.median(weight)) if np.ptp(weight) <= EVEN * weight.max() else None


def delays(model: nn.Module, named: Mapping[Stream, Reading], arrays: Sequence[Ids]) -> Delays | None:
    """None if the configuration names none, or the batch's codebooks do not all begin with one id."""
    codebooks = [reading for stream, reading in named.items() if isinstance(stream, Codebook)]
    configured = configured_delays(model, len(codebooks))
    first = next((reading for reading in codebooks if reading.time), None)
    if configured is None or first is None or any(reading.index is None for reading in codebooks):
        return None
    ids, time_axis = arrays[first.time[0]], first.time[1]  # type: ignore[index]
    if ids.axis is None or ids.values.ndim != 3 or any(reading.time != first.time for reading in codebooks):
        return None
    values_CTB = ids.values.transpose(ids.axis, time_axis, 3 - ids.axis - time_axis)[
        [reading.index or 0 for reading in codebooks]
    ]
    begins_CTB = values_CTB == values_CTB[0, 0, 0]
    if not begins_CTB[:, 0].all():
        return None
    runs_C = begins_CTB.all(2).argmin(1)
    return Delays(tuple(one - configured[0] for one in configured), tuple((runs_C - runs_C[0]).tolist()))

"""An output layer that is called on pieces of its rows, one after the other, is one again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from earnest.probes.trace.record import Key
from earnest.probes.trace.scores import Scores


def pieces(scores: Mapping[Key, Scores]) -> dict[Key, list[Key]]:
    """First call of each output layer -> its calls: several if they are pieces of one, which differ in length or are
    flat."""
    calls: dict[tuple[int, int], list[Key]] = {}
    for key in scores:
        calls.setdefault(key[:2] if key.weight > 0 else (key.call, key.width), []).append(key)
    found: dict[Key, list[Key]] = {}
    for keys in calls.values():
        shapes = [scores[key].shape for key in keys]
        in_pieces = len(set(map(len, shapes))) == 1 and (len(shapes[0]) == 1 or len(set(shapes)) > 1)
        if in_pieces and len({scores[key].codebooks for key in keys}) == 1 and _axis(shapes) is not None:
            found[keys[0]] = keys
        else:
            found |= {key: [key] for key in keys}
    return {key: found[key] for key in scores if key in found}


def _axis(shapes: Sequence[tuple[int, ...]]) -> int | None:
    """The axis along which pieces lie one behind the other; None if they differ in more than one."""
    differ = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    return (differ or [0])[0] if len(differ) < 2 else None


def joined(parts: Sequence[Scores]) -> Scores:
    """The scored rows of all pieces."""
    if len(parts) == 1:
        return parts[0]
    first, axis = parts[0], _axis([part.shape for part in parts]) or 0
    shape = (*first.shape[:axis], sum(part.shape[axis] for part in parts), *first.shape[axis + 1 :])
    rows, start = [], 0
    for part in parts:
        at = list(np.unravel_index(part.row, part.shape))
        at[axis] = at[axis] + start
        rows.append(np.ravel_multi_index(at, shape))
        start += part.shape[axis]
    codebook, label, weight = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("codebook", "label", "weight")
    )
    exact = all(part.exact for part in parts)
    return replace(
        first, shape=shape, row=np.concatenate(rows), codebook=codebook, label=label, weight=weight, exact=exact
    )


def joined_prints(prints: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """(rows, codebooks, 2) of all pieces, in the order of the joined rows."""
    if len(prints) == 1:
        return prints[0]
    axis = _axis(shapes) or 0
    whole = [print_.reshape(*shape, *print_.shape[1:]) for print_, shape in zip(prints, shapes, strict=True)]
    return np.concatenate(whole, axis).reshape(-1, *prints[0].shape[1:])

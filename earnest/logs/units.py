"""The unit of a loss, by a witness in the log: a perplexity that is e or 2 to the power of it."""

import math
from collections.abc import Collection

import numpy as np

from earnest.columns import Column
from earnest.logs.log import Log
from earnest.logs.steps import Rows
from earnest.logs.words import SPLITS, words
from earnest.run import Series
from earnest.signals import Key
from earnest.streams import TOTAL, Part, Stream

LOSSES = ("loss", "ce_nats")
CODEC_PARTS = {Part(name) for name in ("commitment", "vq_codebook", "mel", "msspec", "stft", "waveform")}
IN_NATS = (math.log(2), "bits")  # factor of a loss in bits, and what it was
UNKNOWN_PERPLEXITY = (
    "a perplexity that is neither a codebook's usage by its name nor exp of a loss by its values; name it with --map"
)


def settle_perplexities(log: Log, keys: dict[str, Key], unmapped: dict[str, str]) -> None:
    """A bare perplexity is the exponential of a loss of its split (which tells that loss's unit), or a codebook's usage
    beside the losses of a codec, or unknown."""
    for name in [name for name in log.columns if {"perplexity", "ppl"} & set(words(name))]:
        key = keys.get(name)
        if key is not None and (
            key.name != "perplexity" or {"codebook", "vq", "rvq", "code", "quantizer", "cb"} & set(words(name))
        ):
            continue
        keys.pop(name, None)
        unmapped[name] = UNKNOWN_PERPLEXITY
        split = next((SPLITS[word] for word in words(name) if word in SPLITS), "train")
        for other in [other for other, known in keys.items() if known.name in LOSSES and known.split == split]:
            if base := _base(log.columns[name], log.columns[other]):
                unmapped[name] = f"the perplexity of {other!r} ({base} ** it)"
                _tell_unit(log, keys, name, other, base)
                break
        else:
            if key is not None and any(known.stream in CODEC_PARTS for known in keys.values()):
                keys[name] = key
                unmapped.pop(name)
                log.notes.append(
                    f"{name!r} is beside the losses of a codec and is the exponential of none: taken for codebook usage"
                )


def logarithms(
    log: Log, rows: Rows, series: dict[Key, Series], mapping: dict[str, str], unmapped: dict[str, str]
) -> None:
    """Of a log without any loss a perplexity is one: its logarithm is the loss in nats."""
    alone = [name for name, why in unmapped.items() if why == UNKNOWN_PERPLEXITY]
    if not alone or any(key.name in LOSSES for key in series):
        return
    for name in alone:
        step, value = rows.series(log.columns[name])
        split = next((SPLITS[word] for word in words(name) if word in SPLITS), "train")
        key = Key(split, "loss")
        if not len(step) or key in series or not (value[np.isfinite(value)] >= 1).all():
            continue
        series[key], mapping[name] = Series(step, np.log(value), key), str(key)
        unmapped.pop(name)
        log.notes.append(f"no loss is in the log; the logarithm of {name!r}, a perplexity, is read as one, in nats")


def settle_stated(log: Log, keys: dict[str, Key], in_bits: Collection[Stream]) -> None:
    """Losses of the streams that the user states to be in bits become nats."""
    stated = [name for name, key in keys.items() if key.name in LOSSES and (key.stream or TOTAL) in in_bits]
    log.scale.update(dict.fromkeys(stated, IN_NATS))


def _tell_unit(log: Log, keys: dict[str, Key], name: str, loss: str, base: str) -> None:
    if base == "e":
        log.notes.append(f"{name!r} is e ** {loss!r}: that loss is a mean cross-entropy in nats")
    elif _is_sum(log, keys, loss):
        log.notes.append(f"{name!r} is 2 ** {loss!r}, which is the sum of its parts: that tells no unit")
    else:
        log.notes.append(f"{name!r} is 2 ** {loss!r}: that loss is a mean cross-entropy in bits")
        alike = [other for other, key in keys.items() if key[1:] == keys[loss][1:]]
        log.scale.update((other, IN_NATS) for other in alike)  # of every split: some have no perplexity


def _is_sum(log: Log, keys: dict[str, Key], loss: str) -> bool:
    """Whether a loss is the sum of the streams of its split."""
    parts = [name for name, key in keys.items() if key.split == keys[loss].split and key.stream and key.name in LOSSES]
    total = dict(zip(*(array.tolist() for array in log.columns[loss]), strict=True))
    rows = [dict(zip(*(array.tolist() for array in log.columns[name]), strict=True)) for name in parts]
    shared = [row for row in total if all(row in values for values in rows)]
    return (
        len(parts) > 1
        and len(shared) > 0
        and all(abs(sum(values[row] for values in rows) - total[row]) <= 0.01 * abs(total[row]) for row in shared)
    )


def _base(perplexity: Column, loss: Column) -> str | None:
    """ "e" or "2" if perplexity = base ** loss in almost every row that has both; in few alike rows more exactly."""
    _, left, right = np.intersect1d(perplexity.row, loss.row, return_indices=True)
    p, x = perplexity.value[left], loss.value[right]
    good = np.isfinite(p) & np.isfinite(x) & (p > 0) & (np.abs(x) > 0.1)
    if not good.any():
        return None
    share, offset = (0.001, 0.001) if good.sum() < 2 or np.ptp(x[good]) < 0.01 else (0.02, 0.005)
    for base, factor in (("e", 1.0), ("2", math.log(2))):
        if np.mean(np.abs(np.log(p[good]) - factor * x[good]) < share * np.abs(x[good]) * factor + offset) > 0.9:
            return base
    return None

"""Quantiles as numpy's, to the last bit, without numpy.ma: `np.median` and `np.quantile` import it to look for masked
arrays, which takes a third as long as judging a short log."""

import math

import numpy as np
from numpy.typing import ArrayLike


def median(values: ArrayLike, overwrite: bool = False) -> float:
    """The middle of all values; NaN of none, and if one is NaN. overwrite: an array of float64 may be put in another
    order, which saves its copy."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return float(medians(flat, overwrite)) if len(flat) else math.nan


def medians(rows: np.ndarray, overwrite: bool = False) -> np.ndarray:
    """The middle of each row, (..., N) -> (...); NaN if one of its values is. Raises IndexError if N is 0."""
    half, odd = divmod(rows.shape[-1], 2)
    order = rows if overwrite else rows.copy()
    order.partition([half, -1] if odd else [half - 1, half, -1], axis=-1)  # NaN is put last
    middle = order[..., half] if odd else (order[..., half - 1] + order[..., half]) / 2
    return np.where(np.isnan(order[..., -1]), np.nan, middle)


def quantile(values: ArrayLike, share: float) -> float:
    """The value below which a share of all lies, between two of them on the line that joins them; NaN if one is.
    Raises IndexError for no values."""
    flat = np.array(values, np.float64).reshape(-1)
    place = share * (len(flat) - 1)
    low = int(place)
    high = min(low + 1, len(flat) - 1)
    flat.partition([low, high, -1])
    if math.isnan(flat[-1]):
        return math.nan
    below, above, part = float(flat[low]), float(flat[high]), place - low
    return below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part)

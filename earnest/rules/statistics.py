"""Statistics for series that are autocorrelated, sparsely or noisily logged.

Every test here is *valid at every length at once*: a run that is polled a thousand times while it grows
keeps one false-alarm budget (`boundary`). Long series are binned first (`Series.binned`): means of neighbours keep
the trend, and averaging can only shrink the noise.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from earnest.quantiles import median, medians

# The chance that any statistical rule cries wolf on one healthy run, over its whole life, for all its streams (assumed:
# a goal of 1 %).
BUDGET = 0.01
# Statistical tests that a run can meet: about ten tests on at most thirty streams (counted from the catalogue, rounded
# up).
TESTS = 300
LONG, FIRST_PAIRS = 40, 8  # points from which on autocorrelations are tried one by one, and how many pairs of them


def boundary(points: int, alpha: float = BUDGET / TESTS) -> float:
    """How large a z-score must be to be believed, whenever one looks: the stitched boundary of the iterated logarithm.

    P(any n: z_n > boundary(n)) <= alpha for sums of n independent sub-Gaussian terms
    (Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", eq. 2).
    """
    return 1.7 * math.sqrt(math.log(math.log(2 * max(points, 2))) + 0.72 * math.log(5.2 / alpha))


def noise(value: np.ndarray) -> float:
    """Robust standard deviation of the point-to-point noise, blind to any trend: from second differences."""
    if len(value) < 3:
        return 0.0
    second = 2 * value[1:-1]  # in place from here: a million points are 8 MB, and fresh memory costs as much as sums
    np.subtract(value[2:], second, out=second)
    second += value[:-2]  # variance 6 sigma^2 for white noise
    second -= median(second)
    return 1.4826 * median(np.abs(second, out=second), overwrite=True) / math.sqrt(6)


def effective_size(value: np.ndarray) -> float:
    """Independent points that carry as much as these: n / (1 + 2 sum of autocorrelations), Geyer's (1992) initial
    positive pairs."""
    n = len(value)
    centred = value - value.mean()
    variance = float(centred @ centred) / n
    if n < 4 or variance <= 0:
        return float(n)
    if n >= LONG and (pairs := _first_pairs(centred) / (n * variance)).min() <= 0:
        return max(1.0, n / max(1.0, 1 + 2 * float(pairs[: int((pairs <= 0).argmax())].sum())))
    size = _fast_size(n + n // 2)  # room for the lags that are asked for, of which none wraps around
    spectrum = np.fft.rfft(centred, size)
    rho = np.fft.irfft(spectrum * spectrum.conj(), size)[: n // 2] / (n * variance)
    pairs = rho[1:-1:2] + rho[2::2] if len(rho) > 2 else rho[1:]
    positive = np.cumprod(pairs > 0).astype(bool)
    return max(1.0, n / max(1.0, 1 + 2 * float(pairs[positive].sum())))


def _fast_size(least: int) -> int:
    """A length of few small factors, for which a transform is fast: 2^k times 1, 3, 5, 9 or 15."""
    return min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5, 9, 15))


def _first_pairs(centred: np.ndarray) -> np.ndarray:
    """The first sums of two neighbouring autocovariances, times the number of points, up to one that is not positive:
    of a series that hardly remembers they are all that counts, at a hundredth of a transform's time."""
    pairs: list[float] = []
    for lag in range(1, 2 * FIRST_PAIRS, 2):
        pairs.append(float(centred[:-lag] @ centred[lag:] + centred[: -lag - 1] @ centred[lag + 1 :]))
        if pairs[-1] <= 0:
            break
    return np.array(pairs)


@lru_cache(maxsize=1000)
def student_quantile(freedom: float, level: float) -> float:
    """Within how many standard errors of 0 Student's t lies with probability `level`.

    With t = sqrt(freedom) tan(angle) its density is cos(angle) ** (freedom - 1), which is summed up here: importing
    scipy for it would take as long as the rest of a diagnosis.
    """
    angle = np.linspace(0, min(math.pi / 2, 12 / math.sqrt(freedom)), 4097)
    density: np.ndarray = np.cos(angle) ** (freedom - 1)
    summed = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(level * float(summed[-1]), summed, angle)))


def mean_interval(value: np.ndarray, level: float = 0.95) -> tuple[float, tuple[float, float] | None]:
    """Mean and its interval: Student's t on the effective number of points; no interval on fewer than 4 points."""
    mean = float(value.mean())
    if len(value) < 4:
        return mean, None
    size = max(2.0, effective_size(value))
    half = student_quantile(size - 1, level) * float(value.std(ddof=1)) / math.sqrt(size)
    return mean, (mean - half, mean + half)


class Trend(NamedTuple):
    """Mann-Kendall z (positive: rising), the Theil-Sen change over the stretch, and the points used."""

    z: float
    change: float
    points: int

    @property
    def rises(self) -> bool:
        """Rising, in a trend that can be believed."""
        return self.z > boundary(self.points)

    @property
    def falls(self) -> bool:
        """Falling, in a trend that can be believed."""
        return self.z < -boundary(self.points)


def trend(value: np.ndarray) -> Trend:
    """Is there a monotone trend? Mann-Kendall with the variance of Hamed & Rao (1998), and Theil-Sen for its size.

    Hamed-Rao: the variance is multiplied by 1 + 2/(n(n-1)(n-2)) sum (n-k)(n-k-1)(n-k-2) rho_k, rho of the ranks
    after Theil-Sen detrending. Only positive sums are kept, so that the test can only become more careful.
    """
    if len(value) > 128:  # n^2 pairs: 128 bins are enough for any shape that a rule asks for
        edges = np.linspace(0, len(value), 129).astype(int)
        value = np.add.reduceat(value, edges[:-1]) / np.diff(edges)
    n = len(value)
    if n < 3:
        return Trend(0.0, float(value[-1] - value[0]) if n else 0.0, n)
    i, j = np.triu_indices(n, 1)
    score = float(np.sign(value[j] - value[i]).sum())
    slope = median((value[j] - value[i]) / (j - i))
    variance = n * (n - 1) * (2 * n + 5) / 18
    if n >= 10:
        _, place, ties = np.unique(value - slope * np.arange(n), return_inverse=True, return_counts=True)
        ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
        centred = ranks - ranks.mean()
        energy = float(centred @ centred)
        if energy > 0:
            lags = np.arange(1, n - 3)
            rho = np.array([float(centred[:-k] @ centred[k:]) / energy for k in lags])
            rho[np.abs(rho) < 1.96 / math.sqrt(n)] = 0  # Hamed & Rao keep only the significant ones
            factor = 1 + 2 / (n * (n - 1) * (n - 2)) * float(((n - lags) * (n - lags - 1) * (n - lags - 2) * rho).sum())
            variance *= max(1.0, factor)
    z = (score - math.copysign(1, score)) / math.sqrt(variance) if score else 0.0
    return Trend(z, slope * (n - 1), n)


def page_hinkley(value: np.ndarray, sigma: float, drift: float = 0.5, level: float = 8.0) -> int | None:
    """Index at which an upward shift began, or None: Page's (1954) cumulative sum against the lowest level so far.

    Each value is compared with the running minimum of the 5-point median, in units of `sigma`; the sum resets at 0.
    `drift` and `level` in sigmas are Montgomery's usual choice, with a higher level (5 -> 8, assumed) for
    autocorrelation.
    """
    if len(value) < 6 or sigma <= 0:
        return None
    smooth = np.array([median(value[max(0, i - 4) : i + 1]) for i in range(len(value))])
    lowest = np.minimum.accumulate(smooth)
    total, began = 0.0, None
    for i in range(5, len(value)):
        total = max(0.0, total + (value[i] - lowest[i - 1]) / sigma - drift - 1)
        if total == 0:
            began = None
        elif began is None:
            began = i
        if total > level:
            return began
    return None


def spikes(value: np.ndarray, window: int = 25, z: float = 8.0) -> np.ndarray:
    """Indices of upward outliers from the medians of neighbouring blocks, in robust standard deviations (z assumed;
    heavy-tailed batches reach 6)."""
    if len(value) < 12:
        return np.zeros(0, dtype=int)
    count = max(1, len(value) // min(window, len(value) // 4))
    size, longer = divmod(len(value), count)  # as np.array_split divides: the first `longer` blocks have one more
    cut = longer * (size + 1)
    middles = np.concatenate(
        [np.arange(longer) * (size + 1) + size / 2, np.arange(cut, len(value), size) + (size - 1) / 2]
    )
    levels = np.concatenate(
        [medians(part) for part in (value[:cut].reshape(longer, size + 1), value[cut:].reshape(-1, size))]
    )
    rest = value - np.interp(np.arange(len(value)), middles, levels)
    sigma = 1.4826 * median(np.abs(rest), overwrite=True)
    return np.flatnonzero(rest > z * sigma) if sigma > 0 else np.zeros(0, dtype=int)


def miller_madow(counts: Mapping[int, int]) -> float:
    """Entropy of a histogram in nats, with the bias of a small sample put back (Miller 1955): + (m - 1) / 2n."""
    n = np.array([count for count in counts.values() if count > 0], dtype=float)
    total = n.sum()
    share = n / total
    return float(-(share * np.log(share)).sum() + (len(n) - 1) / (2 * total))


def expected_used(entries: float, draws: float) -> float:
    """Share of `entries` equally likely entries seen at least once in `draws`: the coupon collector's expectation."""
    return 1 - (1 - 1 / entries) ** draws

"""The chance ladder measured on data: what uniform, unigram and bigram predictors score on held-out targets.

The predictors see what the model's loss sees: the same counted targets, and the input token at the same position. They
are fitted on the training targets and scored on the held-out ones, so model and baseline are compared clip by clip.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from earnest.data.batch import Batch
from earnest.streams import Stream

ALPHA = 0.5  # add-alpha smoothing of the unigram (Krichevsky and Trofimov 1981)
PICKS_AT_ONCE = 2**22  # clips drawn in one array of the bootstrap: 32 MiB
BACKOFF = (1.0, 4.0, 16.0, 64.0, 256.0)  # weights tried for the unigram inside the bigram


@dataclass(frozen=True)
class Pairs:
    """Counted positions of one stream: clip, input token and target, int64 (N,) each."""

    clip: np.ndarray
    previous: np.ndarray
    target: np.ndarray


def collect_pairs(batches: Iterable[Batch]) -> dict[Stream, Pairs]:
    """Gather every stream's counted positions over batches; a stream without any is absent."""
    parts: dict[Stream, list[Pairs]] = {}
    for batch in batches:
        for stream, clip_N, previous_N, target_N in batch.pairs():
            if len(clip_N):
                pairs = Pairs(clip_N.cpu().numpy(), previous_N.cpu().numpy(), target_N.cpu().numpy())
                parts.setdefault(stream, []).append(pairs)
    return {stream: _joined(members) for stream, members in parts.items()}


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(
        clip=np.concatenate([part.clip for part in parts]),
        previous=np.concatenate([part.previous for part in parts]),
        target=np.concatenate([part.target for part in parts]),
    )


def label_counts(pairs: Pairs) -> dict[int, int]:
    ids, counts = np.unique(pairs.target, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def unigram_nats(train: Pairs, held_out: Pairs, vocabulary: int) -> np.ndarray:
    """-log p(target) of every held-out position under the smoothed unigram of the training targets, (N,)."""
    return -np.log(_unigram(train, held_out.target, vocabulary))


def bigram_nats(train: Pairs, held_out: Pairs, vocabulary: int) -> np.ndarray:
    """-log p(target | input token) of every held-out position, (N,).

    The bigram backs off to the unigram (a Dirichlet prior, MacKay and Peto 1995). The weight of the unigram is the one
    that suits the held-out targets best; this favours the baseline, so a model below it is below it for certain.
    """
    p_unigram = _unigram(train, held_out.target, vocabulary)
    pair_count = _counts_of(
        train.previous * vocabulary + train.target, held_out.previous * vocabulary + held_out.target
    )
    previous_count = _counts_of(train.previous, held_out.previous)
    candidates = [-np.log((pair_count + weight * p_unigram) / (previous_count + weight)) for weight in BACKOFF]
    return min(candidates, key=np.mean)


def _unigram(train: Pairs, targets: np.ndarray, vocabulary: int) -> np.ndarray:
    return (_counts_of(train.target, targets) + ALPHA) / (len(train.target) + ALPHA * vocabulary)


def _counts_of(seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often each of `wanted` is in `seen`."""
    ids, counts = np.unique(seen, return_counts=True)
    place = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
    return np.where(ids[place] == wanted, counts[place], 0)


def per_clip(values: np.ndarray, clip: np.ndarray, clips: int) -> np.ndarray:
    """Sum values (N,) by clip: (clips,)."""
    return np.bincount(clip, weights=values, minlength=clips)


def bootstrap_interval(
    sums: np.ndarray, counts: np.ndarray, draws: int = 2000, coverage: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of ``sum(sums) / sum(counts)`` when whole clips are drawn again: tokens of one clip are not
    independent."""
    random, clips = np.random.default_rng(seed), len(sums)
    ratios = np.empty(draws)
    together = max(1, PICKS_AT_ONCE // clips)
    for start in range(0, draws, together):
        picks = random.integers(clips, size=(min(together, draws - start), clips))
        ratios[start : start + together] = sums[picks].sum(1) / np.maximum(counts[picks].sum(1), 1e-9)
    low, high = np.quantile(ratios, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)

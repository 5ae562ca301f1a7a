"""Held-out cross-entropy per stream, beside the scores of predictors that know less, clip by clip."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from earnest.data import baselines
from earnest.data.batch import Batch
from earnest.losses.tokens import score
from earnest.models.system import System
from earnest.probes.results import Gap, HeldOutStream
from earnest.streams import Part, Stream

ALL = Part("all")  # all streams together
ClipSums = dict[Stream, tuple[np.ndarray, np.ndarray]]  # stream -> (nats, counted targets), per clip


@torch.no_grad()
def clip_sums(model: System, batches: Iterable[Batch], clips: int) -> ClipSums:
    """Teacher-forced cross-entropy (nats, summed) and counted targets per clip: stream -> ((clips,), (clips,))."""
    model.eval()
    sums: ClipSums = {}
    for batch in batches:
        here = batch.to(model.device)
        _, stream_sums = score(model.outputs(here), here, {})
        for stream, stream_sum in stream_sums.items():
            ce, counted = sums.setdefault(stream, (np.zeros(clips), np.zeros(clips)))
            rows = batch.clip_B.cpu().numpy()
            np.add.at(ce, rows, stream_sum.ce_B.double().cpu().numpy())
            np.add.at(counted, rows, stream_sum.counted_B.double().cpu().numpy())
    return sums


def mean_nats(sums: ClipSums) -> dict[Stream, float]:
    return {stream: float(ce.sum() / counted.sum()) for stream, (ce, counted) in sums.items()}


def gaps(sums: ClipSums, other: ClipSums) -> dict[Stream, Gap]:
    """How many nats higher `other` is on the same clips, paired by clip; "all" are the streams together."""
    pairs = {stream: (other[stream][0] - ce, counted) for stream, (ce, counted) in sums.items()}
    pairs[ALL] = (
        np.sum([gap for gap, _ in pairs.values()], axis=0),
        np.sum([counted for _, counted in pairs.values()], axis=0),
    )
    return {stream: _mean(gap, counted) for stream, (gap, counted) in pairs.items()}


class Rungs:
    """What predictors score that know less than a model: uniform, unigram and bigram, of every stream, measured once on
    the data.

    train: everything that training may draw. With less of it the scores would be too high.
    """

    def __init__(
        self, train: Iterable[Batch], held_out: Iterable[Batch], clips: int, vocabulary: Callable[[Stream], int]
    ):
        self.vocabulary = vocabulary
        train_pairs = baselines.collect_pairs(train)
        self.label_counts = {stream: baselines.label_counts(pairs) for stream, pairs in train_pairs.items()}
        self.repeat_frac = {
            stream: float((pairs.previous == pairs.target).mean()) for stream, pairs in train_pairs.items()
        }
        self.nats: dict[Stream, tuple[np.ndarray, np.ndarray]] = {}  # stream -> unigram, bigram: nats per clip
        for stream, pairs in baselines.collect_pairs(held_out).items():
            known, ids = train_pairs[stream], vocabulary(stream)
            unigram, bigram = baselines.unigram_nats(known, pairs, ids), baselines.bigram_nats(known, pairs, ids)
            self.nats[stream] = (
                baselines.per_clip(unigram, pairs.clip, clips),
                baselines.per_clip(bigram, pairs.clip, clips),
            )

    def place(self, sums: ClipSums) -> dict[Stream, HeldOutStream]:
        """The probe ``held_out``: per stream the model's nats with interval, those of the other predictors, and the
        gaps to them (negative: the model is better), paired by clip."""
        placed: dict[Stream, HeldOutStream] = {}
        for stream, (ce, counted) in sums.items():
            total = counted.sum()
            unigram, bigram = self.nats[stream]
            low, high = baselines.bootstrap_interval(ce, counted)
            placed[stream] = HeldOutStream(
                ce_nats=float(ce.sum() / total),
                interval=(low, high),
                counted=int(total),
                clips=int((counted > 0).sum()),
                uniform_nats=math.log(self.vocabulary(stream)),
                unigram_nats=float(unigram.sum() / total),
                unigram_gap=_mean(ce - unigram, counted),
                bigram_nats=float(bigram.sum() / total),
                bigram_gap=_mean(ce - bigram, counted),
            )
        return placed


def _mean(gap: np.ndarray, counted: np.ndarray) -> Gap:
    """Per target, with its interval: (mean, low, high)."""
    low, high = baselines.bootstrap_interval(gap, counted)
    return float(gap.sum() / counted.sum()), low, high

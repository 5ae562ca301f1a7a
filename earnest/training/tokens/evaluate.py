"""Held-out cross-entropy per stream, beside the scores of predictors that know less, clip by clip."""

import math
from collections.abc import Callable, Iterable
from typing import Any

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
    """How many nats higher `other` is on the same clips: stream -> [mean, low, high], paired by clip; "all" are the
    streams together."""
    pairs = {stream: (other[stream][0] - ce, counted) for stream, (ce, counted) in sums.items()}
    pairs[ALL] = (
        np.sum([gap for gap, _ in pairs.values()], axis=0),
        np.sum([counted for _, counted in pairs.values()], axis=0),
    )
    return {
        stream: (float(gap.sum() / counted.sum()), *baselines.bootstrap_interval(gap, counted))
        for stream, (gap, counted) in pairs.items()
    }


class Ladder:
    """The uniform, unigram and bigram rungs of every stream, measured once on the data, against which a model is
    placed.

    train: everything that training may draw; rungs that know less than the model does would lie too high.
    """

    def __init__(
        self, train: Iterable[Batch], held_out: Iterable[Batch], clips: int, vocabulary: Callable[[Stream], int]
    ):
        self.clips = clips
        self.vocabulary = vocabulary
        train_pairs = baselines.collect_pairs(train)
        self.label_counts = {stream: baselines.label_counts(pairs) for stream, pairs in train_pairs.items()}
        self.repeat_frac = {
            stream: float((pairs.previous == pairs.target).mean()) for stream, pairs in train_pairs.items()
        }
        self.rungs: dict[Stream, dict[str, np.ndarray]] = {}  # stream -> rung -> nats per clip
        for stream, pairs in baselines.collect_pairs(held_out).items():
            ids = vocabulary(stream)
            self.rungs[stream] = {
                "unigram": baselines.per_clip(
                    baselines.unigram_nats(train_pairs[stream], pairs, ids), pairs.clip, clips
                ),
                "bigram": baselines.per_clip(baselines.bigram_nats(train_pairs[stream], pairs, ids), pairs.clip, clips),
            }

    def place(self, sums: ClipSums) -> dict[Stream, HeldOutStream]:
        """The probe ``held_out``: per stream the model's nats with interval, each rung, and the paired gap (negative:
        better)."""
        placed: dict[Stream, HeldOutStream] = {}
        for stream, (ce, counted) in sums.items():
            total = counted.sum()
            entry: dict[str, Any] = {
                "ce_nats": float(ce.sum() / total),
                "interval": baselines.bootstrap_interval(ce, counted),
                "counted": int(total),
                "clips": int((counted > 0).sum()),
                "uniform_nats": math.log(self.vocabulary(stream)),
            }
            for rung, rung_ce in self.rungs[stream].items():
                gap = ce - rung_ce
                entry[f"{rung}_nats"] = float(rung_ce.sum() / total)
                entry[f"{rung}_gap"] = (float(gap.sum() / total), *baselines.bootstrap_interval(gap, counted))
            placed[stream] = HeldOutStream(**entry)
        return placed

"""What a cross-entropy over classes shows of a stream: loss, hits, copies, entropy, which targets count and which ids
they are.

Sums stay on the device until `Tokens.step` asks for them. Hits, copies and entropies are taken of rows that are evenly
spread among the counted ones, so that a vocabulary of 130,000 ids costs no more memory than one of 1,000.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from earnest.monitors import Monitor
from earnest.run import Step
from earnest.signals import key
from earnest.streams import Stream

ROWS = 256  # of one call that are looked at
ENTRIES = 2**21  # of logits that are looked at at once
FULL = 10  # targets for each id that occurs, before a histogram says how often labels occur (assumed)


class Scored(NamedTuple):
    """Logits and targets of one stream. logits_NV; target_N, `ignored` where none counts; ids_N: the input token at
    each row's position, None if that is not known."""

    logits_NV: Tensor
    target_N: Tensor
    ids_N: Tensor | None = None
    ignored: int = -100


class Shares(NamedTuple):
    """Sums over the rows that were looked at: of cross-entropies, hits, copies, and entropies; `known`: rows whose
    input token is known; repeats: targets that equal it."""

    rows: Tensor
    known: Tensor
    ce: Tensor
    hits: Tensor
    copies: Tensor
    repeats: Tensor
    entropy: Tensor


@torch.no_grad()
def shares(scored: Scored) -> Shares:
    """The sums over at most `ROWS` counted rows, spread evenly."""
    logits_NV, target_N, ids_N, ignored = scored
    counted = (target_N != ignored).nonzero()[:, 0]
    most = max(1, min(ROWS, ENTRIES // logits_NV.shape[-1]))
    chosen = counted[:: -(-len(counted) // most)] if len(counted) else counted
    logits, target = logits_NV[chosen].float(), target_N[chosen]
    log = logits.log_softmax(-1)
    best = log.argmax(-1)
    ids = ids_N[chosen] if ids_N is not None else torch.full_like(target, -1)
    rows = torch.tensor(float(len(chosen)), device=log.device)
    return Shares(
        rows,
        rows * (ids_N is not None),
        -log.gather(-1, target[:, None]).sum(),
        (best == target).sum().float(),
        (best == ids).sum().float(),
        (target == ids).sum().float(),
        -(log.exp() * log).nan_to_num().sum(),
    )


def measure(
    logits: Tensor, labels: Tensor, ids: Tensor | None = None, ignored: int = -100
) -> dict[str, float | dict[int, int]]:
    """What logits say of labels: cross-entropy, its chance level, accuracy, copy rate, entropy, the share that counts,
    and how often each label occurs.

    logits (..., V) and labels (...) as they are scored, row by row: shift before. ids (...): the input token at each
    row's position, for the copy rate. No cross-entropy is given if no label counts.
    """
    flat, target = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    if len(flat) != len(target) or (ids is not None and ids.numel() != len(target)):
        raise ValueError(
            f"logits of {len(flat)} rows, {len(target)} labels"
            + (f", {ids.numel()} ids" if ids is not None else "")
            + ": shift and cut them to the same rows first"
        )
    found = shares(Scored(flat, target, None if ids is None else ids.reshape(-1), ignored))
    counted = target != ignored
    signals: dict[str, float | dict[int, int]] = {"chance_nats": math.log(logits.shape[-1])}
    signals["counted_frac"] = float(counted.float().mean()) if len(target) else 0.0
    if rows := float(found.rows):
        signals |= {
            "ce_nats": float(found.ce) / rows,
            "accuracy_frac": float(found.hits) / rows,
            "entropy_nats": float(found.entropy) / rows,
        }
        signals |= (
            {"copy_frac": float(found.copies) / rows, "repeat_frac": float(found.repeats) / rows}
            if (ids is not None)
            else {}
        )
    values, counts = torch.unique(target[counted], return_counts=True)
    label_counts: dict[int, int] = dict(zip(values.tolist(), counts.tolist(), strict=True))
    signals["label_counts"] = label_counts
    return signals


class _Sums:
    """What was seen of one stream since the last row was written."""

    def __init__(self) -> None:
        self.ce: list[Tensor] = []  # sum of nats, and number of targets that count, of each call
        self.counted: list[Tensor] = []
        self.positions = 0
        self.shares: list[Shares] = []


class Tokens(Monitor):
    """Streams of tokens, as calls of a cross-entropy show them. looks: whether this step's rows are looked at."""

    def __init__(self) -> None:
        self.looks = True
        self.classes: dict[Stream, int] = {}
        self._sums: dict[tuple[str, Stream], _Sums] = {}
        self._labels: dict[Stream, np.ndarray] = {}
        self._repeats: dict[Stream, list[float]] = {}

    def score(self, stream: Stream, scored: Scored, nats: Tensor | None, split: str = "train") -> None:
        """One call. nats: the mean over its counted targets, if the caller has it."""
        self.classes[stream] = int(scored.logits_NV.shape[-1])
        sums = self._sums.setdefault((split, stream), _Sums())
        counted = (scored.target_N != scored.ignored).sum()
        sums.positions += scored.target_N.numel()
        sums.counted.append(counted.float())
        if nats is not None:
            sums.ce.append(torch.where(counted > 0, nats.detach().float() * counted, 0.0))
        if self.looks or nats is None or split != "train":
            sums.shares.append(shares(scored))
            if split == "train":
                self._count(stream, scored)

    def _count(self, stream: Stream, scored: Scored) -> None:
        labels = scored.target_N[scored.target_N != scored.ignored].cpu().numpy()
        labels = labels[(labels >= 0) & (labels < self.classes[stream])]
        seen = np.bincount(labels, minlength=self.classes[stream])
        self._labels[stream] = self._labels.get(stream, np.zeros_like(seen)) + seen

    def step(self, step: Step) -> Mapping[str, float]:
        """The signals of every stream in training since the last call."""
        return self.take("train")

    def take(self, split: str) -> dict[str, float]:
        """The signals of one split since they were taken last."""
        taken = {stream: sums for (own, stream), sums in self._sums.items() if own == split}
        self._sums = {place: sums for place, sums in self._sums.items() if place[0] != split}
        signals: dict[str, float] = {}
        for stream, sums in taken.items():
            signals |= {key(name, stream, split): value for name, value in self._signals(stream, sums).items()}
        return signals

    def _signals(self, stream: Stream, of: "_Sums") -> dict[str, float]:
        counted = float(torch.stack(of.counted).sum())
        signals = {"counted_frac": counted / max(1, of.positions)}
        looked = [float(torch.stack(column).sum()) for column in zip(*of.shares, strict=True)]
        rows, known, ce, hits, copies, repeats, entropy = looked or [0.0] * 7
        if counted and len(of.ce) == len(of.counted):
            signals["ce_nats"] = float(torch.stack(of.ce).sum()) / counted
        elif rows:
            signals["ce_nats"] = ce / rows
        if rows:
            signals |= {"accuracy_frac": hits / rows, "entropy_nats": entropy / rows}
        if known:
            signals["copy_frac"] = copies / known
            self._repeats.setdefault(stream, []).append(repeats / known)
        return signals

    def rename(self, names: Mapping[Stream, Stream]) -> None:
        """Other names for streams, of what has been seen and is not taken yet."""
        self._sums = {(split, names.get(stream, stream)): of for (split, stream), of in self._sums.items()}
        self.classes = {names.get(stream, stream): size for stream, size in self.classes.items()}
        self._labels = {names.get(stream, stream): seen for stream, seen in self._labels.items()}

    def label_counts(self) -> dict[Stream, dict[int, int]]:
        """stream -> {id: how often}, for streams of which enough targets were seen."""
        found: dict[Stream, dict[int, int]] = {}
        for stream, seen in self._labels.items():
            ids = np.flatnonzero(seen)
            if len(ids) and seen.sum() >= FULL * len(ids):
                found[stream] = dict(zip(ids.tolist(), seen[ids].tolist(), strict=True))
        return found

    def repeat_frac(self) -> dict[Stream, float]:
        return {stream: float(np.mean(rates)) for stream, rates in self._repeats.items()}


def rows_of_ids(inputs: Sequence[Tensor], rows: int, codebook: int, codebooks: int) -> Tensor | None:
    """The input token at the position of each row of logits, (rows,), if the shapes of the model's inputs tell.

    inputs: whole numbers, (B, S), or (B, C, S) or (B, S, C) for codebooks. Rows may lack each clip's last position.
    """
    for ids in inputs:
        if ids.ndim == 3 and codebooks > 1:
            axis = next((a for a in (1, 2) if ids.shape[a] == codebooks), None)
            ids = ids.select(axis, codebook) if axis is not None else ids
        if ids.numel() == rows:
            return ids.reshape(-1)
        if ids.ndim == 2 and ids.shape[0] * (ids.shape[1] - 1) == rows:
            return ids[:, :-1].reshape(-1)
    return None

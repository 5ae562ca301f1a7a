"""Which label a row of logits is scored on, read from the gradient: a cross-entropy's is negative at its label
alone."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

FEWEST_CLASSES = 5
MOST_CODEBOOKS = 128
CHUNK = 2**22  # entries worked on at once
DOMINATES = 0.7  # of a row's negative gradient is at its label, also with label smoothing (assumed)
BALANCED = 0.25  # |sum| of a row's gradient over the sum of |.|: 0 for a softmax, small if logits are capped (assumed)
FAINT = 0.02  # of the largest row's gradient: less comes from a term beside the cross-entropy, as z-loss (assumed)
ALIKE = 0.98  # of the scored rows are as a cross-entropy leaves them (assumed)
SAMPLED = 64  # rows looked at before all are


@dataclass(frozen=True)
class Scores:
    """The scored rows of one output layer.

    shape: of the rows, (B, S) or what the model makes · classes: of one codebook · codebooks: scored side by side in
    one row · row, codebook, label (N,) int64 · weight (N,): what one nat at that row adds to the loss · exact: no other
    class has a negative gradient (label smoothing has).
    """

    shape: tuple[int, ...]
    classes: int
    codebooks: int
    row: np.ndarray
    codebook: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    exact: bool
    axis: int | None = None  # of the rows' own shape, if its indices were taken for codebooks (`by_codebook`)

    def joined(self, other: "Scores") -> "Scores":
        """The rows of both, of two backward passes through the same logits; these alone if the shapes differ."""
        if (self.shape, self.classes) != (other.shape, other.classes):
            return self
        return Scores(
            self.shape,
            self.classes,
            self.codebooks,
            row=np.concatenate([self.row, other.row]),
            codebook=np.concatenate([self.codebook, other.codebook]),
            label=np.concatenate([self.label, other.label]),
            weight=np.concatenate([self.weight, other.weight]),
            exact=self.exact and other.exact,
        )

    def labels(self) -> np.ndarray:
        """Labels in the shape of the rows, codebooks last; -1 where none is scored."""
        all_ = np.full((int(np.prod(self.shape)), self.codebooks), -1, dtype=np.int64)
        all_[self.row, self.codebook] = self.label
        return all_.reshape(*self.shape, self.codebooks)

    def by_codebook(self, axis: int) -> "Scores":
        """The same scores, with one axis of the rows read as codebooks."""
        at = np.unravel_index(self.row, self.shape)
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        rest = at[:axis] + at[axis + 1 :]
        row = np.ravel_multi_index(rest, shape) if rest else np.zeros_like(self.row)
        return replace(self, shape=shape, codebooks=self.shape[axis], row=row, codebook=at[axis], axis=axis)

    def columns(self, prints: np.ndarray) -> np.ndarray:
        """prints (rows, codebooks, n) of the output layer's product, in the order of these rows and codebooks."""
        if self.axis is None:
            return prints
        own = (*self.shape[: self.axis], self.codebooks, *self.shape[self.axis :])
        return np.moveaxis(prints.reshape(*own, -1), self.axis, -2).reshape(-1, self.codebooks, prints.shape[-1])


def scores_of(gradient: Tensor, logits: Tensor) -> Scores | None:
    """The scored rows, or None if this is not the gradient of a cross-entropy. gradient, logits (..., V)."""
    shape, width = tuple(gradient.shape[:-1]), gradient.shape[-1]
    gradient_RV, logits_RV = gradient.reshape(-1, width), logits.reshape(-1, width)
    step = max(1, CHUNK // width)
    scored_R = torch.cat([part.ne(0).any(-1) for part in torch.split(gradient_RV, step)]).nonzero()[:, 0]
    if not len(scored_R):
        return None
    sample = gradient_RV[scored_R[:: max(1, len(scored_R) // SAMPLED)]].float()
    codebooks = next((k for k in _divisors(width) if _is_cross_entropy(sample.reshape(len(sample), k, -1))), None)
    if codebooks is None:
        return None
    largest = float(sample.reshape(len(sample), codebooks, -1).abs().sum(-1).amax())
    found: list[tuple[Tensor, ...]] = []
    for rows in torch.split(scored_R, step):
        part = gradient_RV[rows].float().reshape(len(rows), codebooks, -1)
        live_RK, alike_RK = _live_and_alike(part, largest)
        if live_RK.any() and alike_RK[live_RK].float().mean() <= ALIKE:
            return None
        part *= live_RK[..., None]
        found.append(_scored(part, logits_RV[rows].float().reshape(part.shape), rows))
    row, codebook, label, weight, others = (torch.cat(column).cpu().numpy() for column in zip(*found, strict=True))
    return Scores(shape, width // codebooks, codebooks, row, codebook, label, weight, not others.any())


def _divisors(width: int) -> list[int]:
    return [k for k in range(1, MOST_CODEBOOKS + 1) if width % k == 0 and width // k >= FEWEST_CLASSES]


def _is_cross_entropy(gradient_RKV: Tensor) -> bool:
    """Whether in nearly every row the gradient sums to 0 and is negative at one class, or nearly so."""
    live_RK, alike_RK = _live_and_alike(gradient_RKV)
    return bool(live_RK.any()) and bool(alike_RK[live_RK].float().mean() > ALIKE)


def _live_and_alike(gradient_RKV: Tensor, largest: float | None = None) -> tuple[Tensor, Tensor]:
    """Rows that are scored, and those whose gradient is that of a cross-entropy. A row that only a small term over all
    rows reaches is not scored. largest: the sum of |gradient| of the largest row, if known."""
    size_RK = gradient_RKV.abs().sum(-1)
    balanced_RK = gradient_RKV.sum(-1).abs() <= BALANCED * size_RK
    negative_RK = gradient_RKV.clamp(max=0).sum(-1)
    alike_RK = balanced_RK & (gradient_RKV.amin(-1) <= DOMINATES * negative_RK) & (negative_RK < 0)
    faint_RK = size_RK < FAINT * (size_RK.amax() if largest is None else largest)
    return (size_RK > 0) & (alike_RK | ~faint_RK), alike_RK


def _scored(gradient_RKV: Tensor, logits_RKV: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    row, codebook = gradient_RKV.ne(0).any(-1).nonzero(as_tuple=True)
    gradient_NV, logits_NV = gradient_RKV[row, codebook], logits_RKV[row, codebook]
    least_N, label_N = gradient_NV.min(-1)
    counted_NV = logits_NV.masked_fill(gradient_NV.eq(0), -torch.inf)
    counted_NV.scatter_(-1, label_N[:, None], logits_NV.gather(-1, label_N[:, None]))
    chance_N = (logits_NV.gather(-1, label_N[:, None])[:, 0] - counted_NV.logsumexp(-1)).exp()
    weight_N = -least_N / (1 - chance_N).clamp(min=1e-6)
    others_N = gradient_NV.lt(0).sum(-1) > 1
    return rows[row], codebook, label_N, weight_N.double(), others_N

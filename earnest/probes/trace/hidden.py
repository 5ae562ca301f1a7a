"""Losses that make no logits which a gradient reaches (fused, or in chunks inside of a function of their own): rows and
labels are read from the gradient at the hidden states instead.

For a cross-entropy of ``W h`` the gradient at h is ``w (sum_v p_v W_v - W_label)``: with W and h known, p follows, and
the label is the one whose difference points the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earnest.probes.trace.record import Changes, Key, Recorder, prints
from earnest.probes.trace.scores import Scores

HIDDEN = -1  # stands for a weight in the keys of hidden states
MOST_WIDER = 2  # an output layer's table has at least so many times more rows than columns (assumed)
SAMPLED = 32  # rows on which a table is tried
SAME_WAY = 0.999  # cosine between the gradient and the label's direction
CHUNK = 2**22  # entries worked on at once


class HiddenRecorder(Recorder):
    """Records hidden states in place of logits: the last ones whose gradient is that of a cross-entropy.

    model: its tables are tried as output layers.
    """

    def __init__(self, model: nn.Module, changes: Changes | None = None, printed: Mapping[Key, int] | None = None):
        super().__init__(changes, printed)
        self._tables = [p for p in model.parameters() if p.ndim == 2 and p.shape[0] >= MOST_WIDER * p.shape[1]]
        self._widths = {table.shape[1] for table in self._tables}
        self._numbers: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if isinstance(result, Tensor) and result.is_floating_point() and result.ndim > 1 and not result.is_nested:
            width = int(result.shape[-1])
            if width in self._widths and (result.requires_grad or self._printed is not None):
                self._hidden(result, Key(HIDDEN, width, self._numbers.setdefault(width, 0)))
                self._numbers[width] += 1
        return result

    def _hidden(self, states: Tensor, key: Key) -> None:
        if self._printed is not None:
            if key in self._printed:
                self.prints[key] = prints(states.detach(), 1)
            return
        kept, node = states.detach(), states.grad_fn

        def scored(gradient: Tensor) -> None:
            if any(found.weight == HIDDEN for found in self._scores):
                return  # those nearer to the loss come first
            for table in self._tables:
                if table.shape[1] == key.width:
                    with torch.no_grad():
                        found = _scores(gradient.detach(), kept, table.detach())
                    if found is not None:
                        self._scores[key] = found
                        self._nodes[key] = node
                        return

        self._nodes.setdefault(key, node)
        self._hooks.append(states.register_hook(scored))


def _scores(gradient: Tensor, states: Tensor, table_VD: Tensor) -> Scores | None:
    """Rows and labels of a cross-entropy of states times table; None if this is no such gradient."""
    gradient_RD, states_RD = (one.reshape(-1, one.shape[-1]).float() for one in (gradient, states))
    scored_R = gradient_RD.ne(0).any(-1).nonzero()[:, 0]
    sample_R = scored_R[:: max(1, len(scored_R) // SAMPLED)]
    if not len(scored_R) or not _labels(gradient_RD[sample_R], states_RD[sample_R], table_VD.float())[2].all():
        return None
    step = max(1, CHUNK // len(table_VD))
    parts = [_labels(gradient_RD[rows], states_RD[rows], table_VD.float()) for rows in torch.split(scored_R, step)]
    label, weight, _ = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    none = np.zeros(len(label), dtype=np.int64)
    return Scores(tuple(gradient.shape[:-1]), len(table_VD), 1, scored_R.cpu().numpy(), none, label, weight, True)


def _labels(gradient_ND: Tensor, states_ND: Tensor, table_VD: Tensor) -> Sequence[Any]:
    """(label, weight, whether the gradient points that way) of every row."""
    chance_NV = (states_ND @ table_VD.T).softmax(-1)
    mean_ND = chance_NV @ table_VD
    along_NV = (gradient_ND * mean_ND).sum(-1, keepdim=True) - gradient_ND @ table_VD.T
    square_NV = mean_ND.square().sum(-1, keepdim=True) - 2 * mean_ND @ table_VD.T + table_VD.square().sum(-1)
    size_N: Tensor = torch.linalg.vector_norm(gradient_ND, dim=-1)
    cosine_NV = along_NV / (square_NV.clamp(min=1e-12).sqrt() * size_N[:, None])
    best_N, label_N = cosine_NV.max(-1)
    weight_N = size_N / square_NV.gather(-1, label_N[:, None])[:, 0].clamp(min=1e-12).sqrt()
    return label_N, weight_N.double(), best_N > SAME_WAY

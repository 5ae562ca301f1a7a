"""Linear layers for generation on a CPU, where a few rows meet many weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Project = Callable[[Tensor], Tensor]


def prepacked(*layers: nn.Linear) -> Project:
    """rows (M, K) -> the outputs of `layers`, which have no bias, side by side.

    On a CPU the weights are copied into oneDNN's blocked layout once, as torch.compile's frozen graphs do: for 2 to 24 rows of
    512 to 2816 that is 2.5 to 5 times as fast as F.linear (measured: Zen 4, one thread, fp32), which lays them out on every call.
    The copy is the weights as they were: make it anew after a step of training.
    """
    weight = torch.cat([layer.weight for layer in layers]).detach()
    if weight.is_cuda or not torch.backends.mkldnn.is_available():
        return lambda rows_MK: rows_MK @ weight.T
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda rows_MK: torch.ops.mkldnn._linear_pointwise(rows_MK, packed, None, "none", [], "")

"""What a loss function is given, beside what it expects: probabilities instead of logits, for example."""

from typing import Any

import torch
from torch import Tensor

MOST_ROWS, MOST_ENTRIES = 256, 2**20  # of a loss's input that are looked at
NEAR = 1e-3  # of 1, the sum of a row of probabilities
FAR = 0.3  # nats from 0, the logarithm of a sum of probabilities: log(p + 1e-6) of 100,000 classes is 0.1
EXPECTED = {
    "cross_entropy": "logits",
    "nll_loss": "log-probabilities",
    "kl_div": "log-probabilities",
    "binary_cross_entropy": "logits",
}
RESHAPES = (
    "View",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Permute",
    "Clone",
    "ToCopy",
    "Slice",
    "Select",
    "T",
)


def given_instead(function: str, given: object) -> str | None:
    """What the input of a loss function of this name is, if it is not what `EXPECTED` says. given (N, V) or
    (N, V, ...); of a binary cross-entropy any shape."""
    if not isinstance(given, Tensor) or not given.is_floating_point() or function not in EXPECTED:
        return None
    if function == "binary_cross_entropy":
        return "the results of a sigmoid" if _made_by(given.grad_fn) == "Sigmoid" else None
    if given.ndim < 2 or given.shape[1] < 3 or not given.numel():
        return None
    with torch.no_grad():
        some = given.detach() if given.ndim == 2 else given.detach()[:1]
        classes_last = some if function == "kl_div" else some.movedim(1, -1)
        classes = classes_last.shape[-1]
        rows_NV = classes_last.reshape(-1, classes)[: min(MOST_ROWS, MOST_ENTRIES // classes + 2)].float()
        if len(rows_NV) < 2 or not rows_NV.isfinite().all():
            return None
        if rows_NV.min() >= 0 and ((rows_NV.sum(-1) - 1).abs() < NEAR).all():
            return "probabilities"
        if function == "nll_loss" and (rows_NV.logsumexp(-1).abs() > FAR).all():
            return "logits"
    return None


def _made_by(node: Any) -> str:
    """The operation behind changes of shape and type, by its name in autograd's graph."""
    while node is not None:
        name = node.name().removesuffix("0").removesuffix("Backward").removeprefix("_").removeprefix("Unsafe")
        if name not in RESHAPES:
            return name
        node = node.next_functions[0][0]
    return ""

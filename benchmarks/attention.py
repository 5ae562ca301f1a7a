"""Attention of one clip, forward and backward, on one thread: plain products beside torch's kernel.

    python -m benchmarks.attention

Printed per size: milliseconds of both in bf16, their ratio, and how far the results of both (output, gradients of
queries, keys and values; norm of the difference by norm) are from fp32's.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from earnest.data.batch import Spans
from earnest.models import attention

SIZES = (  # queries, keys, heads, heads of keys, width of a head, causal
    (60, 60, 8, 4, 64, True),
    (220, 220, 8, 4, 64, True),
    (450, 450, 8, 4, 64, True),
    (700, 700, 8, 4, 64, True),
    (1000, 1000, 8, 4, 64, True),
    (430, 430, 24, 8, 128, True),
    (220, 46, 8, 8, 64, False),
    (46, 46, 8, 8, 64, False),
)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # as in a training step: glibc gives tensors of these sizes fresh pages only until it has freed a large one
    torch.ones(2**22)
    for size in SIZES:
        print(compared(*size), flush=True)


def compared(queries: int, keys: int, heads: int, kv_heads: int, width: int, causal: bool) -> str:
    sizes = ((queries, heads), (keys, kv_heads), (keys, kv_heads))
    exact = [torch.randn(*size, width, requires_grad=True) for size in sizes]
    slope_PHD = torch.randn(queries, heads, width)
    expected = passed(exact, slope_PHD, causal, products=False)
    rounded = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    took, off = dict[bool, float](), dict[bool, str]()
    for products in (False, True):
        call = partial(passed, rounded, slope_PHD, causal, products)
        differences = [(one - other).norm() / other.norm() for one, other in zip(call(), expected, strict=True)]
        off[products] = " ".join(f"{difference.item():.1e}" for difference in differences)
        took[products] = seconds_of(call)
    return (
        f"{queries} x {keys}, {heads} and {kv_heads} heads of {width}{', causal' if causal else ''}: "
        f"products {took[True] * 1e3:.2f} ms, kernel {took[False] * 1e3:.2f} ms, "
        f"ratio {took[True] / took[False]:.2f}; off by {off[True]} and {off[False]}"
    )


def passed(heads: list[Tensor], slope_PHD: Tensor, causal: bool, products: bool) -> tuple[Tensor, ...]:
    """The output and the three gradients."""
    attention.SHORT = 10**6 if products else 0
    queries, keys = (Spans.of([len(heads[index])]) for index in (0, 1))
    q_PHD, k_QND, v_QND = heads
    mixed_PHD = attention.attend(q_PHD, k_QND, v_QND, queries, keys, causal)
    return mixed_PHD, *torch.autograd.grad(mixed_PHD, heads, slope_PHD.to(mixed_PHD.dtype))


def seconds_of(call: Callable[[], object], calls: int = 15) -> float:
    """CPU time of a call, median."""
    call()
    spent = list[float]()
    for _ in range(calls):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


if __name__ == "__main__":
    main()

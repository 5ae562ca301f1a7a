"""Layers that read the same input, as one product of their weights side by side and as one product each: forward and
backward, on one thread.

    python -m benchmarks.fused_products

Queries, keys and values, and gate and up, of bodies of width 512 and 2048. What a layer of a checkpoint would have to
be copied for is left out, so this is the most that a product of both can gain.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attention import seconds_of

LAYERS = {512: {"q/k/v": (512, 256, 256), "gate/up": (1408, 1408)}, 2048: {"q/k/v": (2048, 512, 512)}}
ROWS = (200, 800, 2000)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.ones(2**22)  # see benchmarks/attention.py
    for width, layers in LAYERS.items():
        for name, outputs in layers.items():
            for dtype in (torch.float32, torch.bfloat16):
                for rows in ROWS if width == 512 else ROWS[:2]:
                    print(compared(name, width, outputs, rows, dtype), flush=True)


def compared(name: str, width: int, outputs: tuple[int, ...], rows: int, dtype: torch.dtype) -> str:
    rows_MK = torch.randn(rows, width).to(dtype).requires_grad_()
    each = [torch.randn(size, width).to(dtype).requires_grad_() for size in outputs]
    together = [torch.cat(each).detach().requires_grad_()]
    slopes = [torch.randn(rows, size).to(dtype) for size in outputs]
    took = [
        seconds_of(partial(passed, rows_MK, weights, of), calls=9)
        for weights, of in ((each, slopes), (together, [torch.cat(slopes, 1)]))
    ]
    return (
        f"{name} of width {width}, {rows} rows, {str(dtype).removeprefix('torch.')}: one each {took[0] * 1e3:.2f} ms, "
        f"side by side {took[1] * 1e3:.2f} ms, ratio {took[1] / took[0]:.2f}"
    )


def passed(rows_MK: Tensor, weights: list[Tensor], slopes: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients."""
    return torch.autograd.grad([F.linear(rows_MK, weight_NK) for weight_NK in weights], [rows_MK, *weights], slopes)


if __name__ == "__main__":
    main()

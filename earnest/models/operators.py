"""Norms and rotary embeddings of training, with their gradients written out.

Autograd's own take twice the passes over memory. What comes out is transformers' own, bit by bit, in fp32. A compiled
layer takes the plain formulas, which are fused there; on a GPU torch's norm is one kernel.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from earnest.models.attention import computed_type
from earnest.models.prepacked import rotated


def rms_normed(hidden_PD: Tensor, norm: Any) -> Tensor:
    """The same as transformers' RMSNorm; under autocast in its type, so that products after it cast nothing."""
    weight_D, epsilon = norm.weight, norm.variance_epsilon
    dtype = computed_type(hidden_PD)
    if dtype == hidden_PD.dtype:
        dtype = torch.promote_types(dtype, weight_D.dtype)
    if hidden_PD.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return cast(Tensor, cast(Any, _RMSNorm).apply(hidden_PD, weight_D, epsilon, dtype))
    exact_PD = hidden_PD.to(torch.promote_types(hidden_PD.dtype, weight_D.dtype))
    return F.rms_norm(exact_PD, weight_D.shape, weight_D, epsilon).to(dtype)


def turned(heads_PHD: Tensor, cos_P1D: Tensor, sin_P1D: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864), its pairs a half apart as in transformers. The two halves of
    cosines and sines are equal."""
    if torch.compiler.is_compiling():
        return rotated(heads_PHD, cos_P1D, sin_P1D)
    return cast(Tensor, cast(Any, _Turn).apply(heads_PHD, cos_P1D, sin_P1D))


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x²) + epsilon), over the last dimension, computed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden_PD: Tensor, weight_D: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(hidden_PD, weight_D)
        hidden_PD = hidden_PD.to(torch.promote_types(hidden_PD.dtype, torch.float32))
        ctx.scale_P1 = hidden_PD.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        return (hidden_PD * ctx.scale_P1).mul_(weight_D).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        [slope_PD] = grad_outputs
        hidden_PD, weight_D = ctx.saved_tensors
        normed_PD = hidden_PD * ctx.scale_P1
        weight_now_D, slope_PD = weight_D.to(normed_PD.dtype), slope_PD.to(normed_PD.dtype)
        product_PD = slope_PD * normed_PD
        of_weight_D = product_PD.sum(0)
        mean_P1 = torch.mv(product_PD, weight_now_D).div_(hidden_PD.shape[-1])[:, None]
        of_hidden_PD = torch.mul(slope_PD, weight_now_D, out=product_PD).addcmul_(normed_PD, mean_P1, value=-1)
        return of_hidden_PD.mul_(ctx.scale_P1).to(hidden_PD.dtype), of_weight_D.to(weight_D.dtype), None, None


class _Turn(torch.autograd.Function):
    """The gradient of a turn is the turn back."""

    @staticmethod
    def forward(ctx: Any, heads_PHD: Tensor, cos_P1D: Tensor, sin_P1D: Tensor) -> Tensor:
        ctx.save_for_backward(cos_P1D, sin_P1D)
        ctx.dtype = heads_PHD.dtype
        return _turned(heads_PHD.to(cos_P1D.dtype), cos_P1D, sin_P1D)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        [slope_PHD] = grad_outputs
        cos_P1D, sin_P1D = ctx.saved_tensors
        return _turned(slope_PHD.to(cos_P1D.dtype), cos_P1D, -sin_P1D).to(ctx.dtype), None, None


def _turned(heads_PHD: Tensor, cos_P1D: Tensor, sin_P1D: Tensor) -> Tensor:
    turned_PHD = heads_PHD * cos_P1D
    half = heads_PHD.shape[-1] // 2
    turned_PHD[..., :half] -= heads_PHD[..., half:] * sin_P1D[..., :half]
    turned_PHD[..., half:] += heads_PHD[..., :half] * sin_P1D[..., half:]
    return turned_PHD

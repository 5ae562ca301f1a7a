"""Attention within each clip, of clips that lie one after the other without padding.

Which way is fastest depends on where it runs: on a GPU one call for all clips, if its kernel takes the type; on a CPU
plain products in bf16 for short clips, as torch's own kernel computes these in fp32; otherwise torch's kernel, clip by
clip, or in one call if all clips are equally long.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import varlen

from earnest.data.batch import Spans

SHORT = 320  # positions of a clip up to which bf16 products are faster on a CPU (measured: benchmarks/attention.py)


@torch.compiler.disable()  # else it would be compiled anew for every number of clips
def attend(
    q_PHD: Tensor, k_QND: Tensor, v_QND: Tensor, queries: Spans, keys: Spans, causal: bool, scale: float | None = None
) -> Tensor:
    """What each query's clip holds for it, (P, H, D), in the type that is computed in: autocast's, if it is on.

    queries, keys: how P and Q are parted into clips; with `causal` they are the same. H is a multiple of N: query heads
    in a row share a head of keys. scale: of the scores; None is 1 / sqrt(D).
    """
    dtype = computed_type(q_PHD)
    q_PHD, k_QND, v_QND = (heads.to(dtype) for heads in (q_PHD, k_QND, v_QND))
    scale = 1 / math.sqrt(q_PHD.shape[-1]) if scale is None else scale
    if _takes_all_clips(q_PHD):
        mixed_PHD = varlen.varlen_attn(
            *(q_PHD, k_QND, v_QND, queries.bounds, keys.bounds, max(queries.lengths), max(keys.lengths)),
            scale=scale,
            window_size=(-1, 0) if causal else (-1, -1),
            enable_gqa=True,
        )
        return cast(Tensor, mixed_PHD)
    if q_PHD.device.type == "cpu" and dtype == torch.bfloat16 and max(queries.lengths + keys.lengths) <= SHORT:
        return _products(q_PHD, k_QND, v_QND, queries, keys, causal, scale)
    # With a leading dimension of clips: torch's fast kernels take four dimensions only (measured: three times slower
    # without it).
    alike = all(len({*of.lengths}) == 1 for of in (queries, keys))
    mixed = [
        F.scaled_dot_product_attention(q_CHSD, k_CNTD, v_CNTD, is_causal=causal, enable_gqa=True, scale=scale)
        for q_CHSD, k_CNTD, v_CNTD in zip(
            _clips(q_PHD, queries, alike), _clips(k_QND, keys, alike), _clips(v_QND, keys, alike), strict=True
        )
    ]
    return torch.cat([mixed_CHSD.transpose(1, 2).flatten(0, 1) for mixed_CHSD in mixed])


def _clips(heads_PHD: Tensor, of: Spans, together: bool) -> Sequence[Tensor]:
    """Heads (1, H, S, D) of each clip, or (clips, H, S, D) of all of them, if they are equally long."""
    if together:
        return [torch.unflatten(heads_PHD, 0, (len(of.lengths), -1)).transpose(1, 2)]
    return torch.split(heads_PHD.transpose(0, 1)[None], of.lengths, dim=2)


def computed_type(like: Tensor) -> torch.dtype:
    """The type of a product with this tensor: autocast's, if it is on."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


def _takes_all_clips(q_PHD: Tensor) -> bool:
    """Whether one call of FlashAttention's kernel can serve all clips: in half precision, on Ampere and later."""
    head_dim = q_PHD.shape[-1]
    fits = q_PHD.dtype in (torch.bfloat16, torch.float16) and head_dim % 8 == 0 and head_dim <= 256
    return q_PHD.is_cuda and fits and _has_flash(q_PHD.device.index or 0)


@lru_cache
def _has_flash(device: int) -> bool:
    able = torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    return able and {"window_size", "enable_gqa"} <= signature(varlen.varlen_attn).parameters.keys()


def _products(
    q_PHD: Tensor, k_QND: Tensor, v_QND: Tensor, queries: Spans, keys: Spans, causal: bool, scale: float
) -> Tensor:
    """`attend` by batched products, clip by clip, whose probabilities are kept for the backward pass."""
    mixed_PHD = cast(Any, _Products).apply(q_PHD, k_QND, v_QND, queries.lengths, keys.lengths, causal, scale)
    return cast(Tensor, mixed_PHD)


class _Products(torch.autograd.Function):
    """Softmax in fp32 of bf16 scores, as transformers' eager attention computes under autocast.

    The G query heads that share a head of keys are in the place of positions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_PHD: Tensor,
        k_QND: Tensor,
        v_QND: Tensor,
        queries: list[int],
        keys: list[int],
        causal: bool,
        scale: float,
    ) -> Tensor:
        mixed_PHD, kept = torch.empty_like(q_PHD, memory_format=torch.contiguous_format), list[Tensor]()
        most = max(queries)
        hidden_SS = q_PHD.new_full((most, most), -torch.inf).triu_(1) if causal else None
        for row, column in zip(_slices(queries), _slices(keys), strict=True):
            k_NTD, v_NTD = (heads[column].transpose(0, 1).contiguous() for heads in (k_QND, v_QND))
            q_NRD = _grouped(q_PHD[row], len(k_NTD)).mul_(scale)
            scores_NRT, size = q_NRD @ k_NTD.transpose(1, 2), row.stop - row.start
            if hidden_SS is not None:
                torch.unflatten(scores_NRT, 1, (-1, size)).add_(hidden_SS[:size, :size])
            p_NRT = scores_NRT.softmax(-1, dtype=torch.float32).to(q_PHD.dtype)
            _by_position(mixed_PHD[row], len(k_NTD)).copy_(
                torch.unflatten(p_NRT @ v_NTD, 1, (-1, row.stop - row.start))
            )
            kept += q_NRD, k_NTD, v_NTD, p_NRT
        ctx.save_for_backward(*kept)
        ctx.slices, ctx.scale, ctx.sizes = (queries, keys), scale, (q_PHD.shape, k_QND.shape)
        return mixed_PHD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        [slope_PHD] = grad_outputs
        of_q_PHD = slope_PHD.new_empty(ctx.sizes[0])
        of_k_QND, of_v_QND = slope_PHD.new_empty(ctx.sizes[1]), slope_PHD.new_empty(ctx.sizes[1])
        kept = iter(ctx.saved_tensors)
        for row, column in zip(*map(_slices, ctx.slices), strict=True):
            q_NRD, k_NTD, v_NTD, p_NRT = (next(kept) for _ in range(4))
            slope_NRD = _grouped(slope_PHD[row], len(k_NTD))
            of_v_QND[column].transpose(0, 1).copy_(p_NRT.transpose(1, 2) @ slope_NRD)
            of_p_NRT = slope_NRD @ v_NTD.transpose(1, 2)
            of_scores_NRT = torch.ops.aten._softmax_backward_data(of_p_NRT, p_NRT, -1, p_NRT.dtype)
            of_k_QND[column].transpose(0, 1).copy_(of_scores_NRT.transpose(1, 2) @ q_NRD)
            of_q_NRD = (of_scores_NRT @ k_NTD).mul_(ctx.scale)
            _by_position(of_q_PHD[row], len(k_NTD)).copy_(torch.unflatten(of_q_NRD, 1, (-1, row.stop - row.start)))
        return of_q_PHD, of_k_QND, of_v_QND, None, None, None, None


def _slices(lengths: list[int]) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(accumulate(lengths, initial=0))]


def _by_position(heads_SHD: Tensor, groups: int) -> Tensor:
    """(S, H, D) seen as (N, G, S, D)."""
    return torch.permute(torch.unflatten(heads_SHD, 1, (groups, -1)), (1, 2, 0, 3))


def _grouped(heads_SHD: Tensor, groups: int) -> Tensor:
    """A copy of (S, H, D) as (N, G * S, D)."""
    return _by_position(heads_SHD, groups).clone(memory_format=torch.contiguous_format).flatten(1, 2)

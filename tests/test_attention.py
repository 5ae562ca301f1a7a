"""Attention of clips without padding: every way to it gives what torch's own kernel gives clip by clip."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from earnest.data.batch import Spans
from earnest.models import attention
from earnest.models.attention import attend

HEADS, KV_HEADS, WIDTH = 4, 2, 16


def clip_by_clip(q_PHD, k_QND, v_QND, queries, keys, causal, scale=None):
    parts = [
        torch.split(heads.transpose(0, 1), of, dim=1) for heads, of in ((q_PHD, queries), (k_QND, keys), (v_QND, keys))
    ]
    mixed = [
        F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, scale=scale, enable_gqa=True)[0]
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(mixed, dim=1).transpose(0, 1)


def drawn(queries, keys, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((sum(queries), HEADS), (sum(keys), KV_HEADS), (sum(keys), KV_HEADS))
    return [torch.randn(*size, WIDTH, generator=generator).to(dtype).requires_grad_() for size in sizes]


def with_gradients(mixed_PHD, heads):
    slope_PHD = torch.linspace(-1, 1, mixed_PHD.numel()).view(mixed_PHD.shape).to(mixed_PHD.dtype)
    return mixed_PHD, *torch.autograd.grad(mixed_PHD, heads, slope_PHD)


CLIPS = [([5, 1, 7], [5, 1, 7], True), ([4, 4], [4, 4], True), ([5, 1, 7], [2, 9, 1], False), ([3, 3], [6, 6], False)]


@pytest.mark.parametrize(("queries", "keys", "causal"), CLIPS)
@pytest.mark.parametrize("scale", [None, 1.0])
def test_clips_are_attended_to_as_if_each_were_alone(queries, keys, causal, scale):
    heads = drawn(queries, keys)
    expected = with_gradients(clip_by_clip(*heads, queries, keys, causal, scale), heads)
    ours = with_gradients(attend(*heads, Spans.of(queries), Spans.of(keys), causal, scale), heads)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("queries", "keys", "causal"), CLIPS)
def test_plain_products_are_attention(queries, keys, causal):
    """Their own arithmetic, in a type in which nothing is rounded."""
    heads = drawn(queries, keys)
    expected = with_gradients(clip_by_clip(*heads, queries, keys, causal), heads)
    ours = attention._products(*heads, Spans.of(queries), Spans.of(keys), causal, WIDTH**-0.5)
    torch.testing.assert_close(with_gradients(ours, heads), expected, rtol=1e-5, atol=1e-6)


def test_in_bf16_short_clips_are_products_as_exact_as_torch_s_kernel(monkeypatch):
    queries = [40, 23, 31]
    heads = drawn(queries, queries)
    exact = with_gradients(clip_by_clip(*heads, queries, queries, True), heads)
    rounded = [tensor.detach().bfloat16().requires_grad_() for tensor in heads]
    theirs = with_gradients(clip_by_clip(*rounded, queries, queries, True), rounded)
    calls = list[bool]()
    plain = attention._products
    monkeypatch.setattr(attention, "_products", lambda *given: calls.append(True) or plain(*given))
    with torch.autocast("cpu", torch.bfloat16):
        ours = with_gradients(attend(*heads, Spans.of(queries), Spans.of(queries), True), heads)
    assert calls and ours[0].dtype == torch.bfloat16 and ours[1].dtype == torch.float32
    for tensor, of_torch, expected in zip(ours, theirs, exact, strict=True):
        off, of_kernel = (((other.float() - expected).norm() / expected.norm()).item() for other in (tensor, of_torch))
        assert off < 2 * of_kernel < 0.02
    monkeypatch.setattr(attention, "SHORT", 39)
    calls.clear()
    attend(*rounded, Spans.of(queries), Spans.of(queries), True)
    assert not calls


def of_bounds(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What torch's documentation of `varlen_attn` says that it computes."""
    queries, keys = (bounds.diff().tolist() for bounds in (cu_seq_q, cu_seq_k))
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and (max_q, max_k) == (max(queries), max(keys))
    assert window_size in ((-1, 0), (-1, -1)) and enable_gqa
    return clip_by_clip(query, key, value, queries, keys, window_size == (-1, 0), scale)


@pytest.mark.parametrize(("queries", "keys", "causal"), CLIPS)
def test_one_call_for_all_clips_is_told_where_they_begin(queries, keys, causal, monkeypatch):
    heads = drawn(queries, keys)
    expected = attend(*heads, Spans.of(queries), Spans.of(keys), causal)
    monkeypatch.setattr(attention, "_takes_all_clips", lambda q_PHD: True)
    monkeypatch.setattr(attention.varlen, "varlen_attn", of_bounds)
    torch.testing.assert_close(attend(*heads, Spans.of(queries), Spans.of(keys), causal), expected)


def test_a_gpu_in_half_precision_is_asked_once_a_layer(monkeypatch):
    """By tensors without values: torch's own function checks what it is given, and no kernel runs."""
    monkeypatch.setattr(attention, "_has_flash", lambda device: True)
    spans = Spans.of([5, 1, 7])
    with FakeTensorMode(allow_non_fake_inputs=True):
        q_PHD, k_PND = (torch.empty(13, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2))
        mixed_PHD = attend(q_PHD, k_PND, k_PND, spans, spans, True)
        assert mixed_PHD.shape == q_PHD.shape and mixed_PHD.dtype == q_PHD.dtype
        for dtype, head_dim, takes in ((torch.half, 256, True), (torch.bfloat16, 264, False), (torch.float, 64, False)):
            heads_PHD = torch.empty(13, 4, head_dim, device="cuda", dtype=dtype)
            assert attention._takes_all_clips(heads_PHD) == takes
    assert not attention._takes_all_clips(torch.empty(13, 4, 64, dtype=torch.bfloat16))


def test_where_clips_begin_is_found_once():
    spans = Spans.of([3, 1, 2])
    assert spans.step_P.tolist() == [0, 1, 2, 0, 0, 1] and spans.bounds.tolist() == [0, 3, 4, 6]
    assert math.prod(spans.to("meta").bounds.shape) == 4 and spans.to("meta").lengths == [3, 1, 2]

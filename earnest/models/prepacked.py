"""Parts of generation, one position at a time: linear layers on a CPU for few rows, attention's cache, norms and rotary
embeddings."""

import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earnest.models.four_bits import unpacked
from earnest.sampling import Weights

Project = Callable[[Tensor], Tensor]
FEW_ROWS = 2  # for which MKL on its maker's processors is faster with plain weights than oneDNN with packed ones
_weights: ContextVar[Weights] = ContextVar("weights", default="exact")
_frames: ContextVar[int | None] = ContextVar("frames", default=None)


@contextmanager
def packed_as(weights: Weights) -> Generator[None, None, None]:
    """Let `prepacked` round weights within the block: `Sampling.weights`."""
    before = _weights.set(weights)
    try:
        yield
    finally:
        _weights.reset(before)


@contextmanager
def captured(frames: int | None) -> Generator[None, None, None]:
    """Let continuations that begin within the block make room for so many frames at once, and compile their step; None:
    let them grow, which is faster on a CPU (docs/performance.md)."""
    before = _frames.set(frames)
    try:
        yield
    finally:
        _frames.reset(before)


def frames_to_capture() -> int | None:
    """What `captured` asks for."""
    return _frames.get()


def prepacked(*layers: nn.Linear | Tensor) -> Project:
    """rows (M, K) -> the outputs of `layers`, linear ones without bias or their weights (N, K), side by side.

    On a CPU the weights are copied into oneDNN's blocked layout once, as torch.compile's frozen graphs do: for 1 to 24
    rows of 512 to 2816 that is 1.3 to 5 times as fast as F.linear (measured: Zen 4, one thread, fp32), which copies
    them on every call. On Intel's processors it is 1.2 to 2 times as slow for one or two rows, and 1.3 to 1.6 times as
    fast for 6 and more: there few rows take the plain weights. Under autocast the copy has its type: autocast
    itself would cast all weights again for every position. The copy does not follow the weights (adapters included):
    make it anew after a training step.
    """
    weight_NK = torch.cat([layer if isinstance(layer, Tensor) else _weight(layer) for layer in layers]).detach()
    weights = _weights.get()
    # the kernel's blocks: a width of 40 ends the process
    if weights == "int8" and weight_NK.device.type == "cpu" and weight_NK.shape[1] % 16 == 0:
        return _Rounded(weight_NK)
    if weights == "exact":
        device = weight_NK.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_NK.dtype
        return _Exact(weight_NK.to(autocast))
    exact = _Exact(weight_NK.bfloat16())
    return lambda rows_MK: exact(rows_MK.bfloat16()).to(rows_MK.dtype)


class _Exact:
    """Products with weights as they are, packed at the first call for which that is faster."""

    def __init__(self, weight_NK: Tensor):
        can_pack = weight_NK.device.type == "cpu" and torch.backends.mkldnn.is_available() and _frames.get() is None
        few_rows = FEW_ROWS if weight_NK.dtype == torch.float32 and _is_intel() else 0
        self.plain_rows = few_rows if can_pack else None  # None: however many
        self.weight_NK: Tensor | None = weight_NK
        self.packed: Tensor | None = None
        self.dtype = weight_NK.dtype

    def __call__(self, rows_MK: Tensor) -> Tensor:
        rows_MK = rows_MK.to(self.dtype)
        if self.weight_NK is not None and (self.plain_rows is None or len(rows_MK) <= self.plain_rows):
            return F.linear(rows_MK, self.weight_NK)
        if self.packed is None:
            self.packed, self.weight_NK = torch.ops.mkldnn._reorder_linear_weight(self.weight_NK), None
        return torch.ops.mkldnn._linear_pointwise(rows_MK, self.packed, None, "none", [], "")


class _Rounded:
    """Products with weights of 8 bits: each output's are whole numbers times a scale, its largest over 127; rows are
    rounded to bfloat16."""

    def __init__(self, weight_NK: Tensor):
        scale_N = (weight_NK.abs().amax(dim=1).float() / 127).clamp(min=1e-12)
        self.weight_NK = (weight_NK / scale_N[:, None]).round().to(torch.int8)
        self.scale_N = scale_N.bfloat16()

    def __call__(self, rows_MK: Tensor) -> Tensor:
        return torch.ops.aten._weight_int8pack_mm(rows_MK.bfloat16(), self.weight_NK, self.scale_N).to(rows_MK.dtype)


@lru_cache
def _is_intel() -> bool:
    """Whether MKL runs on its maker's processor: elsewhere it takes slower ways."""
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else platform.processor()
    return torch.backends.mkl.is_available() and "GenuineIntel" in processor


def _weight(layer: Any) -> Tensor:
    """A linear layer's weight; if it has adapters of peft that are not merged into it, with what they add."""
    weight = base = unpacked(layer.weight)
    if not hasattr(layer, "get_delta_weight") or layer.merged or layer.disable_adapters:
        return weight
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name)
    return weight.to(base.dtype)


class KeyValues:
    """Keys and values of the positions so far, (B, kv heads, S, head_dim); if there is no room for more, it is
    doubled."""

    def __init__(self, keys_BNSH: Tensor, values_BNSH: Tensor):
        self.positions = keys_BNSH.shape[2]
        self.room_2BNSH = torch.stack([keys_BNSH, values_BNSH])
        self.at_1: Tensor | None = None

    def make_room(self, room: int, at_1: Tensor) -> None:
        """Room for so many positions, once and for all; the next one is written at `at_1`, which somebody else
        moves on."""
        self.room_2BNSH, self.at_1 = F.pad(self.room_2BNSH, (0, 0, 0, room - self.room_2BNSH.shape[3])), at_1

    def append(self, key_BNH: Tensor, value_BNH: Tensor) -> tuple[Tensor, Tensor]:
        """Add one position of each sequence; returns the keys and values of all positions, or of all the room that was
        made."""
        if self.at_1 is not None:
            keys_BNSH, values_BNSH = self.room_2BNSH.unbind()
            return (
                keys_BNSH.index_copy_(2, self.at_1, key_BNH[:, :, None].to(keys_BNSH)),
                values_BNSH.index_copy_(2, self.at_1, value_BNH[:, :, None].to(values_BNSH)),
            )
        if self.positions == self.room_2BNSH.shape[3]:
            self.room_2BNSH = F.pad(self.room_2BNSH, (0, 0, 0, max(256, self.positions)))
        self.room_2BNSH[0, :, :, self.positions] = key_BNH
        self.room_2BNSH[1, :, :, self.positions] = value_BNH
        self.positions += 1
        return self.room_2BNSH[0, :, :, : self.positions], self.room_2BNSH[1, :, :, : self.positions]


class CachedAttention:
    """Self-attention of one new position of each sequence to all before it, as transformers' Llama, Higgs and Dia have
    it. Query heads that share their keys (GQA) are in the place of positions.

    scale: of the scores; None is 1 / sqrt(head_dim).
    """

    def __init__(self, attention: Any, past: KeyValues, scale: float | None = None):
        self.past, self.head_dim, self.scale = past, attention.head_dim, scale
        self.query_key_value = prepacked(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = prepacked(attention.o_proj)

    def advance(self, hidden_BD: Tensor, cos: Tensor, sin: Tensor, exists_B11S: Tensor | None = None) -> Tensor:
        """hidden_BD: normed. cos, sin: of the new position, (H,) or (B, 1, H)."""
        rows, kv_heads = len(hidden_BD), self.past.room_2BNSH.shape[2]
        heads_BNH = self.query_key_value(hidden_BD).view(rows, -1, self.head_dim)
        queries_key_BNH = rotated(heads_BNH[:, :-kv_heads], cos, sin)
        keys_BNSH, values_BNSH = self.past.append(queries_key_BNH[:, -kv_heads:], heads_BNH[:, -kv_heads:])
        query_BNGH = queries_key_BNH[:, :-kv_heads].reshape(rows, kv_heads, -1, self.head_dim)
        mixed_BNGH = F.scaled_dot_product_attention(
            query_BNGH, keys_BNSH, values_BNSH, attn_mask=exists_B11S, scale=self.scale
        )
        return self.out(mixed_BNGH.reshape(rows, -1))


class RotaryTable:
    """Cosines and sines of a rotary embedding of transformers, made for many positions at once. Types whose frequencies
    depend on how long a sequence is are asked at each."""

    def __init__(self, embedding: Any, like: Tensor):
        self.embedding, self.like = embedding, like
        self.follows_length = embedding.rope_type in ("dynamic", "longrope")
        self.table_S2H = like.new_empty(0, 2, 0)

    def at(self, position_B1: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """Both of one position in each row, (B, 1, H). last: the largest of them, or more."""
        if self.follows_length:
            return self.embedding(self.like, position_B1)
        if last >= len(self.table_S2H):
            position_1S = torch.arange(max(1024, 2 * (last + 1)), device=self.like.device)[None]
            cos_1SH, sin_1SH = self.embedding(self.like, position_1S)
            self.table_S2H = torch.stack([cos_1SH[0], sin_1SH[0]], dim=1)
        return self.rows(position_B1[:, 0])

    def rows(self, position_B: Tensor) -> tuple[Tensor, Tensor]:
        """Both of positions that the table holds, (B, 1, H)."""
        both_B2H = self.table_S2H.index_select(0, position_B)
        return both_B2H[:, :1], both_B2H[:, 1:]


def normed(hidden_BD: Tensor, norm: Any) -> Tensor:
    """The same as transformers' RMSNorm, in one call."""
    return F.rms_norm(hidden_BD, norm.weight.shape, norm.weight, norm.variance_epsilon)


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864) along the last dimension, its pairs a half apart as in
    transformers."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin

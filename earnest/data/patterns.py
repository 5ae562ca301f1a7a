"""Codebook patterns: how codes (C, T) are laid out over positions (C, S), and back.

*delay*: codebook c starts ``delays[c]`` positions late (MusicGen, arXiv:2306.05284 §2.2; Higgs: 0..7; Dia: 0, 8..15).
*parallel* is a delay of all zeros. *flatten* puts the codebooks of a frame one after the other (SLM-MoT).
Nothing is ever truncated: S = T + max(delays), so the last codes of late codebooks are trained too.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from earnest.errors import UserError


def framed(codes_CT: Tensor, bos: int, eos: int) -> Tensor:
    """Put a BOS column before and an EOS column behind: (C, T) -> (C, T + 2)."""
    column_C1 = codes_CT.new_ones(codes_CT.shape[0], 1)
    return torch.cat([bos * column_C1, codes_CT, eos * column_C1], dim=1)


def delay(codes_CT: Tensor, delays: Sequence[int], before: int, behind: int) -> Tensor:
    """Lay out codebook c from position ``delays[c]`` on: (..., C, T) -> tokens_CS with S = T + max(delays).

    `before` fills the positions ahead of a codebook's first token, `behind` those after its last.
    Raises UserError if the number of delays is not C, or one of them is negative.
    """
    *clips, codebooks, frames = codes_CT.shape
    check_delays(codebooks, delays)
    tokens_CS = codes_CT.new_full((*clips, codebooks, frames + max(delays)), behind)
    delay_C1 = torch.tensor(delays, device=codes_CT.device)[:, None]
    tokens_CS[..., : max(delays)].masked_fill_(torch.arange(max(delays), device=codes_CT.device) < delay_C1, before)
    for codebooks_of, diagonal_cT in _diagonals(tokens_CS, delays):
        diagonal_cT.copy_(codes_CT[..., codebooks_of, :])
    return tokens_CS


def undelay(tokens_CS: Tensor, delays: Sequence[int]) -> Tensor:
    """The exact inverse of `delay`: tokens (..., C, S) -> codes (..., C, S - max(delays)); a view, if delays grow
    evenly.

    Raises UserError if the number of delays is not C, or S is smaller than the largest delay.
    """
    check_delays(tokens_CS.shape[-2], delays)
    if tokens_CS.shape[-1] < max(delays):
        raise UserError(
            f"{tokens_CS.shape[-1]} positions with a largest delay of {max(delays)}",
            "at least as many positions as the largest delay",
            "generate more frames",
        )
    parts = [diagonal_cT for _, diagonal_cT in _diagonals(tokens_CS, delays)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _diagonals(tokens_CS: Tensor, delays: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """For each run of codebooks whose delays grow by the same step: which these are, and their codes as a view (..., c,
    T).

    A step along such a diagonal is a row and `step` columns, so that one stride says it: nothing is indexed, nothing is
    masked.
    """
    *clips, _, positions = tokens_CS.shape
    *clip_strides, row, column = tokens_CS.stride()
    first = 0
    while first < len(delays):
        stop, step = first + 1, delays[first + 1] - delays[first] if first + 1 < len(delays) else 0
        down = row + step * column  # torch has no negative strides: these codebooks go one by one
        while stop < len(delays) and delays[stop] - delays[stop - 1] == step and down >= 0:
            stop += 1
        yield (
            slice(first, stop),
            tokens_CS.as_strided(
                (*clips, stop - first, positions - max(delays)),
                (*clip_strides, max(0, down), column),
                tokens_CS.storage_offset() + first * row + delays[first] * column,
            ),
        )
        first = stop


def flatten(codes_CT: Tensor) -> Tensor:
    """Time-major: c0t0, c1t0, ..., c0t1, ...: (C, T) -> (T * C,)."""
    return codes_CT.T.reshape(-1)


def unflatten(tokens_S: Tensor, codebooks: int) -> Tensor:
    """The exact inverse of `flatten`: (T * C,) -> (C, T). Raises UserError if S is no multiple of C."""
    if len(tokens_S) % codebooks:
        raise UserError(
            f"{len(tokens_S)} flattened tokens",
            f"a multiple of {codebooks} codebooks",
            "cut the sequence at a whole frame",
        )
    return tokens_S.reshape(-1, codebooks).T


def check_delays(codebooks: int, delays: Sequence[int]) -> None:
    """Raises UserError if the number of delays is not that of the codebooks, or one of them is negative."""
    if len(delays) != codebooks or min(delays) < 0:
        raise UserError(
            f"delays {list(delays)} for {codebooks} codebooks",
            "one delay ≥ 0 per codebook",
            "change `delays`, or take another codec",
        )

"""Codebook patterns: how codes (C, T) are laid out over positions (C, S), and back.

*delay*: codebook c starts ``delays[c]`` positions late (MusicGen, arXiv:2306.05284 §2.2; Higgs: 0..7; Dia: 0, 8..15).
*parallel* is a delay of all zeros. *flatten* puts the codebooks of a frame one after the other (SLM-MoT).
Nothing is ever truncated: S = T + max(delays), so the last codes of late codebooks are trained too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from earnest.errors import UserError


def framed(codes_CT: Tensor, bos: int, eos: int) -> Tensor:
    """Put a BOS column before and an EOS column behind: (C, T) -> (C, T + 2)."""
    column_C1 = codes_CT.new_ones(codes_CT.shape[0], 1)
    return torch.cat([bos * column_C1, codes_CT, eos * column_C1], dim=1)


def delay(codes_CT: Tensor, delays: Sequence[int], before: int, behind: int) -> Tensor:
    """Lay out codebook c from position ``delays[c]`` on: (C, T) -> tokens_CS with S = T + max(delays).

    `before` fills the positions ahead of a codebook's first token, `behind` those after its last.
    Raises UserError where the number of delays is not C, or one of them is negative.
    """
    check_delays(codes_CT.shape[0], delays)
    frames = codes_CT.shape[1]
    tokens_CS = codes_CT.new_full((len(delays), frames + max(delays)), before)
    for row, codes_T, shift in zip(tokens_CS, codes_CT, delays, strict=True):
        row[shift : shift + frames] = codes_T
        row[shift + frames :] = behind
    return tokens_CS


def undelay(tokens_CS: Tensor, delays: Sequence[int]) -> Tensor:
    """The exact inverse of `delay`: tokens_CS -> codes (C, S - max(delays)).

    Raises UserError where the number of delays is not C, or S is smaller than the largest delay.
    """
    check_delays(tokens_CS.shape[0], delays)
    frames = tokens_CS.shape[1] - max(delays)
    if frames < 0:
        raise UserError(
            f"{tokens_CS.shape[1]} positions with a largest delay of {max(delays)}",
            "at least as many positions as the largest delay",
            "generate more frames",
        )
    return torch.stack([row[shift : shift + frames] for row, shift in zip(tokens_CS, delays, strict=True)])


def flatten(codes_CT: Tensor) -> Tensor:
    """Time-major: c0t0, c1t0, ..., c0t1, ...: (C, T) -> (T * C,)."""
    return codes_CT.T.reshape(-1)


def unflatten(tokens_S: Tensor, codebooks: int) -> Tensor:
    """The exact inverse of `flatten`: (T * C,) -> (C, T). Raises UserError where S is no multiple of C."""
    if len(tokens_S) % codebooks:
        raise UserError(f"{len(tokens_S)} flattened tokens", f"a multiple of {codebooks} codebooks", "cut the sequence at a whole frame")
    return tokens_S.reshape(-1, codebooks).T


def check_delays(codebooks: int, delays: Sequence[int]) -> None:
    """Raises UserError where the number of delays is not that of the codebooks, or one of them is negative."""
    if len(delays) != codebooks or min(delays) < 0:
        raise UserError(
            f"delays {list(delays)} for {codebooks} codebooks", "one delay ≥ 0 per codebook", "change `delays`, or take another codec"
        )

"""One drawn round of 8 codebooks of 1026 tokens: `python -m benchmarks.sampling_step`, seconds on one core.

Peer: transformers' warpers in the order of its `generate` (temperature, top-k 50, top-p 0.95), softmax and multinomial.
The tokens that can be drawn, and their probabilities, are asserted equal by drawing until each has come up.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from benchmarks.side_by_side import Comparison, show
from earnest.generate import sample

CODEBOOKS, VOCAB, TEMPERATURE, TOP_K, TOP_P = 8, 1026, 0.8, 50, 0.95
DRAWS = 20_000


def comparisons() -> Iterator[Comparison]:
    torch.manual_seed(0)
    logits_KV = 3 * torch.randn(CODEBOOKS, VOCAB)
    temperature_B, random = torch.tensor([TEMPERATURE]), torch.Generator().manual_seed(0)
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(TEMPERATURE), TopKLogitsWarper(TOP_K), TopPLogitsWarper(TOP_P)]
    )
    ids_K1: Any = torch.zeros(CODEBOOKS, 1, dtype=torch.long)

    def ours() -> Tensor:
        return sample(logits_KV[None], temperature_B, TOP_K, TOP_P, [random])[0]

    def theirs() -> Tensor:
        return torch.multinomial(warpers(ids_K1, logits_KV.clone()).softmax(-1), 1)[:, 0]

    p_KV = warpers(ids_K1, logits_KV.clone()).softmax(-1)
    drawn_KV = torch.zeros_like(p_KV)
    for _ in range(DRAWS):
        drawn_KV[torch.arange(CODEBOOKS), ours()] += 1 / DRAWS
    assert not drawn_KV[p_KV == 0].any()
    assert ((drawn_KV - p_KV).abs() < 5 * (p_KV / DRAWS).sqrt() + 1e-12).all()
    yield Comparison(
        f"sampling, {CODEBOOKS} codebooks of {VOCAB}, top-k {TOP_K}, top-p {TOP_P}",
        "transformers' warpers",
        ours,
        theirs,
        f"frequencies of {DRAWS} draws within 5 standard errors of its probabilities",
        turns=9,
        calls=300,
    )


if __name__ == "__main__":
    show(comparisons())

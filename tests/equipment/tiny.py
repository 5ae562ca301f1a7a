"""Small real parts that tests share: a Higgs of one layer, and clips of random codes."""

import torch

from earnest.data.batch import Batch, collate
from earnest.models.higgs import Higgs, HiggsShape

CODEBOOKS, CODES = 4, 32


def tiny_higgs(
    seed: int = 0, codebooks: int = CODEBOOKS, codes: int = CODES, layers: int = 2, width: int = 32
) -> Higgs:
    torch.manual_seed(seed)
    return HiggsShape(width=width, layers=layers, heads=2, ffn=2 * width, max_positions=256).build(codebooks, codes)


def random_codes(
    frames: int, generator: torch.Generator, codebooks: int = CODEBOOKS, codes: int = CODES
) -> torch.Tensor:
    return torch.randint(0, codes, (codebooks, frames), generator=generator)


def random_batch(model: Higgs, frames=(5, 9, 7), seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    texts = ["one", "twenty-two", "three", "four", "five", "six", "seven", "eight"]
    examples = [
        model.lay_out(random_codes(n, generator, model.codebooks, model.codes), texts[i % len(texts)], "a")
        for i, n in enumerate(frames)
    ]
    return collate(examples, range(len(examples)), model.pad_id)

"""A small Dia, and clips of random codes for it."""

import torch

from earnest.data.batch import Batch, collate
from earnest.models.dia import Dia, DiaShape

CODEBOOKS, CODES = 4, 32
TINY = DiaShape(width=32, heads=4, layers=2, encoder_width=16, max_bytes=64, max_audio_positions=300)


def tiny_dia(delays=(), codebooks=CODEBOOKS, specials="eos", seed=0, shape=TINY) -> Dia:
    torch.manual_seed(seed)
    return shape.build(codebooks, CODES, delays, specials)


def random_codes(frames: int, codebooks=CODEBOOKS, seed=0) -> torch.Tensor:
    return torch.randint(0, CODES, (codebooks, frames), generator=torch.Generator().manual_seed(seed))


def random_batch(model: Dia, clips=((5, "piano"), (9, "a slow waltz, strings"), (7, None))) -> Batch:
    examples = [
        model.lay_out(random_codes(frames, model.codebooks, seed), text) for seed, (frames, text) in enumerate(clips)
    ]
    return collate(examples, range(len(examples)), model.pad_id)

"""Frames per second of earnest's generation beside transformers' `generate`, on the same random weights of a Dia.

    python -m benchmarks.generate_dia [--frames 128]

Both draw from the 50 likeliest tokens at temperature 1, with and without guidance, for one text and for several. A
frame is one token of each of the 9 codebooks, for every row.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.side_by_side import Comparison, show
from earnest.generate import Request, generate
from earnest.models.dia import Dia, DiaShape
from earnest.sampling import Sampling

DELAYS = [0, *range(8, 16)]
SHAPE = DiaShape(
    width=512,
    layers=8,
    heads=8,
    kv_heads=4,
    ffn=1408,
    encoder_width=512,
    encoder_layers=4,
    encoder_heads=8,
    encoder_ffn=1408,
)
TEXT = "a slow waltz, strings and piano, warm, 90 bpm"


def comparisons(frames: int) -> Iterator[Comparison]:
    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = SHAPE.build(9, 1024, DELAYS).eval()
    with torch.no_grad():  # never the likeliest: both run to the last frame
        model.lm.logits_dense.weight.unflatten(0, (9, -1))[:, model.end_id] = 0
    for rows, guided in ((1, False), (1, True), (6, False), (6, True)):
        ours = partial(earnest_frames, model, rows, guided, frames)
        theirs = partial(transformers_frames, model, rows, guided, frames)
        assert ours() == theirs() == frames
        what = f"Dia generates{', guided,' if guided else ''} {rows} x {frames} frames"
        yield Comparison(what, "transformers", ours, theirs, "as many frames (both draw)")


def transformers_frames(model: Dia, rows: int, guided: bool, frames: int) -> int:
    prompt = model.prompt(TEXT)
    positions = torch.arange(1 + max(DELAYS))[:, None]
    start_SC = torch.where(positions <= torch.tensor(DELAYS), model.bos_id, model.after_end_id)
    tokens_BSC: Any = model.lm.generate(
        input_ids=prompt.text_S.expand(rows, -1),
        attention_mask=torch.ones(rows, len(prompt), dtype=torch.long),
        decoder_input_ids=start_SC.expand(rows, -1, -1),
        decoder_attention_mask=torch.ones(rows, len(start_SC), dtype=torch.long),
        do_sample=True,
        top_k=50,
        guidance_scale=2.0 if guided else None,
        max_length=frames + 2,
    )
    return tokens_BSC.shape[1] - 2 - max(DELAYS)


def earnest_frames(model: Dia, rows: int, guided: bool, frames: int) -> int:
    request = Request(model.prompt(TEXT), 1.0, guidance=3.0 if guided else 1.0, null_prompt=model.prompt(None))
    sampling = Sampling(top_p=1.0, filter_by_guidance=True)
    return generate(model, [request] * rows, max_frames=frames, sampling=sampling)[0].codes_CT.shape[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    show(comparisons(**vars(parser.parse_args())))

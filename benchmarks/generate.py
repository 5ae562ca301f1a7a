"""Higgs generates beside transformers: `python -m benchmarks.generate [--seconds 10] [--clips 1]`, a minute or two on
one core.

The same weights (8 layers of width 512, the real vocabularies: 128256 text ids, 8 codebooks of 1026), the same prompts,
greedy, one thread; the codes are asserted equal. Ours includes laying its weights out anew, and both include reading
the prompt. A second at Higgs' 25 frames each. Random weights: how it sounds does not matter to the clock. Their codes
are nearly equally likely, so that rounding the weights changes more of them than it does of a trained model's.
"""

import argparse
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

from benchmarks.side_by_side import Comparison, show
from earnest.data.batch import Prompt
from earnest.data.text import byte_tokenizer
from earnest.generate import Request, generate
from earnest.models.higgs import Higgs
from earnest.models.prepacked import packed_as
from earnest.sampling import Sampling, Weights

CODEBOOKS, FRAMES_PER_S = 8, 25


def make() -> Higgs:
    """Random weights, but none for the audio's two special ids: never the likeliest, so both sides go on to the last
    frame."""
    torch.manual_seed(0)
    config = HiggsAudioV2Config(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        codebook_size=1026,
        num_codebooks=CODEBOOKS,
    )
    lm: Any = HiggsAudioV2ForConditionalGeneration(config, use_text_head=True)
    with torch.no_grad():
        lm.audio_lm_head.weight.view(CODEBOOKS, 1026, -1)[:, 1024:] = 0
    return Higgs(lm.eval(), byte_tokenizer())


def comparisons(clips: int, seconds: float) -> Iterator[Comparison]:
    warnings.simplefilter("ignore")
    model, frames = make(), round(seconds * FRAMES_PER_S)
    text_BS = torch.randint(0, 128000, (clips, 60))
    text_BS[:, -1] = model.lm.config.audio_bos_token_id
    nothing_SC, no_S = torch.zeros(60, CODEBOOKS, dtype=torch.long), torch.zeros(60, dtype=torch.bool)
    requests = [Request(Prompt(text_S, nothing_SC, no_S)) for text_S in text_BS]

    def ours() -> Tensor:
        return torch.stack([result.codes_CT for result in generate(model, requests, max_frames=frames)])

    def theirs() -> Tensor:
        """Its sequence has a first frame of BOS in all codebooks, then the delayed codes."""
        lm: Any = model.lm
        with torch.inference_mode():
            tokens_BSC = lm.generate(
                input_ids=text_BS,
                attention_mask=torch.ones_like(text_BS),
                max_new_tokens=frames + CODEBOOKS,
                do_sample=False,
            )
        return torch.stack([tokens_BSC[:, c + 1 : c + 1 + frames, c] for c in range(CODEBOOKS)], dim=1)

    alike = frames - (CODEBOOKS - 1)  # then ours ends the clip, codebook after codebook
    codes_BCT = ours()[..., :alike]
    assert codes_BCT.shape[-1] == alike and torch.equal(codes_BCT, theirs()[..., :alike])
    parity = f"{codes_BCT.numel()} greedy codes equal"
    yield Comparison(f"Higgs generates, {clips} x {frames} frames", "transformers", ours, theirs, parity)
    for weights in ("bfloat16", "int8"):
        rounded = partial(generate, model, requests, max_frames=frames, sampling=Sampling(weights=weights))
        share = share_equal(model, requests, frames, weights)
        what = f"Higgs generates, {weights} weights, {clips} x {frames} frames"
        yield Comparison(
            what, "transformers", rounded, theirs, f"{share:.1%} of the codes, after the same codes, equal"
        )


@torch.inference_mode()
def share_equal(model: Higgs, requests: list[Request], frames: int, weights: Weights) -> float:
    """How often rounded weights find the same code likeliest as exact ones do, after what exact ones have drawn."""
    prompts = [request.prompt for request in requests]
    exact = model.begin(prompts)
    with packed_as(weights):
        rounded = model.begin(prompts)
    frame_BC, equal = torch.full((len(requests), CODEBOOKS), model.bos_id), list[Tensor]()
    for _ in range(frames):
        drawn_BC, other_BC = (each.advance(frame_BC)[..., : model.codes].argmax(-1) for each in (exact, rounded))
        equal.append(drawn_BC == other_BC)
        frame_BC = drawn_BC
    return torch.stack(equal).double().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clips", type=int, default=1, help="generated in one batch")
    show(comparisons(**vars(parser.parse_args())))

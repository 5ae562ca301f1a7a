"""CPU time of a frame that MoT generates beside the same layers as transformers' modules with its cache.

    python -m benchmarks.generate_mot [--frames 128]

Random weights: a Llama and experts of 8 layers of 512, 4 codebooks of 2048 codes. No
model of transformers mixes these layers, so the peer runs the MoT's own `LlamaAttention`, `LlamaRMSNorm` and linear
layers one token at a time over a `DynamicCache`, and each codebook's rows of the head. Both draw the likeliest code;
the codes are compared.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.side_by_side import Comparison, show
from earnest.generate import Request, generate
from earnest.models.mot.config import MoTDesign, MoTShape
from earnest.models.mot.model import MoT
from earnest.streams import Codebook

SHAPE = MoTShape(width=512, layers=8, heads=8, kv_heads=4, ffn=1408, expert_width=512, expert_ffn=1408)
DESIGN = MoTDesign(
    attention="new", output="audio", rows_per_codebook=True, trained=("adapters", "attention", "embeddings", "output")
)
TEXT = "a slow waltz, strings and piano"


def comparisons(frames: int) -> Iterator[Comparison]:
    torch.manual_seed(0)
    model = MoT.assemble(4, 2048, DESIGN, SHAPE).eval()
    with torch.no_grad():  # a fresh expert adds nothing, and fresh heads say nothing
        for layer, _ in model.layer_pairs():
            layer.expert.up.weight.normal_(std=0.02)
        model.audio_rows.weight.normal_()
    for rows in (1, 6):
        ours, theirs = partial(with_continuation, model, rows, frames), partial(with_modules, model, rows, frames)
        equal = (theirs() == ours()).double().mean()
        assert equal > 0.9  # two sums in another order may draw another code, and all that follows differs
        parity = f"{equal:.1%} of greedy codes equal"
        yield Comparison(f"MoT generates, {rows} x {frames} frames", "transformers' modules", ours, theirs, parity)


def with_continuation(model: MoT, rows: int, frames: int) -> Tensor:
    """Codes (B, T, C)."""
    requests = [Request(model.prompt(TEXT))] * rows
    return torch.stack([made.codes_CT.T for made in generate(model, requests, max_frames=frames)])


@torch.inference_mode()
def with_modules(model: MoT, rows: int, frames: int) -> Tensor:
    """Codes (B, T, C)."""
    backbone, cache = model.backbone, DynamicCache(config=model.config.llama)
    text_BS = model.prompt(TEXT).text_S.expand(rows, -1)
    backbone(text_BS, past_key_values=cache, use_cache=True)
    token_B1, codes = torch.full((rows, 1), model.bos_id), list[Tensor]()
    heads = [model.heads()[Codebook(c)] for c in range(model.codebooks)]
    for index in range(frames * model.codebooks):
        audio_B1D = model.embedded(token_B1, torch.full_like(token_B1, index))
        rotary = backbone.rotary_emb(audio_B1D, position_ids=torch.tensor([[text_BS.shape[1] + index]]))
        for layer, block in model.layer_pairs():
            attention = layer.attention or block.self_attn
            mixed_B1D, _ = attention(block.input_layernorm(audio_B1D), rotary, None, past_key_values=cache)
            audio_B1D = audio_B1D + mixed_B1D
            audio_B1D = audio_B1D + layer.expert(block.post_attention_layernorm(audio_B1D))
        token_B1 = heads[index % model.codebooks].logits(backbone.norm(audio_B1D)).argmax(-1)
        codes.append(token_B1)
    return torch.cat(codes, dim=1).unflatten(1, (frames, -1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    show(comparisons(**vars(parser.parse_args())))

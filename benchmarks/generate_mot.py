"""CPU time of a frame that MoT generates beside the same layers as transformers' modules with its cache.

    OMP_NUM_THREADS=1 python -m benchmarks.generate_mot

Random weights: a Llama and experts of 8 layers of 512, 4 codebooks of 2048 codes. No
model of transformers mixes these layers, so the peer runs the MoT's own `LlamaAttention`, `LlamaRMSNorm` and linear
layers one token at a time over a `DynamicCache`, and each codebook's rows of the head. Both draw the likeliest code;
the codes are compared. Runs alternate; what is printed is the median CPU time of this process per frame of 4 codes, and
the median of the ratios of neighbouring runs.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from transformers import DynamicCache

from earnest.generate import Request, generate
from earnest.models.mot.config import MoTDesign, MoTShape
from earnest.models.mot.model import MoT
from earnest.streams import Codebook

SHAPE = MoTShape(width=512, layers=8, heads=8, kv_heads=4, ffn=1408, expert_width=512, expert_ffn=1408)
DESIGN = MoTDesign(
    attention="new", output="audio", rows_per_codebook=True, trained=("adapters", "attention", "embeddings", "output")
)
TEXT = "a slow waltz, strings and piano"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = MoT.assemble(4, 2048, DESIGN, SHAPE).eval()
    with torch.no_grad():  # a fresh expert adds nothing, and fresh heads say nothing
        for layer, _ in model.layer_pairs():
            layer.expert.up.weight.normal_(std=0.02)
        model.audio_rows.weight.normal_()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    print(f"{'rows':>4} {'transformers':>14} {'earnest':>14} {'ratio':>6} {'equal codes':>12}")
    for rows in (1, 6):
        theirs = lambda rows=rows: with_modules(model, rows, args.frames)  # noqa: E731
        ours = lambda rows=rows: with_continuation(model, rows, args.frames)  # noqa: E731
        equal = (theirs() == ours()).double().mean()  # also warms up
        pairs = [(cpu_s(theirs), cpu_s(ours)) for _ in range(args.repeats)]
        their_ms, our_ms = (1000 * median(times) / args.frames for times in zip(*pairs, strict=True))
        ratio = median(their / our for their, our in pairs)
        print(f"{rows:>4} {their_ms:>11.1f} ms {our_ms:>11.1f} ms {ratio:>6.2f} {equal:>12.1%}")


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


def cpu_s(run: Callable[[], Tensor]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


if __name__ == "__main__":
    main()

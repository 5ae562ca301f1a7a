"""One training step of a MoT against a straightforward implementation: tokens per second, peak memory, same gradients.

    python benchmarks/train_step_mot.py            # prints a table, about four minutes on one core

The straightforward one is what one writes first, and what SLM-MoT does: padded sequences, a boolean mask of each modality at every
linear layer, logits of the whole vocabulary at every position, torch's AdamW as it comes. Both have the same weights and see the same
batch at the real vocabulary, 128256 text rows and 2048 audio rows; the straightforward one, having one output layer, trains all of
its rows in either case. Time is CPU time of one thread, both in one process in turns;
memory is the peak of a process of its own, above what lies there between two steps (weights, gradients, AdamW's moments).
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from earnest.data.batch import Batch, collate
from earnest.data.masks import IGNORE
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.mot import MoT, MoTDesign, MoTLayer, MoTShape
from earnest.training.optim import adamw

TEXT_VOCAB, CODEBOOKS, CODES = 128256, 4, 2048
FRAMES = (124, 116, 108, 96)  # clips of one batch, 1.9 to 2.5 s of 50 Hz: 13 % of the padded batch is padding
TEXTS = (11, 23, 17, 30)  # tokens of their captions
STEPS = 3


class Straightforward(nn.Module):
    """A MoT with the weights of `mot`: one embedding and one output layer over the whole vocabulary, routing by boolean masks."""

    def __init__(self, mot: MoT):
        super().__init__()
        own = copy.deepcopy(mot)
        self.backbone, self.layers, self.config = own.backbone, own.layers, own.config
        text_rows = own.text_rows or own.backbone.embed_tokens
        self.embed = nn.Embedding.from_pretrained(torch.cat([own.backbone.embed_tokens.weight, own.embed_audio.weight]))
        self.lm_head = nn.Linear(*text_rows.weight.shape[::-1], bias=False)
        self.lm_head.weight = nn.Parameter(torch.cat([text_rows.weight, own.audio_rows.weight]).detach())
        own.backbone.embed_tokens = nn.Identity()

    def hidden(self, ids_BS: Tensor, is_audio_BS: Tensor, exists_BS: Tensor) -> Tensor:
        """(B, S, D). ids: a text id, or the text vocabulary's size plus the code's input row."""
        x_BSD = self.embed(ids_BS)
        positions = ids_BS.shape[1]
        cos_1SD, sin_1SD = self.backbone.rotary_emb(x_BSD, position_ids=torch.arange(positions)[None])
        causal_SS = torch.ones(positions, positions, dtype=torch.bool).tril()
        mask_B1SS = (causal_SS & exists_BS[:, None])[:, None]

        def routed(x_BSD: Tensor, text, audio) -> Tensor:
            text_ND, audio_ND = text(x_BSD[~is_audio_BS]), audio(x_BSD[is_audio_BS])
            out_BSD = text_ND.new_empty(*ids_BS.shape, text_ND.shape[-1])
            out_BSD[~is_audio_BS] = text_ND
            out_BSD[is_audio_BS] = audio_ND
            return out_BSD

        for layer, block in zip(self.layers, self.backbone.layers, strict=True):
            assert isinstance(layer, MoTLayer)
            text, audio = block.self_attn, layer.attention or block.self_attn
            normed_BSD = block.input_layernorm(x_BSD)
            q, k, v = (
                routed(normed_BSD, getattr(text, name), getattr(audio, name)).unflatten(-1, (-1, text.head_dim)).transpose(1, 2)
                for name in ("q_proj", "k_proj", "v_proj")
            )
            q, k = apply_rotary_pos_emb(q, k, cos_1SD, sin_1SD)
            k, v = (repeat_kv(heads, text.num_key_value_groups) for heads in (k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B1SS).transpose(1, 2).flatten(2)
            x_BSD = x_BSD + routed(mixed, text.o_proj, audio.o_proj)
            x_BSD = x_BSD + routed(block.post_attention_layernorm(x_BSD), block.mlp, layer.expert)
        return self.backbone.norm(x_BSD)

    def loss(self, ids_BS: Tensor, is_audio_BS: Tensor, exists_BS: Tensor) -> Tensor:
        logits_BSV = self.lm_head(self.hidden(ids_BS, is_audio_BS, exists_BS)).float()
        labels_BS = torch.where(is_audio_BS & exists_BS, ids_BS, IGNORE)
        first = is_audio_BS.long().argmax(1)
        labels_BS[torch.arange(len(first)), first] = IGNORE  # the audio's BOS: given, not predicted
        return F.cross_entropy(logits_BSV[:, :-1].reshape(-1, logits_BSV.shape[-1]), labels_BS[:, 1:].reshape(-1), ignore_index=IGNORE)


def make(output: str) -> tuple[MoT, Batch]:
    torch.manual_seed(0)
    shape = MoTShape(width=512, layers=8, heads=8, kv_heads=4, ffn=1408, expert_width=256, expert_ffn=1024, vocabulary=TEXT_VOCAB)
    mot = MoT.assemble(CODEBOOKS, CODES, MoTDesign(output=output), shape)  # type: ignore[arg-type]
    for layer in mot.layers:  # as after some training: at zero, `down` would get no gradient to compare
        nn.init.normal_(layer.expert.up.weight, std=0.02)
    random = torch.Generator().manual_seed(0)
    examples = [
        mot.lay_out(torch.randint(0, CODES, (CODEBOOKS, frames), generator=random), "x" * (text - 1))
        for frames, text in zip(FRAMES, TEXTS, strict=True)
    ]
    return mot, collate(examples, range(len(examples)), mot.pad_id)


def contenders(output: str):
    """(name, step, trained parameters in one order) of both, and the counted tokens of a step."""
    mot, batch = make(output)
    plain = Straightforward(mot)
    objective = TokenObjective(mot, stream_weights(CODEBOOKS, 0.0, 1.0))
    counted = batch.counted()
    ids_BS = torch.where(batch.is_audio_BS, TEXT_VOCAB + batch.tokens_BSC[..., 0], batch.text_BS)
    optimizers = {
        "straightforward": torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=1e-4),
        "earnest": adamw(mot, 1e-4, 0.01),
    }
    losses = {
        "straightforward": lambda: plain.loss(ids_BS, batch.is_audio_BS, batch.exists_BS),
        "earnest": lambda: objective(batch, counted)[0],
    }
    return mot, plain, optimizers, losses, sum(counted.values())


def step(loss_of, optimizer) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    optimizer.step()
    return loss.item()


def gradients(mot: MoT, plain: Straightforward, losses) -> float:
    """Largest difference of a trained tensor's gradient, relative to the largest entry of that gradient."""
    for loss_of in losses.values():
        loss_of().backward()
    text = TEXT_VOCAB
    pairs = [(mot.audio_rows.weight.grad, plain.lm_head.weight.grad[text:])]
    if mot.config.output == "all":
        pairs.append((mot.text_rows.weight.grad, plain.lm_head.weight.grad[:text]))
    theirs = dict(plain.layers.named_parameters())
    pairs += [(p.grad, theirs[name].grad) for name, p in mot.layers.named_parameters() if p.requires_grad]
    return max(float((ours - their).abs().max() / their.abs().max()) for ours, their in pairs)


def time_both(output: str) -> dict:
    mot, plain, optimizers, losses, tokens = contenders(output)
    values = {name: float(loss_of().detach()) for name, loss_of in losses.items()}
    parity = gradients(mot, plain, losses)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(STEPS + 1):
        for name in list(losses)[:: 1 if turn % 2 else -1]:
            before = time.process_time()
            step(losses[name], optimizers[name])
            seconds[name].append(time.process_time() - before)
    seconds = {name: times[1:] for name, times in seconds.items()}  # the first pays for moments and pages
    ratios = [a / b for a, b in zip(seconds["straightforward"], seconds["earnest"], strict=True)]
    return {
        "loss": values,
        "gradients": parity,
        "tokens_per_s": {name: tokens / statistics.median(times) for name, times in seconds.items()},
        "speedup": [statistics.median(ratios), min(ratios), max(ratios)],
    }


def memory_of(name: str, output: str) -> dict:
    """Of this process: resident MB between two steps, and at the peak of a step."""
    _, _, optimizers, losses, _ = contenders(output)
    for other in {*losses} - {name}:
        del optimizers[other], losses[other]
    step(losses[name], optimizers[name])
    rest_mb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
    step(losses[name], optimizers[name])
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return {"rest": rest_mb, "peak": int(peak.split()[1]) / 2**10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "OUTPUT"), help="measure one of them in this process")
    call = parser.parse_args()
    torch.set_num_threads(1)
    if call.memory_of:
        print(json.dumps(memory_of(*call.memory_of)))
        return
    for output, words in (("all", "all rows of the output layer trained"), ("new", "the audio's rows trained")):
        found = time_both(output)
        peaks = {
            name: json.loads(
                subprocess.run([sys.executable, __file__, "--memory-of", name, output], capture_output=True, check=True).stdout
            )
            for name in found["tokens_per_s"]
        }
        print(f"{words}: losses {found['loss']}, largest relative difference of a gradient {found['gradients']:.1e}")
        for name, per_s in found["tokens_per_s"].items():
            rest, peak = peaks[name]["rest"], peaks[name]["peak"]
            print(f"  {name:<16} {per_s:7.1f} tokens/s   {rest:6.0f} MB at rest   {peak:6.0f} MB at the peak (+{peak - rest:.0f})")
        ours, theirs = peaks["earnest"], peaks["straightforward"]
        above = (theirs["peak"] - theirs["rest"]) / (ours["peak"] - ours["rest"])
        median, low, high = found["speedup"]
        print(
            f"  ratio {median:.2f} [{low:.2f} .. {high:.2f}] in speed, {theirs['peak'] / ours['peak']:.2f} in peak, {above:.1f} above rest"
        )


if __name__ == "__main__":
    main()

"""A training step of Higgs beside transformers' own class and loss: `python benchmarks/train_step.py`, some ten minutes on one core.

The same weights and the same batch at the real vocabularies (128256 text ids, 8 codebooks of 1026): forward, backward and fused
AdamW, by turns in one process with one thread. Loss and every gradient are asserted equal in fp32; bf16 is autocast for both.
`small` is 8 layers of width 512, `wide` 8 of 1536; clips as long as `FRAMES` says, so that the peer pads. Targets are earnest's: all
codes, their ends, and of the text what the assistant says, which is where audio begins and ends.
Memory is the peak of a process of its own above what lies there between two steps (weights, AdamW's moments).
"""

import argparse
import json
import resource
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from side_by_side import OURS, in_turns, ratio
from torch import Tensor
from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

from earnest.data.batch import Batch, collate
from earnest.data.masks import IGNORE
from earnest.data.text import AUDIO_DELAY, AUDIO_OUT, byte_tokenizer, special_id
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.higgs import Higgs
from earnest.training.optim import adamw

PEER = "transformers"
CODEBOOKS = 8
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 4},
    "wide": {"hidden_size": 1536, "intermediate_size": 4096, "num_attention_heads": 24, "num_key_value_heads": 8},
}
FRAMES = {"small": (440, 370, 300, 230), "wide": (120, 90)}  # 4.8 to 17.6 s at Higgs' 25 frames a second
TEXT = "the quick brown fox jumps over the lazy dog, "  # a byte is a token


def make(shape: str) -> tuple[Higgs, Batch]:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = HiggsAudioV2Config(
        num_hidden_layers=8,
        head_dim=64,
        codebook_size=1026,
        num_codebooks=CODEBOOKS,
        audio_token_id=special_id(tokenizer, AUDIO_OUT),
        audio_delay_token_id=special_id(tokenizer, AUDIO_DELAY),
        **SHAPES[shape],
    )
    model = Higgs(HiggsAudioV2ForConditionalGeneration(config, use_text_head=True), tokenizer)
    examples = [model.lay_out(torch.randint(0, 1024, (CODEBOOKS, frames)), TEXT) for frames in FRAMES[shape]]
    return model, collate(examples, range(len(examples)), model.pad_id)


def unshifted(targets_BS: Tensor) -> Tensor:
    """Targets back on their own positions: transformers shifts."""
    labels_BS = torch.full_like(targets_BS, IGNORE)
    labels_BS[:, 1:] = targets_BS[:, :-1]
    return labels_BS


class Steps:
    """Both ways to a loss from one set of weights, and steps along them."""

    def __init__(self, shape: str, bf16: bool = False):
        self.model, self.batch = make(shape)
        self.bf16 = bf16
        self.objective = TokenObjective(self.model, stream_weights(CODEBOOKS, text_weight=1.0, audio_weight=CODEBOOKS))
        self.counted = self.batch.counted()
        self.optimizer = adamw(self.model, 1e-6, 0.0)
        self.model.train()

    def loss(self, name: str) -> Tensor:
        batch = self.batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            if name == OURS:
                return self.objective(batch, self.counted)[0]
            lm: Any = self.model.lm
            return lm(
                input_ids=batch.text_BS,
                audio_input_ids=batch.tokens_BSC,
                audio_input_ids_mask=batch.is_audio_BS,
                attention_mask=batch.exists_BS,
                labels=unshifted(batch.text_targets_BS),
                audio_labels=unshifted(batch.audio_targets_BSC),
                use_cache=False,
            ).loss

    def step(self, name: str) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(name).backward()
        self.optimizer.step()

    def parity(self) -> tuple[float, float]:
        """Relative difference of the two losses, and the largest of a tensor's gradient (norm of the difference by norm)."""
        losses, gradients = [], []
        for name in (PEER, OURS):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(name)
            loss.backward()
            losses.append(loss.item())
            gradients.append([p.grad for p in self.model.parameters()])
        worst = 0.0
        for theirs, ours in zip(*gradients, strict=True):
            # Neither has a gradient, or both have: what the last layer's text network gets, the text head sends.
            assert (theirs is None) == (ours is None)
            if theirs is not None and ours is not None:
                worst = max(worst, float((theirs - ours).norm() / theirs.norm().clamp(min=1e-12)))
        self.optimizer.zero_grad(set_to_none=True)
        return abs(losses[1] / losses[0] - 1), worst

    def memory_mb(self, name: str) -> list[float]:
        """Of this process: resident between two steps, and at the peak of a step."""
        self.step(name)
        self.optimizer.zero_grad(set_to_none=True)
        rest = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
        self.step(name)
        [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return [rest, int(peak.split()[1]) / 2**10]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "SHAPE"), help="measure one of them in this process")
    call = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if call.memory_of:
        name, shape = call.memory_of
        print(json.dumps(Steps(shape).memory_mb(name)))
        return
    for shape in call.shapes:
        steps = Steps(shape)
        off, worst = steps.parity()
        assert off < 1e-5 and worst < 1e-5, (off, worst)
        positions = int(steps.batch.exists_BS.sum())
        print(
            f"{shape}: {positions} positions, {steps.batch.padding_frac:.0%} padding, {sum(steps.counted.values())} targets; "
            f"loss equal to {off:.0e}, every gradient to {worst:.0e}",
            flush=True,
        )
        for bf16 in (False, True):
            steps.bf16 = bf16
            seconds = in_turns({name: partial(steps.step, name) for name in (OURS, PEER)}, call.turns)
            per_s = {name: positions / median(times) for name, times in seconds.items()}
            print(
                f"  {'bf16' if bf16 else 'fp32'}: {PEER} {per_s[PEER]:.0f} positions/s, earnest {per_s[OURS]:.0f}, {ratio(seconds, PEER)}",
                flush=True,
            )
        steps = None  # room for the processes that follow
        memory = {}
        for name in (PEER, OURS):
            output = subprocess.run([sys.executable, __file__, "--memory-of", name, shape], capture_output=True, check=True).stdout
            rest, peak = json.loads(output)
            memory[name] = peak - rest
            print(f"  {name}: {rest:.0f} MB between steps, {peak:.0f} MB at the peak (+{peak - rest:.0f})", flush=True)
        print(f"  {memory[PEER] / memory[OURS]:.1f}x less above what lies there anyway")


if __name__ == "__main__":
    main()

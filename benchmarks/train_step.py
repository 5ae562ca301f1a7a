"""A training step beside a peer's: `python -m benchmarks.train_step higgs-small`, five to ten minutes a case on one
core.

The same weights and the same batch at the real vocabularies: forward, backward and AdamW, by turns in one process with
one thread. Loss and every gradient are asserted equal in fp32; bf16 is autocast for both. Memory is the peak of a
process of its own above what lies there between two steps (weights of both, AdamW's moments).

`higgs-small`, `higgs-wide`: beside transformers' own class and loss, both with fused AdamW. 128256 text ids, 8
codebooks of 1026; 8 layers of width 512, or of 1536; clips as long as `HIGGS_FRAMES` says, so that the peer pads.
Targets are earnest's: all codes, their ends, and of the text what the assistant says, which is where audio begins and
ends.

`mot-all`, `mot-new`, `mot-audio`: beside what one writes first, and what SLM-MoT does (straightforward_mot.py), both
with fused AdamW. 128256 text rows and 2048 audio rows, 8 layers of width 512. Trained are all rows of the output layer,
its audio rows alone, or these with a softmax over them alone; the peer, having one output layer, trains all rows in any
case, and computes the logits of audio rows alone in the last.

`dia`: beside transformers' own class and loss. An encoder of 4 layers and a decoder of 8, width 512, 9 codebooks of
1024 codes and 3 special ids.
"""

import argparse
import json
import resource
import subprocess
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

from benchmarks.generate_dia import DELAYS as DIA_DELAYS
from benchmarks.generate_dia import SHAPE as DIA_SHAPE
from benchmarks.side_by_side import OURS, Comparison, show
from earnest.data.batch import Batch, collate
from earnest.data.masks import IGNORE
from earnest.data.text import AUDIO_DELAY, AUDIO_OUT, byte_tokenizer, special_id
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.higgs import Higgs
from earnest.models.mot import MoT, MoTDesign, MoTShape
from earnest.streams import Stream
from earnest.training.optim import adamw
from tests.equipment.straightforward_mot import Straightforward

HIGGS_SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 4},
    "wide": {"hidden_size": 1536, "intermediate_size": 4096, "num_attention_heads": 24, "num_key_value_heads": 8},
}
HIGGS_FRAMES = {"small": (440, 370, 300, 230), "wide": (120, 90)}  # 4.8 to 17.6 s at Higgs' 25 frames a second
MOT_SHAPE = MoTShape(
    width=512, layers=8, heads=8, kv_heads=4, ffn=1408, expert_width=256, expert_ffn=1024, vocabulary=128256
)
DIA_FRAMES = (240, 215, 190, 150)  # 1.7 to 2.8 s of 86 Hz
MOT_FRAMES = (124, 116, 108, 96)  # 1.9 to 2.5 s of 50 Hz: 8 % of the padded batch is padding
MOT_TEXTS = (11, 23, 17, 30)  # tokens of their captions
TEXT = "the quick brown fox jumps over the lazy dog, "  # a byte is a token


class Steps(ABC):
    """Both ways to a loss, from the same weights, and steps along them."""

    peer: str
    model: Any  # ours
    optimizers: dict[str, torch.optim.Optimizer]

    def __init__(self, batch: Batch, weights: dict[Stream, float]):
        self.batch, self.counted, self.bf16 = batch, batch.counted(), False
        self.objective = TokenObjective(self.model.train(), weights)

    @abstractmethod
    def peer_loss(self) -> Tensor:
        """Of the same batch."""

    def gradients(self, name: str) -> dict[str, Tensor | None]:
        """By our names, of at least the tensors that we train."""
        return {name: parameter.grad for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def loss(self, name: str) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.objective(self.batch, self.counted)[0] if name == OURS else self.peer_loss()

    def step(self, name: str) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        self.loss(name).backward()
        self.optimizers[name].step()

    def parity(self) -> tuple[float, float]:
        """Relative difference of the two losses, and the largest of a tensor's gradient (norm of the difference by
        norm)."""
        losses, gradients = [], []
        for name in (self.peer, OURS):
            self.optimizers[name].zero_grad(set_to_none=True)
            loss = self.loss(name)
            loss.backward()
            losses.append(loss.item())
            gradients.append(self.gradients(name))
            self.optimizers[name].zero_grad(set_to_none=True)
        worst = 0.0
        for name, ours in gradients[1].items():
            theirs = gradients[0][name]
            # Neither has a gradient, or both have: what Higgs' last layer's text network gets, the text head sends.
            assert (theirs is None) == (ours is None)
            if theirs is not None and ours is not None:
                worst = max(worst, float((theirs - ours).norm() / theirs.norm().clamp(min=1e-12)))
        return abs(losses[1] / losses[0] - 1), worst

    def memory_mb(self, name: str) -> list[float]:
        """Of this process: resident between two steps, and at the peak of a step."""
        self.step(name)
        self.optimizers[name].zero_grad(set_to_none=True)
        rest = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
        self.step(name)
        [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return [rest, int(peak.split()[1]) / 2**10]


class HiggsSteps(Steps):
    peer = "transformers"

    def __init__(self, shape: str):
        codebooks, tokenizer = 8, byte_tokenizer()
        config = HiggsAudioV2Config(
            num_hidden_layers=8,
            head_dim=64,
            codebook_size=1026,
            num_codebooks=codebooks,
            audio_token_id=special_id(tokenizer, AUDIO_OUT),
            audio_delay_token_id=special_id(tokenizer, AUDIO_DELAY),
            **HIGGS_SHAPES[shape],
        )
        self.model = Higgs(HiggsAudioV2ForConditionalGeneration(config, use_text_head=True), tokenizer)
        examples = [
            self.model.lay_out(torch.randint(0, 1024, (codebooks, frames)), TEXT) for frames in HIGGS_FRAMES[shape]
        ]
        batch = collate(examples, range(len(examples)), self.model.pad_id)
        super().__init__(batch, stream_weights(codebooks, text_weight=1.0, audio_weight=codebooks))
        self.optimizers = dict.fromkeys((self.peer, OURS), adamw(self.model, 1e-6, 0.0))

    def peer_loss(self) -> Tensor:
        batch, lm = self.batch, self.model.lm
        return lm(
            input_ids=batch.text_BS,
            audio_input_ids=batch.tokens_BSC,
            audio_input_ids_mask=batch.is_audio_BS,
            attention_mask=batch.exists_BS,
            labels=unshifted(batch.text_targets_BS),
            audio_labels=unshifted(batch.audio_targets_BSC),
            use_cache=False,
        ).loss


class MoTSteps(Steps):
    peer = "straightforward"

    def __init__(self, output: Any):
        codebooks, codes = 4, 2048
        self.model = MoT.assemble(codebooks, codes, MoTDesign(output=output), MOT_SHAPE)
        for layer in self.model.layers:  # as after some training: at zero, `down` would get no gradient to compare
            torch.nn.init.normal_(layer.expert.up.weight, std=0.02)
        examples = [
            self.model.lay_out(torch.randint(0, codes, (codebooks, frames)), TEXT[: text - 1])
            for frames, text in zip(MOT_FRAMES, MOT_TEXTS, strict=True)
        ]
        batch = collate(examples, range(len(examples)), self.model.pad_id)
        super().__init__(batch, stream_weights(codebooks, text_weight=0.0, audio_weight=1.0))
        self.plain = Straightforward(self.model)
        self.optimizers = {self.peer: adamw(self.plain, 1e-6, 0.0), OURS: adamw(self.model, 1e-6, 0.0)}

    def peer_loss(self) -> Tensor:
        return self.plain.loss(self.batch)

    def gradients(self, name: str) -> dict[str, Tensor | None]:
        return self.plain.gradients() if name == self.peer else super().gradients(name)


class DiaSteps(Steps):
    peer = "transformers"

    def __init__(self):
        codebooks, codes = len(DIA_DELAYS), 1024
        self.model = DIA_SHAPE.build(codebooks, codes, DIA_DELAYS)
        examples = [self.model.lay_out(torch.randint(0, codes, (codebooks, frames)), TEXT) for frames in DIA_FRAMES]
        batch = collate(examples, range(len(examples)), self.model.pad_id)
        super().__init__(batch, stream_weights(codebooks, text_weight=0.0, audio_weight=1.0))
        self.optimizers = dict.fromkeys((self.peer, OURS), adamw(self.model, 1e-6, 0.0))
        is_text, is_audio = batch.exists_BS & ~batch.is_audio_BS, batch.exists_BS & batch.is_audio_BS
        text_BS, text_exists_BS = padded(batch.text_BS, is_text, self.model.pad_id)
        tokens_BSC, audio_exists_BS = padded(batch.tokens_BSC, is_audio, self.model.after_end_id)
        labels_BSC, _ = padded(batch.audio_targets_BSC, is_audio, IGNORE)
        self.inputs = {
            "input_ids": text_BS,
            "attention_mask": text_exists_BS.long(),
            "decoder_input_ids": tokens_BSC,
            "decoder_attention_mask": audio_exists_BS.long(),
            "labels": labels_BSC.transpose(1, 2).flatten(0, 1),
            "use_cache": False,
        }

    def peer_loss(self) -> Tensor:
        return self.model.lm(**self.inputs).loss


def padded(values_BSX: Tensor, keep_BS: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """The kept positions of each clip with padding behind them, and which of these exist."""
    clips = [values_SX[keep_S] for values_SX, keep_S in zip(values_BSX, keep_BS, strict=True)]
    exist = [torch.ones(len(clip), dtype=torch.bool) for clip in clips]
    return pad_sequence(clips, batch_first=True, padding_value=fill), pad_sequence(exist, batch_first=True)


def unshifted(targets_BS: Tensor) -> Tensor:
    """Targets back on their own positions: transformers shifts."""
    labels_BS = torch.full_like(targets_BS, IGNORE)
    labels_BS[:, 1:] = targets_BS[:, :-1]
    return labels_BS


CASES: dict[str, Callable[[], Steps]] = {f"higgs-{shape}": partial(HiggsSteps, shape) for shape in HIGGS_SHAPES}
CASES["dia"] = DiaSteps
CASES |= {f"mot-{output}": partial(MoTSteps, output) for output in ("all", "new", "audio")}


def make(case: str) -> Steps:
    torch.manual_seed(0)
    return CASES[case]()


def comparisons(cases: Sequence[str], turns: int = 3) -> Iterator[Comparison]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for case in cases:
        steps = make(case)
        off, worst = steps.parity()
        # Dia's worst are gradients of 1e-6 in its cross attention: either side is 2e-5 from what float64 gives
        assert off < 1e-5 and worst < 1e-4, (off, worst)
        positions = int(steps.batch.exists_BS.sum())
        for bf16 in (False, True):
            steps.bf16 = bf16
            yield Comparison(
                f"training step, {case}, {'bf16' if bf16 else 'fp32'}, {positions} positions, "
                f"{steps.batch.padding_frac:.0%} padding",
                steps.peer,
                partial(steps.step, OURS),
                partial(steps.step, steps.peer),
                f"loss equal to {off:.0e}, every gradient to {worst:.0e}" + (" in fp32" if bf16 else ""),
                turns,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory-of", metavar="NAME", help="measure one of the two in this process")
    call = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if call.memory_of:
        steps = make(*call.cases)
        print(json.dumps(steps.memory_mb(OURS if call.memory_of == OURS else steps.peer)))
        return
    for case in call.cases:
        show(comparisons([case], call.turns))
        memory = {}
        for name in ("peer", OURS):
            output = subprocess.run(
                [sys.executable, __file__, case, "--memory-of", name], capture_output=True, check=True
            ).stdout
            rest, peak = json.loads(output)
            memory[name] = peak - rest
            print(f"  {name}: {rest:.0f} MB between steps, {peak:.0f} MB at the peak (+{peak - rest:.0f})", flush=True)
        print(f"  {memory['peer'] / memory[OURS]:.1f}x less above what lies there anyway")


if __name__ == "__main__":
    main()

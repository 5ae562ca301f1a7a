"""What `--compile` gains or costs: `python -m benchmarks.compiled`, about five minutes on one core.

Our own step and generation beside the same ones compiled, on a CPU: Higgs with 8 layers of width 512. Loss and every
gradient, and all greedy codes, are asserted equal before. On a GPU it is not measured.
"""

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.generate import CODEBOOKS, make
from benchmarks.side_by_side import OURS, Comparison, show
from benchmarks.train_step import make as make_steps
from earnest.data.batch import Prompt
from earnest.generate import Request, generate
from earnest.sampling import Sampling

FRAMES = 125


def training() -> Iterator[Comparison]:
    steps = make_steps("higgs-small")

    def step(compiled: bool) -> None:
        steps.model.compiled = compiled
        steps.step(OURS)

    def gradients(compiled: bool) -> list[Tensor]:
        steps.model.compiled = compiled
        steps.optimizers[OURS].zero_grad(set_to_none=True)
        loss = steps.loss(OURS)
        loss.backward()
        return [loss.detach(), *(g.clone() for g in steps.gradients(OURS).values() if g is not None)]

    expected, start_s = gradients(False), time.perf_counter()
    made = gradients(True)
    print(f"the first compiled step took {time.perf_counter() - start_s:.0f} s")
    off = max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(made, expected, strict=True))
    assert off < 1e-4, off
    for steps.bf16 in (False, True):
        yield Comparison(
            f"training step, higgs-small, {'bf16' if steps.bf16 else 'fp32'}, --compile",
            "without",
            partial(step, True),
            partial(step, False),
            f"loss and every gradient to {off:.0e} in fp32",
            turns=3,
        )


def generation() -> Iterator[Comparison]:
    model = make()
    for clips in (1, 6):
        text_BS = torch.randint(0, 128000, (clips, 60))
        text_BS[:, -1] = model.lm.config.audio_bos_token_id
        nothing_SC, no_S = torch.zeros(60, CODEBOOKS, dtype=torch.long), torch.zeros(60, dtype=torch.bool)
        requests = [Request(Prompt(text_S, nothing_SC, no_S)) for text_S in text_BS]

        def codes(compile: bool, requests: list[Request]) -> Tensor:
            made = generate(model, requests, max_frames=FRAMES, sampling=Sampling(compile=compile))
            return torch.stack([each.codes_CT for each in made])

        assert torch.equal(codes(True, requests), codes(False, requests))
        yield Comparison(
            f"Higgs generates, {clips} x {FRAMES} frames, --compile",
            "without",
            partial(codes, True, requests),
            partial(codes, False, requests),
            "all greedy codes equal",
            turns=3,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    show(generation())
    show(training())

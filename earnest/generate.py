"""Sampling for every language-model system: temperature, top-k, top-p, allowed ids, delays, stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.codecs import Codec, load_codec
from earnest.data.patterns import undelay
from earnest.models.higgs import Higgs
from earnest.run import latest_checkpoint, read_run


@dataclass(frozen=True)
class Request:
    """One thing to generate: prompt ids, temperature (0 = greedy), and the seed of its own random numbers."""

    prompt: list[int]
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Generated:
    """Codes (C, T), and whether the model ended them itself (False: `max_frames` did)."""

    codes_CT: Tensor
    stopped: bool


@torch.inference_mode()
def generate(model, requests: Sequence[Request], *, max_frames: int, top_k: int = 50, top_p: float = 0.95) -> list[Generated]:
    """Generate all requests in one batch; each row has its own temperature and random numbers, so that what a row becomes
    does not depend on the rows beside it (but for floating-point rounding).

    `model` offers begin(prompts) -> a stream with advance(frame_BC) -> logits (B, C, V) of the next frame; delays, codes,
    bos_id and eos_id. The codebook that starts first decides the end: EOS is allowed there only, the others follow at
    their delays.
    """
    model.eval()
    device = next(model.parameters()).device
    delay_C = torch.tensor(model.delays, device=device)
    leader = int(delay_C.argmin())
    temperature_B = torch.tensor([request.temperature for request in requests], device=device)
    randoms = [torch.Generator().manual_seed(request.seed) for request in requests]
    stream = model.begin([request.prompt for request in requests])
    # Positions count from the first BOS: codebook c holds BOS at delays[c], its codes behind it, and EOS at end + delays[c].
    end_B = torch.full((len(requests),), max_frames + 1, device=device)
    frames = [torch.full((len(requests), len(delay_C)), model.bos_id, device=device)]
    for position in range(1, max_frames + 2 + int(delay_C.max())):
        logits_BCV = stream.advance(frames[-1]).float()
        allowed_CV = torch.zeros(logits_BCV.shape[1:], dtype=torch.bool, device=device)
        allowed_CV[:, : model.codes] = True
        allowed_CV[leader, model.eos_id] = position > delay_C[leader] + 1
        frame_BC = sample(logits_BCV.masked_fill(~allowed_CV, -torch.inf), temperature_B, top_k, top_p, randoms)
        ended_B = (frame_BC[:, leader] == model.eos_id) & (position < end_B)
        end_B[ended_B] = position - delay_C[leader]
        frame_BC[:, position <= delay_C] = model.bos_id
        frame_BC[position >= end_B[:, None] + delay_C] = model.eos_id
        frames.append(frame_BC)
        if position >= int(end_B.max()) + int(delay_C.max()):
            break
    codes_BCT = [undelay(tokens_SC.T, model.delays)[:, 1:] for tokens_SC in torch.stack(frames, dim=1)]
    return [Generated(codes_CT[:, : end - 1], stopped=end <= max_frames) for codes_CT, end in zip(codes_BCT, end_B.tolist(), strict=True)]


def sample(logits_BCV: Tensor, temperature_B: Tensor, top_k: int, top_p: float, randoms: Sequence[torch.Generator]) -> Tensor:
    """Draw one token per row and codebook, (B, C): greedy where the temperature is 0.

    The k best are taken first and top-p is applied to these (50 sorted values instead of V); the draw is an exponential race,
    ``argmax p / e`` with e ~ Exp(1), which picks token i with probability p_i.
    """
    best_BCK, id_BCK = logits_BCV.topk(min(top_k, logits_BCV.shape[-1]), dim=-1)
    heat_B11 = temperature_B[:, None, None]
    p_BCK = (best_BCK / heat_B11.clamp(min=1e-6)).softmax(-1)
    p_BCK = p_BCK.masked_fill(p_BCK.cumsum(-1) - p_BCK >= top_p, 0)  # the tokens before it already hold top_p
    race_BCK = torch.stack([torch.empty(p_BCK.shape[1:]).exponential_(generator=random) for random in randoms]).to(p_BCK)
    choice_BC = torch.where(heat_B11[..., 0] > 0, (p_BCK / race_BCK).argmax(-1), 0)
    return id_BCK.gather(-1, choice_BC[..., None])[..., 0]


def load_run(run_dir: Path) -> tuple[Higgs, Codec, dict[str, Any]]:
    """The model of a run's newest checkpoint, its codec, and the run's facts. Raises UserError where one is missing."""
    run = read_run(run_dir)
    model = Higgs.from_pretrained(latest_checkpoint(run_dir))
    return model, load_codec(run.facts["config"]["codec"]), run.facts

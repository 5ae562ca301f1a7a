"""Sampling for every language-model system: temperature, top-k, top-p, guidance, allowed ids, delays, stop."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.codecs import Codec, load_codec
from earnest.data.audio import ClipError, read_wave
from earnest.data.batch import Prompt
from earnest.data.chatml import cloning
from earnest.data.patterns import undelay
from earnest.errors import UserError
from earnest.models import load_model
from earnest.run import latest_checkpoint, read_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One thing to generate: its prompt, temperature (0 = greedy), and the seed of its own random numbers.

    guidance g: logits = null + g * (conditional - null), the form of MusicGen (arXiv:2306.05284 §2.3) and of transformers'
    guidance_scale; 1 is conditional only. Dia's published form, conditional + s * (conditional - null), is g = 1 + s.
    `null_prompt` is the unconditional branch's; needed where g is not 1.
    """

    prompt: Prompt
    temperature: float = 0.0
    seed: int = 0
    guidance: float = 1.0
    null_prompt: Prompt | None = None


@dataclass(frozen=True)
class Generated:
    """Codes (C, T), and whether the model ended them itself (False: `max_frames` did)."""

    codes_CT: Tensor
    stopped: bool


@torch.inference_mode()
def generate(
    model, requests: Sequence[Request], *, max_frames: int, top_k: int = 50, top_p: float = 0.95, filter_by_guidance: bool = False
) -> list[Generated]:
    """Generate all requests in one batch; each row has its own temperature and random numbers, so that what a row becomes
    does not depend on the rows beside it (but for floating-point rounding).

    `model` offers begin(prompts) -> a stream with advance(frame_BK) -> logits (B, K, V) of the next frame of K lanes; delays
    (one per lane), codes, bos_id, eos_id (None: it never ends by itself), and codes_of(tokens_KT) -> codes_CT. The lane that
    starts first decides the end: EOS is allowed there only, the others follow at their delays. `max_frames` counts frames of
    the codec, which take a frame of lanes each, or one per codebook where a single lane holds them all. Guided and null rows
    share one pass. With `filter_by_guidance` the guided logits choose the top k, and these are drawn by their conditional
    logits, as Dia was published.
    """
    model.eval()
    device = next(model.parameters()).device
    delay_K = torch.tensor(model.delays, device=device)
    leader = int(delay_K.argmin())
    max_frames *= model.codebooks // len(delay_K)
    temperature_B = torch.tensor([request.temperature for request in requests], device=device)
    guidance_B11 = torch.tensor([request.guidance for request in requests], device=device)[:, None, None]
    guided = bool((guidance_B11 != 1).any())
    randoms = [torch.Generator().manual_seed(request.seed) for request in requests]
    prompts = [request.prompt for request in requests]
    if guided:
        prompts += [request.null_prompt or request.prompt for request in requests]
    stream = model.begin(prompts)
    # Positions count from the first BOS: lane k holds BOS at delays[k], its tokens behind it, and EOS at end + delays[k].
    end_B = torch.full((len(requests),), max_frames + 1, device=device)
    frames = [torch.full((len(requests), len(delay_K)), model.bos_id, device=device)]
    for position in range(1, max_frames + 2 + int(delay_K.max())):
        logits_BKV = stream.advance(frames[-1].repeat(1 + guided, 1)).float()
        draw_BKV = None
        if guided:
            conditional_BKV, null_BKV = logits_BKV.chunk(2)
            logits_BKV = null_BKV + guidance_B11 * (conditional_BKV - null_BKV)
            draw_BKV = conditional_BKV if filter_by_guidance else None
        allowed_KV = torch.zeros(logits_BKV.shape[1:], dtype=torch.bool, device=device)
        allowed_KV[:, : model.codes] = True
        if model.eos_id is not None:
            allowed_KV[leader, model.eos_id] = position > delay_K[leader] + 1
        frame_BK = sample(logits_BKV.masked_fill(~allowed_KV, -torch.inf), temperature_B, top_k, top_p, randoms, draw_BKV)
        ended_B = (
            (frame_BK[:, leader] == model.eos_id) & (position < end_B)
            if model.eos_id is not None
            else torch.zeros_like(end_B, dtype=torch.bool)
        )
        end_B[ended_B] = position - delay_K[leader]
        frame_BK[:, position <= delay_K] = model.bos_id
        if model.eos_id is not None:
            frame_BK[position == end_B[:, None] + delay_K] = model.eos_id
            frame_BK[position > end_B[:, None] + delay_K] = getattr(model, "behind_id", model.eos_id)  # as it was trained
        frames.append(frame_BK)
        if position >= int(end_B.max()) + int(delay_K.max()):
            break
    tokens_BKT = [undelay(tokens_SK.T, model.delays)[:, 1:] for tokens_SK in torch.stack(frames, dim=1)]
    return [
        Generated(model.codes_of(tokens_KT[:, : end - 1]), stopped=end <= max_frames)
        for tokens_KT, end in zip(tokens_BKT, end_B.tolist(), strict=True)
    ]


def check_guidance(guidance: float, unconditional_frac: float) -> None:
    """Raises UserError where guidance would lean on an unconditional branch that was not trained; warns where it hardly was."""
    if guidance != 1 and unconditional_frac == 0:
        raise UserError(
            f"guidance {guidance:g}, and no clip trained without its text (unconditional_frac 0)",
            "guidance 1, or a trained unconditional branch: what it answers without training is noise, and guidance amplifies it",
            "set guidance to 1, or train with unconditional_frac 0.1 to 0.2",
        )
    if guidance != 1 and unconditional_frac < 0.05:
        log.warning("guidance %g on an unconditional branch that %.1f %% of the clips train", guidance, 100 * unconditional_frac)


def sample(
    logits_BKV: Tensor,
    temperature_B: Tensor,
    top_k: int,
    top_p: float,
    randoms: Sequence[torch.Generator],
    draw_BKV: Tensor | None = None,
) -> Tensor:
    """Draw one token per row and lane, (B, K): greedy where the temperature is 0.

    The k best are taken first and top-p is applied to these (50 sorted values instead of V); the draw is an exponential race,
    ``argmax p / e`` with e ~ Exp(1), which picks token i with probability p_i. `draw_BKV`: logits that replace those of the k
    best once these are chosen.
    """
    best_BKk, id_BKk = logits_BKV.topk(min(top_k, logits_BKV.shape[-1]), dim=-1)
    if draw_BKV is not None:
        best_BKk = draw_BKV.gather(-1, id_BKk).masked_fill(best_BKk.isinf(), -torch.inf)
        best_BKk, order_BKk = best_BKk.sort(dim=-1, descending=True)
        id_BKk = id_BKk.gather(-1, order_BKk)
    heat_B11 = temperature_B[:, None, None]
    p_BKk = (best_BKk / heat_B11.clamp(min=1e-6)).softmax(-1)
    p_BKk = p_BKk.masked_fill(p_BKk.cumsum(-1) - p_BKk >= top_p, 0)  # the tokens before it already hold top_p
    race_BKk = torch.stack([torch.empty(p_BKk.shape[1:]).exponential_(generator=random) for random in randoms]).to(p_BKk)
    choice_BK = torch.where(heat_B11[..., 0] > 0, (p_BKk / race_BKk).argmax(-1), 0)
    return id_BKk.gather(-1, choice_BK[..., None])[..., 0]


def cloning_prompt(model, codec: Codec, text: str, reference: Path, reference_text: str) -> Prompt:
    """A prompt to say `text` in the voice of an audio file in which `reference_text` is said.

    Raises UserError for a system that takes no conversations, a file that cannot be read, and a reference that leaves no room.
    """
    if model.system != "higgs":
        raise UserError(f"a reference for a {model.system} model", "a Higgs model trained with references", "leave the reference out")
    try:
        wave_N = torch.from_numpy(read_wave(reference, codec.sample_rate_hz))
    except ClipError as error:
        raise UserError(str(error), "a readable audio file with at least one sample", "check the file") from error
    with torch.inference_mode():
        codes_CT = codec.encode(wave_N[None])[0]
    return model.prompt(text, turns=cloning(codes_CT, reference_text, text, instruction=model.instruction.replace("{speaker}", "")))


def load_run(run_dir: Path) -> tuple[Any, Codec, dict[str, Any]]:
    """The model of a run's newest checkpoint, its codec, and the run's facts. Raises UserError where one is missing."""
    run = read_run(run_dir)
    return load_model(latest_checkpoint(run_dir)), load_codec(run.facts["config"]["codec"]), run.facts

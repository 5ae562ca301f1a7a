"""Sampling for every language-model system: temperature, top-k, top-p, guidance, allowed ids, delays, stop."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
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
from earnest.sampling import Repetition

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One thing to generate: its prompt, temperature (0 = greedy), and the seed of its own random numbers.

    guidance g: logits = null + g * (conditional - null), the form of MusicGen (arXiv:2306.05284 §2.3) and of
    transformers' guidance_scale; 1 is conditional only. Dia's published form, conditional + s * (conditional - null),
    is g = 1 + s. `null_prompt` is the unconditional branch's; needed where g is not 1.
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
    model,
    requests: Sequence[Request],
    *,
    max_frames: int,
    top_k: int = 50,
    top_p: float = 0.95,
    filter_by_guidance: bool = False,
    repetition: Repetition | None = None,
) -> list[Generated]:
    """Generate all requests in one batch; each row has its own temperature and random numbers, so that what a row
    becomes does not depend on the rows beside it (but for floating-point rounding).

    `model` offers begin(prompts) -> a stream with advance(frame_BK) -> logits (B, K, V) of the next frame of K lanes;
    delays (one per lane), codes, bos_id, eos_id (None: it never ends by itself), and codes_of(tokens_KT) -> codes_CT.
    The lane that starts first decides the end: EOS is allowed there only, the others follow at their delays.
    `max_frames` counts frames of the codec, which take a frame of lanes each, or one per codebook where a single lane
    holds them all. Guided and null rows share one pass. With `filter_by_guidance` the guided logits choose the top k,
    and these are drawn by their conditional logits, as Dia was published. `repetition`: None for the model's own rule,
    model.repetition = (window_frames, most), where it has one.
    """
    max_frames *= model.codebooks // len(model.delays)
    steps = list(_frames(model, requests, max_frames, top_k, top_p, filter_by_guidance, repetition))
    return [
        Generated(_codes(model, [frame_BK[row] for frame_BK, _ in steps], end - 1), stopped=end <= max_frames)
        for row, end in enumerate(steps[-1][1].tolist())
    ]


def stream(model, request: Request, *, max_frames: int, every_frames: int = 25, **sampling) -> Iterator[Tensor]:
    """`generate` for one request, told as it goes: pieces of codes_CT, `every_frames` or fewer frames long, one after
    the other.

    A frame is complete when the last of its delayed lanes has been generated. Put together, the pieces are `generate`'s
    codes.
    """
    lanes = model.codebooks // len(model.delays)  # frames of lanes that one frame of codes takes
    frames: list[Tensor] = []
    told = complete = 0
    settings: dict[str, Any] = {"top_k": 50, "top_p": 0.95, "filter_by_guidance": False, "repetition": None} | sampling
    for frame_BK, end_B in _frames(model, [request], max_frames * lanes, **settings):
        frames.append(frame_BK[0])
        complete = min(len(frames) - 1 - max(model.delays), int(end_B) - 1) // lanes
        if complete - told >= every_frames:
            yield _codes(model, frames, complete * lanes)[:, told:]
            told = complete
    if complete > told:
        yield _codes(model, frames, complete * lanes)[:, told:]


@torch.inference_mode()
def decoded(codec: Codec, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pieces of codes_CT -> pieces of the wave as they come, as late as the codec's `context_frames` make it.

    Put together, their samples are those of decoding all codes at once, up to rounding.
    """
    before, behind = codec.context_frames
    codes_CT = torch.zeros(codec.codebooks, 0, dtype=torch.long)
    told = 0
    for piece_CT in chain(pieces, [None]):
        if piece_CT is not None:
            codes_CT = torch.cat([codes_CT, piece_CT.cpu()], dim=1)
        ready = codes_CT.shape[1] - (0 if piece_CT is None else behind)
        if ready > told:
            first = int(max(0, told - before))
            wave_N = codec.decode(codes_CT[None, :, first:])[0]
            yield wave_N[..., (told - first) * codec.hop_samples : int(ready - first) * codec.hop_samples]
            told = int(ready)


def _codes(model, frames: Sequence[Tensor], count: int) -> Tensor:
    """The first `count` frames (K,) of lanes behind BOS -> codes_CT."""
    return model.codes_of(undelay(torch.stack(tuple(frames), dim=1), model.delays)[:, 1 : 1 + count])


@torch.inference_mode()
def _frames(
    model,
    requests: Sequence[Request],
    max_frames: int,
    top_k: int,
    top_p: float,
    filter_by_guidance: bool,
    repetition: Repetition | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield frames of lanes (B, K), the first being BOS, and with each where the rows end, as far as is known: position
    of the leading lane's EOS, in frames behind its BOS."""
    model.eval()
    device = next(model.parameters()).device
    delay_K = torch.tensor(model.delays, device=device)
    first, last = min(model.delays), max(model.delays)
    leader = list(model.delays).index(first)
    temperature_B = torch.tensor([request.temperature for request in requests], device=device)
    guidance_B11 = torch.tensor([request.guidance for request in requests], device=device)[:, None, None]
    guided = bool((guidance_B11 != 1).any())
    rule = repetition or Repetition(*getattr(model, "repetition", ()))
    randoms = [torch.Generator().manual_seed(request.seed) for request in requests]
    prompts = [request.prompt for request in requests]
    if guided:
        prompts += [request.null_prompt or request.prompt for request in requests]
    stream = model.begin(prompts)
    # Positions count from the first BOS: lane k holds BOS at delays[k], its tokens behind it, and EOS at end +
    # delays[k].
    end_B = torch.full((len(requests),), max_frames + 1, device=device)
    frames = [torch.full((len(requests), len(delay_K)), model.bos_id, device=device)]
    yield frames[0], end_B
    earliest = latest = max_frames + 1  # of end_B
    banned_KV = None
    for position in range(1, max_frames + 2 + last):
        logits_BKV = stream.advance(frames[-1].repeat(1 + guided, 1)).float()
        draw_BKV = None
        if guided:
            conditional_BKV, null_BKV = logits_BKV.chunk(2)
            logits_BKV = null_BKV + guidance_B11 * (conditional_BKV - null_BKV)
            draw_BKV = conditional_BKV if filter_by_guidance else None
        if banned_KV is None:
            banned_KV = torch.arange(logits_BKV.shape[-1], device=device).expand(logits_BKV.shape[1:]) >= model.codes
        if model.eos_id is not None and position == first + 2:  # a clip has at least one code
            banned_KV[leader, model.eos_id] = False
        logits_BKV = logits_BKV.masked_fill(banned_KV, -torch.inf)
        frame_BK = sample(logits_BKV, temperature_B, top_k, top_p, randoms, draw_BKV)
        if rule.window_frames:
            recent_BWK = torch.stack(frames[-rule.window_frames :], dim=1)
            repeats_BWK = (recent_BWK == frame_BK[:, None]) & (recent_BWK < model.codes)
            stuck_BK = repeats_BWK.sum(1) >= rule.most
            for row in (
                stuck_BK.any(1).nonzero()[:, 0].tolist()
            ):  # rows alone, so that no row's random numbers depend on another's
                afresh_1K = sample(
                    logits_BKV[row, None], torch.ones(1, device=device), logits_BKV.shape[-1], 1.0, [randoms[row]]
                )
                frame_BK[row] = torch.where(stuck_BK[row], afresh_1K[0], frame_BK[row])
        if model.eos_id is not None:
            ended_B = (frame_BK[:, leader] == model.eos_id) & (position < end_B)
            if ended_B.any():
                end_B[ended_B] = position - first
                earliest, latest = int(end_B.min()), int(end_B.max())
        if position <= last:
            frame_BK[:, position <= delay_K] = model.bos_id
        if model.eos_id is not None and position >= earliest + first:
            frame_BK[position == end_B[:, None] + delay_K] = model.eos_id
            frame_BK[position > end_B[:, None] + delay_K] = getattr(
                model, "behind_id", model.eos_id
            )  # as it was trained
        frames.append(frame_BK)
        yield frame_BK, end_B
        if position >= latest + last:
            break


def check_guidance(guidance: float, unconditional_frac: float) -> None:
    """Raises UserError where guidance would lean on an unconditional branch that was not trained; warns where it hardly
    was."""
    if guidance != 1 and unconditional_frac == 0:
        raise UserError(
            f"guidance {guidance:g}, and no clip trained without its text (unconditional_frac 0)",
            "guidance 1, or a trained unconditional branch: what it answers without training is noise, and guidance amplifies it",
            "set guidance to 1, or train with unconditional_frac 0.1 to 0.2",
        )
    if guidance != 1 and unconditional_frac < 0.05:
        log.warning(
            "guidance %g on an unconditional branch that %.1f %% of the clips train", guidance, 100 * unconditional_frac
        )


def sample(
    logits_BKV: Tensor,
    temperature_B: Tensor,
    top_k: int,
    top_p: float,
    randoms: Sequence[torch.Generator],
    draw_BKV: Tensor | None = None,
) -> Tensor:
    """Draw one token per row and lane, (B, K): greedy where the temperature is 0.

    The k best are taken first and top-p is applied to these (50 sorted values instead of V); the draw is an exponential
    race, ``argmax p / e`` with e ~ Exp(1), which picks token i with probability p_i. `draw_BKV`: logits that replace
    those of the k best once these are chosen.
    """
    best_BKk, id_BKk = logits_BKV.topk(min(top_k, logits_BKV.shape[-1]), dim=-1)
    if draw_BKV is not None:
        best_BKk = draw_BKV.gather(-1, id_BKk).masked_fill(best_BKk.isinf(), -torch.inf)
        best_BKk, order_BKk = best_BKk.sort(dim=-1, descending=True)
        id_BKk = id_BKk.gather(-1, order_BKk)
    heat_B11 = temperature_B[:, None, None]
    p_BKk = (best_BKk / heat_B11.clamp(min=1e-6)).softmax(-1)
    p_BKk = p_BKk.masked_fill(p_BKk.cumsum(-1) - p_BKk >= top_p, 0)  # the tokens before it already hold top_p
    race_BKk = torch.stack([torch.empty(p_BKk.shape[1:]).exponential_(generator=random) for random in randoms]).to(
        p_BKk
    )
    choice_BK = torch.where(heat_B11[..., 0] > 0, (p_BKk / race_BKk).argmax(-1), 0)
    return id_BKk.gather(-1, choice_BK[..., None])[..., 0]


def cloning_prompt(model, codec: Codec, text: str, reference: Path, reference_text: str) -> Prompt:
    """A prompt to say `text` in the voice of an audio file in which `reference_text` is said.

    Raises UserError for a system that takes no conversations, a file that cannot be read, and a reference that leaves
    no room.
    """
    if model.system != "higgs":
        raise UserError(
            f"a reference for a {model.system} model",
            "a Higgs model trained with references",
            "leave the reference out",
        )
    try:
        wave_N = torch.from_numpy(read_wave(reference, codec.sample_rate_hz))
    except ClipError as error:
        raise UserError(str(error), "a readable audio file with at least one sample", "check the file") from error
    with torch.inference_mode():
        codes_CT = codec.encode(wave_N[None])[0]
    return model.prompt(
        text, turns=cloning(codes_CT, reference_text, text, instruction=model.instruction.replace("{speaker}", ""))
    )


def load_run(run_dir: Path) -> tuple[Any, Codec, dict[str, Any]]:
    """The model of a run's newest checkpoint, its codec, and the run's facts. Raises UserError where one is missing."""
    run = read_run(run_dir)
    return load_model(latest_checkpoint(run_dir)), load_codec(run.facts["config"]["codec"]), run.facts

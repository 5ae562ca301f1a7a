"""Sampling for every language-model system: temperature, top-k, top-p, guidance, allowed ids, delays, stop."""

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from earnest.checkpoints import latest_checkpoint
from earnest.codecs import Codec, load_codec
from earnest.data.audio import ClipError, read_wave
from earnest.data.batch import Prompt
from earnest.data.chatml import cloning
from earnest.data.patterns import undelay
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.models import load_model
from earnest.models.system import Round, System
from earnest.run import read_run
from earnest.sampling import USUAL, Sampling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One thing to generate: its prompt, temperature (0 = greedy), and the seed of its own random numbers.

    guidance g: logits = null + g * (conditional - null), the form of MusicGen (arXiv:2306.05284 §2.3) and of
    transformers' guidance_scale; 1 is conditional only. Dia's published form, conditional + s * (conditional - null),
    is g = 1 + s. `null_prompt` is that of the unconditional branch, needed if g is not 1.
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
    model: System, requests: Sequence[Request], *, max_frames: int, sampling: Sampling = USUAL
) -> list[Generated]:
    """Generate all requests in one batch, at most `max_frames` frames of the codec each.

    Each row has its own temperature and random numbers, so it does not depend on the other rows (up to floating-point
    rounding); guided and null rows share one pass. The codebook that starts first decides the end: EOS is allowed there
    only, the others follow at their delays.
    """
    steps = list(_frames(model, requests, max_frames, sampling))
    frames_BSC, end_B = torch.stack([frame_BC for frame_BC, _ in steps], dim=1), steps[-1][1]
    return [
        Generated(_codes(model, tokens_SC, end - 1), stopped=end <= max_frames)
        for tokens_SC, end in zip(frames_BSC, end_B.tolist(), strict=True)
    ]


def generate_pieces(
    model: System, request: Request, *, max_frames: int, every_frames: int = 25, sampling: Sampling = USUAL
) -> Iterator[Tensor]:
    """`generate` for one request, yielded while it goes on: pieces of codes_CT of `every_frames` frames, the last one
    perhaps shorter.

    A frame is complete when the last of its delayed codebooks has been generated. Put together, the pieces are
    `generate`'s codes.
    """
    frames: list[Tensor] = []
    yielded = complete = 0
    for frame_1C, end_1 in _frames(model, [request], max_frames, sampling):
        frames.append(frame_1C[0])
        complete = min(len(frames) - 1 - max(model.delays), int(end_1) - 1)
        if complete - yielded >= every_frames:
            yield _codes(model, torch.stack(frames), complete)[:, yielded:]
            yielded = complete
    if complete > yielded:
        yield _codes(model, torch.stack(frames), complete)[:, yielded:]


@torch.inference_mode()
def decoded(codec: Codec, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pieces of codes_CT -> pieces of the wave as they come, as late as the codec's `context_frames` make it.

    Put together, their samples are those of decoding all codes at once, up to rounding.
    """
    before, after = codec.context_frames
    codes_CT = torch.zeros(codec.codebooks, 0, dtype=torch.long)
    yielded = 0
    for piece_CT in chain(pieces, [None]):
        if piece_CT is not None:
            codes_CT = torch.cat([codes_CT, piece_CT.cpu()], dim=1)
        ready = codes_CT.shape[1] - (0 if piece_CT is None else after)
        if ready > yielded:
            first = int(max(0, yielded - before))
            wave_N = codec.decode(codes_CT[None, :, first:])[0]
            yield wave_N[..., (yielded - first) * codec.hop_samples : int(ready - first) * codec.hop_samples]
            yielded = int(ready)


def _codes(model: System, tokens_SC: Tensor, count: int) -> Tensor:
    """The first `count` frames behind BOS -> codes_CT."""
    return undelay(tokens_SC.T, model.delays)[:, 1 : 1 + count]


@torch.inference_mode()
def _frames(
    model: System, requests: Sequence[Request], max_frames: int, sampling: Sampling
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (frame_BC, end_B): the next frame of tokens, the first being BOS; and per row how many frames after its BOS
    the leading codebook has its EOS, max_frames + 1 until that is known."""
    model.eval()
    sampler, ends = _Sampler(model, requests, sampling), _Ends(model, len(requests), max_frames)
    continuation = model.begin(sampler.prompts)
    frames = [torch.full((len(requests), model.codebooks), model.bos_id, device=model.device)]
    yield frames[0], ends.end_B
    position = 0
    while position < ends.last_position:
        position += 1
        tokens: list[Tensor] = []
        rounds = continuation.rounds(sampler.with_null_rows(frames[-1]))
        drawn = next(rounds)
        while drawn is not None:
            allowed_KV = ends.allowed(drawn, position)
            tokens_BK = sampler.draw(drawn, allowed_KV, frames)
            tokens.append(ends.place(tokens_BK, drawn.codebooks, position))
            drawn = _sent(rounds, sampler.with_null_rows(tokens[-1]))
        frames.append(torch.cat(tokens, dim=1))
        yield frames[-1], ends.end_B


def _sent(rounds: Generator[Round, Tensor, None], tokens_BK: Tensor) -> Round | None:
    """The round after the one in which these tokens were drawn; None behind the last."""
    try:
        return rounds.send(tokens_BK)
    except StopIteration:
        return None


class _Ends:
    """Where each row ends, and which tokens are not drawn but given: BOS before a codebook's start, and from its end on
    what the model was trained with.

    Positions count from the first BOS: codebook c has BOS at delays[c], then its codes, and EOS at end + delays[c].
    """

    def __init__(self, model: System, rows: int, max_frames: int):
        self.model = model
        self.delay_C = torch.tensor(model.delays, device=model.device)
        self.first, self.last = min(model.delays), max(model.delays)
        self.leader = model.delays.index(self.first)
        self.end_B = torch.full((rows,), max_frames + 1, device=model.device)
        self.earliest = self.latest = max_frames + 1  # of end_B

    @property
    def last_position(self) -> int:
        """That of the last code of the last codebook."""
        return self.latest - 1 + self.last

    def allowed(self, drawn: Round, position: int) -> Tensor:
        """Which ids may be drawn, (K, V): codes, and in the leading codebook EOS once the clip has a code."""
        _, codebooks, ids = drawn.logits_BKV.shape
        allowed_KV = torch.arange(ids, device=self.delay_C.device).expand(codebooks, ids) < self.model.codes
        leads = self._place_of_leader(drawn.codebooks)
        if leads is not None and self.model.eos_id is not None and position >= self.first + 2:
            allowed_KV[leads, self.model.eos_id] = True
        return allowed_KV

    def place(self, tokens_BK: Tensor, codebooks: slice, position: int) -> Tensor:
        """The tokens drawn at a position, with the given ones in their places; takes note of what ends there."""
        model, delay_K = self.model, self.delay_C[codebooks]
        leads = self._place_of_leader(codebooks)
        if leads is not None and model.eos_id is not None:
            ended_B = (tokens_BK[:, leads] == model.eos_id) & (position < self.end_B)
            if ended_B.any():
                self.end_B[ended_B] = position - self.first
                self.earliest, self.latest = int(self.end_B.min()), int(self.end_B.max())
        if position <= self.last:
            tokens_BK[:, position <= delay_K] = model.bos_id
        if model.eos_id is not None and position >= self.earliest + self.first:
            tokens_BK[position == self.end_B[:, None] + delay_K] = model.eos_id
            tokens_BK[position > self.end_B[:, None] + delay_K] = model.after_end_id
        return tokens_BK

    def _place_of_leader(self, codebooks: slice) -> int | None:
        drawn = range(self.model.codebooks)[codebooks]
        return drawn.index(self.leader) if self.leader in drawn else None


class _Sampler:
    """Draws tokens for a batch of requests, each row with its own temperature, guidance and random numbers."""

    def __init__(self, model: System, requests: Sequence[Request], sampling: Sampling):
        self.codes, self.sampling = model.codes, sampling
        self.repetition = sampling.repetition or model.repetition
        self.temperature_B = torch.tensor([request.temperature for request in requests], device=model.device)
        guidance_B = torch.tensor([request.guidance for request in requests], device=model.device)
        self.guidance_B11 = guidance_B[:, None, None]
        self.guided = bool((guidance_B != 1).any())
        self.randoms = [torch.Generator().manual_seed(request.seed) for request in requests]
        self.prompts = [request.prompt for request in requests]
        if self.guided:
            self.prompts += [request.null_prompt or request.prompt for request in requests]

    def with_null_rows(self, tokens_BK: Tensor) -> Tensor:
        """The same tokens for the unconditional branch, if there is one."""
        return tokens_BK.repeat(1 + self.guided, 1)

    def draw(self, drawn: Round, allowed_KV: Tensor, frames: Sequence[Tensor]) -> Tensor:
        """The tokens of a round, (B, K); frames: those before."""
        logits_BKV, choose_from_BKV = drawn.logits_BKV.float(), None
        if self.guided:
            conditional_BKV, null_BKV = logits_BKV.chunk(2)
            logits_BKV = null_BKV + self.guidance_B11 * (conditional_BKV - null_BKV)
            choose_from_BKV = conditional_BKV if self.sampling.filter_by_guidance else None
        logits_BKV = logits_BKV.masked_fill(~allowed_KV, -torch.inf)
        tokens_BK = sample(
            logits_BKV, self.temperature_B, self.sampling.top_k, self.sampling.top_p, self.randoms, choose_from_BKV
        )
        if self.repetition.window_frames:
            recent = [frame_BC[:, drawn.codebooks] for frame_BC in frames[-self.repetition.window_frames :]]
            self._draw_repeated_again(tokens_BK, logits_BKV, torch.stack(recent, dim=1))
        return tokens_BK

    def _draw_repeated_again(self, tokens_BK: Tensor, logits_BKV: Tensor, recent_BWK: Tensor) -> None:
        """See `Repetition`. Rows are drawn alone, so that no row's random numbers depend on another's."""
        repeats_BWK = (recent_BWK == tokens_BK[:, None]) & (recent_BWK < self.codes)
        repeated_BK = repeats_BWK.sum(1) >= self.repetition.most
        temperature_1 = torch.ones(1, device=tokens_BK.device)
        for row in repeated_BK.any(1).nonzero()[:, 0].tolist():
            row_1KV = logits_BKV[row, None]
            again_1K = sample(row_1KV, temperature_1, row_1KV.shape[-1], 1.0, [self.randoms[row]])
            tokens_BK[row] = torch.where(repeated_BK[row], again_1K[0], tokens_BK[row])


def check_guidance(guidance: float, unconditional_frac: float) -> None:
    """Raises UserError if guidance would need an unconditional branch that was not trained; warns if it hardly was."""
    if guidance != 1 and unconditional_frac == 0:
        raise UserError(
            f"guidance {guidance:g}, and no clip trained without its text (unconditional_frac 0)",
            "guidance 1, or a trained unconditional branch; guidance amplifies the noise of an untrained one",
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
    """Draw one token per row and codebook, (B, K): greedy if the temperature is 0.

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


def cloning_prompt(model: System, codec: Codec, text: str, reference: Path, reference_text: str) -> Prompt:
    """A prompt to say `text` in the voice of an audio file that says `reference_text`.

    Raises UserError for a system that reads no conversations, a file that cannot be read, and a reference that leaves
    no room.
    """
    if not model.reads_conversations:
        raise UserError(
            f"a reference for a {model.name} model",
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


def load_run(run_dir: Path, checkpoint: Path | None = None) -> tuple[System, Codec, Facts]:
    """The model of a checkpoint of a run, the newest if none is given, its codec, and the run's facts. Raises UserError
    if one is missing."""
    run = read_run(run_dir)
    config = run.facts.config or {}
    return load_model(checkpoint or latest_checkpoint(run_dir)), load_codec(config["codec"]), run.facts

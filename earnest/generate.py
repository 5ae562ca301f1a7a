"""Sampling for every language-model system: temperature, top-k, top-p, guidance, allowed ids, delays, stop."""

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from earnest.codecs import Codec
from earnest.data.batch import Prompt
from earnest.data.patterns import undelay
from earnest.errors import UserError
from earnest.models.prepacked import captured, packed_as
from earnest.models.system import Round, System
from earnest.sampling import USUAL, Sampling

log = logging.getLogger(__name__)
# So often it is asked whether all rows have ended, for which a GPU is waited for; what was generated after is cut off.
ENDS_EVERY_FRAMES = {"cpu": 1, "cuda": 8}


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
    before_CT: Tensor | None = None
    """Codes of audio that the generated audio goes on from; the prompt's text is that of both."""


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
    before_B = [_before(request) for request in requests]
    longest = max_frames + max(before_B)
    steps = list(_frames(model, requests, longest, sampling))
    frames_BSC, end_B = torch.stack([frame_BC for frame_BC, _ in steps], dim=1), steps[-1][1]
    ends: list[int] = end_B.tolist()
    generated: list[Generated] = []
    for tokens_SC, end, before in zip(frames_BSC, ends, before_B, strict=True):
        codes_CT = _codes(model, tokens_SC, end - 1)[:, before : before + max_frames]
        generated.append(Generated(codes_CT, stopped=end - before <= max_frames))
    return generated


def generate_pieces(
    model: System, request: Request, *, max_frames: int, every_frames: int = 25, sampling: Sampling = USUAL
) -> Iterator[Tensor]:
    """`generate` for one request, yielded while it goes on: pieces of codes_CT of `every_frames` frames, the last one
    perhaps shorter.

    A frame is complete when the last of its delayed codebooks has been generated. Put together, the pieces are
    `generate`'s codes.
    """
    frames: list[Tensor] = []
    yielded = _before(request)
    end_1 = torch.zeros(1)
    for frame_1C, end_1 in _frames(model, [request], max_frames + yielded, sampling):
        frames.append(frame_1C[0])
        if len(frames) - 1 - max(model.delays) - yielded >= every_frames:  # else no need to wait for where the end is
            complete = min(len(frames) - 1 - max(model.delays), int(end_1) - 1)
            if complete - yielded >= every_frames:
                yield _codes(model, torch.stack(frames), complete)[:, yielded:]
                yielded = complete
    complete = min(len(frames) - 1 - max(model.delays), int(end_1) - 1)
    if complete > yielded:
        yield _codes(model, torch.stack(frames), complete)[:, yielded:]


@torch.inference_mode()
def decoded(codec: Codec, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pieces of codes_CT -> pieces of the wave as they come, as late as the codec's `context_frames` make it.

    Put together, their samples are those of decoding all codes at once, up to rounding.
    """
    before, after = codec.context_frames
    codes_CT = torch.zeros(codec.codebooks, 0, dtype=torch.long, device=codec.device)
    yielded = 0
    for piece_CT in chain(pieces, [None]):
        if piece_CT is not None:
            codes_CT = torch.cat([codes_CT, piece_CT.to(codec.device)], dim=1)
        ready = codes_CT.shape[1] - (0 if piece_CT is None else after)
        if ready > yielded:
            first = int(max(0, yielded - before))
            wave_N = codec.decode(codes_CT[None, :, first:])[0].cpu()
            yield wave_N[..., (yielded - first) * codec.hop_samples : int(ready - first) * codec.hop_samples]
            yielded = int(ready)


def _before(request: Request) -> int:
    """Frames that are given."""
    return 0 if request.before_CT is None else request.before_CT.shape[1]


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
    sampler, ends = _Sampler(model, requests, sampling), _Ends(model, requests, max_frames)
    with packed_as(sampling.weights), captured(ends.last_position if sampling.compile else None):
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
    """Where each row ends, and which tokens are given instead of drawn: BOS before a codebook's start, and after its
    end what the model was trained to read there.

    Positions count from the first BOS: codebook c has BOS at delays[c], then its codes, and EOS at end + delays[c].
    Where the rows end is read every `every` positions, so that a GPU is not waited for at each.
    """

    def __init__(self, model: System, requests: Sequence[Request], max_frames: int):
        self.model, rows = model, len(requests)
        self.before = [
            None if request.before_CT is None else request.before_CT.to(model.device) for request in requests
        ]
        self.given = max(map(_before, requests))
        self.delay_C = torch.tensor(model.delays, device=model.device)
        self.first, self.last = min(model.delays), max(model.delays)
        self.leader = model.delays.index(self.first)
        self.end_B = torch.full((rows,), max_frames + 1, device=model.device)
        self.earliest = self.latest = max_frames + 1  # of end_B, as last looked at
        self.every = ENDS_EVERY_FRAMES.get(model.device.type, 1)

    @property
    def last_position(self) -> int:
        """That of the last code of the last codebook."""
        return self.latest - 1 + self.last

    def allowed(self, drawn: Round, position: int) -> Tensor:
        """Which ids may be drawn, (K, V): codes, and in the leading codebook EOS once the clip has a code."""
        _, codebooks, ids = drawn.logits_BKV.shape
        allowed_KV = torch.arange(ids, device=self.delay_C.device).expand(codebooks, ids) < self.model.codes
        leads = self._place_of_leader(drawn.codebooks)
        if leads is not None and self.model.eos_id is not None and position >= self.first + 2 + self.given:
            allowed_KV[leads, self.model.eos_id] = True
        return allowed_KV

    def place(self, tokens_BK: Tensor, codebooks: slice, position: int) -> Tensor:
        """The tokens drawn at a position, with the given ones in their places; takes note of what ends there."""
        model, delay_K = self.model, self.delay_C[codebooks]
        leads = self._place_of_leader(codebooks)
        if leads is not None and model.eos_id is not None:
            ended_B = (tokens_BK[:, leads] == model.eos_id) & (position < self.end_B)
            self.end_B = torch.where(ended_B, position - self.first, self.end_B)
            if position % self.every == 0:
                self.earliest, self.latest = torch.stack(self.end_B.aminmax()).tolist()
        if position <= self.last:
            tokens_BK[:, position <= delay_K] = model.bos_id
        if position <= self.last + self.given:
            self._place_before(tokens_BK, codebooks, position)
        if model.eos_id is not None and (self.every > 1 or position >= self.earliest + self.first):
            end_BK = self.end_B[:, None] + delay_K
            tokens_BK = tokens_BK.masked_fill(end_BK == position, model.eos_id)
            tokens_BK = tokens_BK.masked_fill(end_BK < position, model.after_end_id)
        return tokens_BK

    def _place_before(self, tokens_BK: Tensor, codebooks: slice, position: int) -> None:
        """The codes of the audio before, each at its codebook's delay."""
        for row, before_CT in enumerate(self.before):
            for place, c in enumerate(range(self.model.codebooks)[codebooks]):
                frame = position - 1 - self.model.delays[c]
                if before_CT is not None and 0 <= frame < before_CT.shape[1]:
                    tokens_BK[row, place] = before_CT[c, frame]

    def _place_of_leader(self, codebooks: slice) -> int | None:
        drawn = range(self.model.codebooks)[codebooks]
        return drawn.index(self.leader) if self.leader in drawn else None


class _Sampler:
    """Draws tokens for a batch of requests, each row with its own temperature, guidance and random numbers."""

    def __init__(self, model: System, requests: Sequence[Request], sampling: Sampling):
        self.codes, self.sampling = model.codes, sampling
        self.eos_id = model.eos_id if model.ends_by_argmax else None
        self.leader = model.delays.index(min(model.delays))
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
        logits_BKV = drawn.logits_BKV.float()
        if self.guided:
            conditional_BKV, null_BKV = logits_BKV.chunk(2)
            logits_BKV = null_BKV + self.guidance_B11 * (conditional_BKV - null_BKV)
            if self.sampling.filter_by_guidance:
                logits_BKV = _among_best(conditional_BKV, logits_BKV, self.sampling.top_k, allowed_KV)
        logits_BKV = logits_BKV.masked_fill(~allowed_KV, -torch.inf)
        if self.eos_id is not None and self.leader in range(*drawn.codebooks.indices(self.leader + 1)):
            self._end_by_argmax(logits_BKV[:, self.leader - drawn.codebooks.start])
        tokens_BK = sample(logits_BKV, self.temperature_B, self.sampling.top_k, self.sampling.top_p, self.randoms)
        if self.repetition.window_frames:
            recent = [frame_BC[:, drawn.codebooks] for frame_BC in frames[-self.repetition.window_frames :]]
            self._draw_repeated_again(tokens_BK, logits_BKV, torch.stack(recent, dim=1))
        return tokens_BK

    def _end_by_argmax(self, logits_BV: Tensor) -> None:
        """The end is drawn if it is the likeliest id of the leading codebook, and is not drawn else."""
        ends_B = logits_BV.argmax(-1) == self.eos_id
        end_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device) == self.eos_id
        logits_BV.masked_fill_(ends_B[:, None] != end_V, -torch.inf)

    def _draw_repeated_again(self, tokens_BK: Tensor, logits_BKV: Tensor, recent_BWK: Tensor) -> None:
        """See `Repetition`. Rows are drawn alone, so that no row's random numbers depend on another's."""
        repeats_BWK = (recent_BWK == tokens_BK[:, None]) & (recent_BWK < self.codes)
        repeated_BK = repeats_BWK.sum(1) >= self.repetition.most
        temperature_1 = torch.ones(1, device=tokens_BK.device)
        rows: list[int] = repeated_BK.any(1).nonzero()[:, 0].tolist()
        for row in rows:
            row_1KV = logits_BKV[row, None]
            again_1K = sample(row_1KV, temperature_1, row_1KV.shape[-1], 1.0, [self.randoms[row]])
            tokens_BK[row] = torch.where(repeated_BK[row], again_1K[0], tokens_BK[row])


def _among_best(conditional_BKV: Tensor, guided_BKV: Tensor, top_k: int, allowed_KV: Tensor) -> Tensor:
    """The conditional logits of the ids that guidance finds likeliest, of all ids, as Dia was published; if none of
    these may be drawn, of those that may."""

    def best(logits_BKV: Tensor) -> Tensor:
        kth_BK1 = logits_BKV.topk(min(top_k, logits_BKV.shape[-1]), dim=-1).values[..., -1:]
        return logits_BKV >= kth_BK1

    among_BKV = best(guided_BKV) & allowed_KV
    among_BKV = among_BKV | (best(guided_BKV.masked_fill(~allowed_KV, -torch.inf)) & ~among_BKV.any(-1, keepdim=True))
    return conditional_BKV.masked_fill(~among_BKV, -torch.inf)


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
) -> Tensor:
    """Draw one token per row and codebook, (B, K): greedy if the temperature is 0.

    The k best are taken first and top-p is applied to these (50 sorted values instead of V); the draw is an exponential
    race, ``argmax p / e`` with e ~ Exp(1), which picks token i with probability p_i.
    """
    best_BKk, id_BKk = logits_BKV.topk(min(top_k, logits_BKV.shape[-1]), dim=-1)
    heat_B11 = temperature_B[:, None, None]
    p_BKk = (best_BKk / heat_B11.clamp(min=1e-6)).softmax(-1)
    p_BKk = p_BKk.masked_fill(p_BKk.cumsum(-1) - p_BKk >= top_p, 0)  # the tokens before it already hold top_p
    race_BKk = torch.stack([torch.empty(p_BKk.shape[1:]).exponential_(generator=random) for random in randoms]).to(
        p_BKk
    )
    choice_BK = torch.where(heat_B11[..., 0] > 0, (p_BKk / race_BKk).argmax(-1), 0)
    return id_BKk.gather(-1, choice_BK[..., None])[..., 0]


def check_codec(model: System, codec: Codec) -> None:
    """Raises UserError if a codec's codes are not those of the model."""
    if (codec.codebooks, codec.codebook_size) != (model.codebooks, model.codes):
        raise UserError(
            f"codec {codec.name} with {codec.codebooks} codebooks of {codec.codebook_size}",
            f"{model.codebooks} codebooks of {model.codes}, as the model has",
            "take the codec that the model was made for",
        )

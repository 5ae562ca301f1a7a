"""The contract of a model holds a depth decoder: a tiny CSM of transformers with random weights is trained, generates,
and the probes find it right."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CsmConfig, CsmForConditionalGeneration, DynamicCache

from earnest.data.batch import Batch, Example, Prompt, collate
from earnest.data.masks import IGNORE
from earnest.data.row import Turn
from earnest.generate import Request, generate, generate_pieces
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.system import Continuation, Head, Output, Round, System
from earnest.monitors.gradients import REACHED_STEPS, Reached
from earnest.probes.labels import alignment, dropped_inputs
from earnest.probes.parameters import split_in_two
from earnest.probes.results import Alignment, Results
from earnest.rules import diagnose
from earnest.run import Run
from earnest.streams import Codebook, Stream, codebooks
from earnest.training.optim import adamw, warmup_cosine
from earnest.training.tokens.lm_steps import lm_steps
from tests.equipment.wrapped import shifted

CODEBOOKS, CODES, TEXT_IDS = 4, 16, 40
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
DEPTH = SIZES | dict(hidden_size=24, intermediate_size=32, head_dim=6)
MIMI = dict(hidden_size=8, num_filters=2, intermediate_size=8, num_hidden_layers=1, codebook_dim=4, upsample_groups=8)


class Csm(System):
    """A backbone predicts codebook 0 of the next frame; a depth decoder the others, each from those before it.

    A text is its bytes, modulo the vocabulary. CSM has no BOS: the last text position predicts the first frame.
    """

    name = "csm"

    def __init__(self, lm: CsmForConditionalGeneration):
        super().__init__()
        self.lm = lm
        self.codebooks, self.codes = lm.config.num_codebooks, lm.config.codebook_eos_token_id
        self.delays = [0] * self.codebooks
        self.eos_id = self.after_end_id = lm.config.codebook_eos_token_id
        self.bos_id = lm.config.codebook_pad_token_id  # never an input: see `rounds`
        self.pad_id, self.text_vocab, self.audio_vocab = 0, lm.config.text_vocab_size, lm.config.vocab_size

    def prompt(self, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None) -> Prompt:
        text_S = torch.tensor([1, *(byte % TEXT_IDS for byte in (text or "").encode())])
        return Prompt(text_S, torch.zeros(len(text_S), self.codebooks, dtype=torch.long), torch.zeros_like(text_S) > 0)

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example:
        """Every code counts, and in codebook 0 the end."""
        assert codes_CT is not None
        prompt, frames = self.prompt(text), codes_CT.shape[1]
        targets_SC = torch.full((len(prompt) + frames, self.codebooks), IGNORE)
        targets_SC[len(prompt) - 1 : -1] = codes_CT.T
        targets_SC[-1, 0] = self.eos_id
        text_S = torch.cat([prompt.text_S, torch.zeros(frames, dtype=torch.long)])
        is_audio_S = torch.arange(len(text_S)) >= len(prompt)
        return Example(
            text_S, torch.cat([prompt.tokens_SC, codes_CT.T]), is_audio_S, torch.full_like(text_S, IGNORE), targets_SC
        )

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        """The depth decoder runs only on frames with a code of its own that counts."""
        exists_BS, is_audio_BS1 = batch.exists_BS, batch.is_audio_BS[..., None]
        text_BSD = self.lm.embed_text_tokens(batch.text_BS)
        embedded_BSD = torch.where(is_audio_BS1, self.lm.backbone_model.embed_tokens(batch.tokens_BSC), text_BSD)
        states_PD = self.lm.backbone_model(inputs_embeds=embedded_BSD).last_hidden_state[exists_BS]
        next_PC = batch.tokens_BSC.roll(-1, dims=1)[exists_BS]
        (row_N,) = (batch.audio_targets_BSC[exists_BS][:, 1:] != IGNORE).any(1).nonzero(as_tuple=True)
        ids_NC = self.depth_ids(next_PC[row_N])
        depth_NCD = self.lm.depth_decoder.model(
            ids_NC, states_PD[row_N], attention_mask=torch.ones_like(ids_NC)
        ).last_hidden_state
        outputs: dict[Stream, Output] = {Codebook(0): Output(states_PD, Head((self.lm.lm_head.weight,)))}
        for c, rows_DV in enumerate(self.lm.depth_decoder.codebooks_head.weight, 1):
            depth_PD = depth_NCD.new_zeros(len(states_PD), depth_NCD.shape[-1]).index_copy(0, row_N, depth_NCD[:, c])
            outputs[Codebook(c)] = Output(depth_PD, Head((rows_DV.T,)))
        return outputs

    def depth_ids(self, frame_NC: Tensor) -> Tensor:
        """What the depth decoder reads: a place for the backbone's state, and all codes but the last."""
        return nn.functional.pad(frame_NC[:, :-1], (1, 0))

    def order(self, stream: Stream) -> int:
        return 0 if isinstance(stream, Codebook) and stream.index else 1

    def begin(self, prompts: Sequence[Prompt]) -> "CsmContinuation":
        return CsmContinuation(self, prompts)

    def save_pretrained(self, path: str | Path) -> None:
        self.lm.save_pretrained(path)


class CsmContinuation(Continuation):
    def __init__(self, model: Csm, prompts: Sequence[Prompt]):
        self.model, self.cache = model, DynamicCache(config=model.lm.backbone_model.config)
        text_BS = pad_sequence([prompt.text_S for prompt in prompts], True, padding_side="left")
        lengths_B1 = torch.tensor([[len(prompt)] for prompt in prompts])
        self.exists_BS = torch.arange(text_BS.shape[1]) >= text_BS.shape[1] - lengths_B1
        self.state_BD: Tensor | None = self.advance(model.lm.embed_text_tokens(text_BS))

    def advance(self, embedded_BSD: Tensor) -> Tensor:
        """The backbone's state at the last position."""
        position_BS = (self.exists_BS.cumsum(1) - 1).clamp(min=0)[:, -embedded_BSD.shape[1] :]
        states = self.model.lm.backbone_model(
            inputs_embeds=embedded_BSD,
            attention_mask=self.exists_BS.long(),
            position_ids=position_BS,
            past_key_values=self.cache,
            use_cache=True,
        )
        return states.last_hidden_state[:, -1]

    def rounds(self, frame_BC: Tensor) -> Generator[Round, Tensor, None]:
        """The first frame, BOS, is no input: the prompt's last state predicts the next one."""
        lm, state_BD = self.model.lm, self.state_BD
        if state_BD is None:
            self.exists_BS = nn.functional.pad(self.exists_BS, (0, 1), value=True)
            state_BD = self.advance(lm.backbone_model.embed_tokens(frame_BC[:, None]))
        self.state_BD = None
        drawn_BC = torch.zeros_like(frame_BC)
        drawn_BC[:, :1] = yield Round(slice(0, 1), lm.lm_head(state_BD)[:, None])
        for c in range(1, self.model.codebooks):
            ids = self.model.depth_ids(drawn_BC)[:, : c + 1]
            logits_BcV = lm.depth_decoder(ids, state_BD, attention_mask=torch.ones_like(ids)).logits
            drawn_BC[:, c : c + 1] = yield Round(slice(c, c + 1), logits_BcV[:, -1:])


def tiny_csm(seed: int = 0, kind: type[Csm] = Csm) -> Csm:
    """Special ids have output rows of zeros, so they are never the likeliest: transformers draws from all ids."""
    torch.manual_seed(seed)
    special = dict(codebook_eos_token_id=CODES, codebook_pad_token_id=CODES + 1)
    shared = dict(num_codebooks=CODEBOOKS, vocab_size=CODES + 2)
    lm = CsmForConditionalGeneration(
        CsmConfig(
            text_vocab_size=TEXT_IDS,
            audio_token_id=TEXT_IDS - 1,
            audio_eos_token_id=TEXT_IDS - 2,
            pad_token_id=0,
            bos_token_id=1,
            depth_decoder_config=DEPTH | shared | dict(backbone_hidden_size=32),
            codec_config=dict(model_type="mimi", **MIMI),
            **(SIZES | shared | special),
        )
    )
    lm.codec_model = None  # earnest encodes audio by itself
    with torch.no_grad():
        lm.lm_head.weight.normal_(std=0.3)[CODES:] = 0
        lm.depth_decoder.codebooks_head.weight.normal_(std=0.3)[..., CODES:] = 0
        lm.backbone_model.embed_tokens.embed_audio_tokens.weight.normal_()
        lm.embed_text_tokens.weight.normal_()
    return kind(lm)


def batch_of(model: Csm, frames: Sequence[int] = (5, 9, 7), seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    examples = [
        model.lay_out(torch.randint(0, CODES, (CODEBOOKS, count), generator=random), text)
        for count, text in zip(frames, ("one", "twenty-two", "three"), strict=True)
    ]
    return collate(examples, range(len(examples)), model.pad_id)


def objective_of(model: Csm) -> TokenObjective:
    return TokenObjective(model, stream_weights(CODEBOOKS, 0.0, 1.0))


def test_the_loss_is_transformers_own():
    """A clip at a time, as transformers takes labels of whole sequences; its loss is a mean over codebook 0 plus a mean
    over the codes of the others, and it trains no end here."""
    model = tiny_csm()
    for row in range(3):
        whole = batch_of(model)
        batch = Batch(**{name: tensor[row : row + 1] for name, tensor in vars(whole).items()})
        length = int(batch.exists_BS.sum())
        batch = Batch(
            **{name: tensor if name == "clip_B" else tensor[:, :length] for name, tensor in vars(batch).items()}
        )
        batch.audio_targets_BSC[:, -1] = IGNORE
        embedded = torch.where(
            batch.is_audio_BS[..., None],
            model.lm.backbone_model.embed_tokens(batch.tokens_BSC),
            model.lm.embed_text_tokens(batch.text_BS),
        )
        labels = torch.where(batch.is_audio_BS[..., None], batch.tokens_BSC, IGNORE)
        theirs = model.lm(inputs_embeds=embedded, labels=labels)
        _, signals = objective_of(model)(batch, batch.counted())
        nats = [signals[f"train/ce_nats/{stream}"] for stream in codebooks(CODEBOOKS)]
        assert nats[0] == pytest.approx(theirs.backbone_loss.item(), rel=1e-5)
        assert sum(nats[1:]) / 3 == pytest.approx(theirs.depth_decoder_loss.item(), rel=1e-5)


def test_five_steps_train_the_backbone_and_the_depth_decoder():
    model = tiny_csm()
    batch = batch_of(model)
    optimizer = adamw(model, 1e-2, 0.0)
    reached = Reached(model)
    steps = lm_steps(
        objective_of(model), [[batch]] * 5, optimizer, warmup_cosine(optimizer, 0, 100), 1.0, Accelerator(cpu=True)
    )
    losses = []
    for step in steps:
        losses.append(step.signals["train/loss"])
        assert model.lm.depth_decoder.model.layers[0].self_attn.q_proj.weight.grad.any()
        reached.step(step)
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    gradients = reached.probes().gradients
    assert len(losses) == REACHED_STEPS and gradients and gradients.without_gradient == ()


def test_greedy_codes_are_transformers_own():
    """Prompts of two lengths in one batch; streamed pieces are the same codes."""
    model = tiny_csm().eval()
    requests = [Request(model.prompt(text)) for text in ("one", "a longer text")]
    results = generate(model, requests, max_frames=8)
    for request, result in zip(requests, results, strict=True):
        theirs_SC = model.lm.generate(
            inputs_embeds=model.lm.embed_text_tokens(request.prompt.text_S[None]),
            attention_mask=torch.ones(1, len(request.prompt), dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
            depth_decoder_do_sample=False,
        )[0]
        assert not result.stopped and torch.equal(result.codes_CT, theirs_SC.T)
        assert len(result.codes_CT.unique()) > 3
        pieces = list(generate_pieces(model, request, max_frames=8, every_frames=3))
        assert torch.equal(torch.cat(pieces, dim=1), result.codes_CT)


def test_an_overfitted_model_says_its_clips_and_stops():
    model = tiny_csm()
    batch = batch_of(model)
    objective, optimizer = objective_of(model), adamw(model, 1e-2, 0.0)
    for _ in range(80):
        optimizer.zero_grad()
        objective(batch, batch.counted())[0].backward()
        optimizer.step()
    results = generate(model, [Request(model.prompt(text)) for text in ("one", "twenty-two", "three")], max_frames=20)
    for row, result in enumerate(results):
        assert result.stopped
        assert torch.equal(result.codes_CT, batch.tokens_BSC[row, batch.is_audio_BS[row]].T)


def accused(found: Mapping[Stream, Alignment]) -> list[str]:
    return [finding.rule for finding in diagnose(Run(probes=Results(alignment=found))).findings]


def test_the_probes_find_it_right():
    model = tiny_csm()
    batch = batch_of(model)
    found = alignment(model, batch)
    depth = dict.fromkeys([Codebook(c) for c in range(1, CODEBOOKS)], Alignment(0, expected=0, sees_label=False))
    assert found == {Codebook(0): Alignment(1), **depth} and not accused(found)
    assert not dropped_inputs(model, batch).dropped
    assert split_in_two(objective_of(model), batch).distance < 1e-5


@pytest.mark.parametrize("by", [1, -1])
def test_labels_shifted_twice_or_not_at_all_are_accused(by):
    model = tiny_csm()
    found = alignment(model, shifted(batch_of(model), by))
    assert {one.offset - model.order(stream) for stream, one in found.items()} == {by}
    assert accused(found) == ["A203"]


def test_a_depth_decoder_that_sees_its_own_label_is_accused():
    class Leaks(Csm):
        def depth_ids(self, frame_NC: Tensor) -> Tensor:
            return frame_NC

    model = tiny_csm(kind=Leaks)
    assert accused(alignment(model, batch_of(model))) == ["A203"]


def test_a_depth_decoder_without_the_text_is_named():
    model = tiny_csm()
    batch = batch_of(model)
    model.lm.embed_text_tokens.weight.data[:] = 0
    assert dropped_inputs(model, batch).dropped == ("text",)

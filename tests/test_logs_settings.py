"""Facts from configurations: read as YAML and JSON say, never guessed, and told if they cannot be used."""

import json
import re
import time

import pytest

from earnest.facts import FACTS
from earnest.logs import read
from earnest.logs.settings import SPELLINGS, facts_in, facts_of
from earnest.logs.yaml_text import MOST_NODES, from_yaml
from earnest.profiles.configs import configs
from earnest.run import Run


def beside(folder, text: str, name: str = "config.yaml") -> Run:
    """A run whose log has this configuration beside it."""
    (folder / "metrics.csv").write_text("step,loss\n1,3\n2,2\n")
    (folder / name).write_text(text)
    return read(folder / "metrics.csv")


def facts(run: Run) -> dict:
    facts = run.facts.known()
    return {name: facts[name] for name in facts["fact_sources"]}


YAML = {
    "a list of mappings": (
        "stages:\n  - name: a\n    max_steps: 500\n  - name: b\n    max_steps: 20000\nn_q: 4\n",
        {"codebooks": 4},
    ),
    "a block scalar": ("description: |\n  the run with\n  max_grad_norm: 5\nn_q: 4\n", {"codebooks": 4}),
    "an anchor": ("clip: &clip 1.5\noptim:\n  max_norm: *clip\n", {"max_grad_norm": 1.5}),
    "an anchor at a fact": ("max_norm: &clip 1.5\nother: *clip\n", {"max_grad_norm": 1.5}),
    "a merge": ("base: &base\n  max_norm: 1.5\nmine:\n  <<: *base\n  n_q: 4\n", {"max_grad_norm": 1.5, "codebooks": 4}),
    "a merge with another value": ("base: &base\n  max_norm: 1.5\nmine:\n  <<: *base\n  max_norm: 2\n", {}),
    "a flow mapping over lines": ("optim: {max_norm: 1.5,\n  n_q: 4}\n", {"max_grad_norm": 1.5, "codebooks": 4}),
    "quoted and commented": ("'max_norm': '1.5'  # of the gradient\n", {"max_grad_norm": 1.5}),
    "two values": ("a:\n  max_norm: 1\nb:\n  max_norm: 2\n", {}),
    "an alias of itself": ("a: &a\n  b: *a\n  max_norm: 1.5\n", {"max_grad_norm": 1.5}),
    "a Python object": ("f: !!python/object/apply:os.system [ls]\nmax_norm: 1.5\n", {}),
    "a tag of its own": ("model: !new:torch.nn.Linear\n  in: 3\n", {}),
    "odd scalars": ("a: !!int ''\nb: !!timestamp x\n", {}),
    "no mapping": ("- 1\n- 2\n", {}),
    "no YAML": ("a: b: c: {[\n", {}),
    "keys that are no text": ("7: {max_norm: 1.5}\ntrue: 3\n2020-01-01: 4\n", {"max_grad_norm": 1.5}),
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_is_read_as_yaml(kind, tmp_path):
    text, expected = YAML[kind]
    assert facts(beside(tmp_path, text)) == expected


BOMBS = {
    "aliases": "a0: &a0 {max_norm: 1}\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40)),
    "aliases of mappings": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 40)),
    "merges": "a0: &a0 {k: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 40)),
    "deep": "[" * 100_000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1500)),
    "many": "a: [" + "1," * 2 * MOST_NODES + "1]\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_yaml_bomb_costs_little(kind, tmp_path):
    start_s = time.process_time()
    beside(tmp_path, BOMBS[kind])
    assert time.process_time() - start_s < 10


def test_what_could_not_be_read_is_told(tmp_path):
    run = beside(tmp_path, "f: !!python/object/apply:os.system [ls]\n")
    assert any("config.yaml could not be read" in note and "python/object" in note for note in run.notes)
    assert any("config.json could not be read" in note for note in beside(tmp_path, "{broken", "config.json").notes)


WRONG = [
    ("num_codebooks: -8", "codebooks", "a whole number >= 1"),
    ("num_codebooks: eight", "codebooks", "a whole number"),
    ("num_codebooks: [8, 9]", "codebooks", "a whole number"),
    ("gradient_accumulation_steps: true", "accumulation_steps", "a whole number"),
    ("max_norm: -1.5", "max_grad_norm", "a number >= 0"),
    ("max_norm: .inf", "max_grad_norm", "a finite number"),
    ("warmup: 0.1", "warmup_steps", "a whole number"),
    ("cfg_dropout: 10", "unconditional_frac", "a number <= 1"),
    ("n_q: 99999999999999999999999", "codebooks", "a whole number"),
]


@pytest.mark.parametrize(("line", "fact", "expected"), WRONG)
def test_a_fact_of_a_wrong_type_or_sign_is_not_used_and_that_is_told(line, fact, expected, tmp_path):
    run = beside(tmp_path, line + "\n")
    assert facts(run) == {}
    assert any(f"is not used as {fact}" in note and expected in note for note in run.notes), run.notes


@pytest.mark.parametrize("line", ["max_steps: -1", "max_norm: null", "gradient_clipping: auto", "max_steps: ''"])
def test_what_is_not_set_is_passed_over(line, tmp_path):
    run = beside(tmp_path, line + "\n")
    assert facts(run) == {} and not any("not used" in note for note in run.notes)


def test_two_values_are_told(tmp_path):
    run = beside(tmp_path, "a: {max_norm: 1}\nb: {max_norm: 2}\n")
    assert any("gives max_grad_norm 2 values (1.0, 2.0)" in note for note in run.notes)


def test_facts_of_configurations():
    def known(config):
        return facts_of(config, "the log").facts

    higgs = {
        "text_config": {"vocab_size": 128256},
        "audio_num_codebooks": 8,
        "audio_codebook_size": 1024,
        "audio_stream_bos_id": 1024,
        "audio_stream_eos_id": 1025,
    }
    assert known(higgs) == {"text_vocab": 128256, "codebooks": 8, "audio_vocab": 1026}
    assert known({"decoder": {"num_codebooks": 4, "vocab_size": 2048}}) == {"codebooks": 4, "audio_vocab": 2048}
    assert known({"lr": {"desc": None, "value": 0.1}, "max_grad_norm": {"desc": None, "value": 1.0}}) == {
        "max_grad_norm": 1
    }
    assert known({"a": {"vocab_size": 5}, "b": {"vocab_size": 6}}) == {}  # two values are no fact
    assert known({"alpha_adv": 1.0, "alpha_feat": 4.0, "alpha_msspec": 15.0}) == {
        "loss_weights": {"adv_g": 1.0, "feat": 4.0, "msspec": 15.0}
    }
    assert known({"args": json.dumps({"max_steps": 300})}) == {"schedule_steps": 300}


def test_facts_beside_the_log(tmp_path):
    text = "optim:\n  max_norm: 1.0  # clipping\n  lr: 1e-4\ntransformer_lm:\n  n_q: 4\n  card: 2048\n"
    beside(tmp_path, text)
    run = read(tmp_path / "metrics.csv", facts={"codebooks": 9})
    assert run.facts.max_grad_norm == 1 and run.facts.audio_vocab == 2048 and run.facts.codebooks == 9
    assert run.facts.fact_sources == {"max_grad_norm": "config.yaml", "audio_vocab": "config.yaml"}


def test_yaml_is_plain_data():
    text = "a: 1\nb:\n  c: [1, 2]\n  d: 'x'\n# e: 2\nf: 1e-4\n"
    assert from_yaml(text) == {"a": 1, "b": {"c": [1, 2], "d": "x"}, "f": "1e-4"}


def test_what_settings_may_say_are_facts():
    assert set(SPELLINGS) <= set(FACTS)
    spellings = [spelling for listed in SPELLINGS.values() for spelling in listed.split()]
    assert len(spellings) == len(set(spellings))


# configurations as models and trainers write them, cut to the names that matter, and what they say
KNOWN = {
    "csm": (
        {"model_type": "csm", "vocab_size": 2051, "text_vocab_size": 128256, "num_codebooks": 32}
        | {"codec_config": {"codebook_size": 2048}, "depth_decoder_config": {"num_codebooks": 32, "vocab_size": 2051}},
        {"audio_vocab": 2051, "codebooks": 32, "codebook_size": 2048},
    ),
    "dia": (
        {"model_type": "dia", "encoder_config": {"vocab_size": 256}}
        | {"decoder_config": {"vocab_size": 1028, "num_channels": 9}},
        {"audio_vocab": 1028, "codebooks": 9},
    ),
    "higgs": (
        {"model_type": "higgs_audio_v2", "vocab_size": 128256, "codebook_size": 1024, "num_codebooks": 8},
        {"text_vocab": 128256, "audio_vocab": 1026, "codebooks": 8, "codebook_size": 1024},
    ),
    "moshi": (
        {"card": 2048, "n_q": 16, "dep_q": 8, "text_card": 32000},
        {"text_vocab": 32000, "audio_vocab": 2048, "codebooks": 8, "codebook_size": 2048},
    ),
    "qwen3-tts": (
        {"model_type": "qwen3_tts", "talker_config": {"vocab_size": 3072, "num_code_groups": 16}},
        {"audio_vocab": 3072, "codebooks": 16},
    ),
    "gpt-sovits": (
        {"model": {"vocab_size": 1025, "phoneme_vocab_size": 732, "EOS": 1024}},
        {"audio_vocab": 1025, "codebook_size": 1024},
    ),
    "llama with audio ids": (
        {"model_type": "llama", "vocab_size": 156940, "bos_token_id": 128000, "eos_token_id": 128009},
        {"joint_vocab": 156940, "text_vocab": 128256},
    ),
    "plain llama": ({"model_type": "llama", "vocab_size": 128256, "bos_token_id": 128000}, {"text_vocab": 128256}),
    "a trainer that names its model": (
        {"model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "gradient_accumulation_steps": 8},
        {"text_vocab": 151936, "accumulation_steps": 8},
    ),
    "a trainer that names another": (
        {"model_name_or_path": "Qwen/Qwen3-4B-with-2048-more", "max_steps": 9},
        {"schedule_steps": 9},
    ),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_known_configuration_is_read_at_its_places(kind):
    config, says = KNOWN[kind]
    found = facts_of(config, "config.json")
    assert found.facts == says and not found.notes


def test_a_configuration_with_tags_is_data(tmp_path):
    """CosyVoice's: the tag says which class is configured, and so how many ids are added to the codes."""
    path = tmp_path / "cosyvoice2.yaml"
    path.write_text(
        "seed: !apply:random.seed [1986]\nsample_rate: 24000\nllm: !new:cosyvoice.llm.llm.Qwen2LM\n"
        "    speech_token_size: 6561\n    llm_input_size: !ref <llm_input_size>\n    rate: !ref <sample_rate>\n"
        "train_conf:\n    grad_clip: 5\n    accum_grad: 2\ntrain_conf_gan:\n    accum_grad: 1\n"
    )
    assert facts_in(path).facts == {
        "audio_vocab": 6564,
        "codebook_size": 6561,
        "accumulation_steps": 2,
        "max_grad_norm": 5.0,
        "sample_rate_hz": 24000,
    }


def test_every_known_kind_of_configuration_gives_facts():
    for kind in configs():
        assert set(kind.facts) | set(kind.wrong) <= set(FACTS), kind.name
        for where in (*kind.when, *kind.facts.values()):
            assert re.fullmatch(r"[\w.!]+( \+ \d+)?", where), (kind.name, where)

"""Public trainers: each page keeps the form, its two logs (tests/profiles/NAME.md) are recognised, and no other log
is."""

import json
import math
import re
import time
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from earnest import logs
from earnest.errors import UserError
from earnest.facts import FACTS, Facts
from earnest.profiles import Shown, matches, profile, profiles, recognise
from earnest.profiles.explain import known_models, page, pages, trainers
from earnest.profiles.fingerprint import literals, pattern
from earnest.profiles.formula import evaluate
from earnest.profiles.models import model, models
from earnest.profiles.profile import FOLDER, Defect, Fingerprint, Logged, Profile, Sign
from earnest.rules.catalogue import RULES
from earnest.signals import SIGNALS
from earnest.streams import parse

ROOT = Path(__file__).parent.parent
CASES = sorted((ROOT / "tests" / "profiles").glob("*.md"))
LOGS = ROOT / "tests" / "logs"


def log(case: Path, section: str, folder: Path) -> Path:
    """The log under a heading of a case, written to a file of its own ending."""
    found = re.search(rf"^## {section}\n+```(\w+)\n(.*?)```", case.read_text(), re.MULTILINE | re.DOTALL)
    ending, text = found.groups()
    path = folder / f"{section.lower()}.{ending}"
    path.write_text(text)
    return path


def gives(case: Path) -> dict:
    return json.loads(re.search(r"^## Gives\n+```json\n(.*?)```", case.read_text(), re.MULTILINE | re.DOTALL)[1])


def shown(path: Path) -> Shown:
    """What a log shows, as far as the readers tell."""
    try:
        facts = logs.read(path).facts
    except UserError:  # lists without names
        facts = Facts()
    columns = {*(facts.mapping or {}), *(facts.unmapped or {})}
    bare = {re.sub(r"^(train|val|valid|eval)/|/(train|val)$", "", name) for name in columns}
    text = "" if path.is_dir() else path.read_text(errors="replace")
    return Shown(frozenset(columns | bare), text)


def test_every_profile_has_a_case():
    assert sorted(path.stem for path in CASES) == sorted(profiles())


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_page_holds_no_unknown_field(name):
    text = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    known = {Profile: text.keys() - {"facts"}, Facts: text.get("facts", {}).keys()}
    for type_, key in ((Fingerprint, "fingerprints"), (Logged, "logged"), (Defect, "defects")):
        known[type_] = {field for entry in text.get(key, []) for field in entry}
    known[Sign] = {field for entry in text.get("defects", []) for field in entry.get("sign", {})}
    for type_, used in known.items():
        assert used <= {field.name for field in fields(type_)}, name


@pytest.mark.parametrize("one", profiles().values(), ids=lambda one: one.name)
def test_a_page_keeps_the_form(one):
    assert Facts().updated(one.facts.known()) == one.facts
    assert one.extends in ("", *profiles())
    assert any(not fingerprint.weak for fingerprint in one.fingerprints)
    for fingerprint in one.fingerprints:
        assert bool(fingerprint.columns) != bool(fingerprint.line)
        assert fingerprint.line.count("…") <= 1, "two of them make the search quadratic"
        if fingerprint.line:
            example = fingerprint.line.strip("^$").replace("#", "1.5e-3").replace("…", "x")
            assert pattern(fingerprint.line).search(example)
            assert max(map(len, literals(fingerprint.line))) >= 4
    for logged in one.logged:
        assert logged.signal.partition("/")[0] in ("", "ignore", "step", *SIGNALS)
        assert not logged.divided or logged.stream is not None
        assert logged.chance == "" or evaluate(logged.chance, dict.fromkeys(FACTS, 2.0)) is not None
        assert logged.stream is None or logged.means
    for defect in one.defects:
        assert defect.what.endswith(".") and defect.shows
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread) for thread in defect.issue.split(", ") if thread)
        assert set(defect.rules) <= RULES.keys()
        sign = defect.sign
        assert sign is None or sign.stream in [logged.stream for logged in one.logged]
        assert sign is None or bool(sign.start) != bool(sign.end)


@pytest.mark.parametrize("section", ["Healthy", "Sick"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_its_logs_are_recognised_and_no_other_claims_them(case, section, tmp_path):
    seen = shown(log(case, section, tmp_path))
    found = recognise(seen)
    assert (found.profile and found.profile.name) == case.stem, [match.profile.name for match in matches(seen)]
    assert found.profile.title in found.note


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_it_gives_is_what_the_formula_says(case):
    expected, given = gives(case), profile(case.stem).facts_given(Facts()).known()
    assert given["trainer"] == case.stem
    assert expected.get("facts", {}).items() <= given.items()
    assert expected.get("units", {}).items() <= given.get("units", {}).items()
    for stream, level in expected.get("baselines", {}).items():
        assert given["baselines"][stream] == pytest.approx(level, abs=6e-4)


def test_known_facts_win_and_levels_follow_them():
    vits = profile("vits")
    assert vits.facts_given(Facts()).baselines == {parse("loss_d"): 3.0}
    assert vits.facts_given(Facts(sub_discriminators=8)).baselines == {parse("loss_d"): 4.0}
    assert vits.facts_given(Facts(baselines={parse("loss_d"): 5.0})).baselines == {parse("loss_d"): 5.0}
    cosyvoice = profile("cosyvoice-llm")
    assert cosyvoice.facts_given(Facts()).baselines is None
    assert cosyvoice.facts_given(Facts(audio_vocab=4097)).baselines == {parse("total"): math.log(4097)}


@pytest.mark.parametrize("path", sorted(path for path in LOGS.iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_logs_of_others_are_not_claimed(path):
    if path.name in ("crashers", "tensorboard_everything"):
        pytest.skip("no log of a run")
    found = recognise(shown(path / "csv" if (path / "csv").is_dir() else path)).profile
    assert found is None or (found.name == "hf-trainer" and path.name.startswith("hf_"))


# the trainers of ../shared/strangers/names, by their files
STRANGERS = {
    "acestep.csv": None,
    "cosyvoice_console.log": "cosyvoice-llm",
    "cosyvoice_tb.csv": "cosyvoice-llm",
    "dac_tb.csv": "dac",
    "encodec_audiocraft.csv": "audiocraft-encodec",
    "espnet_speechlm.log": "espnet",
    "f5tts.csv": "f5-tts",
    "gptsovits_s1.csv": "gpt-sovits-s1",
    "hf_console.log": "hf-trainer",
    "higgs_jimmy_console.log": "higgs-jimmyma99",
    "moshi_console.log": "moshi-finetune",
    "moshi_metrics.jsonl": "moshi-finetune",
    "musicgen.csv": "audiocraft-musicgen",
    "nanotron.log": None,
    "nemo2_console.log": "nemo-llm",
    "olmocore.csv": None,
    "orpheus_pretrain.csv": None,
    "speechbrain.txt": None,
    "stableaudio_dit.csv": "stable-audio-diffusion",
    "swift_logging.jsonl": "ms-swift",
    "torchtitan_console.log": "torchtitan",
    "torchtitan_tb.csv": "torchtitan",
    "trl_sft.jsonl": "trl-sft",
    "unsloth_table.tsv": "hf-trainer",
}
NAMES = [names for above in ROOT.parents if (names := above / "shared" / "strangers" / "names").is_dir()]


@pytest.mark.skipif(not NAMES, reason="the folder of strangers' logs is not there")
@pytest.mark.parametrize("file", STRANGERS)
def test_strangers_logs_are_recognised(file):
    found = recognise(shown(NAMES[0] / file)).profile
    assert (found and found.name) == STRANGERS[file]


def test_a_tie_is_told_and_none_is_taken():
    piper = {"loss_gen_all", "loss_disc_all"}
    found = recognise(Shown(frozenset(piper | {"train/std_data", "train/loss", "train/mse_loss"})))
    assert found.profile == profile("stable-audio-diffusion"), "three names against two"
    found = recognise(Shown(frozenset(piper | {"backbone_loss", "depth_decoder_loss"})))
    assert found.profile is None and "piper or unsloth-csm" in found.note and "--trainer" in found.note


def test_a_weak_fingerprint_counts_only_beside_another():
    assert recognise(Shown(frozenset({"loss", "lr"}))).profile is None
    assert recognise(Shown(frozenset({"loss", "lr", "duration loss"}))).profile == profile("f5-tts")


@pytest.mark.parametrize("line", [line.line for one in profiles().values() for line in one.fingerprints if line.line])
def test_a_search_takes_linear_time(line):
    """On text that begins like the line again and again."""
    for piece in (line[: len(line) // 2], line[:-1], line.partition("…")[0]):
        text = piece.replace("#", "1" * 50).strip("^$") * (65_536 // max(len(piece), 1))
        start = time.process_time()
        pattern(line).search(text)
        assert time.process_time() - start < 2.0


@pytest.mark.parametrize("formula", ["__import__('os')", "text_vocab ** 9", "'a' * 9", "ln(1, 2)", "ln", "open('x')"])
def test_a_formula_is_arithmetic_only(formula):
    if formula == "ln":
        assert evaluate(formula, {}) is None
        return
    with pytest.raises(ValueError, match="is no number"):
        evaluate(formula, {"text_vocab": 3})


def test_formulas():
    assert evaluate("ln(3072) + 0.3 * ln(2048)", {}) == pytest.approx(10.317, abs=1e-3)
    assert evaluate("0.5 * sub_discriminators", {"sub_discriminators": 8}) == 4
    assert evaluate("ln(text_vocab)", {}) is None


def test_an_unknown_trainer():
    with pytest.raises(UserError, match="did you mean qwen3-tts"):
        profile("qwen3tts")


def test_models():
    assert model("Qwen/Qwen3-TTS-12Hz-1.7B-Base") == model("qwen3-tts") == model("Qwen3-TTS-12Hz-0.6B-Base")
    assert model("orpheus-3b").facts.joint_vocab == 156940
    with pytest.raises(UserError, match="--config"):
        model("some-model-of-mine")
    for one in models().values():
        assert one.source and one.hub and Facts().updated(one.facts.known()) == one.facts
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", hub) for hub in one.hub)


def test_pages_are_generated():
    for path, text in pages().items():
        assert (ROOT / path).read_text() == text, f"{path} is old: python -m earnest.profiles.explain"


def test_pages_name_everything():
    assert all(f"| {name} |" in trainers() for name in profiles())
    assert all(f"| {name} |" in known_models() for name in models())
    qwen = page(profile("qwen3-tts"))
    assert "ln(3072) + 0.3 * ln(2048)" in qwen and "QwenLM/Qwen3-TTS#371" in qwen and "audio_vocab=3072" in qwen
    assert "no public thread" in page(profile("parler-tts")), "what was found by reading alone is called so"

"""A stream that cannot be judged is a door: the report says which number is missing, where it stands, what to type."""

import math
import shlex

import numpy as np
import pytest

from earnest.cli import main
from earnest.logs import read
from earnest.profiles import profiles
from earnest.profiles.models import known_as, model, models
from earnest.rules import diagnose
from earnest.rules.finding import Diagnosis
from earnest.run import Run
from earnest.streams import TOTAL, parse

STEPS = np.arange(10, 610, 10)


def falls(start: float, end: float) -> np.ndarray:
    """A loss over 60 rows, which begins at its start."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(STEPS))
    return end + (start - end) * np.exp(-(STEPS - STEPS[0]) / 100) + noise * (STEPS[0] < STEPS)


def of(facts: dict | None = None, **losses: np.ndarray) -> Diagnosis:
    series = {f"train/{name.replace('__', '/')}": (STEPS, value) for name, value in losses.items()}
    return diagnose(Run.of(facts or {}, series))


def test_a_vocabulary_is_asked_for():
    (ask,) = of(loss=falls(4.8, 4.2)).asks
    assert ask.streams == (TOTAL,) and "config.json" in ask.where
    assert ask.command == "earnest diagnose LOG --fact text_vocab=..."
    assert any("--model NAME" in hint and "--config PATH" in hint for hint in ask.hints)
    assert any("joint_vocab" in hint for hint in ask.hints)


def test_text_and_audio_are_asked_for_apart():
    text, audio = of(loss__text=falls(3, 2), loss__audio=falls(6, 4)).asks
    assert "text_vocab=" in text.command and "audio_vocab=" in audio.command


def test_a_loss_that_begins_at_a_known_level_is_a_question():
    (ask,) = of(loss=falls(math.log(2051), 6.0)).asks
    assert any("ln 2051 (csm-1b" in hint and hint.endswith("?") for hint in ask.hints), ask.hints
    assert not any(hint.endswith("?") for hint in of(loss=falls(5.1, 4.0)).asks[0].hints), "nothing is known there"


@pytest.mark.parametrize("facts", [{"text_vocab": 32000}, {"units": {"total": "sum"}}, {"baselines": {"total": 5.0}}])
def test_nothing_is_asked_for_that_is_known_or_would_not_help(facts):
    assert not of(facts, loss=falls(4.8, 4.2)).asks


def test_a_printed_divided_loss_asks_by_what():
    facts = {"units": {"total": "divided"}, "audio_vocab": 6564}
    (ask,) = of(facts, loss=falls(2.0, 1.6)).asks
    assert ask.command.endswith("--fact accumulation_steps=...")


def test_of_a_codec_the_kind_of_adversary_is_asked_and_what_silence_scores():
    adversary, parts = of(loss__loss_d=falls(4, 3), loss__mel=falls(2, 1), loss__stft=falls(3, 2)).asks
    assert "gan_loss" in adversary.command
    assert parts.streams == (parse("mel"), parse("stft"))
    assert shlex.split(parts.command)[-1] == 'baselines={"mel": ..., "stft": ...}'
    many = of({"gan_loss": "lsgan"}, loss__loss_d=falls(4, 3))
    assert "sub_discriminators" in many.asks[0].command


def test_what_is_asked_for_lets_it_be_judged(tmp_path, capsys):
    """The command as it is printed, with a number in place of the dots."""
    path = tmp_path / "my log.csv"
    rows = "".join(f"{step},{loss:.4f}\n" for step, loss in zip(STEPS, falls(8.3, 4.2), strict=True))
    path.write_text("step,train_loss\n" + rows)
    (ask,) = diagnose(read(path)).asks
    words = shlex.split(ask.command.replace("...", "4096"))
    assert words[0] == "earnest" and words[2] == str(path)
    main([*words[1:], "--format", "markdown"])
    assert "learning" in (said := capsys.readouterr().out) and "To judge more" not in said


def test_a_trainer_that_trains_several_models_names_them():
    (ask,) = of({"trainer": "cosyvoice-llm"}, loss=falls(2.0, 1.6)).asks
    assert ask.command.endswith("--model cosyvoice2")
    assert any("--model cosyvoice3" in hint for hint in ask.hints)
    for page in profiles().values():
        assert all(name in models() for name in page.models)


def test_a_log_that_names_a_model_says_so(tmp_path):
    path = tmp_path / "train.log"
    rows = "".join(f"step {step} loss {loss:.4f}\n" for step, loss in zip(STEPS, falls(8, 4), strict=True))
    path.write_text("loading canopylabs/orpheus-tts-0.1-pretrained\n" + rows)
    assert any("--model orpheus-3b" in note for note in read(path, facts={"trainer": "none"}).notes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("unsloth/Llama-3.2-1B-Instruct-bnb-4bit", "llama-3"),
        ("/models/csm-1b/", "csm-1b"),
        ("Qwen/Qwen2.5-72B", "qwen2.5-7b"),
        ("Qwen/Qwen3-8B-audio", None),
        ("llama", None),
        ("", None),
    ],
)
def test_a_checkpoint_s_name_means_a_model(name, expected):
    found = known_as(name)
    assert (found.name if found else None) == expected


JOINT = model("orpheus-3b").facts.known()


def judged(start: float, end: float, facts: dict | None = None):
    return of(JOINT if facts is None else facts, loss=falls(start, end)).verdicts[0]


def test_a_joint_vocabulary_has_three_levels():
    verdict = judged(8.0, 4.0)
    assert [round(rung.value, 3) for rung in verdict.ladder] == [
        round(math.log(size), 3) for size in (156940, 156940 - 128256, 4096)
    ]
    assert verdict.verdict == "learning"
    assert all(f"{math.log(size):.3f}" in verdict.why for size in (156940, 28684, 4096))


@pytest.mark.parametrize(
    ("start", "end", "word"),
    [(12.0, 11.9, "at-chance"), (12.0, 9.0, "unigram-only"), (12.0, 8.2, "unigram-only"), (12.0, 5.0, "learning")],
)
def test_knowing_which_ids_may_follow_is_not_learning(start, end, word):
    assert judged(start, end).verdict == word


def test_of_a_joint_vocabulary_less_may_be_known():
    assert judged(12, 5, {"joint_vocab": 156940}).baseline.value == pytest.approx(math.log(156940))
    named = [rung.name for rung in judged(12, 5, {"joint_vocab": 156940, "text_vocab": 128256}).ladder]
    assert named == ["uniform", "audio ids"]
    named = [rung.name for rung in judged(12, 5, {"joint_vocab": 156940, "audio_vocab": 4096}).ladder]
    assert named == ["uniform", "one codebook's ids"]


def test_a_joint_vocabulary_that_is_no_larger_than_its_parts_is_none():
    assert [rung.name for rung in judged(12, 5, {"joint_vocab": 1000, "text_vocab": 128256}).ladder] == ["uniform"]

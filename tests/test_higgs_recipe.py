"""Fine-tuning a Higgs as a user does it: conversations in, adapters out, a voice cloned, held-out speakers, mistakes
told."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HiggsAudioV2ForConditionalGeneration

from earnest.checkpoints import checkpoints, latest_checkpoint
from earnest.cli import main
from earnest.codecs import load_codec
from earnest.data.audio import write_wave
from earnest.data.layouts.paths import Source
from earnest.data.masks import IGNORE
from earnest.errors import UserError
from earnest.models import load_model
from earnest.recipes.higgs import HiggsConfig, References, assemble, build
from earnest.run import read_run
from earnest.streams import TEXT, Codebook
from earnest.training.clips import find_clips
from earnest.training.tokens.assembly import weights_of
from earnest.training.tokens.config import Data
from earnest.training.tokens.preparation import encoded, prepare
from tests.equipment.texts import REFERENCE_TEXT, TARGET_TEXT

SHAPE = ("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64")
QUICK = (
    *("--demos.every-steps", "0", "--evaluate-every-steps", "100"),
    *("--optimizer.warmup-steps", "1", "--data.positions-per-batch", "600"),
)
SPEAKERS = ("anna", "ben", "carla")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = os.environ.get("EARNEST_CACHE")
    os.environ["EARNEST_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("EARNEST_CACHE") if before is None else os.environ.update(EARNEST_CACHE=before)


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    """Eighteen short clips of three speakers, each a tone of its own; and the same as cloning conversations in
    Arabic."""
    folder = tmp_path_factory.mktemp("voices")
    time_s = np.arange(16000 * 3 // 10) / 16000
    rows, talks = ["file_name,text,speaker"], []
    for number in range(18):
        speaker = SPEAKERS[number % 3]
        tone = np.sin(2 * np.pi * (150 + 100 * (number % 3)) * time_s * (1 + number / 100)).astype(np.float32)
        write_wave(folder / f"{number}.wav", 0.3 * tone, 16000)
        rows.append(f"{number}.wav,word {number},{speaker}")
        if number > 2:
            talks.append(
                {
                    "messages": [
                        {"role": "user", "content": REFERENCE_TEXT},
                        {"role": "assistant", "content": {"type": "audio", "audio_url": f"{number - 3}.wav"}},
                        {"role": "user", "content": TARGET_TEXT},
                        {"role": "assistant", "content": {"type": "audio", "audio_url": f"{number}.wav"}},
                    ],
                    "start_index": 2,
                    "speaker": speaker,
                }
            )
    (folder / "metadata.csv").write_text("\n".join(rows))
    (folder / "talks.json").write_text(json.dumps(talks, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(voices, tmp_path_factory) -> Path:
    """A run trained on conversations."""
    run_dir = tmp_path_factory.mktemp("runs") / "base"
    options = ["--data.path", str(voices / "talks.json"), "--steps", "3", *SHAPE, *QUICK]
    assert main(["train", "higgs-tiny", "--out", str(run_dir), *options]) == 0
    return run_dir


def test_conversations_are_trained_on_and_a_voice_is_cloned(base, voices, tmp_path):
    run = read_run(base)
    assert run.facts.train_clips + run.facts.held_out_clips == 15 and run.facts.left_out_clips == ()
    predicted = (base / next(one.path for one in run.artifacts if one.kind == "prediction")).read_text(encoding="utf-8")
    written = json.loads(predicted.splitlines()[0])["written"]
    assert REFERENCE_TEXT in written and TARGET_TEXT in written  # through tokens and back, letter by letter
    out = tmp_path / "cloned.wav"
    reference = ["--reference", str(voices / "4.wav"), "--reference-text", REFERENCE_TEXT]
    words = ["--text", TARGET_TEXT, *reference, "--max-duration-s", "0.2"]
    assert main(["generate", str(base), *words, "--out", str(out)]) == 0
    assert soundfile.info(out).samplerate == 16000
    assert main(["generate", str(base), *words, "--out", str(tmp_path / "again.wav")]) == 0
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()


def test_lora_from_a_checkpoint_resumed_merged_and_loaded_by_plain_transformers(base, voices, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    model, run_dir, resumed = latest_checkpoint(base).relative_to(base.parent), tmp_path / "lora", tmp_path / "resumed"
    options = ["higgs-tiny", "--model", str(model), "--lora.rank", "4", "--lora.dropout", "0.1"]
    options += ["--cloning.frac", "0.5"]
    options += ["--data.path", str(voices), "--steps", "4", "--save-every-steps", "2", *QUICK]
    assert main(["train", *options, "--out", str(run_dir)]) == 0
    facts = read_run(run_dir).facts
    assert facts.pretrained and facts.trainable_parameters == 4 * (4 * (32 + 32) + 3 * (32 + 64))
    shutil.copytree(run_dir, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    assert main(["train", *options, "--out", str(resumed), "--resume"]) == 0
    for name in ("train/loss", "train/grad_norm", "eval/ce_nats/codebook_0"):
        assert read_run(resumed)[name].value.tolist() == read_run(run_dir)[name].value.tolist(), name

    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(run_dir), str(tmp_path / "merged")]) == 0
    plain = HiggsAudioV2ForConditionalGeneration.from_pretrained(tmp_path / "merged", use_text_head=True)
    adapted = load_model(latest_checkpoint(run_dir))
    example = adapted.lay_out(torch.randint(0, 1024, (8, 9)), TARGET_TEXT)
    inputs = {
        "input_ids": example.text_S[None],
        "audio_input_ids": example.tokens_SC[None],
        "audio_input_ids_mask": example.is_audio_S[None],
    }
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, adapted.lm(**inputs).logits, rtol=1e-4, atol=1e-5)
    words = ["--text", "x", "--speaker", "anna", "--out", str(tmp_path / "said.wav"), "--max-duration-s", "0.1"]
    assert main(["generate", str(run_dir), *words]) == 0
    assert main(["merge", str(base), str(tmp_path / "nothing")]) == 2


def test_held_out_speakers_are_never_trained_on(voices):
    config = HiggsConfig(
        data=Data(path=str(voices), held_out="speakers", held_out_frac=0.0), cloning=References(frac=1.0)
    )
    codec = load_codec("amy-tiny")
    corpora = prepare(config, assemble(config, codec), codec)
    train, held_out, facts = corpora.train, corpora.held_out, corpora.facts
    assert len(facts.held_out_speakers) == 1 and not set(facts.held_out_speakers) & set(facts.speakers)
    assert len(held_out) == 6 and len(train) == 12
    for row in held_out.rows:  # its reference is the same speaker's, its target the row's own
        turns = held_out.vary(row, None).turns
        assert [turn.scored for turn in turns] == [False, False, False, False, True]
        assert np.array_equal(turns[-1].parts[0], row.codes_CT)
        assert turns[1].parts[0] in {other.text for other in held_out.rows} - {row.text}


def test_special_tokens_in_or_out_of_the_loss(voices):
    codec = load_codec("amy-tiny")
    [[row]], _ = encoded([find_clips(Source(str(voices)))[:1]], codec)
    counted = {}
    for specials_count in (True, False):
        model = build(HiggsConfig(specials_count=specials_count), codec)
        example = model.lay_out(torch.as_tensor(row.codes_CT.astype(np.int64)), "x")
        counted[specials_count] = (example.audio_targets_SC != IGNORE).sum(0)
        assert (example.audio_targets_SC == model.eos_id).any() == specials_count
        assert (example.text_targets_S != IGNORE).any() == specials_count
    assert torch.equal(counted[True], counted[False] + 1)


def test_codebook_weights_are_shares_of_the_audio_weight():
    weights = weights_of(HiggsConfig(codebook_weights=(3.0, 1.0), audio_weight=2.0, text_weight=0.0), 2)
    assert weights == {TEXT: 0.0, Codebook(0): 1.5, Codebook(1): 0.5}
    led = weights_of(HiggsConfig(codebook_weights=(6.0, 1.0)), 4)  # the last one goes on
    assert [led[Codebook(c)] for c in range(4)] == pytest.approx([6 / 9, 1 / 9, 1 / 9, 1 / 9])
    for wrong in ((1.0, 1.0, 1.0), (1.0, -1.0), (0.0, 0.0)):
        with pytest.raises(UserError, match="codebook weights"):
            weights_of(HiggsConfig(codebook_weights=wrong), 2)


def test_trace_shows_document_001s_shape_and_labels(voices, capsys, monkeypatch):
    """Audio logits [N, 8, 1026]; masked where BOS and fills stand and in the reference, codes, and one 1025 in every
    codebook."""
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["trace", "higgs-tiny", "--data.path", str(voices), "--cloning.frac", "1"]) == 0
    said = capsys.readouterr().out
    frames = 15  # of 0.3 s at 50 frames/s
    assert f"{2 * (frames + 9)} × 8 × 1026" in said
    assert said.count(f"{frames + 1} of {2 * (frames + 9)}") == 8 and said.count(" 1025 ") >= 8


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "higgs-tiny", "--lora.rank", "4", "--data.path", "{voices}"], "from scratch"),
        (
            ["train", "higgs-tiny", "--model", "{base}", "--lora.rank", "4", "--lora.targets", "gate_proj"],
            "audio_mlp.gate_proj",
        ),
        (
            ["train", "higgs-tiny", "--model", "{base}", "--lora.rank", "4", "--lora.targets", "nothing"],
            "no linear layer",
        ),
        (["train", "higgs-tiny", "--model", "{voices}"], "no model at"),
        (["train", "dia-tiny", "--data.path", "{voices}/talks.json"], "conversations"),
        (["train", "higgs-tiny", "--data.path", "{voices}/gone.json"], "gone.json"),
        (["train", "higgs-tiny", "--data.path", "{voices}", "--codebook-weights", "1", "-2"], "codebook weights"),
        (["generate", "{run}", "--text", "x", "--out", "x.wav", "--reference", "{voices}/4.wav"], "--reference-text"),
        (
            ["generate", "{run}", "--text", "x", "--out", "x.wav", "--reference", "gone.wav", "--reference-text", "y"],
            "gone.wav",
        ),
        (
            [
                "generate",
                "{run}",
                "--text",
                "x",
                "--out",
                "x.wav",
                "--reference",
                "{voices}/long.wav",
                "--reference-text",
                "y",
            ],
            "audio frames",
        ),
    ],
)
def test_mistakes_end_in_three_lines(base, voices, args, words, tmp_path, monkeypatch, capsys):
    if not (voices / "long.wav").exists():
        write_wave(voices / "long.wav", np.zeros(16000 * 45, np.float32) + 0.1, 16000)
    monkeypatch.chdir(tmp_path)
    places = {"base": latest_checkpoint(base), "run": base, "voices": voices}
    assert main([arg.format(**places) for arg in args]) == 2
    said = capsys.readouterr().err
    assert words in said and "expected:" in said and "Traceback" not in said

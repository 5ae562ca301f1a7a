"""The whole recipes on tiny checkpoints in exactly the released formats: layouts, precision, every command, and what
comes out."""

import copy
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    DiaForConditionalGeneration,
    HiggsAudioV2ForConditionalGeneration,
    PreTrainedTokenizerFast,
    processing_utils,
)

from earnest.checkpoints import checkpoints, latest_checkpoint
from earnest.cli import main
from earnest.codecs.pretrained import load_pretrained, model_class
from earnest.codecs.resampling import as_torchaudio
from earnest.data.audio import write_wave
from earnest.data.layouts.chatml import load_conversations
from earnest.data.masks import IGNORE
from earnest.data.patterns import undelay
from earnest.errors import UserError
from earnest.generate import Request, generate
from earnest.models import load_model
from earnest.models.precision import train_in_float32
from earnest.rules import diagnose
from earnest.run import read_run
from earnest.sampling import Repetition, Sampling
from earnest.speech import load_run
from tests.equipment import released as released_formats

TEXT = "The quick brown fox jumps over the lazy dog, and sleeps."


@pytest.fixture(scope="module")
def higgs(released):
    return load_model(released("higgs"))


def random_codes(codebooks: int = 8, frames: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 1024, (codebooks, frames), generator=torch.Generator().manual_seed(seed))


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_clip_asks_the_tokenizer_of_128256_ids_once(higgs, monkeypatch):
    """With `get_vocab()` a clip took 0.2 s, and no test with a small vocabulary saw it."""
    calls = Counter[str]()
    real = Tokenizer.encode

    class Counted:
        def __getattr__(self, name):
            return getattr(backend, name)

        def __setattr__(self, name, value):
            setattr(backend, name, value)

        def encode(self, *args, **kwargs):
            calls["encode"] += 1
            return real(backend, *args, **kwargs)

        def get_vocab(self, *args):
            calls["get_vocab"] += 1
            return backend.get_vocab(*args)

    backend = higgs.tokenizer.backend_tokenizer
    assert len(higgs.tokenizer) == 128_256
    higgs.lay_out(random_codes(), TEXT)  # headers and the system turn are kept from here on
    monkeypatch.setattr(higgs.tokenizer, "_tokenizer", Counted())
    monkeypatch.setattr(PreTrainedTokenizerFast, "get_vocab", lambda self: calls.update(get_vocab=1) or {})
    with Operations() as operations:
        higgs.lay_out(random_codes(), TEXT + " Twice.")
    assert calls == {"encode": 1}
    assert operations.count < 80


def test_a_scene_is_one_text_with_its_system_turn_as_in_transformers(higgs, released, tmp_path):
    messages = [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "scene", "content": "A quiet room."},
        {"role": "user", "content": TEXT},
    ]
    (tmp_path / "a.wav").touch()
    answer = {"role": "assistant", "content": {"type": "audio", "audio_url": "a.wav"}}
    (tmp_path / "talk.json").write_text(json.dumps({"messages": [*messages, answer]}))
    (conversation,) = load_conversations(tmp_path / "talk.json")
    tokenizer = AutoTokenizer.from_pretrained(released("higgs"))
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ours = higgs.prompt(None, turns=conversation.turns[:-1]).text_S.tolist()
    assert ours == tokenizer.encode(theirs, add_special_tokens=False)
    assert tokenizer.convert_tokens_to_ids(".ĊĊ") in ours  # the end of one part and the beginning of the next


def test_what_is_trained_is_kept_in_float32_and_frozen_weights_as_they_were_released(higgs):
    model = copy.deepcopy(higgs)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.lm.model.embed_tokens.requires_grad_(False)
    train_in_float32(model)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    assert model.lm.model.embed_tokens.weight.dtype == torch.bfloat16
    example = model.lay_out(random_codes(), TEXT)
    assert (example.audio_targets_SC != IGNORE).sum() == 8 * 41


# --- the README's whole commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Twelve clips of a second, two speakers, at 24 kHz."""
    folder = tmp_path_factory.mktemp("voices")
    rows = ["file_name,text,speaker"]
    for number in range(12):
        time_s = np.arange(24_000) / 24_000
        tone = np.sin(2 * np.pi * (150 + 90 * (number % 2)) * time_s * (1 + number / 50)).astype(np.float32)
        write_wave(folder / f"{number}.wav", 0.3 * tone, 24_000)
        rows.append(f'{number}.wav,"[S1] word {number}. {TEXT * (1 + number % 3)}",{"ab"[number % 2]}')
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARNEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(*words) -> None:
    assert main([*map(str, words)]) == 0


QUICK = ("--steps", 2, "--optimizer.warmup-steps", 1, "--evaluate-every-steps", 100, "--demos.every-steps", 100)
QUICK += ("--demos.max-duration-s", 0.1, "--demos.temperatures", 0)
QUICK += ("--predictions", 1, "--data.positions-per-batch", 900)


@pytest.fixture(scope="module")
def higgs_run(released, voices, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "higgs"
    adapted = ("--lora.rank", 4, "--cloning.frac", 0.5, "--recompute")
    start = ("--model", released("higgs"), "--codec", released("higgs_codec"), "--data.path", voices)
    run("train", "higgs", *start, *adapted, *QUICK, "--save-every-steps", 1, "--out", out)
    return out


def _processes_as(original, ours, monkeypatch) -> None:
    """A checkpoint's processor gives text and audio as the released one's does."""
    name = "HiggsAudioV2TokenizerModel"
    # as it is where torchaudio is installed; processors look in a copy of transformers' own module
    monkeypatch.setattr(processing_utils.transformers_module, name, model_class(name))
    wave_N = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    text = f"<|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>{TEXT}"
    theirs, found = (
        AutoProcessor.from_pretrained(path)(text=text, audio=wave_N, return_tensors="pt", output_labels=True)
        for path in (original, ours)
    )
    assert {"input_ids", "audio_input_ids", "labels", "audio_labels"} <= theirs.keys() == found.keys()
    assert all(torch.equal(found[key], theirs[key]) for key in theirs)
    assert theirs["audio_input_ids"].shape == (1, 25 + 2 + 7, 8)


def test_higgs_with_adapters_is_resumed_bit_by_bit_merged_and_opened_by_transformers(
    higgs_run, released, tmp_path, monkeypatch
):
    trained = read_run(higgs_run)
    assert "C107" not in [finding.rule for finding in diagnose(trained).findings]
    assert trained.facts.config["optimizer"]["learning_rate"] is None
    assert {artifact.step for artifact in trained.artifacts if artifact.kind == "demo"} == {0, 2}
    resumed = tmp_path / "resumed"
    shutil.copytree(higgs_run, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    words = ("--lora.rank", 4, "--cloning.frac", 0.5, "--recompute", *QUICK, "--save-every-steps", 1)
    config = trained.facts.config
    start = ("--model", config["model"], "--codec", config["codec"], "--data.path", config["data"]["path"])
    run("train", "higgs", *start, *words, "--out", resumed, "--resume")
    adapters = [load_file(latest_checkpoint(path) / "adapter_model.safetensors") for path in (higgs_run, resumed)]
    assert all(torch.equal(tensor, adapters[1][name]) for name, tensor in adapters[0].items())
    assert {tensor.dtype for tensor in adapters[0].values()} == {torch.float32}

    merged = tmp_path / "merged"
    run("merge", higgs_run, merged)
    with as_torchaudio():
        tokenizer = AutoTokenizer.from_pretrained(merged)
        assert tokenizer.chat_template
    for path in (merged, latest_checkpoint(higgs_run)):
        assert json.loads((path / "processor_config.json").read_text())["processor_class"] == "HiggsAudioV2Processor"
        assert "held-out cross-entropy" in (path / "README.md").read_text()
    _processes_as(released("higgs"), merged, monkeypatch)
    plain, report = HiggsAudioV2ForConditionalGeneration.from_pretrained(
        merged, use_text_head=True, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert plain.dtype == torch.bfloat16
    ours = load_model(merged)
    prompt = ours.prompt(TEXT)
    (generated,) = generate(ours, [Request(prompt)], max_frames=20, sampling=Sampling(repetition=Repetition(0)))
    plain.generation_config.update(do_sample=False, ras_win_len=None, max_new_tokens=16)
    codes = plain.generate(prompt.text_S[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.bool))
    audio = getattr(codes, "audio_sequences", codes)
    undelayed_CT = undelay(audio[0].T, ours.delays)[:, 1:]
    frames = min(undelayed_CT.shape[1], 8)
    assert torch.equal(undelayed_CT[:, :frames], generated.codes_CT[:, :frames])
    words = ("--text", TEXT, "--codec", released("higgs_codec"), "--max-duration-s", 0.2)
    run("generate", merged, *words, "--out", tmp_path / "a.wav")


def test_a_voice_is_cloned_from_the_run_and_from_the_released_checkpoint(higgs_run, released, voices, tmp_path):
    reference = ("--reference", voices / "0.wav", "--reference-text", "word 0.")
    reference += ("--max-duration-s", 0.1, "--device", "cpu")
    run("generate", higgs_run, "--text", "x", *reference, "--out", tmp_path / "a.wav", "--checkpoint", 1)
    codec = ("--codec", released("higgs_codec"))
    run("generate", released("higgs"), "--text", "x", *codec, *reference, "--out", tmp_path / "b.wav")
    dia = ("--codec", released("dac"), "--text", "[S1] x")
    run("generate", released("dia"), *dia, *reference, "--out", tmp_path / "c.wav")
    assert soundfile.info(tmp_path / "c.wav").samplerate == 44_100
    assert main(["generate", str(higgs_run), "--text", "x", "--checkpoint", "7", "--out", str(tmp_path / "d.wav")]) == 2


@pytest.mark.parametrize("rank", [0, 4])
def test_dia_whole_and_with_adapters(released, voices, tmp_path, rank):
    start = ("--model", released("dia"), "--codec", released("dac"), "--data.path", voices, "--lora.rank", rank)
    run("train", "dia", *start, *QUICK, "--out", tmp_path / "dia")
    checkpoint = latest_checkpoint(tmp_path / "dia")
    if rank:
        run("merge", tmp_path / "dia", tmp_path / "merged")
        checkpoint = tmp_path / "merged"
    _, report = DiaForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert processor.audio_tokenizer.config.n_codebooks == 9
    model = load_model(checkpoint)
    assert (model.published.temperature, model.published.guidance, model.published.sampling.top_k) == (1.2, 4.0, 45)
    run("generate", tmp_path / "dia", "--text", "[S1] x", "--max-duration-s", 0.1, "--out", tmp_path / "a.wav")


def test_mot_learns_by_default_cuts_captions_and_opens_with_automodel(released, voices, tmp_path, capsys):
    start = ("--backbone", released("llama"), "--experts", released("musicgen"), "--codec", released("encodec"))
    small = ("--data.path", voices, "--data.window-s", 0.5, "--design.text-window", 64)
    run("train", "mot", *start, *small, *QUICK, "--out", tmp_path / "mot")
    facts = read_run(tmp_path / "mot").facts
    assert facts.left_out_clips == () and facts.cut_texts == 8
    assert facts.config["design"]["attention"] == "new" and facts.config["design"]["output"] == "audio"
    assert "E206" in [finding.rule for finding in diagnose(read_run(tmp_path / "mot")).findings]
    opened = AutoModel.from_pretrained(latest_checkpoint(tmp_path / "mot"), trust_remote_code=True)
    assert type(opened).__name__ == "MoT"
    run("generate", tmp_path / "mot", "--text", "piano", "--max-duration-s", 0.1, "--out", tmp_path / "a.wav")


def test_amy_leaves_mimis_codebooks_as_they_are(released, voices, tmp_path):
    mimi = tmp_path / "mimi"
    # with a prosody codebook: no k-means, for which 2048 frames go by
    released_formats.mimi(mimi, semantic_codebooks=2)
    given = ("--codec.init", mimi, "--llm", released("qwen3"), "--wavlm", released("wavlm"), "--data.path", voices)
    given += ("--mixed-precision", "no")  # bfloat16 is refused where a convolution is wrong in it
    small = ("--steps", 3, "--data.clips-per-batch", 2, "--probe-s", 0, "--demo-clips", 1)
    small += ("--evaluate-every-steps", 100, "--discriminator.channels", 2, "--discriminator.window-samples", 256)
    run("train", "amy", *given, *small, "--out", tmp_path / "amy")
    before, after = (load_pretrained(str(path)).model for path in (mimi, latest_checkpoint(tmp_path / "amy")))
    for side in ("semantic", "acoustic"):
        quantisers = (getattr(model.quantizer, f"{side}_residual_vector_quantizer") for model in (before, after))
        pairs = list(zip(*(quantiser.layers for quantiser in quantisers), strict=False))
        assert len(pairs) == {"semantic": 2, "acoustic": 7}[side]
        for layers in pairs:
            old_VD, new_VD = (_entries(layer.codebook) for layer in layers)
            assert torch.equal(old_VD, new_VD), side
    start = before.state_dict()
    moved = {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, start[name])}
    assert any("decoder" in name for name in moved)


def _entries(codebook) -> torch.Tensor:
    return codebook.embed_sum / codebook.cluster_usage.clamp(min=codebook.epsilon)[:, None]


def test_the_codec_is_the_one_that_a_checkpoint_names(released):
    path = released("higgs_codec")
    assert load_run(Path(released("higgs")))[1].name == path


def test_boson_ais_own_format_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "higgs_audio"}))
    with pytest.raises(UserError, match="convert_higgs_audio_v2_to_hf"):
        load_model(tmp_path)

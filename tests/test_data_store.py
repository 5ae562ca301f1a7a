"""The store of codes: what it keeps, when it encodes again, and that neighbours, kills and broken clips change
nothing."""

import json
import math
import os
import threading

import numpy as np
import pytest
import soundfile
import torch

from earnest.codecs import load_codec
from earnest.codecs.pretrained import FAMILIES, PretrainedCodec, load_pretrained
from earnest.data.ahead import WORKERS
from earnest.data.audio import read_wave
from earnest.data.clip import Clip
from earnest.data.decoding import read_clips
from earnest.data.sides import split_clips
from earnest.data.store import TRIED_CLIPS, encode_clips, frames_to_redo
from earnest.errors import UserError
from earnest.files import cache_dir, fingerprint
from earnest.training.tokens.config import Data
from earnest.training.tokens.preparation import within
from tests.equipment.codecs import tiny_mimi, with_drawn_entries

HOP = 80


class CountingCodec(torch.nn.Module):
    """Codes of a clip are its quantised frame means, less the mean of the whole (so that padding would change every
    code), under a random weight; counts how many clips it was given."""

    name, sample_rate_hz, hop_samples, codebooks, codebook_size = "owner/counting", 8000, HOP, 3, 50
    channels, device = 1, torch.device("cpu")
    context_frames = math.inf, math.inf

    def __init__(self, seed=0):
        super().__init__()
        self.weight_C = torch.nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(seed)))
        self.given, self.batches = 0, []

    def encode(self, wave_BN):
        assert not self.training and not torch.is_grad_enabled()
        self.given += len(wave_BN)
        self.batches.append(tuple(wave_BN.shape))
        frames_BT = wave_BN.unflatten(1, (-1, HOP)).mean(2)
        frames_BT = (frames_BT - frames_BT.mean(1, keepdim=True)) / 2
        return ((frames_BT[:, None] * self.weight_C[:, None] + 1) * 24).long()


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    clips = []
    for index, samples in enumerate(rng.integers(1, 4000, 40).tolist()):
        path = tmp_path / f"audio/{index}.wav"
        soundfile.write(path, rng.uniform(-1, 1, samples), 8000)
        clips.append(Clip(path, path.name, text=f"text {index}", speaker="ann"))
    return clips


@pytest.fixture
def untried(monkeypatch):
    """No clip is encoded to see whether the codec takes padding, so that clips can be counted."""
    monkeypatch.setattr("earnest.data.store.frames_to_redo", lambda codec, waves: math.inf)


def test_rows_hold_the_facts_of_their_clips_and_the_codes_that_each_has_alone(clips, tmp_path):
    codec = CountingCodec()
    table, skipped = encode_clips(clips, codec, tmp_path / "codes")
    assert len(table) == 40 and skipped == []
    for clip, row in zip(clips, table, strict=True):
        wave_N = soundfile.read(clip.path, dtype="float32")[0]
        frames = -(-len(wave_N) // HOP)
        assert row.codes_CT.shape == (3, frames) and row.codes_CT.dtype == np.uint16
        with torch.no_grad():
            alone_CT = (
                codec.eval().encode(torch.from_numpy(np.pad(wave_N, (0, frames * HOP - len(wave_N))))[None])[0].numpy()
            )
        # a mean summed in another order may fall on the other side of a step
        assert np.mean(row.codes_CT == alone_CT) > 0.99
        assert (row.text, row.speaker, row.source) == (clip.text, "ann", str(clip.path))
    facts = {"name": "owner/counting", "sample_rate_hz": 8000, "hop_samples": HOP, "codebooks": 3, "codebook_size": 50}
    assert table.codec.items() >= facts.items()


def test_a_second_run_encodes_nothing_and_other_weights_everything(clips, tmp_path, untried):
    codec = CountingCodec()
    first, _ = encode_clips(clips, codec, tmp_path / "codes")
    codec.train()
    again, _ = encode_clips(clips[::-1], codec, tmp_path / "codes")
    assert codec.given == 40 and codec.training
    for one, two in zip(first, list(again)[::-1], strict=True):
        np.testing.assert_array_equal(one.codes_CT, two.codes_CT)
    other = CountingCodec(seed=1)
    assert fingerprint(other.state_dict()) != fingerprint(codec.state_dict())
    encode_clips(clips, other, tmp_path / "codes")
    assert other.given == 40
    codec.codebook_size = 60  # the same weights, used otherwise
    encode_clips(clips, codec, tmp_path / "codes")
    assert codec.given == 80
    facts = [json.loads(path.read_text()) for path in sorted((tmp_path / "codes").glob("*/codec.json"))]
    assert sorted(fact["codebook_size"] for fact in facts) == [50, 50, 60]


def test_only_new_and_changed_files_are_encoded_and_texts_come_from_the_clips(clips, tmp_path, untried):
    codec = CountingCodec()
    encode_clips(clips[:30], codec, tmp_path / "codes")
    encode_clips(clips, codec, tmp_path / "codes")
    assert codec.given == 40
    soundfile.write(clips[0].path, np.zeros(HOP * 5), 8000)
    table, _ = encode_clips([Clip(clips[0].path, "0.wav", text="another text")], codec, tmp_path / "codes")
    assert codec.given == 41 and table[0].frames == 5 and table[0].text == "another text"


def test_batches_are_of_one_length_and_progress_is_told(clips, tmp_path, untried):
    codec, told = CountingCodec(), []
    encode_clips(clips, codec, tmp_path / "codes", lambda done, total: told.append((done, total)))
    assert told[-1] == (40, 40) and [done for done, _ in told] == sorted(done for done, _ in told)
    batches = codec.batches
    assert len(set(batches)) == len(batches) < 40 and all(samples % HOP == 0 for _, samples in batches)


class Padding(CountingCodec):
    """The same without the mean of the whole: what is behind a frame does not change it."""

    def encode(self, wave_BN):
        super().encode(wave_BN)
        frames_BT = wave_BN.unflatten(1, (-1, HOP)).mean(2)
        return ((frames_BT[:, None] * self.weight_C[:, None] + 1) * 24).long()


def test_a_codec_that_takes_padding_is_given_clips_of_all_lengths(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("earnest.data.store.BATCH_S", 2.0)
    codec = Padding()
    table, _ = encode_clips(clips, codec, tmp_path / "codes")
    batches = codec.batches[1 + TRIED_CLIPS :]
    assert len(batches) < 10 and sum(count for count, _ in batches) == 40
    assert all(count == 1 or count * samples <= 2.0 * 8000 for count, samples in batches)
    for clip, row in zip(clips, table, strict=True):
        alone, _ = encode_clips([clip], Padding(seed=0), tmp_path / "alone")
        assert np.array_equal(row.codes_CT, alone[0].codes_CT)


def test_padded_batches_of_released_codecs_give_the_codes_of_each_clip_alone(released, tmp_path, monkeypatch):
    """Mimi as it is; of DAC and of the embedded codec the ends are encoded again; of the Higgs tokenizer clips of one
    length alone share a batch."""
    monkeypatch.setattr("earnest.data.store.BATCH_S", 600.0)
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    codecs = {"mimi": PretrainedCodec("mimi", tiny_mimi(), FAMILIES["mimi"]), "dac": load_codec(released("dac"))}
    codecs |= {"amy": load_codec("amy-tiny"), "higgs": with_drawn_entries(load_pretrained(released("higgs_codec")))}
    redone = {}
    for name, codec in codecs.items():
        hop = codec.hop_samples
        waves = [random.normal(0, 0.1, frames * hop - 3).astype(np.float32) for frames in (40, 40, 47, 60, 61)]
        redone[name] = frames_to_redo(codec, waves)
        assert frames_to_redo(codec, waves[:2]) is None
        for number, wave_N in enumerate(waves):
            soundfile.write(tmp_path / f"{name}{number}.wav", wave_N, codec.sample_rate_hz, "FLOAT")
        clips = [Clip(tmp_path / f"{name}{number}.wav", f"{number}.wav") for number in range(len(waves))]
        table, _ = encode_clips(clips, codec, tmp_path / "codes")
        other = [np.mean(row.codes_CT != alone(wave_N, codec)) for row, wave_N in zip(table, waves, strict=True)]
        assert max(other) < 0.01, f"{name}: {other}"  # a sum in another order may choose the next entry
        assert len(np.unique(table[0].codes_CT)) > 5
    assert redone == {"mimi": 0, "dac": 10, "amy": 11, "higgs": math.inf}


def alone(wave_N: np.ndarray, codec) -> np.ndarray:
    with torch.inference_mode():
        return codec.encode(torch.from_numpy(wave_N)[None])[0].numpy()


def test_audio_is_read_ahead_in_the_order_of_the_clips(clips, monkeypatch):
    started, gate = list[str](), threading.Event()
    real = read_wave

    def slow(path, *args):
        started.append(path.name)
        assert gate.wait(10)
        return real(path, *args)

    monkeypatch.setattr("earnest.data.decoding.read_wave", slow)
    threading.Timer(0.2, gate.set).start()
    read = read_clips(clips, 8000, [])
    first, _ = next(read)
    assert first == clips[0] and len(started) >= WORKERS  # more than the one that was asked for
    assert [clip for clip, _ in read] == clips[1:]


def test_what_was_encoded_before_an_interruption_is_kept(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("earnest.data.store.STRETCH_SAMPLES", 4000)
    codec = CountingCodec()

    def interrupt(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_clips(clips, codec, tmp_path / "codes", interrupt)
    given = codec.given
    table, _ = encode_clips(clips, codec, tmp_path / "codes")
    assert len(table) == 40 and codec.given - given < 40
    assert not list((tmp_path / "codes").rglob("*.tmp"))


def test_a_broken_clip_is_skipped_and_listed_each_time(clips, tmp_path):
    clips[3].path.write_bytes(b"not audio")
    os.remove(clips[7].path)
    for _ in range(2):
        table, skipped = encode_clips(clips, CountingCodec(), tmp_path / "codes")
        assert len(table) == 38 and [row.text for row in table] == [
            clip.text for clip in clips if clip not in (clips[3], clips[7])
        ]
        assert [line.split(": ")[0] for line in skipped] == [str(clips[3].path), str(clips[7].path)]


def test_too_many_broken_clips_stop_it(clips, tmp_path):
    for clip in clips[:3]:
        clip.path.write_bytes(b"")
    with pytest.raises(UserError, match=r"3 clips cannot be used \(of 40"):
        encode_clips(clips, CountingCodec(), tmp_path / "codes")


def test_a_codec_that_breaks_its_protocol_is_named(clips, tmp_path):
    codec = CountingCodec()
    codec.codebook_size = 5
    with pytest.raises(ValueError, match="owner/counting gave codes"):
        encode_clips(clips, codec, tmp_path / "codes")


def test_no_clips_give_an_empty_table(tmp_path):
    table, skipped = encode_clips([], CountingCodec(), tmp_path / "codes")
    assert len(table) == 0 and list(table) == [] and skipped == []


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("EARNEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "earnest"


def test_a_long_clip_in_pieces_has_the_codes_that_it_has_whole(tmp_path, monkeypatch):
    codec = load_codec("amy-tiny")
    noise_N = np.random.default_rng(0).normal(0, 0.1, 16000 * 13 + 77).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise_N, 16000)
    clip = Clip(tmp_path / "long.wav", "long.wav")
    whole, _ = encode_clips([clip], codec, tmp_path / "whole")
    monkeypatch.setattr("earnest.data.store.PIECE_S", 5)
    pieces, _ = encode_clips([clip], codec, tmp_path / "pieces")
    assert np.array_equal(whole[0].codes_CT, pieces[0].codes_CT)


def test_a_damaged_table_is_made_again(clips, tmp_path, caplog):
    codec = load_codec("amy-tiny")
    before = [row.codes_CT.copy() for row in encode_clips(clips, codec, tmp_path)[0]]  # views of the mapped file
    [table] = tmp_path.rglob("table-*.arrow")
    for damage in (b"", table.read_bytes()[:200]):
        table.write_bytes(damage)
        again = [row.codes_CT for row in encode_clips(clips, codec, tmp_path)[0]]
        assert all(map(np.array_equal, before, again)) and len(before) == len(again)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("too_long", ["leave_out", "cut", "refuse"])
def test_a_clip_of_hours_is_known_by_its_header(too_long, tmp_path):
    path = tmp_path / "hours.wav"
    soundfile.write(path, np.zeros(16000 * 60, np.float32), 16000)
    with open(path, "r+b") as file:  # as if of nine hours
        file.truncate(1 << 30)
        file.seek(4)
        file.write(((1 << 30) - 8).to_bytes(4, "little"))
        file.seek(40)
        file.write(((1 << 30) - 44).to_bytes(4, "little"))
    clip, data = Clip(path, "hours.wav"), Data(max_duration_s=15, too_long=too_long)
    if too_long == "refuse":
        with pytest.raises(UserError, match="longer than 15 s"):
            within([clip], data)
        return
    kept, left_out = within([clip], data)
    assert len(kept) == (too_long == "cut") and len(left_out) == (too_long == "leave_out")
    for one in kept:
        assert len(read_wave(one.path, 16000, segment=one.segment)) == 16 * 16000


def test_a_file_whose_name_is_no_utf8_is_encoded_and_has_a_side(clips, tmp_path):
    odd = [clip.path.rename(clip.path.with_name(os.fsdecode(b"\xff%d.wav" % n))) for n, clip in enumerate(clips[:4])]
    found = [Clip(path, path.name) for path in odd]
    assert sum(map(len, split_clips(found, 0.5, seed=0))) == 4
    assert len(encode_clips(found, CountingCodec(), tmp_path / "codes")[0]) == 4

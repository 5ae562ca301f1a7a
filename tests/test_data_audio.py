"""Audio in and out, on real files of every format, rate and channel count that the package promises."""

from contextlib import suppress

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from earnest.data.audio import ClipError, read_wave, write_pieces, write_wave
from earnest.errors import UserError


def tone(file_hz, duration_s=0.5, tone_hz=440.0):
    return 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(int(file_hz * duration_s)) / file_hz)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("file_hz", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_rate_and_channel_count(tmp_path, suffix, file_hz, channels):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.stack([tone(file_hz)] * channels, axis=1), file_hz)
    wave_N = read_wave(path, 16000)
    assert wave_N.dtype == np.float32 and wave_N.ndim == 1
    assert abs(len(wave_N) - 8000) <= 1600  # mp3 adds up to two frames of padding
    middle_N = wave_N[2000:6000]
    assert abs(middle_N.std() - 0.5 / np.sqrt(2)) < 0.02
    assert abs(np.fft.rfft(middle_N * np.hanning(4000)).__abs__().argmax() * 4 - 440) <= 4


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    left_N, right_N = tone(16000), np.zeros(8000)
    soundfile.write(tmp_path / "s.wav", np.stack([left_N, right_N], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_wave(tmp_path / "s.wav", 16000), left_N / 2, atol=1e-6)


def test_a_g722_file_decodes_at_16_khz(tmp_path):
    G722 = pytest.importorskip("G722").G722
    wave_N = tone(16000)
    (tmp_path / "t.g722").write_bytes(G722(16000, 64000).encode((wave_N * 32767).astype(np.int16)))
    assert abs(read_wave(tmp_path / "t.g722", 16000)[1000:].std() - wave_N.std()) < 0.01


def test_g722_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "G722", None)
    with pytest.raises(UserError, match="pip install g722"):
        read_wave(tmp_path / "t.g722", 16000)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("absent.wav", None, "no such file"),
        ("empty.wav", b"", "an empty file"),
        ("text.wav", b"this is not audio, whatever its name says", "unreadable"),
        ("empty.g722", b"", "no samples"),
    ],
)
def test_what_is_not_audio_is_a_clip_error(tmp_path, name, data, reason):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ClipError, match=reason) as error:
        read_wave(tmp_path / name, 16000)
    assert error.value.path == tmp_path / name


@pytest.mark.parametrize("wave_N", [np.zeros(0), np.array([0.0, np.nan]), np.array([0.0, np.inf])])
def test_no_samples_nan_and_infinity_are_clip_errors(tmp_path, wave_N):
    soundfile.write(tmp_path / "bad.wav", wave_N, 16000, subtype="FLOAT")
    with pytest.raises(ClipError):
        read_wave(tmp_path / "bad.wav", 16000)


def test_an_absurd_sample_rate_is_a_clip_error(tmp_path):
    soundfile.write(tmp_path / "slow.wav", tone(16000), 3)
    with pytest.raises(ClipError, match="a sample rate of 3 Hz"):
        read_wave(tmp_path / "slow.wav", 16000)


def test_a_header_that_claims_too_much_costs_no_memory(tmp_path):
    """Found by damaging MP3 files: a header's frame count of 9.7e9 asked for 36 GiB."""
    soundfile.write(tmp_path / "a.mp3", tone(16000), 16000)
    damaged = bytearray((tmp_path / "a.mp3").read_bytes())
    position = damaged.find(b"Xing") if b"Xing" in damaged else damaged.find(b"Info")
    damaged[position + 8 : position + 12] = b"\x00\xff\xff\xff"
    (tmp_path / "a.mp3").write_bytes(damaged)
    with suppress(ClipError):
        assert len(read_wave(tmp_path / "a.mp3", 16000)) < 20000


def test_one_sample_at_a_high_rate_is_a_clip_error_or_audio_never_a_crash(tmp_path):
    soundfile.write(tmp_path / "one.wav", np.array([0.5]), 48000)
    try:
        assert len(read_wave(tmp_path / "one.wav", 8000)) >= 1
    except ClipError as error:
        assert "no samples at 8000 Hz" in str(error)


@settings(max_examples=60)
@given(st.sampled_from(["wav", "flac", "ogg", "mp3"]), st.data())
def test_damaged_files_are_audio_or_clip_errors_never_anything_else(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    soundfile.write(path, tone(16000, 0.1), 16000)
    damaged = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, min(len(damaged), 200) - 1), max_size=8)):
        damaged[position] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with suppress(ClipError):
        assert np.isfinite(read_wave(path, 16000)).all()


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_16_bit_audio_survives_reading_and_writing_bit_by_bit(tmp_path, suffix):
    pcm_N = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / f"a.{suffix}", pcm_N, 16000, subtype="PCM_16")
    assert write_wave(tmp_path / f"b.{suffix}", read_wave(tmp_path / f"a.{suffix}", 16000), 16000) == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / f"b.{suffix}", dtype="int16")[0], pcm_N)


def test_writing_clips_says_how_much_and_refuses_nan(tmp_path):
    assert write_wave(tmp_path / "loud.wav", np.array([0.5, 1.5, -3.0, 1.0]), 16000) == 0.5
    np.testing.assert_allclose(read_wave(tmp_path / "loud.wav", 16000), [0.5, 1, -1, 1], atol=1e-4)
    with pytest.raises(ClipError, match="not written"):
        write_wave(tmp_path / "nan.wav", np.array([np.nan]), 16000)
    assert not (tmp_path / "nan.wav").exists()


def test_a_growing_wav_is_whole_after_every_piece_and_keeps_them_when_a_later_one_fails(tmp_path):
    path, wave_N = tmp_path / "w.wav", tone(16000)[:900]
    pieces = [*np.split(wave_N, [1, 400]), np.array([np.nan])]
    lengths = []
    with pytest.raises(ClipError, match="NaN"):
        for samples in write_pieces(path, pieces, 16000):
            lengths.append(samples)
            np.testing.assert_allclose(soundfile.read(path)[0], wave_N[:samples], atol=1e-4)
    assert lengths == [1, 400, 900] and soundfile.info(path).frames == 900
    list(write_pieces(path, [wave_N[:10]], 8000))  # written anew, not added to
    assert (soundfile.info(path).frames, soundfile.info(path).samplerate) == (10, 8000)

"""Sources: Debian's real prompts where they are installed, a small copy of their layout everywhere, and real
espeak-ng."""

import gzip
import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from earnest.data.decoding import read_clips
from earnest.data.layouts import sources
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.sources import ASTERISK, DIGITS, TAKES, VOICES, Voice, asterisk, embedded_texts, espeak, speak
from earnest.data.sides import split_clips
from earnest.errors import UserError

LISTING = """\
\ufeff; Core Asterisk Sounds in Spanish
; a second comment

hello: Hola  a
 todos.
digits/0: cero
digits/0: diez
beep: [simple tone]
menu: diga (emphase) algo
letters/at: arroba [@]
is:
twice: twice: dos veces
absent: no hay
empty: nada
"""
PROMPTS = ["hello", "digits/0", "beep", "menu", "letters/at", "is", "twice", "silence/1"]


@pytest.fixture
def root(tmp_path):
    """The layout of asterisk-core-sounds-es-g722 and asterisk-core-sounds-es, with tones for prompts."""
    G722 = pytest.importorskip("G722").G722
    sounds = tmp_path / "root/usr/share/asterisk/sounds" / ASTERISK["es"].folder
    texts = tmp_path / "root/usr/share/doc/asterisk-core-sounds-es"
    texts.mkdir(parents=True)
    (texts / "core-sounds-es.txt.gz").write_bytes(gzip.compress(LISTING.encode()))
    tone_N = (8000 * np.sin(np.arange(16000) / 10)).astype(np.int16)
    for name in PROMPTS:
        path = sounds / f"{name}.g722"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(G722(16000, 64000).encode(tone_N))
    (sounds / "empty.g722").write_bytes(b"")
    return tmp_path / "root"


def test_asterisk_reads_the_listing_and_says_what_it_leaves_out(root, tmp_path):
    prepared = asterisk("es", tmp_path / "es", root)
    clips = load_clips(tmp_path / "es")
    assert {clip.name: clip.text for clip in clips} == {
        "hello.flac": "Hola a todos.",
        "digits/0.flac": "cero",
        "letters/at.flac": "arroba",
        "twice.flac": "dos veces",
    }
    assert {(clip.speaker, clip.language) for clip in clips} == {("allison", "es")}
    assert (prepared.clips, round(prepared.minutes * 60)) == (4, 4)
    assert prepared.left_out == {
        "texts without a prompt": 1,
        "with brackets in the text": 2,
        "without a text": 2,
        "no samples": 1,
    }
    assert "4 clips, 0.1 minutes; left out: 1 texts without a prompt" in str(prepared)
    assert "CC-BY-SA-3.0" in (tmp_path / "es/ATTRIBUTION").read_text()
    facts = soundfile.info(tmp_path / "es/hello.flac")
    assert (facts.samplerate, facts.channels, facts.subtype) == (16000, 1, "PCM_16")


def test_asterisk_without_the_packages_says_what_to_install(tmp_path):
    with pytest.raises(UserError, match="apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-en"):
        asterisk("en", tmp_path / "en", root=tmp_path)
    with pytest.raises(UserError, match="one of en, es, fr, it, ru"):
        asterisk("de", tmp_path / "de")


def test_a_folder_appears_whole_or_not_at_all(root, tmp_path, monkeypatch):
    written = []

    def full_disk(path, *rest):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)

    monkeypatch.setattr(sources, "write_wave", full_disk)
    with pytest.raises(OSError, match="No space left"):
        asterisk("es", tmp_path / "es", root)
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_a_folder_that_holds_something_is_left_alone(root, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/note").write_text("keep")
    with pytest.raises(UserError, match="holds something already"):
        asterisk("es", tmp_path / "mine", root)
    assert os.listdir(tmp_path / "mine") == ["note"]


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "ru"])
def test_the_real_prompts(language, tmp_path):
    try:
        prepared = asterisk(language, tmp_path / "out")
    except UserError as error:
        pytest.skip(f"REAL SPEECH NOT TESTED: {error.fix}")
    assert prepared.clips >= 470 and prepared.minutes >= 20
    clips = {clip.name: clip for clip in load_clips(tmp_path / "out")}
    assert len(clips) == prepared.clips
    assert not any(set(clip.text) & set("[]<>()") for clip in clips.values())
    zero = {"en": "zero", "es": "cero", "fr": "zéro", "it": "zero", "ru": "ноль"}[language]
    digit = clips["digits/0.flac"]
    assert digit.text.lower() == zero and digit.speaker == ASTERISK[language].speaker
    for _, wave_N in read_clips([digit], 16000, []):
        assert 0.2 < len(wave_N) / 16000 < 2
        energy_F = np.abs(np.fft.rfft(wave_N)) ** 2  # wideband: an 8 kHz recording has nothing above 4 kHz
        assert energy_F[len(energy_F) // 2 :].sum() > 1e-5 * energy_F.sum()


# --- espeak-ng --------------------------------------------------------------------------------------------------------

needs_espeak = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("espeakng_loader") is None,
    reason="ESPEAK NOT TESTED: pip install espeakng-loader",
)


@needs_espeak
def test_the_embedded_corpus(tmp_path):
    prepared = espeak(tmp_path / "out")
    clips = load_clips(tmp_path / "out")
    texts = embedded_texts()
    assert (
        len(clips) == prepared.clips == len(VOICES) * (sum(map(len, texts.values())) + len(DIGITS) * (len(TAKES) - 1))
    )
    assert {clip.speaker for clip in clips} == {voice.name for voice in VOICES}
    train, held_out = split_clips(clips, 0.05, seed=0)
    assert ({clip.text for clip in train}, {clip.text for clip in held_out}) == (
        set(texts["train"]),
        set(texts["validation"]),
    )
    assert len(set(texts["train"] + texts["validation"])) == len(texts["train"]) + len(texts["validation"])
    words = {word for text in texts["train"] for word in text.split()}
    assert set(DIGITS) <= set(texts["train"])
    composed = [text for text in texts["validation"] if text.split()[0] in DIGITS]
    assert all(word in words for text in composed for word in text.split())
    heard = set()
    for clip, wave_N in read_clips(clips, 16000, []):
        duration_s = len(wave_N) / 16000
        assert (0.3 < duration_s < 1.2) if clip.text in DIGITS else (0.6 < duration_s < 3.5), (clip.name, duration_s)
        assert 0.1 < np.abs(wave_N).max() <= 1
        heard.add(hashlib.sha256(wave_N.tobytes()).hexdigest())
    assert len(heard) == len(clips)


@needs_espeak
def test_speaking_is_a_pure_function_of_its_arguments():
    first_N, other_N = speak("seven"), speak("nine", VOICES[1])
    time.sleep(1.1)  # espeak-ng seeds itself with the clock, in whole seconds
    again_N = speak("seven")
    np.testing.assert_array_equal(first_N, again_N)
    assert len(other_N) != len(first_N)
    code = "import hashlib; from earnest.data.layouts.sources import speak; "
    code += "print(hashlib.sha256(speak('seven').tobytes()).hexdigest())"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert elsewhere == hashlib.sha256(first_N.tobytes()).hexdigest()


@needs_espeak
def test_rate_pitch_language_and_sample_rate():
    assert len(speak("one two three", Voice("en-us", words_per_minute=100))) > 1.3 * len(
        speak("one two three", Voice("en-us", 200))
    )
    assert not np.array_equal(speak("one", Voice(pitch=20)), speak("one", Voice(pitch=80)))
    assert len(speak("مرحبا", Voice("ar"))) > 3200
    assert abs(len(speak("seven", sample_rate_hz=24000)) / len(speak("seven")) - 1.5) < 0.02


@needs_espeak
def test_a_voice_or_text_that_cannot_be_spoken():
    with pytest.raises(UserError, match="voice 'klingon-2'"):
        speak("seven", Voice("klingon-2"))
    with pytest.raises(UserError, match="no sound"):
        speak("  ")


def test_espeak_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"earnest\[demo\]"):
        espeak(tmp_path / "out")
    assert not any(tmp_path.iterdir())

"""`earnest data check` names each planted fault, and is silent on real recordings."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from earnest.cli import main
from earnest.data.checks import faults, texts
from earnest.data.checks.audio import NOISY_CONTRAST_DB
from earnest.data.checks.checked import Checked, Limits, look_at
from earnest.data.checks.command import language_identifier
from earnest.data.clip import Clip
from earnest.data.layouts.folder import listed_clips
from earnest.data.layouts.sources import ASTERISK, asterisk
from earnest.errors import UserError

CLIPS = 40


def silent(done: int, total: int) -> None:
    pass


SHORT = Limits(max_duration_s=60)


def kinds(folder, limits=SHORT) -> dict[str, list[str]]:
    """Kind -> names of its clips."""
    return {
        fault.kind: [clip.name for clip in fault.clips]
        for fault in faults(look_at(listed_clips(folder), limits, silent))
    }


@pytest.fixture(scope="module", params=["en", "fr"])
def recordings(request, tmp_path_factory):
    """Debian's prompts of a language."""
    folder = tmp_path_factory.mktemp("check") / request.param
    try:
        asterisk(request.param, folder)
    except UserError as error:
        pytest.skip(error.fix)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_real_recordings_are_not_complained_about(recordings):
    """All prompts of a studio: every second of them, every text, and their language."""
    clips = listed_clips(recordings)[:200]
    assert ASTERISK and len(clips) == 200
    checked = look_at(clips, Limits(max_duration_s=60, languages=language_identifier()), silent)
    assert [fault.sentence for fault in faults(checked) if fault.severity != "note"] == []


# --- planted


class Planted:
    """A small data set of real recordings, to plant faults in."""

    def __init__(self, folder: Path, source: Path):
        self.folder = folder
        folder.mkdir()
        long_ones = [row for row in rows_of(source) if len(row["text"]) > 25][:CLIPS]
        self.rows = [{**row, "file_name": f"{index:02}.wav"} for index, row in enumerate(long_ones)]
        self.waves = [soundfile.read(source / row["file_name"], dtype="float32")[0] for row in long_ones]
        self.rate_hz = [16000] * len(self.rows)

    def write(self) -> Path:
        for row, wave_N, rate_hz in zip(self.rows, self.waves, self.rate_hz, strict=True):
            path = self.folder / row["file_name"]
            path.parent.mkdir(exist_ok=True)
            if wave_N is not None:
                soundfile.write(path, wave_N, rate_hz, subtype="FLOAT" if np.abs(wave_N).max() > 1 else "PCM_16")
        with open(self.folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(self.rows[0]))
            table.writeheader()
            table.writerows(self.rows)
        return self.folder


@pytest.fixture
def planted(recordings, tmp_path):
    if recordings.name != "en":
        pytest.skip("faults are planted in one language")
    return Planted(tmp_path / "set", recordings)


def duplicate(it):
    it.waves[5] = 0.5 * it.waves[3]
    return ["03.wav", "05.wav"]


def clip(it):
    it.waves[7] = (4 * it.waves[7]).clip(-0.99, 0.99)
    return ["07.wav"]


def silence(it):
    it.waves[2] = np.zeros(16000)
    it.waves[4] = np.concatenate([np.zeros(40000), it.waves[4]])
    return ["02.wav", "04.wav"]


def upsample(it):
    for index in (1, 8):
        it.waves[index] = soxr.resample(soxr.resample(it.waves[index], 16000, 8000), 8000, 24000)
        it.rate_hz[index] = 24000
    return ["01.wav", "08.wav"]


def int16(it):
    it.waves[6] = 32768 * it.waves[6]
    return ["06.wav"]


def make_quiet(it):
    it.waves[6] = 0.01 * it.waves[6]
    return ["06.wav"]


def add_noise(it):
    wave_N = it.waves[9]
    noise_N = np.random.default_rng(0).standard_normal(len(wave_N)) * np.sqrt((wave_N**2).mean()) / 10 ** (10 / 20)
    it.waves[9] = (wave_N + noise_N).astype(np.float32)
    return ["09.wav"]


def write_cyrillic(it):
    it.rows[3]["text"] = "это совсем не английский язык"
    return ["03.wav"]


def repeat(it):
    for index, keep in zip(range(10, 17), (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1), strict=True):
        it.rows[index]["text"] = "your call is important to us"
        it.waves[index] = np.resize(it.waves[index], int(keep * 80000))
    return [f"{index}.wav" for index in range(10, 17)]


def hallucinate(it):
    it.rows[3]["text"] = "Thank you for watching!"
    it.rows[4]["text"] = "and then and then and then and then and then"
    it.rows[5]["text"] = "[Music]"
    return ["03.wav", "04.wav", "05.wav"]


def slip(it):
    it.rows[3]["text"] = 10 * "this was said by somebody else in another recording, "[:50]
    it.rows[4]["text"], it.waves[4] = "yes sir", np.resize(it.waves[4], 16 * 16000)
    return ["03.wav", "04.wav"]


def damage(it):
    it.rows[3]["text"] += " caf\ufffd"
    it.rows[4]["text"] += " cafÃ\xa9"
    return ["03.wav", "04.wav"]


def misspell(it):
    it.rows[3]["speaker"] = "ALLISON"
    return [f"{index:02}.wav" for index in range(CLIPS)]


def shorten(it):
    loudest = np.abs(it.waves[3]).argmax()
    it.waves[3] = it.waves[3][loudest : loudest + 800]
    return ["03.wav"]


def leave_no_file(it):
    it.waves[3] = None
    return ["03.wav"]


def leak(it):
    for index, row in enumerate(it.rows):
        row["file_name"] = f"{'validation' if index > 34 else 'train'}/{row['file_name']}"
    it.waves[36] = it.waves[3]
    return ["validation/36.wav"]


PLANTS = {
    "duplicates": duplicate,
    "clipping": clip,
    "silence": silence,
    "band limit": upsample,
    "out of range": int16,
    "very quiet": make_quiet,
    "noise": add_noise,
    "language": write_cyrillic,
    "repeated transcript": repeat,
    "hallucinated transcript": hallucinate,
    "text and audio do not match": slip,
    "unknown characters": damage,
    "speakers": misspell,
    "too short": shorten,
    "unreadable": leave_no_file,
    "held-out leakage": leak,
}


def test_without_a_plant_nothing_is_found(planted):
    assert kinds(planted.write()) == {}


@pytest.mark.parametrize("kind", PLANTS)
def test_each_planted_fault_is_named(kind, planted):
    named = PLANTS[kind](planted)
    found = kinds(planted.write())
    assert sorted(found[kind]) == named
    beside = {"duplicates"} if kind == "held-out leakage" else {"text and audio do not match"}
    assert found.keys() <= {kind} | beside


def test_a_few_copies_among_many_clips_are_a_note(planted, tmp_path, capsys):
    """As Debian's prompts have them: 2 of 549, and 4 of 506; planted in a small set they are a warning."""
    duplicate(planted)
    clips = listed_clips(planted.write())
    checked = look_at(clips, SHORT, silent)
    (fault,) = faults(checked)
    assert (fault.kind, fault.severity) == ("duplicates", "critical")  # the copies have different texts
    many = [replace(clip, name=f"{n}/{clip.name}", path=clip.path.with_name(f"{n}-{clip.path.name}")) for n in range(6)
            for clip in clips]  # fmt: skip
    once = {clip for clip in many if not (clip.name[0] != "0" and clip.name.endswith(("03.wav", "05.wav")))}
    measured = {clip: replace(checked.measured[clips[index % len(clips)]]) for index, clip in enumerate(many)}
    spread = {
        clip: replace(each, envelope_T=each.envelope_T - np.arange(len(each.envelope_T)) % (int(clip.name[0]) + 2))
        for clip, each in measured.items()
    }
    kept = [clip for clip in many if clip in once]
    notes = faults(Checked(kept, spread, {}, SHORT))
    assert [(fault.kind, fault.severity, len(fault.clips)) for fault in notes] == [("duplicates", "note", 2)]


def test_clips_longer_than_the_context_are_counted(planted):
    found = kinds(planted.write(), Limits(max_duration_s=2))
    assert len(found.pop("longer than the model's context")) > 10 and not found


def test_the_stated_language_is_compared_with_the_texts(planted):
    pytest.importorskip("py3langid")
    limits = Limits(language="de", max_duration_s=60, languages=language_identifier())
    assert len(kinds(planted.write(), limits)["language"]) == CLIPS
    assert kinds(planted.write(), replace(limits, language="en")) == {}


def test_characters_that_the_tokenizer_does_not_know(planted):
    limits = Limits(max_duration_s=60, unknown=lambda text: set(re.findall(r"[^a-zA-Z ]", text)))
    assert "'.'" in next(
        fault.sentence
        for fault in faults(look_at(listed_clips(planted.write()), limits, silent))
        if fault.kind == "unknown characters"
    )


def of(folder: Path, waves: list[np.ndarray], rate_hz: int = 16000, suffix: str = "wav") -> list[tuple[str, str]]:
    """(kind, severity) of what is said of these recordings, each with a text of its own."""
    clips = []
    for n, wave_N in enumerate(waves):
        soundfile.write(folder / f"{n}.{suffix}", wave_N, rate_hz)
        clips.append(Clip(folder / f"{n}.{suffix}", f"{n}.{suffix}", f"the words of clip {n}"))
    limits = replace(SHORT, max_positions=10_000)
    return [(fault.kind, fault.severity) for fault in faults(look_at(clips, limits, silent))]


def notes(rng: np.random.Generator, length: int, rate_hz: int) -> np.ndarray:
    """Four voices of notes that ring, for so many half seconds: music has quiet frames, and no pauses."""
    seconds_N = np.arange(rate_hz // 2) / rate_hz
    voices = [
        np.concatenate(
            [
                sum(np.sin(2 * np.pi * hz * k * seconds_N) / k for k in range(1, 9)) * np.exp(-2 * seconds_N)
                for hz in 110 * 2 ** (rng.integers(0, 36, length) / 12)
            ]
        )
        for _ in range(4)
    ]
    return 0.04 * np.sum(voices, axis=0)


def test_music_has_no_noise_in_pauses(tmp_path):
    rng = np.random.default_rng(0)
    tracks = [notes(rng, 10, 16000) for _ in range(8)]
    assert of(tmp_path, tracks) == []
    loudness = np.std(tracks[0])
    tracks[0] *= np.repeat(np.arange(10) % 2, 8000)  # rests
    tracks[0] += 0.3 * loudness * rng.standard_normal(len(tracks[0]))
    assert of(tmp_path, tracks) == [("noise", "warning")]


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
def test_noise_of_any_colour_in_pauses_is_named(planted, colour):
    rng = np.random.default_rng(0)
    for index in (2, 9, 20):
        wave_N = planted.waves[index]
        spectrum_F = np.fft.rfft(rng.standard_normal(len(wave_N)))
        hz_F = np.maximum(np.arange(len(spectrum_F)) * 16000 / len(wave_N), 20)
        spectrum_F *= {"white": 1, "pink": hz_F**-0.5, "brown": 1 / (1 + hz_F / 200)}[colour]
        noise_N = np.fft.irfft(spectrum_F, len(wave_N))
        planted.waves[index] = wave_N + noise_N * np.std(wave_N) / np.std(noise_N) / 10 ** (10 / 20)
    assert kinds(planted.write()).keys() == {"noise"}
    assert sorted(kinds(planted.folder)["noise"]) == ["02.wav", "09.wav", "20.wav"]


def test_a_bass_and_strokes_of_a_drum_are_whole_recordings(tmp_path):
    """A bass that ends at 400 Hz was not sent over a telephone, and strokes of a tenth of a second are no copies."""
    seconds_N = np.arange(16000) / 16000
    bass = 0.5 * np.sin(2 * np.pi * 55 * seconds_N) + 0.2 * np.sin(2 * np.pi * 400 * seconds_N)
    strokes = [0.5 * np.sin(2 * np.pi * hz * seconds_N[:2400]) * np.exp(-20 * seconds_N[:2400]) for hz in (300, 700)]
    assert of(tmp_path, [bass, *strokes]) == []


def test_the_pauses_of_a_fast_loop_of_drums_are_no_noise(tmp_path, monkeypatch):
    """Cymbals hiss between strokes; speech that is as noisy has a longer pause somewhere (0.7 s here)."""
    rng, seconds_N = np.random.default_rng(0), np.arange(6 * 16000) / 16000
    hiss_N = 0.02 * rng.standard_normal(len(seconds_N))
    for name in ("loop", "speech"):
        (tmp_path / name).mkdir()
    loop = hiss_N * (1 + 7 * ((seconds_N % 0.225) < 0.115))
    speech = hiss_N * (1 + 7 * ((seconds_N % 1.5) < 0.8))
    assert of(tmp_path / "loop", [loop]) == []
    assert of(tmp_path / "speech", [speech]) == [("noise", "warning")]
    monkeypatch.setattr("earnest.data.checks.measure.LONGEST_PAUSE_S", 0)
    assert of(tmp_path / "loop", [loop]) == [("noise", "warning")]


def test_a_song_may_end_in_silence(tmp_path):
    song = notes(np.random.default_rng(0), 90, 8000)
    assert of(tmp_path, [np.concatenate([song, np.zeros(18000)])], 8000) == []
    assert of(tmp_path, [np.concatenate([song, np.zeros(4 * 8000)])], 8000) == [("silence", "warning")]


def test_a_loud_recording_of_a_lossy_format_is_a_note(tmp_path):
    loud = [0.999 * np.sign(notes(np.random.default_rng(n), 4, 16000)) for n in range(2)]
    assert ("out of range", "note") in of(tmp_path, loud, suffix="ogg")


def test_texts_that_come_again_and_again_are_labels(tmp_path):
    """Captions of parts of tracks, and commands: they are held out with the same texts."""
    rng, labels, clips = np.random.default_rng(0), ["a slow tune for a piano", "a fast dance for a drum"], []
    for n in range(24):
        soundfile.write(tmp_path / f"{n}.wav", notes(rng, 3, 8000), 8000)
        split = "validation" if n % 3 == 0 else "train"
        clips.append(Clip(tmp_path / f"{n}.wav", f"{n}.wav", labels[n % 2], split=split))
    assert faults(look_at(clips, SHORT, silent)) == []
    said = [replace(clip, text=f"{clip.text}, number {n}") for n, clip in enumerate(clips)]
    takes = [replace(clip, text=said[n + 2 * (n % 3 == 0)].text) for n, clip in enumerate(said)]
    assert [fault.kind for fault in faults(look_at(takes, SHORT, silent))] == ["held-out texts in training"]


def test_the_command_prints_writes_a_page_and_exits(planted, tmp_path, capsys):
    limits, whole_N = ("--max-duration-s", "60"), planted.waves[7]
    clip(planted)
    planted.rows[7]["text"] = "<script>alert(1)</script> is what it says here"
    folder, page = planted.write(), tmp_path / "page.html"
    assert main(["data", "check", str(folder), "--out", str(page), *limits]) == 1
    told = capsys.readouterr().out
    assert "clipping: 1 of 40 clips" in told and "fix: " in told and f"{NOISY_CONTRAST_DB:g}" not in told
    html = page.read_text()
    assert html.count("<audio") == 1 and "data:audio/flac;base64," in html and "<script>" not in html
    assert "http" not in html.replace("http-equiv", "")
    planted.waves[7] = whole_N
    assert main(["data", "check", str(planted.write()), "--out", str(page), *limits]) == 0
    assert "Nothing was found" in page.read_text()
    assert main(["data", "check", str(tmp_path / "gone")]) == 2


@pytest.mark.parametrize(
    ("stated", "identified", "differs"),
    [("jp", "ja", False), ("yue", "zh", False), ("zh", "yue", False), ("nb", "no", False), ("de", "en", True)],
)
def test_codes_of_one_language_are_one(stated, identified, differs):
    said = "a sentence of some forty letters and more, said anew: "
    clips = [Clip(Path(f"{n}.wav"), f"{n}.wav", said + str(n)) for n in range(10)]
    letters = {"ja": "日本語の文", "zh": "中文的句子", "yue": "中文的句子"}
    clips = [replace(clip, text=letters.get(identified, "") * 20 or clip.text) for clip in clips]
    limits = Limits(language=stated, languages=lambda text: (identified, 1.0))
    assert bool(list(texts.language(Checked(clips, {}, {}, limits)))) == differs

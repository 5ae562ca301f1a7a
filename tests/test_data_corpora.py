"""Public corpora as they are unpacked, or as they are downloaded: kinds of list that `test_data_layouts` has not.

Each builds a tiny folder and returns what is read of it; the conventions are those of the corpora that it names.
"""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earnest.data.decoding import read_clips
from earnest.data.layouts.folder import load_clips
from earnest.data.sides import split_clips
from earnest.errors import UserError
from tests.equipment.folders import TEXTS, json_lines, lines, tone, tones

ALL, SPLITS = range(12), {"train": range(8), "dev": range(8, 10), "test": range(10, 12)}
MEANS = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
PART_S = 0.25


def long(path: Path, times: int = 1, **options) -> list[float]:
    """One recording of the clips, one after the other; where each begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * np.sin(np.arange(int(8000 * PART_S) * len(ALL) * times) / 9), 8000, **options)
    return [PART_S * i for i in range(len(ALL) * times)]


def texts(speaker="", language="", split=None):
    return [(text, speaker, language, split) for text in TEXTS]


def splits(speaker=""):
    return [(text, speaker, "", split) for text, split in zip(TEXTS, MEANS, strict=True)]


def libritts(folder):
    """LibriTTS: train-clean-100, dev-clean; tables of a chapter beside the texts, which name the clips again."""
    for split, part in SPLITS.items():
        for i in part:
            stem = folder / f"{split}-clean{'-100' * (split == 'train')}/84/12/84_12_{i:06}_000000"
            tone(stem.with_suffix(".wav"), i)
            lines(stem.with_suffix(".normalized.txt"), [TEXTS[i]])
        rows = [f"84_12_{i:06}_000000\t{TEXTS[i]}!\t{TEXTS[i]}" for i in part]
        lines(stem.parent / "84_12.trans.tsv", rows)
        lines(stem.parent / "84_12.book.tsv", [f"{row}\tTrue\t{i}\t0.1" for i, row in enumerate(rows)])
    lines(folder / "SPEAKERS.txt", [";ID  |SEX| SUBSET |MINUTES| NAME", "84   | F | dev-clean | 8.02  | Christie"])
    return splits()


def aishell(folder):
    """AISHELL: wav/train/S0002/ID.wav and one transcript of all splits."""
    for split, part in SPLITS.items():
        for i in part:
            tone(folder / f"wav/{split}/S0002/BAC{i:04}.wav", i)
    lines(folder / "transcript/aishell_transcript_v0.8.txt", [f"BAC{i:04} {text}" for i, text in enumerate(TEXTS)])
    return splits()


def mls(folder):
    """Multilingual LibriSpeech: segments.txt (addresses and times in the source) and handles.txt name the clips too."""
    for split, part in SPLITS.items():
        for i in part:
            tone(folder / f"{split}/audio/1/2/1_2_{i:06}.flac", i)
        lines(folder / f"{split}/transcripts.txt", [f"1_2_{i:06}\t{TEXTS[i]}" for i in part])
        lines(folder / f"{split}/segments.txt", [f"1_2_{i:06}\thttp://a.org/b.mp3\t{i}.5\t{i}.9" for i in part])
    lines(folder / "train/limited_supervision/handles.txt", [f"1_2_{i:06}" for i in range(4)])
    return splits()


def packed(files: dict[str, bytes], path: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def encoded(index: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.2 * np.sin(np.arange(2000) * (index + 1) / 10), 8000, format="FLAC")
    return file.getvalue()


def emilia_shards(folder):
    """Emilia: shards of pairs of audio and JSON; the names of one shard come again in the next."""
    for shard in range(2):
        files = {}
        for i in range(6):
            about = {
                "id": f"W{i}",
                "wav": f"x/W{i}.mp3",
                "text": TEXTS[6 * shard + i],
                "speaker": "S",
                "language": "en",
            }
            files |= {f"W{i}.json": json.dumps(about).encode(), f"W{i}.flac": encoded(6 * shard + i)}
        packed(files, folder / f"EN-B00000{shard}.tar")
    return texts("S", "en")


def zipped_ljspeech(folder):
    files = {f"LJSpeech-1.1/wavs/LJ{i:04}.flac": encoded(i) for i in ALL}
    rows = "".join(f"LJ{i:04}|{text}|{text}\n" for i, text in enumerate(TEXTS))
    packed(files | {"LJSpeech-1.1/metadata.csv": rows.encode(), "../out.txt": b"x"}, folder / "LJSpeech-1.1.zip")
    return texts()


def lhotse_cuts(folder):
    """Lhotse: the recording of a cut, and what is said in it, stand in objects of their own; packed by gzip."""
    starts = long(folder / "audio/long.flac")
    source = {"type": "file", "channels": [0], "source": "/home/me/audio/long.flac"}
    recording = {"id": "long", "sources": [source], "sampling_rate": 8000, "duration": 3.0}
    cuts = [
        {"id": f"c{i}", "start": starts[i], "duration": PART_S, "channel": 0, "type": "MonoCut", "recording": recording,
         "supervisions": [{"id": f"s{i}", "recording_id": "long", "start": 0.0, "duration": PART_S, "text": text,
                           "speaker": "ann", "language": "en"}]}
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    with gzip.open(folder / "cuts_train.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, cuts)))
    return texts("ann", "en", "train")


def kaldi_of_ids(folder):
    """Kaldi: identifiers that are no names of files, joined by wav.scp; ESPnet's dump is the same."""
    tones(folder, "audio/{}.wav")
    lines(folder / "data/all/wav.scp", [f"s{i % 3}-u{i:02} /corpora/x/audio/{i}.wav" for i in ALL])
    lines(folder / "data/all/text", [f"s{i % 3}-u{i:02} {text}" for i, text in enumerate(TEXTS)])
    lines(folder / "data/all/utt2spk", [f"s{i % 3}-u{i:02} s{i % 3}" for i in ALL])
    return [(text, f"s{i % 3}", "", None) for i, text in enumerate(TEXTS)]


def kaldi_segments(folder):
    """Kaldi: segments of one recording, which a command decodes."""
    starts = long(folder / "long.flac")
    lines(folder / "data/tr_no_dev/wav.scp", ["rec flac -c -d -s long.flac |"])
    lines(folder / "data/tr_no_dev/segments", [f"rec-{i} rec {starts[i]} {starts[i] + PART_S}" for i in ALL])
    lines(folder / "data/tr_no_dev/text", [f"rec-{i} {text}" for i, text in enumerate(TEXTS)])
    return texts()


def speechbrain(folder):
    """SpeechBrain: ID, duration, wav, spk_id, wrd."""
    tones(folder, "data/{}.wav")
    for split, part in SPLITS.items():
        rows = [f'{split}-{i},0.25,/corpora/data/{i}.wav,s{i % 2},"{TEXTS[i].replace(chr(34), "")}"' for i in part]
        lines(folder / f"{split}.csv", ["ID,duration,wav,spk_id,wrd", *rows])
    return [(t.replace('"', ""), f"s{i % 2}", "", MEANS[i]) for i, t in enumerate(TEXTS)]


def fairseq(folder):
    """fairseq: the root and names with their samples; letters in a file beside it."""
    tones(folder, "audio/{}.wav")
    for split, part in SPLITS.items():
        lines(folder / f"manifest/{split}.tsv", ["/corpora/audio", *(f"{i}.wav\t2000" for i in part)])
        lines(folder / f"manifest/{split}.ltr", [" ".join(TEXTS[i].replace(" ", "|")) + " |" for i in part])
    return splits()


def styletts2(folder):
    """StyleTTS 2: path|text|speaker."""
    tones(folder, "wavs/{}.wav")
    lines(folder / "Data/train_list.txt", [f"{i}.wav|{text}|{i % 2}" for i, text in enumerate(TEXTS)])
    lines(folder / "Data/OOD_texts.txt", ["some text|1", "another|2"])
    return [(text, str(i % 2), "", "train") for i, text in enumerate(TEXTS)]


def opencpop(folder):
    """Opencpop: id|text without blanks|sounds|notes."""
    tones(folder, "wavs/{}.wav")
    lines(folder / "transcriptions.txt", [f"{i}|感受停在我发端的指尖{i}|g an sh ou|rest B3|0.1 0.2" for i in ALL])
    return [(f"感受停在我发端的指尖{i}", "", "", None) for i in ALL]


def arctic(folder):
    """CMU Arctic: ( id "text" ); the .lab beside a clip holds its sounds by time, no text."""
    tones(folder, "wav/arctic_a{}.wav")
    lines(folder / "etc/txt.done.data", [f'( arctic_a{i} "{text}" )' for i, text in enumerate(TEXTS)])
    lines(folder / "lab/arctic_a1.lab", ["#", "0.1 125 pau", "0.2 125 dh"])
    return texts()


def baker(folder):
    """Databaker: the sounds of a clip in the line after it."""
    tones(folder, "Wave/{:06}.wav")
    rows = [row for i in ALL for row in (f"{i:06}\t卡尔普#2陪外孙{i}", "\tka2 er2 pu3")]
    lines(folder / "ProsodyLabeling/000001-010000.txt", rows)
    return [(f"卡尔普#2陪外孙{i}", "", "", None) for i in ALL]


def thchs(folder):
    """THCHS-30: x.wav.trn with the text, and its sounds in two more lines."""
    tones(folder, "data/A{}.wav")
    for i, text in enumerate(TEXTS):
        lines(folder / f"data/A{i}.wav.trn", [text, "lv4 shi4", "l v4"])
    return texts()


def timit(folder):
    """TIMIT: the first and the last sample before the text."""
    tones(folder, "TRAIN/DR1/FCJF0/SX{}.WAV")
    for i, text in enumerate(TEXTS):
        lines(folder / f"TRAIN/DR1/FCJF0/SX{i}.TXT", [f"0 2000 {text}"])
    return texts(split="train")


def audacity(folder):
    """A label track of Audacity beside one recording."""
    starts = long(folder / "session.wav")
    lines(folder / "session.txt", [f"{s:.6f}\t{s + PART_S:.6f}\t{text}" for s, text in zip(starts, TEXTS, strict=True)])
    return texts()


def subtitles(folder):
    starts = long(folder / "talk.ogg")
    clock = [f"00:00:{int(s):02},{round(s * 1000) % 1000:03}" for s in [*starts, starts[-1] + PART_S]]
    blocks = [f"{i + 1}\n{clock[i]} --> {clock[i + 1]}\n<i>{text}</i>\n" for i, text in enumerate(TEXTS)]
    lines(folder / "talk.srt", blocks)
    return texts()


def whisper(folder):
    """Whisper's JSON of a recording that is longer than its window."""
    starts = long(folder / "talk.flac", times=11)
    segments = [{"start": s, "end": s + PART_S, "text": f" {TEXTS[i % 12]}"} for i, s in enumerate(starts)]
    (folder / "talk.json").write_text(json.dumps({"text": "all", "segments": segments, "language": "en"}))
    return texts() * 11


def gigaspeech(folder):
    starts = long(folder / "audio/POD1.ogg")
    segments = [
        {"sid": f"POD1_{i}", "begin_time": s, "end_time": s + PART_S, "text_tn": TEXTS[i]} for i, s in enumerate(starts)
    ]
    audios = [{"title": "N/A", "path": "audio/POD1.ogg", "duration": 3.0, "segments": segments}]
    (folder / "GigaSpeech.json").write_text(json.dumps({"dataset": "G", "language": "EN", "audios": audios}))
    return texts(language="EN")


def textgrids(folder):
    """The Montreal forced aligner: a tier of words and one of phones."""
    tones(folder, "{}.wav")
    for i, text in enumerate(TEXTS):
        words = text.split()
        tiers = {"words": [word.replace('"', '""') for word in words], "phones": list("abc")}
        body = []
        for number, (name, said) in enumerate(tiers.items(), 1):
            body += [f"    item [{number}]:", f'        name = "{name}"']
            for n, word in enumerate(said):
                body += [
                    f"            xmin = {n / 100}",
                    f"            xmax = {(n + 1) / 100}",
                    f'            text = "{word}"',
                ]
        lines(folder / f"{i}.TextGrid", ['Object class = "TextGrid"', "item []:", *body])
    return texts()


def magicdata(folder):
    """MagicData: UtteranceID, SpeakerID, Transcription."""
    for split, part in SPLITS.items():
        for i in part:
            tone(folder / f"{split}/14/14_{i}.wav", i)
        rows = [f"14_{i}.wav\t14\t{TEXTS[i]}" for i in part]
        lines(folder / f"{split}/TRANS.txt", ["UtteranceID\tSpeakerID\tTranscription", *rows])
    return splits("14")


def excel(folder):
    """A spreadsheet of other words: ; between its columns, UTF-16."""
    tones(folder, "{}.wav")
    rows = ["Datei;Text", *(f"{i}.wav;{text.replace(chr(34), '')}" for i, text in enumerate(TEXTS))]
    (folder / "Liste.csv").write_text("\n".join(rows), encoding="utf-16")
    return [(text.replace('"', ""), "", "", None) for text in TEXTS]


def double_equals(folder):
    """TTS-Portuguese: wavs/sample-1.wav==text."""
    tones(folder, "wavs/sample-{}.wav")
    lines(folder / "texts.csv", [f"wavs/sample-{i}.wav=={text}" for i, text in enumerate(TEXTS)])
    return texts()


def one_split_alone(folder):
    """What was downloaded of LibriSpeech is dev-clean: it is all there is."""
    tones(folder, "dev-clean/84/84-{:04}.flac")
    lines(folder / "dev-clean/84/84.trans.txt", [f"84-{i:04} {text}" for i, text in enumerate(TEXTS)])
    return texts()


LAYOUTS = [
    *(libritts, aishell, mls, emilia_shards, zipped_ljspeech, lhotse_cuts, kaldi_of_ids, kaldi_segments, speechbrain),
    *(fairseq, styletts2, opencpop, arctic, baker, thchs, timit, audacity, subtitles, whisper, gigaspeech, textgrids),
    *(magicdata, excel, double_equals, one_split_alone),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_corpus_is_read_as_it_was_unpacked(layout, tmp_path):
    expected = layout(tmp_path)
    clips = load_clips(tmp_path)
    read = [(clip.text, clip.speaker, clip.language, clip.split) for clip in clips]
    assert sorted(read, key=str) == sorted(expected, key=str)
    waves = [wave_N for _, wave_N in read_clips(clips, 8000, [])]
    assert len(waves) == len(clips) and all(len(wave_N) == 8000 * PART_S for wave_N in waves)
    assert all(split_clips(clips, 0.1, seed=0))


@pytest.mark.parametrize("split", ["", "train/"])
def test_an_audiofolder_may_have_its_list_in_parquet(split, tmp_path):
    pandas = pytest.importorskip("pandas")
    tones(tmp_path, split + "{}.wav")
    table = {"file_name": [f"{i}.wav" for i in ALL], "transcription": TEXTS, "speaker_id": 3, "vector": [[0.5]] * 12}
    pandas.DataFrame(table).to_parquet(tmp_path / split / "metadata.parquet")
    clips = load_clips(tmp_path)
    assert [(clip.text, clip.speaker) for clip in clips] == [(text, "3") for _, text in sorted(
        zip(map(str, ALL), TEXTS, strict=True), key=lambda pair: f"{pair[0]}.wav")]  # fmt: skip
    assert {clip.split for clip in clips} == {"train" if split else None}
    (tmp_path / split / "metadata.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=r"metadata\.parquet"):
        load_clips(tmp_path)


def test_a_list_beside_the_archive_of_its_audio(tmp_path):
    packed({f"wavs/{i}.flac": encoded(i) for i in ALL}, tmp_path / "wavs.zip")
    lines(tmp_path / "metadata.csv", [f"{i}|{text}|{text}" for i, text in enumerate(TEXTS)])
    assert sorted(clip.text for clip in load_clips(tmp_path)) == sorted(TEXTS)
    lines(tmp_path / "metadata.csv", [f"{i}|{text}, again" for i, text in enumerate(TEXTS)])  # and what it says now
    assert sorted(clip.text for clip in load_clips(tmp_path)) == sorted(f"{text}, again" for text in TEXTS)


def test_lists_as_windows_writes_them(tmp_path):
    """A mark, semicolons, ends of lines of two characters; absolute paths of another machine."""
    tones(tmp_path, "wavs/{}.wav")
    cells = [text.replace('"', '""') for text in TEXTS]
    rows = "".join(f'D:\\data\\wavs\\{i}.wav;"{text}";Ann\r\n' for i, text in enumerate(cells))
    (tmp_path / "list.csv").write_bytes(("\ufefffile;sentence;speaker\r\n" + rows).encode())
    assert {(clip.text, clip.speaker) for clip in load_clips(tmp_path)} == {(text, "Ann") for text in TEXTS}


# --- music and sounds


def gtzan(folder):
    tones(folder, "genres/{}.wav")
    lines(folder / "features.csv", ["filename,length,tempo,label", *(f"{i}.wav,2000,120.0,jazz" for i in ALL)])
    return ["jazz"] * 12


def musiccaps(folder):
    """MusicCaps: where a part began in a video, of which the files are already cut."""
    tones(folder, "audio/y{}.wav")
    rows = [f"y{i},30,40,\"['sad', 'n{i}']\",A caption." for i in ALL]
    lines(folder / "musiccaps-public.csv", ["ytid,start_s,end_s,aspect_list,caption", *rows])
    return [f"sad, n{i}" for i in ALL]


def jamendo(folder):
    """MTG-Jamendo: the tags are the rest of the line."""
    tones(folder, "00/{}.flac")
    rows = [f"track_{i}\t00/{i}.flac\t212.7\tgenre---rock\tmood---{i}" for i in ALL]
    lines(folder / "autotagging.tsv", ["TRACK_ID\tPATH\tDURATION\tTAGS", *rows])
    return [f"genre---rock, mood---{i}" for i in ALL]


def clotho(folder):
    tones(folder, "development/rain {}.wav")
    rows = [f"rain {i}.wav,A noise {i},It rains,b,c,d" for i in ALL]
    head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    lines(folder / "clotho_captions_development.csv", [head, *rows])
    return [f"A noise {i}" for i in ALL]


@pytest.mark.parametrize("layout", [gtzan, musiccaps, jamendo, clotho], ids=lambda layout: layout.__name__)
def test_what_is_heard_is_read(layout, tmp_path):
    expected = layout(tmp_path)
    clips = load_clips(tmp_path, needed=("tags",))
    assert sorted(clip.tags for clip in clips) == sorted(expected)
    assert len(list(read_clips(clips, 8000, []))) == 12


def test_lists_that_are_none_do_not_keep_a_codec_from_its_audio(tmp_path):
    """FMA's table of three heads, MAESTRO's of columns."""
    tones(tmp_path, "audio/{}.wav")
    lines(tmp_path / "tracks.csv", [",album,track", ",title,genre", "track_id,,", *(f"{i},An album,Rock" for i in ALL)])
    (tmp_path / "maestro.json").write_text(json.dumps({"title": {"0": "a"}, "audio_filename": {"0": "audio/0.wav"}}))
    (tmp_path / "damaged.tsv").write_bytes(b"\xff\xfa")
    assert len(load_clips(tmp_path, needed=())) == 12


# --- what cannot be taken


def test_an_archive_puts_nothing_outside_its_folder_and_does_not_expand(tmp_path, monkeypatch):
    zipped_ljspeech(tmp_path)
    assert len({clip.path for clip in load_clips(tmp_path)}) == 12
    assert not list(tmp_path.rglob("out.txt"))
    for bad in ("damaged", "bomb"):
        (tmp_path / bad).mkdir()
    (tmp_path / "damaged/a.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match=r"a\.zip: "):
        load_clips(tmp_path / "damaged")
    monkeypatch.setattr("earnest.data.layouts.archives.LEAST_BYTES", 2**16)
    packed({"a.wav": bytes(2**22), "a.txt": b"text"}, tmp_path / "bomb/a.tar.gz")
    with pytest.raises(UserError, match="50 times its size"):
        load_clips(tmp_path / "bomb")
    (tmp_path / "bomb/a.tar.gz").rename(tmp_path / "bomb/a.rar")
    with pytest.raises(UserError, match=r"a\.rar, an archive"):
        load_clips(tmp_path / "bomb")


def test_two_lists_that_disagree_are_told(tmp_path):
    tones(tmp_path, "{}.wav")
    lines(tmp_path / "a.txt", [f"{i}.wav|{text}" for i, text in enumerate(TEXTS)])
    lines(tmp_path / "b.txt", [f"{i}.wav|{text} not" for i, text in enumerate(TEXTS)])
    with pytest.raises(UserError, match="a second time, with another text") as error:
        load_clips(tmp_path)
    assert "name one list as the path" in error.value.fix
    assert len(load_clips(tmp_path / "b.txt")) == 12


def test_a_list_in_an_old_encoding_names_the_way_out(tmp_path):
    tones(tmp_path, "{}.wav")
    (tmp_path / "metadata.csv").write_bytes("".join(f"{i}.wav|très bien {i}\n" for i in ALL).encode("cp1252"))
    with pytest.raises(UserError) as error:
        load_clips(tmp_path)
    assert "iconv -f WINDOWS-1252 -t UTF-8 metadata.csv" in error.value.fix


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8b damaged", gzip.compress(b"[1, 2]"), gzip.compress(b'{"audio": "a"}')[:-9]],
    ids=["no stream", "numbers", "cut short"],
)
def test_damaged_gzip_ends_in_three_lines(content, tmp_path):
    tone(tmp_path / "a.wav")
    (tmp_path / "cuts.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError):
        load_clips(tmp_path / "cuts.jsonl.gz")
    json_lines(tmp_path / "good.jsonl", [{"audio": "a.wav", "text": "one"}])
    assert [clip.text for clip in load_clips(tmp_path)] == ["one"]


def test_a_list_of_one_line_has_a_text(tmp_path):
    tone(tmp_path / "a.wav")
    lines(tmp_path / "list.txt", ["a.wav|hi"])
    assert [(clip.text, clip.language) for clip in load_clips(tmp_path)] == [("hi", "")]


@pytest.mark.parametrize("rate_hz", [8000, 11025])
def test_a_long_recording_is_read_in_pieces_to_the_same_samples(rate_hz, tmp_path, monkeypatch):
    from earnest.data import audio
    from earnest.data.checks.measure import measure

    wave_NK = np.stack([np.sin(np.arange(40 * rate_hz) / 7), np.cos(np.arange(40 * rate_hz) / 9)], 1) * 0.4
    soundfile.write(tmp_path / "a.wav", 3 * wave_NK, rate_hz, subtype="FLOAT")  # peak 1.2: scaled, and said once
    told = list[str]()
    for channels in (1, 2):
        whole_N = audio.read_wave(tmp_path / "a.wav", 16000, channels)
        monkeypatch.setattr(audio, "BLOCK_SAMPLES", 50_000)
        monkeypatch.setattr(audio, "LONG_S", 10)
        pieces = list(audio.wave_pieces(tmp_path / "a.wav", 16000, channels, on_scaled=told.append))
        assert len(pieces) > 4 and np.array_equal(np.concatenate(pieces, -1), whole_N) and len(told) == channels
        part = audio.Segment(20.0, 15.0, 1)
        pieces = list(audio.wave_pieces(tmp_path / "a.wav", 16000, 1, part, lambda said: None))
        assert sum(map(len, pieces)) == 15 * 16000
        told = told[:1]
        monkeypatch.undo()
    short = measure(tmp_path / "a.wav")
    monkeypatch.setattr(audio, "LONG_S", 10)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 50_000)
    in_pieces = measure(tmp_path / "a.wav")
    for name in ("duration_s", "peak", "clipped_frac", "lead_s", "silent_frac", "band_hz"):
        assert getattr(in_pieces, name) == pytest.approx(getattr(short, name))
    assert in_pieces.floor_db == pytest.approx(short.floor_db, abs=0.1)

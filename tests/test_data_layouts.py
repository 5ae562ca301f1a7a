"""Data as people have it: a tiny folder in each layout of public data sets and trainers, read without a word about it.

The conventions are those of the sources that each layout names; the clips are tones.
"""

import io
import json
import logging
from collections import Counter

import numpy as np
import pytest
import soundfile

from earnest.data.audio import ClipError
from earnest.data.decoding import read_clips
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.paths import Source
from earnest.data.sides import split_clips
from earnest.errors import UserError
from tests.equipment.folders import TEXTS, json_lines, lines, tone, tones

WORDS = ("text", "speaker", "language", "split")


# --- each builds a folder and returns what a clip of it is: {name: (text, speaker, language, split)}


def ljspeech(folder):
    """keithito.com/LJ-Speech-Dataset: id|text|normalised text, wavs/id.wav; quotes are letters."""
    tones(folder, "wavs/LJ001-{:04}.wav")
    lines(folder / "metadata.csv", [f"LJ001-{i:04}|{text} 1st|{text} first" for i, text in enumerate(TEXTS)])
    return {f"wavs/LJ001-{i:04}.wav": (f"{text} first", "", "", None) for i, text in enumerate(TEXTS)}


def coqui_double_bar(folder):
    """coqui-ai/TTS docs/source/formatting_your_dataset.md: audio1||This is my sentence."""
    tones(folder, "wavs/audio{}.wav")
    lines(folder / "metadata.txt", [f"audio{i}||{text}" for i, text in enumerate(TEXTS)])
    return {f"wavs/audio{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def coqui_header(folder):
    """coqui-ai/TTS formatter `coqui`: audio_file|text|speaker_name|emotion_name."""
    tones(folder, "wavs/{}.wav")
    rows = [f"wavs/{i}.wav|{text}|anna|neutral" for i, text in enumerate(TEXTS)]
    lines(folder / "metadata.csv", ["audio_file|text|speaker_name|emotion_name", *rows])
    return {f"wavs/{i}.wav": (text, "anna", "", None) for i, text in enumerate(TEXTS)}


def f5_tts(folder):
    """SWivid/F5-TTS prepare_csv_wavs.py: audio_file|text with a header."""
    tones(folder, "wavs/clip_{:04}.wav")
    lines(folder / "metadata.csv", ["audio_file|text", *(f"wavs/clip_{i:04}.wav|{t}" for i, t in enumerate(TEXTS))])
    return {f"wavs/clip_{i:04}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def piper(folder):
    """rhasspy/piper TRAINING.md, #368: path|speaker|text; one folder is spelled otherwise."""
    tones(folder, "wav/{}.wav")
    rows = [f"{'Wav' if i == 11 else 'wav'}/{i}.wav|male{1 + i // 6}|{text}" for i, text in enumerate(TEXTS)]
    lines(folder / "metadata.csv", rows)
    return {f"wav/{i}.wav": (text, f"male{1 + i // 6}", "", None) for i, text in enumerate(TEXTS)}


def piper_ids(folder):
    """piper1-gpl docs/TRAINING.md: utt1.wav|Text for utterance 1."""
    tones(folder, "utt{}.wav")
    lines(folder / "metadata.csv", [f"utt{i}.wav|{text}" for i, text in enumerate(TEXTS)])
    return {f"utt{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def vits(folder):
    """jaywalnut310/vits filelists: DUMMY2/p225/p225_001.wav|speaker number|text, one file of each split."""
    tones(folder, "wavs/p225_{}.wav")
    rows = [f"DUMMY2/p225_{i}.wav|{i % 3}|{text}" for i, text in enumerate(TEXTS)]
    lines(folder / "filelists/vctk_audio_sid_text_train_filelist.txt", rows[:9])
    lines(folder / "filelists/vctk_audio_sid_text_val_filelist.txt", rows[9:])
    return {
        f"wavs/p225_{i}.wav": (text, str(i % 3), "", "train" if i < 9 else "validation") for i, text in enumerate(TEXTS)
    }


def gpt_sovits(folder):
    """RVC-Boss/GPT-SoVITS: vocal_path|speaker_name|language|text, absolute paths of another machine."""
    tones(folder, "slicer_opt/vocal_{}.wav")
    rows = [f"D:\\GPT-SoVITS\\output\\slicer_opt\\vocal_{i}.wav|slicer_opt|EN|{text}" for i, text in enumerate(TEXTS)]
    lines(folder / "slicer_opt.list", rows)
    return {f"slicer_opt/vocal_{i}.wav": (text, "slicer_opt", "EN", None) for i, text in enumerate(TEXTS)}


def bert_vits2(folder):
    """fishaudio/Bert-VITS2, cleaned: path|speaker|language|text|phones|tones|word2ph."""
    tones(folder, "raw/{}.wav")
    rows = [f"./raw/{i}.wav|ada|ZH|你好世界第{i}次|_ n i h ao _|0 3 3 3 3 0|1 2 2 1" for i in range(12)]
    lines(folder / "esd.list.cleaned.txt", rows)
    return {f"raw/{i}.wav": (f"你好世界第{i}次", "ada", "ZH", None) for i in range(12)}


def css10(folder):
    """Kyubyong/css10: path|text|normalised text|seconds."""
    tones(folder, "achtgesichter/a_{:04}.wav")
    rows = [f"achtgesichter/a_{i:04}.wav|{text} 8|{text} acht|{1 + i / 10:.2f}" for i, text in enumerate(TEXTS)]
    lines(folder / "transcript.txt", rows)
    return {f"achtgesichter/a_{i:04}.wav": (f"{text} acht", "", "", None) for i, text in enumerate(TEXTS)}


def kss(folder):
    """KSS (Kaggle bryanpark): path|text|expanded|letters apart|seconds|English."""
    tones(folder, "1/1_{:04}.wav")
    rows = [f"1/1_{i:04}.wav|그는 {i}번 왔다.|그는 여러 번 왔다 {i}.|ㄱㅡㄴㅡㄴ|3.{i}|He came." for i in range(12)]
    lines(folder / "transcript.v.1.4.txt", rows)
    return {f"1/1_{i:04}.wav": (f"그는 여러 번 왔다 {i}.", "", "", None) for i in range(12)}


def common_voice(folder):
    """common-voice/cv-dataset: clips/, and tsv with client_id path sentence ...; validated holds the splits too."""
    tones(folder, "clips/common_voice_fy_{}.mp3", 14)
    head = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment"
    row = "{}\tcommon_voice_fy_{}.mp3\t{}\t2\t0\t\t\t\tfy-NL\t"
    rows = [row.format(f"c{i % 4}", i, text) for i, text in enumerate(TEXTS)]
    for name, part in {"train": rows[:8], "dev": rows[8:10], "test": rows[10:], "validated": rows}.items():
        lines(folder / f"{name}.tsv", [head, *part])
    lines(folder / "invalidated.tsv", [head, row.format("c9", 12, "wrong")])
    lines(folder / "other.tsv", [head, row.format("c9", 13, "unheard")])
    lines(folder / "clip_durations.tsv", ["clip\tduration[ms]", "common_voice_fy_0.mp3\t250"])
    split = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    return {f"clips/common_voice_fy_{i}.mp3": (t, f"c{i % 4}", "fy-NL", split[i]) for i, t in enumerate(TEXTS)}


def nemo(folder):
    """NVIDIA-NeMo manifests: JSON lines in a .json, audio_filepath and text; a file of each split, the words moved."""
    tones(folder, "audio/clip_{:04}.wav")
    rows = [
        {"audio_filepath": f"/data/nemo/audio/clip_{i:04}.wav", "duration": 0.25, "text": text, "speaker": i % 2}
        for i, text in enumerate(TEXTS)
    ]
    json_lines(folder / "manifests/train_manifest.json", rows[:10])
    json_lines(folder / "manifests/val_manifest.json", rows[10:])
    return {
        f"audio/clip_{i:04}.wav": (text, str(i % 2), "", "train" if i < 10 else "validation")
        for i, text in enumerate(TEXTS)
    }


def qwen3_tts(folder):
    """QwenLM/Qwen3-TTS finetuning/README.md: audio, text, ref_audio; the lists of the next stage are left aside."""
    tones(folder, "wavs/clip_{:04}.wav")
    rows = [{"audio": f"./wavs/clip_{i:04}.wav", "text": t, "ref_audio": "./ref.wav"} for i, t in enumerate(TEXTS)]
    json_lines(folder / "train_raw.jsonl", rows)
    return {f"wavs/clip_{i:04}.wav": (text, "", "", "train") for i, text in enumerate(TEXTS)}


def moshi(folder):
    """kyutai-labs/moshi-finetune: path, duration; the words of each speaker in a .json beside stereo audio."""
    for i, text in enumerate(TEXTS):
        left_N, right_N = np.full(2000, 0.25), np.full(2000, -0.5)
        (folder / "data_stereo").mkdir(exist_ok=True)
        soundfile.write(folder / f"data_stereo/{i}.wav", np.stack([left_N, right_N], 1), 8000)
        said = [[word, [0.2 * n, 0.2 * n + 0.15], "SPEAKER_MAIN"] for n, word in enumerate(text.split())]
        said.insert(1, ["hm", [0.1, 0.2], "SPEAKER_OTHER"])
        (folder / f"data_stereo/{i}.json").write_text(json.dumps({"alignments": said}))
    json_lines(folder / "data.jsonl", [{"path": f"data_stereo/{i}.wav", "duration": 0.25} for i in range(12)])
    return {f"data_stereo/{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def json_list(folder):
    """A list of objects in one .json, as many scripts write it."""
    tones(folder, "audio/{}.wav")
    rows = [{"path": f"audio/{i}.wav", "transcript": text, "lang": "en"} for i, text in enumerate(TEXTS)]
    (folder / "dataset.json").write_text(json.dumps(rows, indent=1))
    return {f"audio/{i}.wav": (text, "", "en", None) for i, text in enumerate(TEXTS)}


def json_map(folder):
    """{file: text} in one .json."""
    tones(folder, "{}.wav")
    (folder / "transcripts.json").write_text(json.dumps({f"{i}.wav": text for i, text in enumerate(TEXTS)}))
    return {f"{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def pairs(folder):
    """n.wav beside n.txt (CosyVoice, Tortoise, ...); a README is no text of any."""
    tones(folder, "1_1/{}.wav")
    for i, text in enumerate(TEXTS):
        (folder / f"1_1/{i}.txt").write_text(f"{text}\n\n", encoding="utf-8")
    (folder / "README.txt").write_text("A set of readings.\nNo list.\n")
    return {f"1_1/{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def vctk(folder):
    """CSTR VCTK: wav48/p225/p225_001.wav and txt/p225/p225_001.txt."""
    for speaker in ("p225", "p226"):
        tones(folder, f"wav48/{speaker}/{speaker}_{{:03}}.wav", 6)
        for i, text in enumerate(TEXTS[:6]):
            lines(folder / f"txt/{speaker}/{speaker}_{i:03}.txt", [text])
    (folder / "speaker-info.txt").write_text("ID  AGE  GENDER\n225  23  F\n")
    names = [f"wav48/{speaker}/{speaker}_{i:03}.wav" for speaker in ("p225", "p226") for i in range(6)]
    return {name: (TEXTS[index % 6], "", "", None) for index, name in enumerate(names)}


def libritts(folder):
    """LibriTTS: x.wav, x.normalized.txt, x.original.txt in speaker/chapter folders."""
    tones(folder, "84/121123/84_121123_{:06}.wav")
    for i, text in enumerate(TEXTS):
        lines(folder / f"84/121123/84_121123_{i:06}.normalized.txt", [text])
        lines(folder / f"84/121123/84_121123_{i:06}.original.txt", [f"{text}!"])
    return {f"84/121123/84_121123_{i:06}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def librispeech(folder):
    """LibriSpeech: 84-121123.trans.txt with `id TEXT`, flac beside it."""
    tones(folder, "84/121123/84-121123-{:04}.flac")
    lines(folder / "84/121123/84-121123.trans.txt", [f"84-121123-{i:04} {t.upper()}" for i, t in enumerate(TEXTS)])
    return {f"84/121123/84-121123-{i:04}.flac": (text.upper(), "", "", None) for i, text in enumerate(TEXTS)}


def mls(folder):
    """Multilingual LibriSpeech: train/transcripts.txt with id, tab, text; train/audio/speaker/book/id.opus."""
    tones(folder, "train/audio/1/2/1_2_{:06}.flac")
    lines(folder / "train/transcripts.txt", [f"1_2_{i:06}\t{text}" for i, text in enumerate(TEXTS)])
    return {f"train/audio/1/2/1_2_{i:06}.flac": (text, "", "", "train") for i, text in enumerate(TEXTS)}


def jsut(folder):
    """JSUT: transcript_utf8.txt with `id:text`."""
    tones(folder, "basic5000/wav/BASIC5000_{:04}.wav")
    lines(folder / "basic5000/transcript_utf8.txt", [f"BASIC5000_{i:04}:水をマレーシアから{i}回" for i in range(12)])
    return {f"basic5000/wav/BASIC5000_{i:04}.wav": (f"水をマレーシアから{i}回", "", "", None) for i in range(12)}


def emilia(folder):
    """amphion/Emilia: JSON with the fields of a clip beside each mp3."""
    tones(folder, "EN/EN_B0000{}.mp3")
    for i, text in enumerate(TEXTS):
        fields = {"id": f"EN_B0000{i}", "wav": "elsewhere.mp3", "text": text, "duration": 0.25, "speaker": "EN_B0",
                  "language": "en", "dnsmos": 3.2}  # fmt: skip
        (folder / f"EN/EN_B0000{i}.json").write_text(json.dumps(fields))
    return {f"EN/EN_B0000{i}.mp3": (text, "EN_B0", "en", None) for i, text in enumerate(TEXTS)}


def vctk_092(folder):
    """VCTK 0.92: two microphones, one text: wav48_silence_trimmed/p225/p225_001_mic1.flac, txt/p225/p225_001.txt."""
    names = [f"wav48_silence_trimmed/p225/p225_{i:03}_mic{mic}.flac" for i in range(6) for mic in (1, 2)]
    for mic in (1, 2):
        tones(folder, f"wav48_silence_trimmed/p225/p225_{{:03}}_mic{mic}.flac", 6)
    for i, text in enumerate(TEXTS[:6]):
        lines(folder / f"txt/p225/p225_{i:03}.txt", [text])
    return {name: (TEXTS[index // 2], "", "", None) for index, name in enumerate(names)}


def audiocraft(folder):
    """audiocraft's MusicGen: JSON with a description beside each song."""
    tones(folder, "{}.mp3")
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.json").write_text(json.dumps({"title": f"{i}", "description": text, "sample_rate": 32000}))
    return {f"{i}.mp3": (text, "", "", None) for i, text in enumerate(TEXTS)}


def kaldi(folder):
    """Kaldi's `text`, which has no suffix: id and text."""
    tones(folder, "wav/utt_{}.wav")
    lines(folder / "data/text", [f"utt_{i} {text}" for i, text in enumerate(TEXTS)])
    return {f"wav/utt_{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def bare_csv(folder):
    """A csv without a header, quoted as spreadsheets do."""
    tones(folder, "{}.wav")
    lines(folder / "texts.csv", ['{}.wav,"{}"'.format(i, text.replace('"', '""')) for i, text in enumerate(TEXTS)])
    return {f"{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


def xtts(folder):
    """coqui XTTS fine-tuning: metadata_train.csv and metadata_eval.csv, audio_file|text|speaker_name."""
    tones(folder, "wavs/{}.wav")
    rows = [f"wavs/{i}.wav|{text}|coqui" for i, text in enumerate(TEXTS)]
    lines(folder / "metadata_train.csv", ["audio_file|text|speaker_name", *rows[:10]])
    lines(folder / "metadata_eval.csv", ["audio_file|text|speaker_name", *rows[10:]])
    (folder / "lang.txt").write_text("en\n")
    return {f"wavs/{i}.wav": (text, "coqui", "", "train" if i < 10 else "test") for i, text in enumerate(TEXTS)}


def csv_with_splits(folder):
    """A column split."""
    tones(folder, "{}.wav")
    rows = [f'{i},{"dev" if i > 9 else "train"},"{t}"' for i, t in enumerate(text.replace('"', "") for text in TEXTS)]
    lines(folder / "index.csv", ["id,split,Transcript", *rows])
    split = ["train"] * 10 + ["validation"] * 2
    return {f"{i}.wav": (text.replace('"', ""), "", "", split[i]) for i, text in enumerate(TEXTS)}


def genres(folder):
    """GTZAN, and any audiofolder without a list: the folder is the label; what macOS adds to an archive is none."""
    for genre in ("blues", "hip_hop", "rock"):
        tones(folder, f"genres_original/{genre}/{genre}.{{:05}}.wav", 3)
    lines(folder / "__MACOSX/genres_original/blues/0.wav", ["no audio"])
    return {f"genres_original/{genre}/{genre}.{i:05}.wav": (genre.replace("_", " "), "", "", None)
            for genre in ("blues", "hip_hop", "rock") for i in range(3)}  # fmt: skip


def speech_commands(folder):
    """Speech Commands: the folder is the word; lists name files and say nothing of them."""
    for word in ("yes", "no"):
        tones(folder, f"{word}/{{}}abc_nohash_0.wav", 6)
    lines(folder / "testing_list.txt", ["yes/0abc_nohash_0.wav"])
    lines(folder / "validation_list.txt", ["no/0abc_nohash_0.wav"])
    return {f"{word}/{i}abc_nohash_0.wav": (word, "", "", None) for word in ("yes", "no") for i in range(6)}


def labels_of_splits(folder):
    """huggingface.co/docs/datasets/audio_dataset: folder/train/dog/1.wav, without metadata."""
    for split in ("train", "test"):
        tones(folder, f"{split}/dog/{{}}.wav", 4)
        tones(folder, f"{split}/cat/{{}}.wav", 4)
    return {f"{split}/{label}/{i}.wav": (label, "", "", split)
            for split in ("train", "test") for label in ("dog", "cat") for i in range(4)}  # fmt: skip


def accents(folder):
    """Files that macOS wrote (an accent behind its letter), in a list that another system wrote; Excel's semicolons."""
    tones(folder, "cafe\u0301 {}.wav")
    rows = ["\ufefffile;text", *(f"caf\u00e9 {i}.wav;{text}" for i, text in enumerate(TEXTS))]
    lines(folder / "metadata.csv", [row.replace('"', "'") for row in rows])
    return {f"cafe\u0301 {i}.wav": (text.replace('"', "'"), "", "", None) for i, text in enumerate(TEXTS)}


def columns_of_json(folder):
    """`Dataset.to_dict`, and pandas' to_dict("list"): each column with all its cells."""
    tones(folder, "a/{}.wav")
    (folder / "data.json").write_text(json.dumps({"audio": [f"a/{i}.wav" for i in range(12)], "text": TEXTS}))
    return {f"a/{i}.wav": (text, "", "", None) for i, text in enumerate(TEXTS)}


LAYOUTS = [
    *(ljspeech, coqui_double_bar, coqui_header, f5_tts, piper, piper_ids, vits, gpt_sovits, bert_vits2, css10, kss),
    *(common_voice, nemo, qwen3_tts, moshi, json_list, json_map, pairs, vctk, libritts, librispeech, mls, jsut, emilia),
    *(vctk_092, audiocraft, kaldi, bare_csv, xtts, csv_with_splits, genres, speech_commands, labels_of_splits),
    *(accents, columns_of_json),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_is_read_as_its_public_data_sets_have_it(layout, tmp_path):
    expected = layout(tmp_path)
    clips = load_clips(tmp_path)
    assert {clip.name: tuple(getattr(clip, word) for word in WORDS) for clip in clips} == expected
    skipped: list[ClipError] = []
    assert len(list(read_clips(clips, 8000, skipped))) == len(clips) and not skipped
    train, held_out = split_clips(clips, 0.1, seed=0)
    assert train and held_out


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_codec_takes_the_audio_of_any_layout(layout, tmp_path):
    expected = layout(tmp_path)
    assert {clip.name for clip in load_clips(tmp_path, needed=())} >= expected.keys()


def test_folders_of_speakers_are_no_labels_and_a_label_is_told(tmp_path, caplog):
    genres(tmp_path / "music")
    with caplog.at_level(logging.WARNING):
        assert {clip.tags for clip in load_clips(tmp_path / "music", ("tags",))} == {"blues", "hip hop", "rock"}
    assert "described by the name of its folder (blues, hip_hop, rock)" in caplog.text
    for names in (("p225/{}.wav", "p226/{}.wav"), ("one/{}.wav",), ("one/{}.wav", "two/more/{}.wav")):
        folder = tmp_path / str(len(names)) / names[-1][:4]
        for name in names:
            tones(folder, name, 3)
        with pytest.raises(UserError, match="no other list of its files"):
            load_clips(folder)


def test_a_list_may_be_named_itself(tmp_path):
    expected = common_voice(tmp_path)
    clips = load_clips(tmp_path / "validated.tsv")
    assert {clip.name: clip.text for clip in clips} == {name: text for name, (text, *_) in expected.items()}
    assert {clip.split for clip in clips} == {None}
    assert [clip.text for clip in load_clips(tmp_path / "invalidated.tsv")] == ["wrong"]


def test_a_split_and_a_limit_are_taken(tmp_path):
    common_voice(tmp_path)
    assert len(load_clips(Source(str(tmp_path), split="train"))) == 8
    assert len(load_clips(Source(str(tmp_path), split="dev"))) == 2
    assert len(load_clips(Source(str(tmp_path), split="validated"))) == 12
    limited = Counter(clip.split for clip in load_clips(Source(str(tmp_path), limit=3)))
    assert limited == {"train": 3, "validation": 2, "test": 2}
    with pytest.raises(UserError, match="split 'tain'") as error:
        load_clips(Source(str(tmp_path), split="tain"))
    assert "train" in error.value.expected


def test_columns_that_nobody_knows_are_named(tmp_path):
    tones(tmp_path, "{}.wav", 3)
    lines(tmp_path / "list.csv", ["sound,said,who", *(f"{i}.wav,text {i},ann" for i in range(3))])
    assert [clip.text for clip in load_clips(tmp_path)] == [f"text {i}" for i in range(3)]  # by what they hold
    chosen = Source(str(tmp_path), columns=("audio=sound", "text=said", "speaker=who"))
    assert [(clip.text, clip.speaker) for clip in load_clips(chosen)] == [(f"text {i}", "ann") for i in range(3)]
    with pytest.raises(UserError, match="text=sayd") as error:
        load_clips(Source(str(tmp_path), columns=("audio=sound", "text=sayd")))
    assert "audio, text, " in error.value.expected
    with pytest.raises(UserError, match="ROLE=COLUMN"):
        load_clips(Source(str(tmp_path), columns=("sound",)))
    lines(tmp_path / "list.csv", [f"{i}.wav|text {i}|TEXT {i}" for i in range(3)])
    counted = Source(str(tmp_path), columns=("text=2",))
    assert [clip.text for clip in load_clips(counted)] == [f"text {i}" for i in range(3)]


def test_the_left_channel_and_the_main_words_of_moshi(tmp_path):
    moshi(tmp_path)
    (clip,) = [clip for clip in load_clips(tmp_path) if clip.name == "data_stereo/1.wav"]
    assert [word for word, _, _ in json.loads(clip.words)] == ["seven", "ships", "sailed"]
    ((_, wave_N),) = read_clips([clip], 8000, [])
    assert wave_N == pytest.approx(0.25, abs=1e-3)


def test_parts_of_a_file_by_offset_and_duration(tmp_path):
    """NeMo's offset and duration: several clips of one long recording."""
    soundfile.write(tmp_path / "long.wav", np.repeat([0.1, 0.2, 0.3], 8000), 8000)
    rows = [{"audio_filepath": "long.wav", "offset": float(i), "duration": 0.5, "text": f"part {i}"} for i in range(3)]
    json_lines(tmp_path / "manifest.json", rows)
    clips = load_clips(tmp_path)
    assert len({clip.name for clip in clips}) == len({clip.place for clip in clips}) == 3
    waves = [wave_N for _, wave_N in read_clips(clips, 8000, [])]
    assert [len(wave_N) for wave_N in waves] == [4000] * 3
    assert [round(float(wave_N[2000]), 2) for wave_N in waves] == [0.1, 0.2, 0.3]


def test_a_missing_file_counts_as_a_broken_one(tmp_path, caplog):
    expected = f5_tts(tmp_path)
    (tmp_path / "wavs/clip_0003.wav").unlink()
    (tmp_path / "wavs/clip_0005.wav").write_text("this is no audio")
    with caplog.at_level(logging.WARNING):
        clips = load_clips(tmp_path)
    assert len(clips) == len(expected) and "wavs/clip_0003.wav (line 5)" in caplog.text
    skipped: list[ClipError] = []
    with pytest.raises(UserError) as error:  # two of twelve are more than 5 %
        list(read_clips(clips, 8000, skipped))
    assert "clip_0003.wav: no such file" in error.value.seen and "clip_0005.wav: unreadable" in error.value.seen
    tone(tmp_path / "wavs/clip_0005.wav")
    skipped = []
    assert len(list(read_clips(load_clips(tmp_path), 8000, skipped))) == 11
    assert [error.path.name for error in skipped] == ["clip_0003.wav"] and "clip_0003" in caplog.text
    for index in range(6):
        (tmp_path / f"wavs/clip_{index:04}.wav").unlink(missing_ok=True)
    with pytest.raises(UserError, match="names 6 files that are not there"):
        load_clips(tmp_path)


def test_the_row_that_is_spelled_otherwise_is_named(tmp_path, caplog):
    piper(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_clips(tmp_path)
    assert "found under another spelling: Wav/11.wav is wav/11.wav" in caplog.text


def test_a_file_of_one_split_is_never_that_of_another(tmp_path):
    tone(tmp_path / "train/1.wav")
    tone(tmp_path / "test/2.wav")
    lines(tmp_path / "train.csv", ["path,text", "train/1.wav,one", "train/2.wav,two"])
    clips = load_clips(tmp_path)
    assert [clip.path.is_file() for clip in clips] == [True, False]


def test_a_clip_of_two_splits_is_held_out_alone(tmp_path, caplog):
    tones(tmp_path, "{}.wav", 4)
    lines(tmp_path / "train.txt", [f"{i}.wav|text {i}" for i in range(4)])
    lines(tmp_path / "val.txt", ["3.wav|text 3"])
    with caplog.at_level(logging.WARNING):
        clips = load_clips(tmp_path)
    assert [clip.split for clip in clips] == ["train"] * 3 + ["validation"]
    assert "of training that are held out too: 3.wav" in caplog.text


@pytest.mark.parametrize(
    ("peak", "read", "told"),
    [(0.9, 0.9, ""), (1.3, 1.0, "divided by it"), (6414.0, 6414 / 32768, "divided by 32768")],
)
def test_audio_outside_its_range_is_scaled_and_told(peak, read, told, tmp_path, caplog):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-peak, peak, 1000, dtype=np.float32), 8000, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        ((_, wave_N),) = read_clips(load_clips(tmp_path, needed=()), 8000, [])
    assert np.abs(wave_N).max() == pytest.approx(read, rel=1e-3)
    assert ("scaled 1 clips" in caplog.text and told in caplog.text) if told else not caplog.text


@pytest.mark.parametrize("peak", [37.5, 1e6])
def test_audio_in_an_unknown_unit_is_refused(peak, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(1000, peak, np.float32), 8000, subtype="FLOAT")
    with pytest.raises(UserError, match="which are neither in"):
        list(read_clips(load_clips(tmp_path, needed=()), 8000, []))


@pytest.mark.parametrize("suffix", ["m4a", "aac"])
def test_aac_is_read(suffix, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / f"a.{suffix}"), "w", format="adts" if suffix == "aac" else "mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples_1N = (0.4 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000))[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples_1N, format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    (tmp_path / f"broken.{suffix}").write_bytes(b"no audio at all")
    clips = load_clips(tmp_path, needed=())
    ((_, wave_N),) = read_clips(clips, 16000, skipped := [])
    spectrum_F = np.abs(np.fft.rfft(wave_N[2000:10000]))
    assert spectrum_F.argmax() * 2 == 440 and 0.3 < np.abs(wave_N).max() < 0.5
    assert "unreadable" in str(skipped[0])


# --- tables


def encoded(index: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(800, index / 10), 8000, format="FLAC")
    return file.getvalue()


def table(count=4, **columns):
    from datasets import Audio, Dataset

    audio = [{"bytes": encoded(index), "path": f"{index}.flac"} for index in range(count)]
    texts = [f"text {index}" for index in range(count)]
    return Dataset.from_dict({"audio": audio, "sentence": texts, **columns}).cast_column("audio", Audio(decode=False))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def read_back(source) -> list[tuple[str, str | None, float]]:
    return [(clip.text, clip.split, round(float(w_N[0]), 1)) for clip, w_N in read_clips(load_clips(source), 8000, [])]


FOUR = [(f"text {index}", "train", index / 10) for index in range(4)]


def test_local_parquet_with_audio_inside(tmp_path, cache):
    (tmp_path / "set/data").mkdir(parents=True)
    table().to_parquet(tmp_path / "set/data/train-00000-of-00001.parquet")
    table(2).to_parquet(tmp_path / "set/data/validation-00000-of-00001.parquet")
    assert read_back(tmp_path / "set") == FOUR + [(f"text {i}", "validation", i / 10) for i in range(2)]
    assert read_back(tmp_path / "set/data/train-00000-of-00001.parquet") == FOUR
    assert len(load_clips(Source(str(tmp_path / "set"), limit=1))) == 2


def test_parquet_that_another_library_wrote(tmp_path, cache):
    """polars, pandas: a struct of bytes and path, without the features of datasets; or names of files."""
    import polars as pl

    (tmp_path / "set").mkdir()
    rows = [{"audio": {"bytes": encoded(i), "path": None}, "text": f"text {i}"} for i in range(4)]
    pl.DataFrame(rows).write_parquet(tmp_path / "set/all.parquet")
    assert read_back(tmp_path / "set") == FOUR
    for index in range(4):
        (tmp_path / f"{index}.flac").write_bytes(encoded(index))
    rows = [{"path": f"{i}.flac", "text": f"text {i}"} for i in range(4)]
    pl.DataFrame(rows).write_parquet(tmp_path / "names.parquet")
    assert read_back(tmp_path / "names.parquet") == FOUR


def test_what_save_to_disk_wrote(tmp_path, cache):
    from datasets import DatasetDict

    table().save_to_disk(str(tmp_path / "one"))
    assert read_back(tmp_path / "one") == FOUR
    DatasetDict({"train": table(), "test": table(1)}).save_to_disk(str(tmp_path / "two"))
    assert read_back(tmp_path / "two") == [*FOUR, ("text 0", "test", 0.0)] or read_back(tmp_path / "two") == [
        ("text 0", "test", 0.0),
        *FOUR,
    ]
    assert len(load_clips(Source(str(tmp_path / "two"), split="train"))) == 4
    with pytest.raises(UserError, match="split 'dev'"):
        load_clips(Source(str(tmp_path / "two"), split="dev"))


@pytest.fixture
def repository(tmp_path, cache):
    """What a data set on the Hub holds: two configurations with their splits, in its README."""
    folder = tmp_path / "fleurs"
    for config in ("ar_eg", "fr_fr"):
        (folder / config).mkdir(parents=True)
        table(language=["ar"] * 4 if config == "ar_eg" else ["fr"] * 4).to_parquet(folder / config / "train.parquet")
        table(2, language=["xx"] * 2).to_parquet(folder / config / "validation.parquet")
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.parquet\n"
        f"  - split: validation\n    path: {config}/validation.parquet\n"
        for config in ("ar_eg", "fr_fr")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def test_a_configuration_and_a_split_of_a_hub_data_set(repository):
    for name in ("ar_eg", "ar"):
        clips = load_clips(Source(f"{repository}:{name}", split="train"))
        assert {clip.language for clip in clips} == {"ar"} and len(clips) == 4
    assert len(load_clips(f"{repository}:fr_fr")) == 6
    with pytest.raises(UserError, match="configuration 'de'") as error:
        load_clips(f"{repository}:de")
    assert "ar_eg, fr_fr" in error.value.expected
    with pytest.raises(UserError, match="tain"):
        load_clips(Source(f"{repository}:ar_eg", split="tain"))


def test_a_hub_data_set_is_streamed_as_far_as_its_limit(repository, monkeypatch):
    streamed = load_clips(Source(f"{repository}:ar_eg", split="train", streaming=True, limit=3))
    whole = load_clips(Source(f"{repository}:ar_eg", split="train", limit=3))
    assert [clip.text for clip in streamed] == [clip.text for clip in whole] == ["text 0", "text 1", "text 2"]


def test_columns_of_a_table_are_chosen(tmp_path, cache):
    table(heard=["a", "b", "c", "d"], who=["x", "x", "y", "y"]).to_parquet(tmp_path / "t.parquet")
    clips = load_clips(Source(str(tmp_path / "t.parquet"), columns=("text=heard", "speaker=who")))
    assert [(clip.text, clip.speaker) for clip in clips] == [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]
    with pytest.raises(UserError, match="text=herd"):
        load_clips(Source(str(tmp_path / "t.parquet"), columns=("text=herd",)))

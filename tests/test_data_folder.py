"""Folders of audio: the audiofolder convention, every way to get it wrong, the Hub, and the held-out split."""

import io
import json
import logging
import sys

import datasets
import numpy as np
import pytest
import soundfile

from earnest.data.audio import ClipError
from earnest.data.clip import Clip
from earnest.data.decoding import read_clips
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.hub import lay_out
from earnest.data.sides import split_clips
from earnest.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Four clips, without metadata: a.wav, b.flac, deep/c.ogg, train/d.mp3."""
    for index, name in enumerate(["a.wav", "b.flac", "deep/c.ogg", "train/d.mp3"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, 0.1 * np.sin(np.arange(4000) * (index + 1) / 10), 16000)
    return tmp_path


def metadata(folder, *lines):
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def seen(folder, **options):
    with pytest.raises(UserError) as error:
        load_clips(folder, **options)
    assert error.value.expected and error.value.fix
    return error.value.seen


def test_metadata_csv(folder):
    metadata(
        folder,
        "file_name,transcription,speaker_id,language,caption",
        'b.flac,"yes, no",ann,en,calm',
        "deep/c.ogg, due ,bob,it,",
    )
    assert load_clips(folder) == [
        Clip(folder / "b.flac", "b.flac", "yes, no", "ann", "en", "calm", None, str(folder)),
        Clip(folder / "deep/c.ogg", "deep/c.ogg", "due", "bob", "it", "", None, str(folder)),
    ]


def test_metadata_jsonl_in_sub_folders_and_splits(folder):
    rows = [{"file_name": "d.mp3", "sentence": "ciao", "tags": ["x", "y"], "speaker": None}]
    (folder / "train/metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (clip,) = load_clips(folder)
    assert (clip.name, clip.text, clip.tags, clip.speaker, clip.split) == ("train/d.mp3", "ciao", "x, y", "", "train")


def test_musiccaps_columns(folder):
    """google/MusicCaps: a caption, and a list as Python writes it."""
    metadata(
        folder,
        "file_name,aspect_list,caption",
        "a.wav,\"['slow piano', 'sad']\",\"A slow, sad piano.\"",
        "b.flac,['rock'],",
    )
    a, b = load_clips(folder, needed=("text", "tags"))
    assert (a.text, a.tags, b.text, b.tags) == ("A slow, sad piano.", "slow piano, sad", "", "rock")
    assert [clip.name for clip in load_clips(folder, needed=("text",))] == ["a.wav"]
    metadata(folder, "file_name,speaker", "a.wav,ann")
    assert "no tags column" in seen(folder, needed=("tags",))


def test_a_byte_order_mark_and_windows_line_ends(folder):
    (folder / "metadata.csv").write_bytes("﻿file_name,text\r\na.wav,café\r\n".encode())
    assert [clip.text for clip in load_clips(folder)] == ["café"]


def test_without_need_of_text_every_audio_file_is_a_clip(folder):
    (folder / ".hidden.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("not audio")
    assert [clip.name for clip in load_clips(folder, needed=())] == ["a.wav", "b.flac", "deep/c.ogg", "train/d.mp3"]
    metadata(folder, "file_name,speaker", "a.wav,ann")
    clips = load_clips(folder, needed=())
    assert len(clips) == 4 and clips[0].speaker == "ann"


def test_what_has_no_text_is_left_out_and_said(folder, caplog):
    metadata(folder, "file_name,text", "a.wav,one", "b.flac, ")
    with caplog.at_level(logging.WARNING):
        assert [clip.name for clip in load_clips(folder)] == ["a.wav"]
    assert "left out 2 clips not in the metadata: deep/c.ogg, train/d.mp3" in caplog.text
    assert "left out 1 clips without a text: b.flac" in caplog.text


def test_a_folder_of_symbolic_links_works(folder, tmp_path_factory):
    links = tmp_path_factory.mktemp("links")
    (links / "one.wav").symlink_to(folder / "a.wav")
    (links / "linked").symlink_to(folder / "deep")
    metadata(links, "file_name,text", "one.wav,one", "linked/c.ogg,two")
    assert [clip.name for clip in load_clips(links)] == ["linked/c.ogg", "one.wav"]


def test_missing_and_empty_folders(folder, tmp_path_factory):
    assert f"no folder {folder / 'nowhere'}" == seen(folder / "nowhere")
    assert "a file at" in seen(folder / "a.wav")
    assert "no audio file in" in seen(tmp_path_factory.mktemp("empty"))
    assert "no metadata.csv or metadata.jsonl" in seen(folder)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sound,text", "x,one"], "metadata.csv:1 has no column that names audio files (it has sound,text)"),
        (["file,text", ",one"], "metadata.csv:2 has no file (it has file, text)"),
        (["file_name,heard", "a.wav,one"], "has no text column"),
        (["file_name,text"], "has no rows"),
        (["file_name,text", "a.wav,"], "every text in"),
        (["file_name,text", "a.wav,one", "a.wav,two"], "a second time"),
        (["file_name,text", "a.wav,one, two"], "metadata.csv:2 does not have the 2 columns"),
        (["file_name,text,speaker", "a.wav,one"], "metadata.csv:2 does not have the 3 columns"),
        (["file_name,text", "../gone.wav,one"], "not there or are not audio: ../gone.wav (line 2)"),
        (["file_name,text", "/etc/passwd,one"], "not there or are not audio: /etc/passwd (line 2)"),
        (["file_name,text", 'a.wav,"one'], "after line 1"),
        (["file_name,text", *[f"x{index}.wav,one" for index in range(7)]], "names 7 files that are not there"),
    ],
)
def test_wrong_metadata_names_the_file_and_the_line(folder, lines, message):
    metadata(folder, *lines)
    assert message in seen(folder)
    assert str(folder / "metadata.csv") in seen(folder)


def test_absent_files_are_listed_up_to_five(folder):
    metadata(folder, "file_name,text", *[f"x{index}.wav,one" for index in range(7)])
    assert "x0.wav (line 2), x1.wav (line 3), x2.wav (line 4), x3.wav (line 5), x4.wav (line 6), ..." in seen(folder)


@pytest.mark.parametrize("line", ["{", "3", "\udc80"])
def test_wrong_json_lines(folder, line):
    good = json.dumps({"file_name": "a.wav", "text": "one"})
    (folder / "metadata.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8", errors="surrogateescape")
    assert "metadata.jsonl, after line" in seen(folder)


def test_two_metadata_files_in_one_folder(folder):
    metadata(folder, "file_name,text", "a.wav,one")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.wav", "text": "two"}\n')
    assert "metadata.jsonl beside metadata.csv" in seen(folder)


# --- Hub --------------------------------------------------------------------------------------------------------------


def test_an_unreachable_dataset_is_told_in_three_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "no folder owner/name, and the Hub gave no dataset of that name" in seen("owner/name")


def test_a_mistyped_path_below_a_folder_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert seen("data/speach") == "no folder data/speach"


def test_a_hub_dataset_becomes_a_folder(tmp_path):
    """What `load_dataset` returns for a dataset on the Hub: a parquet file with audio as bytes."""
    files = []
    for index in range(3):
        file = io.BytesIO()
        soundfile.write(file, np.full(800, index / 10), 8000, format="FLAC")
        files.append({"bytes": file.getvalue(), "path": f"{index}.flac" if index else None})
    columns = {"audio": files, "sentence": ["zero", "one", "two"], "speaker_id": [7, 7, 8], "votes": [1, 2, 3]}
    table = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    table.to_parquet(tmp_path / "train.parquet")
    splits = datasets.load_dataset(
        "parquet", data_files={"train": str(tmp_path / "train.parquet")}, cache_dir=str(tmp_path / "cache")
    )
    lay_out(splits, "owner/name", tmp_path / "laid")
    clips = load_clips(tmp_path / "laid")
    assert [(clip.text, clip.speaker, clip.split) for clip in clips] == [
        ("zero", "7", "train"),
        ("one", "7", "train"),
        ("two", "8", "train"),
    ]
    waves = [wave_N for _, wave_N in read_clips(clips, 8000, [])]
    assert [round(float(wave_N[0]), 1) for wave_N in waves] == [0, 0.1, 0.2]
    with pytest.raises(UserError, match="a column of audio"):
        lay_out({"train": table.remove_columns("audio")}, "owner/name", tmp_path / "laid2")
    assert not (tmp_path / "laid2").exists()


# --- reading ----------------------------------------------------------------------------------------------------------


def corpus(folder, good, bad):
    """`good` readable clips, then `bad` ones: empty, not audio, NaN, in turns."""
    clips = []
    for index in range(good + bad):
        path = folder / f"{index:03d}.wav"
        if index < good:
            soundfile.write(path, np.full(100, 0.1), 16000)
        elif index % 3 == 2:
            soundfile.write(path, np.full(100, np.nan), 16000, subtype="FLOAT")
        else:
            path.write_bytes(b"noise" * (index % 3))
        clips.append(Clip(path, path.name))
    return clips


def test_up_to_five_percent_of_the_clips_may_be_broken(tmp_path):
    skipped: list[ClipError] = []
    clips = corpus(tmp_path, 57, 3)
    assert [clip for clip, _ in read_clips(clips, 16000, skipped)] == clips[:57]
    assert [error.path for error in skipped] == [clip.path for clip in clips[57:]]
    assert all(error.reason for error in skipped)


def test_more_stop_the_run_with_the_list(tmp_path):
    clips = corpus(tmp_path, 200, 30)
    with pytest.raises(UserError) as error:
        list(read_clips(clips, 16000, []))
    assert "12 clips cannot be used (of 230; reading stopped there)" in error.value.seen
    assert error.value.seen.count(".wav: ") == 10


# --- splitting --------------------------------------------------------------------------------------------------------


def named(count, split=None):
    return [Clip(path=None, name=f"{index}.wav", split=split) for index in range(count)]  # type: ignore[arg-type]


def test_the_split_is_by_name_so_that_added_clips_move_nothing():
    train, held_out = split_clips(named(1000), 0.1, seed=0)
    assert len(train) + len(held_out) == 1000 and 70 < len(held_out) < 130
    more_train, more_held_out = split_clips(named(2000)[::-1], 0.1, seed=0)
    assert set(train) < set(more_train) and set(held_out) < set(more_held_out)
    assert split_clips(named(1000), 0.1, seed=1) != (train, held_out)


@pytest.mark.parametrize("held_out_frac", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_each_side_has_a_clip(count, held_out_frac):
    train, held_out = split_clips(named(count), held_out_frac, seed=0)
    assert train and held_out and len(train) + len(held_out) == count


def test_splits_that_the_folder_brings_win_and_the_test_split_stays_out():
    train, validation, test = named(3, "train"), named(2, "validation"), named(2, "test")
    assert split_clips(train + validation + test, 0.5, seed=0) == (train, validation)
    sides = split_clips(train + test, 0.5, seed=0)
    assert not any(clip.split == "test" for side in sides for clip in side)


@pytest.mark.parametrize("clips", [[], named(1), named(3, "validation"), named(3, "test")])
def test_too_few_clips(clips):
    with pytest.raises(UserError, match="to hold out"):
        split_clips(clips, 0.1, seed=0)


def test_reading_takes_as_many_calls_a_clip_whatever_their_number(tmp_path):
    def calls(clips: int) -> int:
        folder = tmp_path / str(clips)
        folder.mkdir()
        rows = [f"{clip}.wav,seven {clip}" for clip in range(clips)]
        (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
        for clip in range(clips):
            (folder / f"{clip}.wav").touch()
        counted = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            assert len(load_clips(folder)) == clips
        finally:
            sys.setprofile(None)
        return counted

    calls(10)  # what is imported and compiled once
    assert calls(1200) < 2.2 * calls(600)

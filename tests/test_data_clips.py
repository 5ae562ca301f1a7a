"""Clips in columns are the clips that were given."""

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from earnest.data.audio import Segment
from earnest.data.clip import Clip
from earnest.data.clips import Clips, taken
from earnest.data.sides import sides_of, split_clips

SEGMENT = Segment(1.5, 2.0, 1)
CLIPS = [
    Clip(Path("data/a.wav"), "a.wav", "one", "ann", "en", "calm, slow", "train", "data", '[["one", 0, 1]]'),
    Clip(Path("data/b/c.wav"), "b/c.wav", "اثنان\n", "bob", split="validation", source="data"),
    Clip(Path("data/long.flac"), "long.flac#1.5", "a\0b", "ann", segment=SEGMENT),
    Clip(Path("/elsewhere/x.wav"), "y.wav"),
    Clip(Path("z.wav"), "z.wav"),
    Clip(Path(os.fsdecode(b"data/\xff.wav")), os.fsdecode(b"\xff.wav"), source="data"),
]


def test_clips_come_out_as_they_went_in():
    columns = Clips.of(iter(CLIPS))
    assert list(columns) == CLIPS and len(columns) == len(CLIPS) and columns[-1] == CLIPS[-1]
    assert [*columns[1::2]] == CLIPS[1::2] and [*columns[1::2][1:]] == CLIPS[1::2][1:]
    with pytest.raises(IndexError):
        columns[len(CLIPS)]
    assert len(Clips.of([])) == 0


def test_some_are_taken_and_some_are_parts_of_their_files():
    columns = Clips.of(CLIPS)
    some = taken(columns, np.array([4, 2, 0]))
    assert isinstance(some, Clips) and [*some] == [CLIPS[4], CLIPS[2], CLIPS[0]] == taken(CLIPS, [4, 2, 0])
    other = Segment(0.0, 3.0)
    cut = some.with_segments({0: other, 2: other})
    assert [clip.segment for clip in cut] == [other, SEGMENT, other]
    assert [clip.segment for clip in some] == [None, SEGMENT, None]


def test_sides_are_the_same_by_places():
    clips = [Clip(Path(f"{n}.wav"), f"{n}.wav", speaker=f"{n % 7}") for n in range(200)]
    for by in ("name", "speaker"):
        train, held_out = sides_of(Clips.of(clips), 0.2, 0, by)
        assert ([clips[at] for at in train], [clips[at] for at in held_out]) == split_clips(clips, 0.2, 0, by)


def test_a_clip_takes_four_bytes_and_its_words_lie_in_a_file():
    clips = [Clip(Path(f"data/{n:07}.wav"), f"{n:07}.wav", "four words of text", f"{n % 9}") for n in range(3000)]
    columns = Clips.of(clips)
    assert isinstance(columns._records._block, mmap.mmap)
    assert columns._place_N.nbytes == 4 * 3000


def test_more_voices_than_are_kept_once_come_out_as_well(monkeypatch):
    monkeypatch.setattr("earnest.data.clips.MOST_SHARED", 3)
    clips = [Clip(Path(f"{n}.wav"), f"{n}.wav", speaker=f"voice {n % 7}") for n in range(20)]
    columns = Clips.of(clips)
    assert [*columns] == clips and len(columns._records.values["speaker"]) == 3

"""Captioned music: the real wheel where it is installed."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from earnest.data.layouts import music as module
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.music import music, tracks, wesnoth
from earnest.data.sides import split_clips
from earnest.errors import UserError

try:
    tracks()
    installed = True
except UserError:
    installed = False
needs_wheel = pytest.mark.skipif(not installed, reason="REAL MUSIC NOT TESTED: pip install immich-memories-music")


@needs_wheel
def test_every_track_has_its_own_caption():
    found = tracks()
    assert len(found) == 28 and all(track.path.is_file() for track in found)
    by_name = {track.path.stem: track for track in found}
    assert by_name["nostalgic_electronic_2"].caption == "nostalgic electronic music in Bb minor at 84 bpm"
    assert by_name["calm_acoustic_1"].tags == "calm, acoustic, C major, 68 bpm"
    assert all(track.caption.startswith(f"{track.path.parent.name} ") for track in found)


@needs_wheel
def test_clips_are_the_tracks_cut_and_no_track_is_on_both_sides(tmp_path):
    prepared = music(tmp_path / "music")
    clips = load_clips(tmp_path / "music")
    assert len(clips) == prepared.clips and all(clip.tags and clip.text for clip in clips)
    train, held_out = split_clips(clips, 0.05, seed=0)
    names = [{clip.path.stem.rpartition("_")[0] for clip in side} for side in (train, held_out)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 28
    assert Counter(name.split("_")[1] for name in names[1]) == {"acoustic": 3, "electronic": 3}
    assert {name.split("_")[0] for name in names[1]} == {track.path.parent.name for track in tracks()}
    first = tracks()[0]
    whole_NK, _ = soundfile.read(first.path, dtype="float32")
    side = "validation" if first.path.stem in names[1] else "train"
    pieces = [soundfile.read(tmp_path / f"music/{side}/{first.path.stem}_{i}.flac", dtype="float32") for i in range(3)]
    assert {rate for _, rate in pieces} == {48000}
    cut_NK = np.concatenate([piece_NK for piece_NK, _ in pieces])
    np.testing.assert_allclose(cut_NK, whole_NK[: len(cut_NK)], atol=1 / 32768)
    assert cut_NK.shape == (3 * 480000, 2)
    assert "ACE-Step" in (tmp_path / "music/ATTRIBUTION").read_text()


def test_without_the_wheel_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "WHEEL", "immich-memories-music-not-installed")
    with pytest.raises(UserError, match="pip install immich-memories-music"):
        music(tmp_path / "music")
    assert not any(tmp_path.iterdir())


def test_the_games_tracks_are_cut_and_captioned_by_their_titles(tmp_path):
    folder = tmp_path / "usr/share/games/wesnoth/1.16/data/core/music"
    folder.mkdir(parents=True)
    for index, name in enumerate(["battle-epic", "elf-land", "knolls", "love_theme", "sad", "vengeful"]):
        wave_NK = np.sin(np.arange(25_000)[:, None] * (0.01 + 0.01 * index) * np.ones(2))
        soundfile.write(folder / f"{name}.ogg", wave_NK, 1000, format="OGG", subtype="VORBIS")
    prepared = wesnoth(tmp_path / "out", tmp_path, clip_s=10.0)
    clips = {clip.name: clip for clip in load_clips(tmp_path / "out")}
    assert (
        prepared.clips == len(clips) == 18 and clips["train/love_theme_0.flac"].text == "orchestral music, love theme"
    )
    assert clips["validation/battle-epic_2.flac"].tags == "orchestral, battle epic"
    assert {name.split("_")[0] for name in clips if name.startswith("validation/")} == {
        "validation/battle-epic",
        "validation/vengeful",
    }
    assert soundfile.info(tmp_path / "out/train/sad_2.flac").duration == 5.0  # the rest of the track
    assert "GPL-2.0" in (tmp_path / "out/ATTRIBUTION").read_text()


def test_without_the_game_it_says_what_to_install(tmp_path):
    with pytest.raises(UserError, match="apt-get install wesnoth"):
        wesnoth(tmp_path / "out", tmp_path)

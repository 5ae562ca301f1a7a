"""Folders of clips and of logs that are odd: names, metadata, conversations, breadth, depth, links in circles."""

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.campaigns.tally import TINY, Tally, earnest, tones, until
from tests.equipment.tiny_recipes import CODEC

NAMES = ["a\nfix: rm", "\x1b[2J", "a\udcff", "\u202eabc", "é" * 60, "a" * 250, "[bold]", "a b", "-x", "$(id)", "'\""]
ODD: list[Any] = [None, 5, True, 1e308, -1, "", "x" * 5000, "\ud800", "\0", [], [1], {}, {"a": []}]
ODD += ["../../etc/passwd", "/etc/passwd"]
FIELDS = ("messages", "role", "content", "start_index", "misc", "audios", "speaker", "audio_url", "type", "samples")


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally = Tally("folders")
    _broad(folder / "broad", tally, 1000 if seconds < 10 else 20_000)
    for random_ in until(seconds, seed):
        place = folder / "data"
        for make in (_names, _metadata, _conversations):
            words = make(place, random_)
            code, said = earnest("train", *words, "--steps", "1", "--out", folder / "run")
            three = said.strip().splitlines()[-3:]
            good = code == 0 or (code == 2 and three[-1].startswith("fix:"))
            leaks = "root:" in said or ((folder / "run").exists() and _leaks(folder / "run"))
            clean = not set(said) & set("\x1b\u202e\x9b")
            bad = "" if good and not leaks and clean else f"{make.__name__} {words}: {code} leaks {leaks} {three}"
            tally.end(f"{make.__name__[1:]} {code}", bad)
            for left in (place, folder / "run"):
                shutil.rmtree(left, ignore_errors=True)
    return tally


def _leaks(run_dir: Path) -> bool:
    return any(b"root:x:" in path.read_bytes() for path in run_dir.rglob("*") if path.is_file())


def _names(place: Path, random_: random.Random) -> list[object]:
    """Clips with odd names; a codec's training needs no texts."""
    place.mkdir()
    wave_N = np.sin(np.arange(8000) / 20) * 0.3
    for number, name in enumerate(random_.sample(NAMES, 4) + list("abcdefghij")):
        below = place / random_.choice(["", "train", "x"])
        below.mkdir(exist_ok=True)
        soundfile.write(place / "a.wav", wave_N + number / 1000, 16000)
        os.replace(place / "a.wav", os.fsencode(below / f"{name}.wav")[:4000])
    if random_.random() < 0.3:
        (place / "circle").symlink_to(place)
    if random_.random() < 0.3:
        os.mkfifo(place / "pipe.wav")
    return ["amy-tiny", "--data.path", place, *CODEC]


def _metadata(place: Path, random_: random.Random) -> list[object]:
    """One field, or one line, of the metadata is odd."""
    tones(place)
    rows: list[dict[str, Any]] = [{"file_name": f"{index}.wav", "text": f"tone {index}"} for index in range(20)]
    row = random_.choice(rows)
    row[random_.choice(["file_name", "text", "speaker", "language", "words", "tags"])] = random_.choice(ODD)
    lines = [json.dumps(row).encode() for row in rows]
    if random_.random() < 0.4:
        lines[random_.randrange(20)] = random_.choice(
            [b"[" * 100_000, b"\xff\xfe", b"{", b"5", b"null", b'{"a":' * 9000]
        )
    (place / "metadata.csv").unlink()
    (place / "metadata.jsonl").write_bytes(b"\n".join(lines))
    return ["higgs-tiny", "--data.path", place, *TINY]


def _conversations(place: Path, random_: random.Random) -> list[object]:
    """One value somewhere in a file of conversations is odd."""
    tones(place)
    talks: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": f"tone {index}"},
                {"role": "assistant", "content": [{"type": "audio", "audio_url": f"{index}.wav"}]},
            ],
            "start_index": 0,
            "speaker": "a",
        }
        for index in range(20)
    ]
    talks[0] = _changed(talks[0], random_)
    (place / "talks.json").write_text(json.dumps(talks))
    return ["higgs-tiny", "--data.path", place / "talks.json", *TINY]


def _changed(value: Any, random_: random.Random) -> Any:
    if isinstance(value, dict) and random_.random() < 0.8:
        name = random_.choice([*value, *FIELDS])
        return {**value, name: _changed(value.get(name), random_)}
    if isinstance(value, list) and value and random_.random() < 0.8:
        index = random_.randrange(len(value))
        return [*value[:index], _changed(value[index], random_), *value[index + 1 :]]
    return random_.choice(ODD)


def _broad(place: Path, tally: Tally, count: int) -> None:
    """Thousands of folders cost time in proportion."""
    for index in range(count):
        (place / f"folder_{index}").mkdir(parents=True)
    deep = place / "/".join("d" * 500)
    deep.mkdir(parents=True)
    started_s = time.process_time()
    code, said = earnest("diagnose", place)
    took_s = time.process_time() - started_s
    tally.end(f"broad {code}", "" if code == 2 and took_s < 10 else f"broad: {code} in {took_s:.1f} s: {said[-200:]}")

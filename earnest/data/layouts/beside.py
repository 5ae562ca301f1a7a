"""What stands in files beside the audio: `1.wav` and `1.txt`, `x.normalized.txt`, `wav48/p225/a.wav` and
`txt/p225/a.txt`, JSON with the fields of a clip, and the alignments of moshi-finetune."""

import ast
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, cast

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.data.layouts.parts import Part, parts_of
from earnest.data.layouts.roles import Role, first_filled, named_roles
from earnest.files import read_small
from earnest.records import loads

# the first that is there is read
ENDINGS = (".normalized.txt", ".txt", ".lab", ".original.txt", ".trn", ".json", ".srt", ".vtt", ".textgrid")
TIMES = re.compile(r"0 \d{3,} (?=\S)")  # TIMIT: first and last sample before the text
MOST_BYTES = 2**24  # of a file beside one clip
MAIN_SPEAKER = "SPEAKER_MAIN"  # moshi-finetune: the one that the model speaks for, on the left channel
Word = tuple[str, float, float, str]


class Beside:
    """The files that describe the audio of the same name, in its folder or in one beside it."""

    def __init__(self, folder: Path, names: Iterable[str], audio: Collection[str]):
        self.folder = folder
        by_stem: dict[str, list[str]] = {}
        for name in names:
            if ending := next((each for each in ENDINGS if name.lower().endswith(each)), None):
                by_stem.setdefault(_without_sound(PurePosixPath(name).name[: -len(ending)]), []).append(name)
        stems = {_stem(PurePosixPath(name)) for name in audio} if by_stem else set[str]()
        self._by_stem = {stem: names for stem, names in by_stem.items() if stem in stems}
        self._names = frozenset(name for names in self._by_stem.values() for name in names)

    @property
    def describes_some(self) -> bool:
        return bool(self._names)

    def is_beside(self, name: str) -> bool:
        """Whether a file describes one audio file, rather than listing many."""
        return name in self._names

    def cells(self, audio: str) -> dict[Role, str]:
        """What the files beside an audio file say, by role."""
        return next((cells for file in self._of(audio) if (cells := _cells(file))), {})

    def parts(self, audio: str) -> list[Part]:
        """The clips of a recording, if a file beside it says what is said when; none if it is one clip."""
        parts = next((parts for file in self._of(audio) if (parts := parts_of(file))), [])
        return parts if len(parts) > 1 else []

    def _of(self, audio: str) -> list[Path]:
        """The files that describe an audio file, those of its own folder first, then by their endings."""
        path = PurePosixPath(audio)
        near = [name for name in self._by_stem.get(_stem(path), ()) if self._is_near(PurePosixPath(name), path)]
        near.sort(key=lambda name: PurePosixPath(name).parent != path.parent)
        has_own = bool(near) and PurePosixPath(near[0]).parent == path.parent
        near = [name for name in near if not has_own or PurePosixPath(name).parent == path.parent]
        ordered = [(ending, name) for ending in ENDINGS for name in near if name.lower().endswith(ending)]
        return [
            self.folder / name
            for ending, name in ordered
            if _without_sound(PurePosixPath(name).name[: -len(ending)]) == _stem(path)
        ]

    def _is_near(self, name: PurePosixPath, audio: PurePosixPath) -> bool:
        """Whether two files are in the same folder, or in folders that differ in one name: wav48/p225 and txt/p225."""
        mine, others = audio.parts[:-1], name.parts[:-1]
        return mine == others or (len(mine) == len(others) and sum(map(str.__ne__, mine, others)) == 1)


def _stem(audio: PurePosixPath) -> str:
    """The name that describes the audio; VCTK has one text for what two microphones recorded (p225_001_mic1.flac)."""
    return re.sub(r"_mic\d$", "", audio.stem)


def _without_sound(name: str) -> str:
    """`a` of a.wav.trn and a.mp3.json."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else name


def _cells(path: Path) -> dict[Role, str]:
    suffix = path.suffix.lower()
    if suffix in (".srt", ".vtt", ".textgrid"):
        said = " ".join(part.text for part in parts_of(path))
        return {"text": said} if said else {}
    try:
        text = read_small(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    if suffix != ".json":
        written = TIMES.sub("", next(iter(text.strip().splitlines()), "") if suffix == ".trn" else text, count=1)
        is_aligned = suffix == ".lab" and re.search(
            r"^\s*[\d.]+\s+[\d.]+\s", written, re.MULTILINE
        )  # HTK: sounds by time
        return {"text": " ".join(written.split())} if written.strip() and not is_aligned else {}
    try:
        fields = loads(text)
    except ValueError:
        return {}
    if not isinstance(fields, dict):
        return {}
    row = {name: as_cell(value) for name, value in cast(dict[str, Any], fields).items() if value is not None}
    cells: dict[Role, str] = {}
    for role, columns in named_roles(list(row), {}, path).items():
        if role not in ("audio", "duration_s", "split") and (cell := first_filled(row, columns)):
            cells[role] = cell
    return cells


def as_cell(value: object) -> str:
    """A value of JSON as text: a list of words becomes words between commas; a list of lists stays JSON; of an Audio
    feature the path."""
    if isinstance(value, dict) and isinstance(path := cast(dict[str, Any], value).get("path"), str):
        return path
    if not isinstance(value, list):
        return str(value)
    items = cast(list[Any], value)
    return json.dumps(items) if any(isinstance(item, list) for item in items) else ", ".join(map(str, items))


def main_words(cell: str) -> tuple[str, str, int | None]:
    """Alignments -> (words as [[word, start_s, end_s], ...], the text that they are, the channel of who says them).

    moshi-finetune has [word, [start_s, end_s], speaker], and the main speaker on the left channel (0) of two.
    """
    words: list[list[Any]] = []
    main = False
    try:
        stored: Any = loads(cell)
        for word, *times in stored:
            if isinstance(times[0], list):
                (start_s, end_s), speaker = cast(list[Any], times[0]), str(times[1]) if len(times) > 1 else ""
                main |= speaker == MAIN_SPEAKER
                if speaker in ("", MAIN_SPEAKER):
                    words.append([str(word), float(start_s), float(end_s)])
    except (ValueError, TypeError, IndexError, RecursionError):
        return cell, "", None
    if not words:
        return cell, "", None
    return json.dumps(words), " ".join(word for word, _, _ in words), 0 if main else None


def tags(value: str) -> str:
    """Tags between commas; MusicCaps' aspect_list is a list as Python writes it."""
    if not value.startswith("["):
        return value
    try:
        return ", ".join(map(str, ast.literal_eval(value)))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # all that it raises for odd text
        return value

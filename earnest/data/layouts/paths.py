"""Which data is meant, and which file a list of it means: lists are moved, written on other machines, and name files by
their stem alone."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.errors import UserError

ROOT = PurePosixPath()
ARCHIVES = (".tar.zst", ".7z", ".rar")
UNPACKED = "unpacked"  # what a folder is called in advice
SPLITS = {  # datasets.data_files.SPLIT_KEYWORDS
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["validation", "valid", "dev", "val"], "validation"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
}


@dataclass(frozen=True)
class Source:
    """Which data set, and what of it."""

    path: str = ""
    """A folder, a list of clips, or a data set on the Hub."""
    columns: tuple[str, ...] = ()
    """Columns of the list or table whose names are not known, as ROLE=COLUMN: audio=my_file text=said. Roles: audio,
    text, speaker, language, tags, words, split, start_s, end_s, duration_s. Columns of a list without a header are
    counted from 1."""
    split: str = ""
    """Take this split alone (train, validated, ...), and hold out a share of it; all of them if empty."""
    limit: int | None = None
    """Take the first so many clips of every split; all if not given."""
    streaming: bool = False
    """Read a data set of the Hub as far as `limit`, rather than download it whole."""


def refuse_archives(path: Path) -> None:
    """Raises UserError, which says how to unpack, if a path is an archive that `archives` does not read, or a folder of
    them."""
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    packed = [file for file in files if file.name.lower().endswith(ARCHIVES)]
    if packed:
        raise UserError(
            f"{packed[0]}, an archive" + (f", and {len(packed) - 1} more" if len(packed) > 1 else ""),
            "audio files in a folder, or in .tar, .tar.gz, .tar.bz2, .tar.xz or .zip",
            f"unpack into a folder, and name that: --data.path {UNPACKED}",
        )


def split_in(words: str) -> str | None:
    """The split that a name says: train-clean-100, dev, ljs_audio_text_val_filelist, 92_manifest_clean_train; None if
    it says two, or that it is the rest (`tr_no_dev`)."""
    parts = [part for part in re.split(r"[\W_\d]+", words.lower()) if part]
    splits = {
        SPLITS[part] for before, part in zip(["", *parts], parts, strict=False) if part in SPLITS and before != "no"
    }
    return splits.pop() if len(splits) == 1 else None


def split_of(name: str) -> str | None:
    """The split that the folders of a name say, the outermost first, as in data sets of the Hub."""
    return next((split for part in PurePosixPath(name).parts[:-1] if (split := split_in(part))), None)


def folder_labels(names: Collection[str]) -> dict[str, str]:
    """Name of each file -> the folder that it lies in, if the folders sort the files by what they are (blues/1.wav,
    jazz/1.wav), as Hugging Face's audiofolder has it: two or more, all of one depth. None of them may be a split, and
    most must be words: p225 and 84 are speakers or chapters."""
    folders = {name: PurePosixPath(name).parent for name in names}
    labels = {folder.name for folder in folders.values()}
    numbered = sum(any(letter.isdigit() for letter in label) for label in labels)
    if len(labels) < 2 or len({len(folder.parts) for folder in folders.values()}) > 1 or 2 * numbered > len(labels):
        return {}
    return {} if any(map(split_in, labels)) else {name: folder.name for name, folder in folders.items()}


def names_split(path: Path, split: str) -> bool:
    """Whether a list is that of a split, which may be one that only this data set has (`validated`)."""
    words = re.split(r"[_\-. ]+", path.stem.lower())
    return split.lower() in (path.stem.lower(), *words) or SPLITS.get(split.lower(), "") in map(SPLITS.get, words)


def files_below(root: Path) -> list[str]:
    """The names of the files below a folder, relative to it, sorted; without hidden ones and what macOS adds to an
    archive. Folders that are links are not followed, and what may not be looked into is empty."""
    names, folders = list[str](), [""]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}{entry.name}/")
                elif entry.is_file():
                    names.append(folder + entry.name)
    return sorted(names)


class AudioFiles:
    """The audio files below a folder, and how the words of a list find them."""

    def __init__(self, root: Path, names: Iterable[str]):
        self.root = root
        self.names = frozenset(names)
        """Paths relative to the root."""

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        for name in sorted(self.names):
            by_stem.setdefault(_letters(posixpath.splitext(posixpath.basename(name))[0]), []).append(name)
        return by_stem

    @cached_property
    def _folders(self) -> set[str]:
        folders = {posixpath.dirname(name) for name in self.names}
        return {_letters(part) for folder in folders for part in PurePosixPath(folder).parts}

    def is_audio(self, word: str, here: PurePosixPath = ROOT) -> bool:
        return self.find(word, here) is not None

    def find(self, word: str, here: PurePosixPath = ROOT) -> str | None:
        """The name of the file that a list in the folder `here` means by a word, or None.

        A path counts from the list's own folder, or from the root, or is absolute. If nothing lies there, the file is
        sought below the root by the longest end of its path that is found, upper and lower case alike, with or without
        a suffix (`LJ001-0001`, `DUMMY1/LJ001-0001.wav`, `/home/somebody/set/wavs/LJ001-0001.wav`); but not across the
        folders of the root (`train/1.wav` is never `test/1.wav`).
        """
        word = word.strip().replace("\\", "/").removeprefix("file://")
        if not word or len(word) > 1000 or "\0" in word:
            return None
        for base in (here, ROOT):
            name = _normal(base / word)
            if name in self.names:
                return name
        sound = PurePosixPath(word).suffix.lower() in AUDIO_SUFFIXES
        outside = self.root / here / word
        if sound and ("/" in word) and _is_file(outside):
            return _normal(here / word)
        return self._elsewhere(PurePosixPath(word), sound, here)

    def _elsewhere(self, word: PurePosixPath, sound: bool, here: PurePosixPath) -> str | None:
        stem = _letters(word.stem if sound else word.name)
        wanted = [_letters(part) for part in word.parts[:-1] if part not in (".", "..", "/")]
        best: dict[tuple[int, bool, bool], list[str]] = {}
        for name in self._by_stem.get(stem, ()):
            path = PurePosixPath(name)
            folders = [_letters(part) for part in path.parts[:-1]]
            same = _common_end(wanted, folders)
            if wanted[: len(wanted) - same] and not self._may_drop(wanted[: len(wanted) - same], name):
                continue
            rank = (same, path.suffix.lower() == word.suffix.lower(), path.is_relative_to(here))
            best.setdefault(rank, []).append(name)
        found = best[max(best)] if best else []
        # one recording in several formats is one; two recordings of one name are not told apart
        return found[0] if len({PurePosixPath(name).with_suffix("") for name in found}) == 1 else None

    def _may_drop(self, folders: Iterable[str], name: str) -> bool:
        """Whether the beginning of a path may be left out: it names no folder that is here, and no other split."""
        dropped = list(folders)
        splits = {SPLITS[part] for part in dropped if part in SPLITS}
        return dropped[-1] not in self._folders and (not splits or split_of(name) in {None, *splits})


def _letters(name: str) -> str:
    """To compare names: upper and lower case alike, an accent on its letter or behind it (as macOS writes files)."""
    return unicodedata.normalize("NFC", name).lower()


def _normal(path: PurePosixPath) -> str:
    """Without `.` and `..`, compared by its letters: folders of symbolic links are common."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        elif part != ".":
            parts.append(part)
    return PurePosixPath(*parts).as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that the system does not take
        return False


def _common_end(a: list[str], b: list[str]) -> int:
    same = 0
    while same < min(len(a), len(b)) and a[-1 - same] == b[-1 - same]:
        same += 1
    return same

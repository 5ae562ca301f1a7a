"""Folders and lists of audio -> clips, in the layouts that public data sets have; and clips -> waves.

One principle carries all of them: a list (`lists.py`) names each audio file and what is known of it, in columns that
bear known names or are told by what they hold (`roles.py`); a path finds its file (`paths.py`); what no list says
stands in a file of the same name beside the audio (`beside.py`). Hugging Face's audiofolder
(https://huggingface.co/docs/datasets/audio_dataset) is the case of metadata.csv or metadata.jsonl in folders named by
splits. Parquet, `save_to_disk` and the Hub: `hub.py`.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from earnest.data import hub
from earnest.data.audio import AUDIO_SUFFIXES, SNDFILE_SUFFIXES, ClipError, Segment, read_wave
from earnest.data.beside import Beside, main_words, tags
from earnest.data.lists import NAMES as LIST_NAMES
from earnest.data.lists import SUFFIXES, ClipList, Row, read_list
from earnest.data.paths import SPLITS, AudioFiles, Source, refuse_archives, split_of
from earnest.data.roles import NAMES, Role, first_filled
from earnest.errors import UserError

log = logging.getLogger(__name__)

CONVENTION = ("metadata.csv", "metadata.jsonl")
NO_DATA = frozenset({"invalidated", "other", "reported"})  # Common Voice: what listeners refused or have not heard
BAD_CLIPS_FRAC = 0.05  # assumed: a few broken files are life, more are a broken corpus


@dataclass(frozen=True)
class Clip:
    """One training example on disk. `name` is its path relative to the folder; fields that the folder lacks are empty.

    `words`: when each word of the text is spoken, as JSON: [[word, start_s, end_s], ...]. `segment`: which part of the
    file it is; None for all of it.
    """

    path: Path
    name: str
    text: str = ""
    speaker: str = ""
    language: str = ""
    tags: str = ""
    split: str | None = None
    source: str = ""
    words: str = ""
    segment: Segment | None = None

    @property
    def place(self) -> str:
        """The file, and for a part of it where it begins."""
        return f"{self.path}#{self.segment.start_s:g}" if self.segment and self.segment.start_s else str(self.path)


def load_clips(source: Source | str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> list[Clip]:
    """All clips of a folder, a list, or a data set on the Hub (`owner/name`, `owner/name:configuration`), sorted by
    name; no audio is read.

    `needed`: fields of `Clip` (text, tags). A clip that has none of them is left out and logged; if no field is named,
    every audio file is a clip. A clip that is in training and in validation is left out of training and logged. Raises
    UserError for a folder that is missing or empty, or whose list is wrong; the error names the file and the line.
    """
    clips = listed_clips(source, needed)
    held_out = {clip.name for clip in clips if clip.split in ("validation", "test")}
    both = sorted({clip.name for clip in clips if clip.split not in ("validation", "test")} & held_out)
    _log_left_out("of training that are held out too", both)
    kept = {clip.name: clip for clip in clips if clip.split in ("validation", "test") or clip.name not in held_out}
    return [kept[name] for name in sorted(kept)]


def listed_clips(source: Source | str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> list[Clip]:
    """`load_clips` as the lists name them: a clip of two splits comes twice."""
    wanted = source if isinstance(source, Source) else Source(os.fspath(source))
    path = Path(wanted.path)
    if hub.is_table(wanted.path):
        laid_out = replace(wanted, path=str(hub.laid_out(wanted)), columns=(), limit=None, split="")
        return [replace(clip, source=wanted.path) for clip in _Reading(Path(laid_out.path), laid_out, needed).clips()]
    if path.is_file() and (path.suffix.lower() in SUFFIXES or path.name in LIST_NAMES):
        return _Reading(path.parent, wanted, needed, path).clips()
    if not path.is_dir():
        refuse_archives(path)
        raise UserError(
            f"{'a file at' if path.exists() else 'no folder'} {path}",
            "a folder of audio files, a list of them (.csv, .tsv, .txt, .json, .jsonl), or a dataset on the Hub "
            "(owner/name)",
            "check the path, or make such a folder (`earnest data asterisk-en OUT` makes one)",
        )
    return _Reading(path, wanted, needed).clips()


class _Reading:
    """The clips of one folder, or of the list `only` in it."""

    def __init__(self, folder: Path, wanted: Source, needed: Sequence[str], only: Path | None = None):
        self.folder, self.wanted, self.needed, self.only = folder, wanted, needed, only
        names = {file: file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()}
        self.names = {file: name for file, name in names.items() if "/." not in f"/{name}"}  # without hidden ones
        self.audio = AudioFiles(
            folder, [name for file, name in self.names.items() if file.suffix.lower() in AUDIO_SUFFIXES]
        )
        self.beside = Beside(folder, self.names.values(), self.audio.names)
        self.absent: dict[str, str] = {}  # name -> how the list calls it, and where
        self.respelled: list[str] = []
        self.list_of_split = False  # whether the split that is wanted has a list of its own

    def clips(self) -> list[Clip]:
        lists = self._lists()
        clips: dict[tuple[str, str | None], Clip] = {}
        for clip_list in lists:
            for clip in self._of_list(clip_list):
                if (clip.name, clip.split) in clips:
                    raise UserError(
                        f"{clip_list.path} names {clip.name} a second time",
                        "one line for each file" if len(lists) == 1 else "each file in one list of a split",
                        "remove the line that is wrong" + (", or name one list as the path" if len(lists) > 1 else ""),
                    )
                clips[clip.name, clip.split] = clip
        self._check_absent(len(clips), lists)
        named = {name for name, _ in clips}
        if not lists or (not self.needed and not self.only):
            bare = [self._clip(name, {}, {}, split_of(name)) for name in sorted(self.audio.names - named)]
            clips |= {(clip.name, clip.split): clip for clip in bare}
        elif self.needed:
            _log_left_out(
                "not in the metadata", [] if self.only or self.wanted.split else sorted(self.audio.names - named)
            )
        return self._limited(self._of_split(self._described(list(clips.values()), lists)))

    # --- lists

    def _lists(self) -> list[ClipList]:
        """The lists of the folder, without those of what is not meant. Raises UserError if a list is one too many, or
        if there is none and the clips have no text beside them."""
        if self.only:
            candidates = [self.only]
        else:
            candidates = [
                file
                for file, name in self.names.items()
                if (file.suffix.lower() in SUFFIXES or file.name in LIST_NAMES) and not self.beside.is_beside(name)
            ]
        convention = [file for file in candidates if file.name in CONVENTION]
        for file in convention:
            if file.suffix == ".jsonl" and file.with_suffix(".csv") in convention:
                raise UserError(
                    f"{file} beside metadata.csv", "one metadata file in a folder", "remove the one that is not meant"
                )
        lists, odd = list[ClipList](), list[UserError]()
        for file in convention or candidates:
            try:
                read = read_list(file, self.audio, self.wanted.columns)
            except UserError as error:
                if convention or self.only or (self.wanted.columns and "--data.columns" in error.seen):
                    raise
                odd.append(error)
                continue
            if read:
                lists.append(read)
        chosen = lists if convention or self.only else self._meant(lists)
        if not chosen and odd:
            raise odd[0]
        for error in odd:
            log.warning("left aside: %s", error.seen)
        if not chosen and (convention or self.only):
            self._refuse_unknown(convention[0] if convention else candidates[0])
        if not chosen:
            self._check_without_list(candidates)
        return chosen

    def _meant(self, lists: Sequence[ClipList]) -> list[ClipList]:
        """Of several lists those that find files and say what is needed; then those named by splits, if any are."""
        lists = [each for each in lists if each.found] or list(lists)
        if self.needed:
            lists = [each for each in lists if self.needed[0] in each.roles] or lists
        if self.wanted.split:
            named = [each for each in lists if _names_split(each.path, self.wanted.split)]
            self.list_of_split, lists = bool(named), named or lists
        else:
            lists = [each for each in lists if each.path.stem not in NO_DATA] or lists
            lists = [each for each in lists if _split_of_list(each.path)] or lists
        return lists

    def _check_without_list(self, candidates: Sequence[Path]) -> None:
        if not self.audio.names:
            refuse_archives(self.folder)
            raise UserError(
                f"no audio file in {self.folder}",
                f"files such as {', '.join(sorted(SNDFILE_SUFFIXES))}, .m4a",
                "check the path",
            )
        if self.needed and not self.beside.describes_some:
            looked = f" ({', '.join(file.name for file in candidates[:3])} is none)" if candidates else ""
            raise UserError(
                f"no metadata.csv or metadata.jsonl in {self.folder}, no other list of its files{looked}, and no .txt "
                "beside them",
                f"a list that gives the {' or '.join(self.needed)} of each file: metadata.csv with the columns "
                f"file_name and {self.needed[0]}, LJSpeech's id|text, a manifest in JSON lines, ...",
                "write it beside the audio files; only training a codec needs no text",
            )

    def _refuse_unknown(self, path: Path) -> None:
        first = next(iter(path.read_text(encoding="utf-8-sig", errors="replace").splitlines()), "")
        if not first:
            raise UserError(f"{path} has no rows", "a line for each audio file", "fill it in, or remove it")
        raise UserError(
            f"{path}:1 has no column that names audio files (it has {first[:200]})",
            f"a column called one of {', '.join(NAMES['audio'][:8])}, ..., or names of files that are there",
            "rename it, or say which it is: --data.columns audio=YOUR_COLUMN text=YOUR_COLUMN",
        )

    # --- rows

    def _of_list(self, clip_list: ClipList) -> Iterator[Clip]:
        roles, of_list = clip_list.roles, _split_of_list(clip_list.path) if not self.only else None
        line = 0
        for line, row in clip_list.rows():
            word = first_filled(row, roles["audio"])
            if not word:
                raise UserError(
                    f"{clip_list.path}:{line} has no {roles['audio'][0]} (it has {', '.join(row)})",
                    f"the audio file in the column {roles['audio'][0]}",
                    "name the audio file there",
                )
            name = self.audio.find(word, clip_list.here)
            if name is None:
                name = (clip_list.here / word).as_posix()
                self.absent[name] = f"{word} (line {line})"
            elif (as_written := os.path.normpath(clip_list.here / word)) != name and as_written.lower() == name.lower():
                self.respelled.append(f"{word} is {name}")
            split = SPLITS.get(first_filled(row, roles.get("split", ())).lower()) or of_list or split_of(name)
            yield self._clip(name, row, roles, split)
        if not line:
            raise UserError(f"{clip_list.path} has no rows", "a line for each audio file", "fill it in, or remove it")
        if self.needed and not any(role in roles for role in self.needed) and not self.beside.describes_some:
            wanted = [name for role, names in NAMES.items() if role in self.needed for name in names]
            raise UserError(
                f"{clip_list.path} has no {' or '.join(self.needed)} column",
                f"a column named one of {', '.join(wanted)}",
                f"rename yours, or say which it is: --data.columns {self.needed[0]}=YOUR_COLUMN",
            )

    def _clip(self, name: str, row: Row, roles: Mapping[Role, tuple[str, ...]], split: str | None) -> Clip:
        cells: dict[Role, str] = {role: first_filled(row, columns) for role, columns in roles.items()}
        if "text" in self.needed and not cells.get("text"):
            cells |= {role: cell for role, cell in self.beside.cells(name).items() if not cells.get(role)}
        words, text, channel = main_words(cells.get("words", ""))
        start_s, duration_s = _number(cells.get("start_s")), _number(cells.get("duration_s"))
        segment = None
        if channel is not None or start_s is not None:
            segment = Segment(start_s or 0.0, duration_s if start_s is not None else None, channel)
        return Clip(
            path=self.folder / name,
            name=name if start_s is None else f"{name}#{start_s:g}",
            text=cells.get("text") or text,
            speaker=cells.get("speaker", ""),
            language=cells.get("language", ""),
            tags=tags(cells.get("tags", "")),
            split=split,
            source=os.fspath(self.folder),
            words=words,
            segment=segment,
        )

    # --- all clips

    def _check_absent(self, clips: int, lists: Sequence[ClipList]) -> None:
        """Says which files are not there; reading counts them as it counts those that cannot be read. Raises UserError
        if they are too many for that."""
        if self.respelled:
            log.warning("found under another spelling: %s", _some(self.respelled))
        if not self.absent:
            return
        if len(self.absent) <= allowed_bad(clips):
            _log_left_out("that are not there or are not audio", list(self.absent.values()))
            return
        raise UserError(
            f"{lists[0].path} names {len(self.absent)} files that are not there or are not audio: "
            f"{_some(list(self.absent.values()))}",
            f"at most {BAD_CLIPS_FRAC:.0%} of its {clips} files missing, each relative to {lists[0].path.parent}",
            "add these files, or remove their lines; if another column names the files: --data.columns audio=COLUMN",
        )

    def _described(self, clips: list[Clip], lists: Sequence[ClipList]) -> list[Clip]:
        """The clips that have a field that is needed; logs the others. Raises UserError if none has."""
        if not self.needed:
            return clips
        words = " or ".join(self.needed)
        described = [clip for clip in clips if any(getattr(clip, field) for field in self.needed)]
        _log_left_out(f"without a {words}", [clip.name for clip in clips if clip not in set(described)])
        if not described:
            raise UserError(
                f"every {words} in {lists[0].path if lists else self.folder} is empty",
                "the words spoken or what is heard in each file",
                "fill it in",
            )
        return described

    def _of_split(self, clips: list[Clip]) -> list[Clip]:
        """Those of the split that is wanted: then they are all there is, and a share of them is held out."""
        wanted = self.wanted.split
        if not wanted:
            return clips
        means = SPLITS.get(wanted.lower())
        chosen = [clip for clip in clips if means and clip.split == means]
        if not chosen and self.list_of_split:  # `validated` of Common Voice: its list was chosen, and no clip says more
            chosen = [clip for clip in clips if clip.split is None]
        if not chosen:
            known = sorted({clip.split for clip in clips if clip.split})
            raise UserError(
                f"split {wanted!r}",
                f"one of {', '.join(known)}" if known else f"no split: {self.folder} has none",
                "name one of these, or leave --data.split out",
            )
        return [replace(clip, split=None) for clip in chosen]

    def _limited(self, clips: list[Clip]) -> list[Clip]:
        most, taken, counts = self.wanted.limit, list[Clip](), dict[str | None, int]()
        for clip in clips:
            counts[clip.split] = counts.get(clip.split, 0) + 1
            if most is None or counts[clip.split] <= most:
                taken.append(clip)
        return taken


def _names_split(path: Path, split: str) -> bool:
    words = re.split(r"[_\-. ]+", path.stem.lower())
    return split.lower() in (path.stem.lower(), *words) or SPLITS.get(split.lower(), "") in map(SPLITS.get, words)


def _split_of_list(path: Path) -> str | None:
    """The split that a list's name holds: train.tsv, train_manifest.json, ljs_audio_text_val_filelist.txt."""
    words = re.split(r"[_\-. ]+", path.stem.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _log_left_out(reason: str, names: Sequence[str]) -> None:
    if names:
        log.warning("left out %d clips %s: %s", len(names), reason, _some(names))


# --- audio
# --------------------------------------------------------------------------------------------------------------


def allowed_bad(clips: int) -> float:
    """How many of so many clips may be broken or missing: 5 %; one of a few, but not all of them."""
    return min(max(1, BAD_CLIPS_FRAC * clips), clips - 1)


def read_clips(
    clips: Sequence[Clip], sample_rate_hz: int, skipped: list[ClipError], total: int | None = None, channels: int = 1
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield (clip, wave_N), or wave_2N, at `sample_rate_hz`; a clip that cannot be used is appended to `skipped`
    instead, and logged at the end, as are clips that had to be scaled.

    Raises UserError as soon as more than 5 % of the clips are in `skipped`; it names the first ten. `total`: how many
    clips there are, if `clips` are only those of one side, or that were not read before.
    """
    total, bad, scaled = total or len(clips), list[ClipError](), list[str]()
    for clip in clips:
        try:
            wave_N = read_wave(clip.path, sample_rate_hz, channels, clip.segment, scaled.append)
        except ClipError as error:
            skipped.append(error)
            bad.append(error)
            if len(skipped) > allowed_bad(total):
                listed = "".join(f"\n          {error}" for error in skipped[:10])
                raise UserError(
                    f"{len(skipped)} clips cannot be used (of {total}; reading stopped there):{listed}",
                    f"at most {BAD_CLIPS_FRAC:.0%} of the clips broken",
                    "mend these files, or take them out of the folder",
                ) from error
            continue
        yield clip, wave_N
    _log_left_out("that cannot be used", [str(error) for error in bad])
    if scaled:
        log.warning("scaled %d clips with samples outside [-1, 1]: %s", len(scaled), _some(scaled))

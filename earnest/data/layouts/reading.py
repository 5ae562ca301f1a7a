"""The clips of one folder, from its lists, from files beside the audio, and from the names of its folders."""

import logging
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from earnest.data.audio import AUDIO_SUFFIXES, SNDFILE_SUFFIXES, Segment, length_s
from earnest.data.clip import BAD_CLIPS_FRAC, Clip, allowed_bad, log_left_out, some
from earnest.data.clips import Clips
from earnest.data.layouts.beside import Beside, main_words, tags
from earnest.data.layouts.joined import is_part
from earnest.data.layouts.lists import ClipList, Row, is_list, read_list
from earnest.data.layouts.parts import Part
from earnest.data.layouts.paths import (
    SPLITS,
    AudioFiles,
    Source,
    files_below,
    folder_labels,
    names_split,
    refuse_archives,
    split_in,
    split_of,
)
from earnest.data.layouts.repeated import joined
from earnest.data.layouts.roles import NAMES, Role, first_filled
from earnest.errors import UserError

log = logging.getLogger(__name__)

CONVENTION = ("metadata.csv", "metadata.jsonl")
NO_DATA = frozenset({"invalidated", "other", "reported"})  # Common Voice: what listeners refused or have not heard
SOUNDS = tuple(AUDIO_SUFFIXES)
STARTS = 50  # rows of a list whose starts are held against their files


class Reading:
    """The clips of one folder, or of the list `only` in it."""

    def __init__(self, folder: Path, wanted: Source, needed: Sequence[str], only: Path | None = None):
        self.folder, self.wanted, self.needed, self.only = folder, wanted, needed, only
        names = files_below(folder)
        self.audio = AudioFiles(folder, (name for name in names if name.lower().endswith(SOUNDS)))
        self.others = [name for name in names if name not in self.audio.names]
        self.beside = Beside(folder, self.others, self.audio.names)
        self.labels: dict[str, str] = {}  # name -> its folder, if nothing else describes the clips
        self.unlisted = set(self.audio.names)  # audio files that no list has named yet
        self.absent: dict[str, str] = {}  # name -> how the list calls it, and where
        self.respelled: list[str] = []
        self.list_of_split = False  # whether the split that is wanted has a list of its own

    def clips(self) -> Clips:
        lists = self._lists()
        clips = joined((clip_list.path, self._of_list(clip_list)) for clip_list in lists)
        self._check_absent(len(clips), lists)
        unnamed = sorted(self.unlisted)
        if not lists or (not self.needed and not self.only):
            clips = Clips.of(chain(clips, (clip for name in unnamed for clip in self._without_list(name))))
        elif self.needed:
            log_left_out("not in the metadata", [] if self.only or self.wanted.split else unnamed)
        return self._limited(self._of_split(_to_train_on(self._described(clips, lists))))

    # --- lists

    def _lists(self) -> list[ClipList]:
        """The lists of the folder, without those of what is not meant. Raises UserError if a list is one too many, or
        if there is none and the clips have no text beside them."""
        if self.only:
            candidates = [self.only]
        else:
            candidates = [
                file
                for name in self.others
                if is_list(file := self.folder / name) and not is_part(file) and not self.beside.is_beside(name)
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
        if self.needed and chosen and folder_labels(self.audio.names) and not any(map(_describes, chosen)):
            log.warning(
                "left aside: %s, which names files and says nothing of them", some([str(c.path) for c in chosen])
            )
            chosen = []
        if not chosen and odd and (self.needed or not self.audio.names):
            raise odd[0]
        for error in odd:
            log.warning("left aside: %s", error.seen)
        if not chosen and (convention or self.only):
            self._refuse_unknown(convention[0] if convention else candidates[0])
        if not chosen:
            self._check_without_list(candidates)
        return chosen

    def _meant(self, lists: Sequence[ClipList]) -> list[ClipList]:
        """The lists that are to be read: those that find files and have the columns that are needed; among these, those
        named by a split if there are any."""
        found = [each for each in lists if each.found]
        lists = found or ([] if self.audio.names and not self.needed else list(lists))
        if self.needed:
            lists = [each for each in lists if self.needed[0] in each.roles] or lists
        if self.wanted.split:
            named = [each for each in lists if names_split(each.path, self.wanted.split)]
            self.list_of_split, lists = bool(named), named or lists
        else:
            lists = [each for each in lists if each.path.stem not in NO_DATA] or lists
            lists = [each for each in lists if split_in(each.path.stem)] or lists
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
            self.labels = folder_labels(self.audio.names)
            if self.labels:
                told = some(sorted(set(self.labels.values())))
                log.warning("no list: each clip is described by the name of its folder (%s); speech needs a list", told)
                return
            sheets = [name for name in self.others if name.lower().endswith((".xlsx", ".xls", ".ods"))]
            looked = f" ({', '.join(file.name for file in candidates[:3])} is none)" if candidates else ""
            raise UserError(
                f"no metadata.csv or metadata.jsonl in {self.folder}, no other list of its files{looked}, and no .txt "
                "beside them",
                f"a list that gives the {' or '.join(self.needed)} of each file: metadata.csv with the columns "
                f"file_name and {self.needed[0]}, LJSpeech's id|text, a manifest in JSON lines, ...",
                f"save {sheets[0]} as CSV in UTF-8"
                if sheets
                else "write it beside the audio files; only training a codec needs no text",
            )

    def _refuse_unknown(self, path: Path) -> None:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(200).rstrip("\n")
        if not first:
            raise UserError(f"{path} has no rows", "a line for each audio file", "fill it in, or remove it")
        raise UserError(
            f"{path}:1 has no column that names audio files (it has {first[:200]})",
            f"a column called one of {', '.join(NAMES['audio'][:8])}, ..., or names of files that are there",
            "rename it, or say which it is: --data.columns audio=YOUR_COLUMN text=YOUR_COLUMN",
        )

    # --- rows

    def _of_list(self, clip_list: ClipList) -> Iterator[Clip]:
        roles, of_list = self._with_true_starts(clip_list), None
        if not self.only:
            of_list = split_in(clip_list.path.stem) or split_of((clip_list.here / clip_list.path.name).as_posix())
        line, row = 0, Row()
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
            self.unlisted.discard(name)
            split = SPLITS.get(first_filled(row, roles.get("split", ())).lower()) or of_list or split_of(name)
            yield self._clip(name, row, roles, split)
        if not line:
            raise UserError(f"{clip_list.path} has no rows", "a line for each audio file", "fill it in, or remove it")
        if self.needed and not any(role in roles for role in self.needed) and not self.beside.describes_some:
            wanted = [name for role, names in NAMES.items() if role in self.needed for name in names]
            raise UserError(
                f"{clip_list.path} has no {' or '.join(self.needed)} column (it has {some(list(row))})",
                f"a column named one of {', '.join(wanted[:8])}, ...",
                f"rename yours, or say which it is: --data.columns {self.needed[0]}=YOUR_COLUMN",
            )

    def _with_true_starts(self, clip_list: ClipList) -> dict[Role, tuple[str, ...]]:
        """The roles of a list. If a start lies behind the end of its file, the file is a part that was cut out of
        another recording already (MusicCaps), and starts and ends are ignored."""
        roles = dict(clip_list.roles)
        for _, row in islice(clip_list.rows(), STARTS) if "start_s" in roles else ():
            start_s = _number(first_filled(row, roles["start_s"]))
            name = self.audio.find(first_filled(row, roles["audio"]), clip_list.here) if start_s else None
            whole_s = length_s(self.folder / name) if name else None
            if start_s and whole_s is not None and start_s >= whole_s:
                told = f"{name}, {whole_s:.2f} s long, has a part from {start_s:g} s on"
                log.warning("files are taken whole, as %s has starts behind their end: %s", clip_list.path, told)
                return {
                    role: columns for role, columns in roles.items() if role not in ("start_s", "end_s", "duration_s")
                }
        return roles

    def _clip(self, name: str, row: Row, roles: Mapping[Role, tuple[str, ...]], split: str | None) -> Clip:
        cells: dict[Role, str] = {role: first_filled(row, columns) for role, columns in roles.items()}
        if "text" in self.needed and not cells.get("text"):
            cells |= {role: cell for role, cell in self.beside.cells(name).items() if not cells.get(role)}
        if name in self.labels:
            cells["text" if "text" in self.needed else "tags"] = self.labels[name].replace("_", " ").strip()
        words, text, channel = main_words(cells.get("words", ""))
        if cells.get("text") == cells.get("words") and text:
            cells["text"] = text  # one column holds both
        start_s, end_s, duration_s = (_number(cells.get(role)) for role in ("start_s", "end_s", "duration_s"))
        if end_s is not None and duration_s is None:
            start_s = start_s or 0.0
            duration_s = end_s - start_s
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

    def _without_list(self, name: str) -> list[Clip]:
        """A file that no list names; its parts if a file beside it says what is said when."""
        parts: list[Part] = self.beside.parts(name) if "text" in self.needed else []
        rows = [{"text": part.text, "start_s": f"{part.start_s:g}", "end_s": f"{part.end_s:g}"} for part in parts] or [
            {}
        ]
        roles: dict[Role, tuple[str, ...]] = {"text": ("text",), "start_s": ("start_s",), "end_s": ("end_s",)}
        return [self._clip(name, row, roles if row else {}, split_of(name)) for row in rows]

    # --- all clips

    def _check_absent(self, clips: int, lists: Sequence[ClipList]) -> None:
        """Says which files are not there; reading counts them as it counts those that cannot be read. Raises UserError
        if they are too many for that."""
        if self.respelled:
            log.warning("found under another spelling: %s", some(self.respelled))
        if not self.absent:
            return
        if len(self.absent) <= allowed_bad(clips):
            log_left_out("that are not there or are not audio", list(self.absent.values()))
            return
        raise UserError(
            f"{lists[0].path} names {len(self.absent)} files that are not there or are not audio: "
            f"{some(list(self.absent.values()))}",
            f"at most {BAD_CLIPS_FRAC:.0%} of its {clips} files missing, each relative to {lists[0].path.parent}",
            "add these files, or remove their lines; if another column names the files: --data.columns audio=COLUMN",
        )

    def _described(self, clips: Clips, lists: Sequence[ClipList]) -> Clips:
        """The clips that have a field that is needed; logs the others. Raises UserError if none has."""
        if not self.needed:
            return clips
        words = " or ".join(self.needed)
        described, left_out = array("i"), list[str]()
        for place, clip in enumerate(clips):
            if any(getattr(clip, field) for field in self.needed):
                described.append(place)
            else:
                left_out.append(clip.name)
        log_left_out(f"without a {words}", left_out)
        if not described:
            raise UserError(
                f"every {words} in {lists[0].path if lists else self.folder} is empty",
                "the words spoken or what is heard in each file",
                "fill it in",
            )
        return clips.take(described)

    def _of_split(self, clips: Clips) -> Clips:
        """The clips of the split that is wanted, without the name of that split: they are then all the data, of which a
        share is held out. Raises UserError for an unknown split."""
        wanted = self.wanted.split
        if not wanted:
            return clips
        means = SPLITS.get(wanted.lower())
        chosen = [place for place, clip in enumerate(clips) if means and clip.split == means]
        if not chosen and self.list_of_split:  # `validated` of Common Voice: its list was chosen, and no clip says more
            chosen = [place for place, clip in enumerate(clips) if clip.split is None]
        if not chosen:
            known = sorted({clip.split for clip in clips if clip.split})
            raise UserError(
                f"split {wanted!r}",
                f"one of {', '.join(known)}" if known else f"no split: {self.folder} has none",
                "name one of these, or leave --data.split out",
            )
        return _without_split(clips.take(chosen))

    def _limited(self, clips: Clips) -> Clips:
        most, taken, counts = self.wanted.limit, list[int](), dict[str | None, int]()
        if most is None:
            return clips
        for place, clip in enumerate(clips):
            counts[clip.split] = counts.get(clip.split, 0) + 1
            if counts[clip.split] <= most:
                taken.append(place)
        return clips.take(taken)


def _describes(clip_list: ClipList) -> bool:
    """Whether a list says anything of its files: Speech Commands has lists of names alone."""
    return any(
        row.get(column)
        for _, row in islice(clip_list.rows(), STARTS)
        for column in row
        if column not in clip_list.roles["audio"]
    )


def _to_train_on(clips: Clips) -> Clips:
    """The clips; if all are of one held-out split (the one that was downloaded), they are all there is."""
    splits = {clip.split for clip in clips}
    if len(splits) != 1 or splits <= {None, "train"}:
        return clips
    log.warning("every clip is of the split %s: a share of them is held out", *splits)
    return _without_split(clips)


def _without_split(clips: Clips) -> Clips:
    return Clips.of(replace(clip, split=None) for clip in clips)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None

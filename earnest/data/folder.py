"""Folders of audio -> clips, by the Hugging Face audiofolder convention; and clips -> train and held-out clips.

https://huggingface.co/docs/datasets/audio_dataset: FOLDER/metadata.csv or metadata.jsonl (or one in each sub-folder)
has a column file_name, relative to the metadata's own folder, and a text; FOLDER/train, FOLDER/validation, FOLDER/test
are splits.
"""

import ast
import csv
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np

from earnest.data.audio import AUDIO_SUFFIXES, ClipError, read_wave
from earnest.errors import UserError
from earnest.files import whole_directory

log = logging.getLogger(__name__)

# The first column present is taken.
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence", "caption")
SPEAKER_COLUMNS = ("speaker", "speaker_id")
TAGS_COLUMNS = ("tags", "aspect_list", "caption")  # MusicCaps' names; a caption beside a text counts as tags
SPLITS = {  # datasets.data_files.SPLIT_KEYWORDS
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["validation", "valid", "dev", "val"], "validation"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
}
BAD_CLIPS_FRAC = 0.05  # assumed: a few broken files are life, more are a broken corpus


@dataclass(frozen=True)
class Clip:
    """One training example on disk. `name` is its path relative to the folder; fields that the folder lacks are empty.

    `words`: when each word of the text is spoken, as JSON: [[word, start_s, end_s], ...].
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


def load_clips(path: str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> list[Clip]:
    """All clips of a folder, or of a dataset on the Hub (`owner/name`), sorted by name; no audio is read.

    `needed`: fields of `Clip` (text, tags). A clip that has none of them is left out and logged; if no field is named,
    every audio file is a clip. Raises UserError for a folder that is missing or empty, or whose metadata is wrong; the
    error names the file and the line.
    """
    folder = Path(path)
    if not folder.exists() and _is_hub_name(os.fspath(path)):
        return [replace(clip, source=os.fspath(path)) for clip in load_clips(_hub_folder(os.fspath(path)), needed)]
    if not folder.is_dir():
        raise UserError(
            f"{'a file at' if folder.exists() else 'no folder'} {folder}",
            "a folder of audio files with metadata.csv or metadata.jsonl, or a dataset on the Hub (owner/name)",
            "check the path, or make such a folder (`earnest data asterisk-en OUT` makes one)",
        )
    audio, metadata = _files(folder, needed)
    clips: dict[str, Clip] = {}
    for file in metadata:
        for clip in _metadata_clips(folder, file, needed):
            if clip.name in clips:
                raise UserError(
                    f"{file} names {clip.name} a second time", "one line for each file", "remove the line that is wrong"
                )
            clips[clip.name] = clip
    if needed:
        clips = _described(clips, audio, needed, metadata[0])
    else:
        bare = (Clip(folder / name, name, split=_split(name), source=os.fspath(folder)) for name in audio)
        clips = {clip.name: clip for clip in bare} | clips
    return [clips[name] for name in sorted(clips)]


def _files(folder: Path, needed: Sequence[str]) -> tuple[set[str], list[Path]]:
    """Names of the audio files, and the metadata files. Raises UserError if one is missing or one too many."""
    names = {file: f"/{file.relative_to(folder).as_posix()}" for file in sorted(folder.rglob("*")) if file.is_file()}
    files = {file: name[1:] for file, name in names.items() if "/." not in name}  # without hidden ones
    audio = {name for file, name in files.items() if file.suffix.lower() in AUDIO_SUFFIXES}
    metadata = [file for file in files if file.name in ("metadata.csv", "metadata.jsonl")]
    if not audio and not metadata:
        raise UserError(
            f"no audio file in {folder}", f"files such as {', '.join(sorted(AUDIO_SUFFIXES))}", "check the path"
        )
    for file in metadata:
        if file.suffix == ".jsonl" and file.with_suffix(".csv") in metadata:
            raise UserError(
                f"{file} beside metadata.csv", "one metadata file in a folder", "remove the one that is not meant"
            )
    if needed and not metadata:
        raise UserError(
            f"no metadata.csv or metadata.jsonl in {folder}",
            f"one that gives the {' or '.join(needed)} of each file, in columns file_name and {needed[0]}",
            "write it beside the audio files; only training a codec needs no text",
        )
    return audio, metadata


def _described(clips: dict[str, Clip], audio: set[str], needed: Sequence[str], metadata: Path) -> dict[str, Clip]:
    """The clips that have a field that is needed; logs the others. Raises UserError if none has."""
    words = " or ".join(needed)
    _log_left_out("not in the metadata", sorted(audio - clips.keys()))
    described = {name: clip for name, clip in clips.items() if any(getattr(clip, field) for field in needed)}
    _log_left_out(f"without a {words}", sorted(clips.keys() - described))
    if not described:
        raise UserError(
            f"every {words} in {metadata} is empty", "the words spoken or what is heard in each file", "fill it in"
        )
    return described


Item = TypeVar("Item", bound="Named")


class Named(Protocol):
    """What can be split: a `Clip`, or a conversation."""

    @property
    def name(self) -> str: ...
    @property
    def speaker(self) -> str: ...
    @property
    def split(self) -> str | None: ...


def split_clips(
    clips: Sequence[Item], held_out_frac: float, seed: int, by: Literal["name", "speaker"] = "name"
) -> tuple[list[Item], list[Item]]:
    """Clips -> (train, held out), by a hash of seed and name: a clip keeps its side if others are added or removed.

    by: with "speaker", all clips of a speaker are on one side, so that whole voices are held out.
    A validation split of the folder wins over `held_out_frac`; a test split is in neither. Each side holds at least one
    name, or speaker. Raises UserError if there are too few.
    """
    train = [clip for clip in clips if clip.split in (None, "train")]
    held_out = [clip for clip in clips if clip.split == "validation"]
    if not held_out:
        place = {getattr(clip, by): _uniform(f"{seed}/{getattr(clip, by)}") for clip in train}
        ordered = sorted(place, key=place.__getitem__)
        count = sum(at < held_out_frac for at in place.values())
        chosen = set(ordered[: min(max(count, 1), len(ordered) - 1)])
        held_out = [clip for clip in train if getattr(clip, by) in chosen]
        train = [clip for clip in train if getattr(clip, by) not in chosen]
    if not train or not held_out:
        raise UserError(
            f"{len(train)} clips to train on and {len(held_out)} to hold out, of {len(clips)}",
            f"at least one of each{', of different speakers' if by == 'speaker' else ''}, beside the test split",
            "add clips, or a folder train/ beside validation/",
        )
    return train, held_out


def read_clips(
    clips: Sequence[Clip], sample_rate_hz: int, skipped: list[ClipError], total: int | None = None, channels: int = 1
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield (clip, wave_N), or wave_2N, at `sample_rate_hz`; a clip that cannot be used is appended to `skipped`
    instead.

    Raises UserError as soon as more than 5 % of the clips are skipped; it names the first ten. `total`: how many clips
    there are, if `clips` are only those that were not read before.
    """
    total, bad = total or len(clips), 0
    for read, clip in enumerate(clips, 1):
        try:
            wave_N = read_wave(clip.path, sample_rate_hz, channels)
        except ClipError as error:
            skipped.append(error)
            bad += 1
            if bad > BAD_CLIPS_FRAC * total:
                listed = "".join(f"\n          {error}" for error in skipped[-bad:][:10])
                raise UserError(
                    f"{bad} of the first {read} clips cannot be used (of {total}; reading stopped there):{listed}",
                    f"at most {BAD_CLIPS_FRAC:.0%} of the clips broken",
                    "mend these files, or take them out of the folder",
                ) from error
            continue
        yield clip, wave_N


def _metadata_clips(folder: Path, metadata: Path, needed: Sequence[str]) -> Iterator[Clip]:
    here = metadata.parent.relative_to(folder)
    wanted = [column for field in needed for column in {"text": TEXT_COLUMNS, "tags": TAGS_COLUMNS}[field]]
    absent: list[str] = []
    described = line = 0
    for line, row in _rows(metadata):
        if not row.get("file_name"):
            raise UserError(
                f"{metadata}:{line} has no file_name (it has {', '.join(row)})",
                "a column file_name",
                "name the audio file there",
            )
        described += any(column in row for column in wanted)
        text_column = next((column for column in TEXT_COLUMNS if column in row), "")
        # Compared by its letters, not resolved: folders of symbolic links are common, and their targets lie elsewhere.
        name = os.path.normpath(here / row["file_name"])
        if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
            raise UserError(
                f"{metadata}:{line} names {row['file_name']}", f"files inside {folder}", "move the file into the folder"
            )
        name = Path(name).as_posix()
        if Path(name).suffix.lower() not in AUDIO_SUFFIXES or not (folder / name).is_file():
            absent.append(f"{row['file_name']} (line {line})")
            continue
        yield Clip(
            path=folder / name,
            name=name,
            text=row.get(text_column, "").strip(),
            speaker=_first(row, SPEAKER_COLUMNS) or "",
            language=row.get("language", ""),
            tags=_tags(_first(row, [column for column in TAGS_COLUMNS if column != text_column]) or ""),
            split=_split(name),
            source=os.fspath(folder),
            words=row.get("words", ""),
        )
    if absent:
        raise UserError(
            f"{metadata} names {len(absent)} files that are not there or are not audio: {', '.join(absent[:5])}"
            + (", ..." if len(absent) > 5 else ""),
            f"each file_name relative to {metadata.parent}",
            "add these files, or remove their lines",
        )
    if not line:
        raise UserError(f"{metadata} has no rows", "a line for each audio file", "fill it in, or remove it")
    if needed and not described:
        raise UserError(
            f"{metadata} has no {' or '.join(needed)} column",
            f"a column named one of {', '.join(wanted)}",
            "add it, or rename yours",
        )


def _rows(metadata: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of metadata.csv or metadata.jsonl as (line number, {column: text}); an empty field of jsonl is left
    out."""
    expected = (
        "a CSV table with a header, in UTF-8" if metadata.suffix == ".csv" else "one JSON object a line, in UTF-8"
    )
    line = 0
    try:
        with open(metadata, encoding="utf-8-sig", newline="") as file:
            if metadata.suffix == ".csv":
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    line = reader.line_num
                    if None in row or None in row.values():
                        columns = len(reader.fieldnames or [])
                        raise UserError(
                            f"{metadata}:{line} does not have the {columns} columns of the header",
                            expected,
                            "put texts with commas between double quotes",
                        )
                    yield line, row
            else:
                for line, text in enumerate(file, 1):
                    if text.strip():
                        fields = json.loads(text)
                        if not isinstance(fields, dict):
                            raise ValueError(f"a {type(fields).__name__}")
                        columns = cast(dict[str, Any], fields).items()
                        yield line, {column: _text(value) for column, value in columns if value is not None}
    except (csv.Error, ValueError) as error:
        raise UserError(f"{metadata}, after line {line}: {error}", expected, "mend the file") from error


def _text(value: object) -> str:
    """A list of words becomes words between commas; a list of lists stays JSON."""
    if not isinstance(value, list):
        return str(value)
    items = cast(list[Any], value)
    return json.dumps(items) if any(isinstance(item, list) for item in items) else ", ".join(map(str, items))


def _tags(value: str) -> str:
    """Tags between commas; MusicCaps' aspect_list is a list as Python writes it."""
    if not value.startswith("["):
        return value
    try:
        return ", ".join(map(str, ast.literal_eval(value)))
    except (ValueError, SyntaxError):
        return value


def _first(row: Mapping[str, str], columns: Iterable[str]) -> str | None:
    return next((row[column] for column in columns if column in row), None)


def _split(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    return SPLITS.get(parts[0].lower()) if len(parts) > 1 else None


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _log_left_out(reason: str, names: Sequence[str]) -> None:
    if names:
        log.warning(
            "left out %d clips %s: %s%s", len(names), reason, ", ".join(names[:5]), ", ..." if len(names) > 5 else ""
        )


# --- Hub
# ----------------------------------------------------------------------------------------------------------------


def _is_hub_name(path: str) -> bool:
    owner, _, _ = path.partition("/")
    # If a folder `owner` is here, it is a mistyped path.
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is not None and not Path(owner).exists()


def _hub_folder(name: str) -> Path:
    """Load a dataset from the Hub and lay it out as an audiofolder in the datasets cache, once per version of it."""
    import datasets
    from datasets.config import HF_DATASETS_CACHE

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # datasets raises OSError, ValueError and classes of its own: one thing to a user
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(
            f"no folder {name}, and the Hub gave no dataset of that name ({reason})",
            "a folder, or a dataset that can be reached",
            "check the name and the network, or download the dataset and pass its folder",
        ) from error
    version = "-".join(splits[split]._fingerprint for split in sorted(splits))
    digest = hashlib.sha256(version.encode()).hexdigest()[:16]
    folder = Path(HF_DATASETS_CACHE) / "earnest" / f"{name.replace('/', '--')}-{digest}"
    if not folder.exists():
        lay_out(cast(Mapping[str, Any], splits), name, folder)
    return folder


def lay_out(splits: Mapping[str, Any], name: str, folder: Path) -> None:
    """Write the splits of a Hub dataset (name -> `datasets.Dataset`) as an audiofolder, whole or not at all.

    The audio bytes are copied as they are, not decoded. Raises UserError if the dataset has no audio column.
    """
    with whole_directory(folder) as aside:
        for split, table in splits.items():
            (aside / split).mkdir()
            _write_split(table, name, aside / split)


def _write_split(table: Any, name: str, folder: Path) -> None:
    import datasets

    audio_columns = [column for column, feature in table.features.items() if isinstance(feature, datasets.Audio)]
    if not audio_columns:
        raise UserError(
            f"{name} has columns {', '.join(table.column_names)}",
            "a column of audio",
            "take a speech or music dataset",
        )
    known = (*TEXT_COLUMNS, *SPEAKER_COLUMNS, *TAGS_COLUMNS, "language")
    kept = [column for column in table.column_names if column in known]
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for index, row in enumerate(table.cast_column(audio_columns[0], datasets.Audio(decode=False))):
            audio = row[audio_columns[0]]
            suffix = Path(audio["path"] or "").suffix.lower()
            # a name without a known suffix gets one: libsndfile goes by content
            file_name = f"{index:07d}{suffix if suffix in AUDIO_SUFFIXES else '.wav'}"
            (folder / file_name).write_bytes(audio["bytes"] or Path(audio["path"]).read_bytes())
            line = {"file_name": file_name, **{column: row[column] for column in kept}}
            metadata.write(json.dumps(line, ensure_ascii=False) + "\n")

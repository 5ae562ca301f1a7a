"""Folders and lists of audio -> clips, in the layouts that public data sets have; and clips -> waves.

One principle carries all of them: a list (`lists.py`) names each audio file and what is known of it, in columns that
bear known names or are told by what they hold (`roles.py`); a path finds its file (`paths.py`); what no list says
stands in a file of the same name beside the audio (`beside.py`). Hugging Face's audiofolder
(https://huggingface.co/docs/datasets/audio_dataset) is the case of metadata.csv or metadata.jsonl in folders named by
splits. Parquet, `save_to_disk` and the Hub: `hub.py`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from earnest.data import archives, hub
from earnest.data.ahead import in_order
from earnest.data.audio import AUDIO_SUFFIXES, ClipError, read_wave
from earnest.data.clip import BAD_CLIPS_FRAC, Clip, allowed_bad, log, log_left_out, some
from earnest.data.lists import is_list
from earnest.data.paths import Source, refuse_archives
from earnest.data.reading import Reading
from earnest.errors import UserError


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
    log_left_out("of training that are held out too", both)
    kept = {clip.name: clip for clip in clips if clip.split in ("validation", "test") or clip.name not in held_out}
    return [kept[name] for name in sorted(kept)]


def listed_clips(source: Source | str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> list[Clip]:
    """`load_clips` as the lists name them: a clip of two splits comes twice."""
    wanted = source if isinstance(source, Source) else Source(os.fspath(source))
    path = Path(wanted.path)
    if hub.is_table(wanted.path):
        laid_out = replace(wanted, path=str(hub.laid_out(wanted)), columns=(), limit=None, split="")
        return [replace(clip, source=wanted.path) for clip in Reading(Path(laid_out.path), laid_out, needed).clips()]
    if path.is_file() and is_list(path):
        return Reading(path.parent, wanted, needed, path).clips()
    if (packed := archives.packed(path)) and not _holds_audio(path):
        beside = [file for file in sorted(path.iterdir()) if file.is_file() and is_list(file)] if path.is_dir() else []
        unpacked = archives.unpacked(packed, beside)
        return [replace(clip, source=wanted.path) for clip in Reading(unpacked, wanted, needed).clips()]
    if address := re.match(r"https?://(?:huggingface\.co/datasets/([\w.-]+/[\w.-]+))?", wanted.path):
        name = address[1] or "owner/name"
        raise UserError(
            f"the address {wanted.path}", "a folder, a list, or the name of a data set on the Hub", f"pass {name}"
        )
    if not path.is_dir():
        refuse_archives(path)
        raise UserError(
            f"{'a file at' if path.exists() else 'no folder'} {path}",
            "a folder of audio files, a list of them (.csv, .tsv, .txt, .json, .jsonl), or a dataset on the Hub "
            "(owner/name)",
            "check the path, or make such a folder (`earnest data asterisk-en OUT` makes one)",
        )
    return Reading(path, wanted, needed).clips()


def _holds_audio(folder: Path) -> bool:
    return any(file.suffix.lower() in AUDIO_SUFFIXES for file in folder.rglob("*"))


def skip(error: ClipError, skipped: list[ClipError], total: int) -> None:
    """Count a clip that cannot be used. Raises UserError if more than 5 % of `total` are counted; it names the first
    ten."""
    skipped.append(error)
    if len(skipped) > allowed_bad(total):
        listed = "".join(f"\n          {error}" for error in skipped[:10])
        raise UserError(
            f"{len(skipped)} clips cannot be used (of {total}; reading stopped there):{listed}",
            f"at most {BAD_CLIPS_FRAC:.0%} of the clips broken",
            "mend these files, or take them out of the folder",
        ) from error


def read_clips(
    clips: Iterable[Clip], sample_rate_hz: int, skipped: list[ClipError], total: int | None = None, channels: int = 1
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield (clip, wave_N), or wave_2N, at `sample_rate_hz`; a clip that cannot be used is appended to `skipped`
    instead, and logged at the end, as are clips that had to be scaled.

    Files are read, decoded and resampled by threads, some clips ahead of the one that is asked for. Raises UserError as
    soon as more than 5 % of the clips are in `skipped`; it names the first ten. `total`: how many clips there are, if
    `clips` are only those of one side, or that were not read before.
    """
    if total is None:
        clips = list(clips)
        total = len(clips)
    bad, scaled = list[ClipError](), list[str]()

    def read(clip: Clip) -> tuple[Clip, np.ndarray | ClipError]:
        try:
            return clip, read_wave(clip.path, sample_rate_hz, channels, clip.segment, scaled.append)
        except ClipError as error:
            return clip, error

    for clip, wave_N in in_order(read, clips):
        if isinstance(wave_N, np.ndarray):
            yield clip, wave_N
        else:
            bad.append(wave_N)
            skip(wave_N, skipped, total)
    log_left_out("that cannot be used", [str(error) for error in bad])
    if scaled:
        log.warning("scaled %d clips with samples outside [-1, 1]: %s", len(scaled), some(scaled))

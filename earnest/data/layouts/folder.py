"""Folders and lists of audio -> clips, in the layouts that public data sets have.

One principle carries all of them: a list (`lists.py`) names each audio file and what is known of it, in columns that
bear known names or are told by what they hold (`roles.py`); a path finds its file (`paths.py`); what no list says
stands in a file of the same name beside the audio (`beside.py`). Hugging Face's audiofolder
(https://huggingface.co/docs/datasets/audio_dataset) is the case of metadata.csv or metadata.jsonl in folders named by
splits. Parquet, `save_to_disk` and the Hub: `hub.py`.
"""

import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.data.clip import log_left_out
from earnest.data.clips import Clips
from earnest.data.layouts import archives, hub
from earnest.data.layouts.lists import is_list
from earnest.data.layouts.paths import Source, refuse_archives
from earnest.data.layouts.reading import Reading
from earnest.errors import UserError

HELD_OUT = ("validation", "test")


def load_clips(source: Source | str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> Clips:
    """All clips of a folder, a list, or a data set on the Hub (`owner/name`, `owner/name:configuration`), sorted by
    name; no audio is read.

    `needed`: fields of `Clip` (text, tags). A clip that has none of them is left out and logged; if no field is named,
    every audio file is a clip. A clip that is in training and in validation is left out of training and logged. Raises
    UserError for a folder that is missing or empty, or whose list is wrong; the error names the file and the line.
    """
    clips = listed_clips(source, needed)
    names = [clip.name for clip in clips]
    kept, both = array("i"), list[str]()
    for name, places in groupby(sorted(range(len(names)), key=names.__getitem__), key=names.__getitem__):
        same = list(places)
        if len(same) > 1:
            held_out = [place for place in same if clips[place].split in HELD_OUT]
            if held_out and len(held_out) < len(same):
                both.append(name)
            same = held_out or same
        kept.append(same[-1])
    log_left_out("of training that are held out too", both)
    return clips.take(kept)


def listed_clips(source: Source | str | os.PathLike[str], needed: Sequence[str] = ("text",)) -> Clips:
    """`load_clips` as the lists name them: a clip of two splits comes twice."""
    wanted = source if isinstance(source, Source) else Source(os.fspath(source))
    path = Path(wanted.path)
    if hub.is_table(wanted.path):
        laid_out = replace(wanted, path=str(hub.laid_out(wanted)), columns=(), limit=None, split="")
        return Clips.of(
            replace(clip, source=wanted.path) for clip in Reading(Path(laid_out.path), laid_out, needed).clips()
        )
    if path.is_file() and is_list(path):
        return Reading(path.parent, wanted, needed, path).clips()
    if (packed := archives.packed(path)) and not _holds_audio(path):
        beside = [file for file in sorted(path.iterdir()) if file.is_file() and is_list(file)] if path.is_dir() else []
        unpacked = archives.unpacked(packed, beside)
        return Clips.of(replace(clip, source=wanted.path) for clip in Reading(unpacked, wanted, needed).clips())
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

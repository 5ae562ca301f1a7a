"""The clips that a configuration names by a path."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earnest.data.clip import Clip
from earnest.data.layouts.chatml import Conversation, load_conversations
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.lists import is_conversations
from earnest.data.layouts.music import music, music_name
from earnest.data.layouts.paths import Source
from earnest.data.layouts.roles import chosen_columns
from earnest.data.layouts.sources import embedded_name, espeak
from earnest.errors import UserError
from earnest.files import cache_dir

EMBEDDED = {"espeak": (embedded_name, espeak), "music": (music_name, music)}


def find_clips(source: Source, needed: Sequence[str] = ("text",)) -> Sequence[Clip] | Sequence[Conversation]:
    """The clips of a folder, list or Hub data set, or of a corpus that installs with pip, which is made on first use;
    or conversations. needed: columns of which every clip has one."""
    chosen_columns(source.columns)  # a mistake there is told before anything is sought
    source = replace(source, path=os.path.expanduser(source.path))  # ~ in a file, or between quotes
    if not source.path:
        raise UserError(
            "no data", "a folder of audio, a list of clips, or a data set on the Hub", "name it: --data.path FOLDER"
        )
    if is_conversations(Path(source.path)):
        return load_conversations(source.path)
    if source.path not in EMBEDDED:
        return load_clips(source, needed)
    name, make = EMBEDDED[source.path]
    folder = cache_dir() / name()
    if not folder.exists():
        make(folder)
    return load_clips(replace(source, path=str(folder)), needed)

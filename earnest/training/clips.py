"""The clips that a configuration names by a path."""

from collections.abc import Sequence

from earnest.data.chatml import Conversation, load_conversations
from earnest.data.folder import Clip, load_clips
from earnest.data.music import music, music_name
from earnest.data.sources import embedded_name, espeak
from earnest.files import cache_dir

EMBEDDED = {"espeak": (embedded_name, espeak), "music": (music_name, music)}


def find_clips(path: str, needed: Sequence[str] = ("text",)) -> list[Clip] | list[Conversation]:
    """The clips of a folder or Hub dataset, or of a corpus that installs with pip, which is made on first use; or
    conversations. needed: columns of which every clip has one."""
    if path.endswith((".json", ".jsonl")):
        return load_conversations(path)
    if path not in EMBEDDED:
        return load_clips(path, needed)
    name, make = EMBEDDED[path]
    folder = cache_dir() / name()
    if not folder.exists():
        make(folder)
    return load_clips(folder, needed)

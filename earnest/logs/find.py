"""Which file of a path is the log, and which of several runs is meant."""

from pathlib import Path

from earnest.errors import UserError
from earnest.logs.source import Source


def choose(path: Path, formats, run: str | None):
    """(source, format or None, run within the file or None)."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*"))[:10] if path.parent.is_dir() else []
        raise UserError(f"no such file: {path}", "a log file or a directory of logs", f"{path.parent} holds {', '.join(near)}" if near else "check the path")
    source = Source(path)
    return source, next((format for format in formats if format.claims(source)), None), run

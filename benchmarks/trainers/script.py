"""What is known of a script that is run unmodified."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCES: list[Path] = []  # where the repositories lie: some trainers want another one beside theirs


@dataclass(frozen=True)
class Script:
    """name: as in `tests/trainers` · source: folder of the repository at its commit · cwd: in it · prepare: writes data
    there · configs: as of ``--config`` · seconds: of CPU."""

    name: str
    source: str
    cwd: str
    script: str
    args: str = ""
    prepare: Callable[[Path], None] = lambda folder: None
    configs: tuple[str, ...] = ()
    seconds: float = 60.0

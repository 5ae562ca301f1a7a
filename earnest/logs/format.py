"""`Format`: a kind of log that knows itself. `earnest.logs` lists them; nothing else names one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earnest.logs.log import Log
from earnest.logs.source import Source
from earnest.run import Run

PRINTED = 0


def everything(folder: Path) -> Iterable[Path]:
    """All that lies in a folder."""
    return folder.iterdir()


def all_of_them(paths: Sequence[Path]) -> Sequence[Path]:
    """Every log of a run counts: the default of `Format.current`."""
    return paths


@dataclass(frozen=True)
class Format:
    """One kind of log.

    name: as the fact `format` has it · title: as an error lists it · claims: whether it reads a file or a directory;
    the first format that claims one reads it · richness: of several logs in the folder of one run the richest is read;
    PRINTED is what a program printed, which counts only if nothing below was logged on purpose · suffixes: of the files
    in a directory that are looked at ("": files without one) · parts: what lies in a directory that it claims and
    belongs to that log · current: of several logs of this kind in the folder of one run, those that are not superseded.
    """

    name: str
    title: str
    richness: int
    claims: Callable[[Source], bool]
    read: Callable[[Source], Log | Run]
    suffixes: tuple[str, ...] = ()
    parts: Callable[[Path], Iterable[Path]] = everything
    current: Callable[[Sequence[Path]], Sequence[Path]] = all_of_them

"""One owner of a directory: a lock that the system takes back when its process ends, however it ends.

``.lock`` is what is locked and stays; ``.owner`` says who holds it, and stays only if the owner was killed or failed.
"""

import fcntl
import os
import platform
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from earnest.errors import UserError
from earnest.files import read_small, write_whole

LOCK, OWNER = ".lock", ".owner"
PATIENCE_S = 2.0  # another process takes the lock for a moment to see whether it is held (`is_held`)
MOST_BYTES = 10_000  # of .owner
LATEST_S = 2.5e11  # within the year 9999, the last that a date can name


class Owner(NamedTuple):
    """Who holds a directory, and since when (seconds since the epoch)."""

    process: int
    machine: str
    since_s: float
    doing: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since_s))
        where = "" if self.machine == platform.node() else f" on {self.machine}"
        return f"{self.doing} (process {self.process}{where}, since {since})"


@contextmanager
def owned(directory: Path, doing: str) -> Generator[None, None, None]:
    """Hold a directory, which is made if it is not there, while the block runs. A lock of a dead process is taken over.

    doing: what the process does, for the message to others. Raises UserError, which says who holds the directory, if a
    living process does.
    """
    from filelock import FileLock, Timeout  # only writers need it; reading a run imports this module too

    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK, timeout=PATIENCE_S, poll_interval=0.1)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{directory} belongs to {owner(directory) or 'another process'}",
            "a directory that no other process writes to",
            "wait for it, stop it, or choose another directory with --out",
        ) from error
    last, rows = owner(directory), _rows(directory)
    try:
        _write_owner(directory, Owner(os.getpid(), platform.node(), time.time(), doing))
        yield
        (directory / OWNER).unlink(missing_ok=True)
    except UserError:
        if _rows(directory) == rows:  # refused: the directory is as it was
            _write_owner(directory, last)
        raise
    finally:
        if not (directory / "run.json").exists():  # there is no run yet that could have failed
            (directory / OWNER).unlink(missing_ok=True)
        if made and [path.name for path in directory.iterdir()] == [LOCK]:  # nothing came of it
            (directory / LOCK).unlink()
            directory.rmdir()
        lock.release()


def _write_owner(directory: Path, who: Owner | None) -> None:
    if who is None:
        (directory / OWNER).unlink(missing_ok=True)
    else:
        write_whole(directory / OWNER, msgspec.json.encode(who).decode())


def _rows(directory: Path) -> int:
    """Bytes of the rows that a run has written; 0 if it has none."""
    path = directory / "steps.jsonl"
    return path.stat().st_size if path.is_file() else 0


def owner(directory: Path) -> Owner | None:
    """The last owner that ``.owner`` names; None if there is none, or the last one gave the directory back in order."""
    try:
        last = msgspec.json.decode(read_small(directory / OWNER, MOST_BYTES), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None
    return last if 0 <= last.since_s < LATEST_S else None


def is_held(directory: Path) -> bool | None:
    """Whether the last owner still lives; None if there was none, or it cannot be known: another machine's."""
    last = owner(directory)
    if last is None or last.machine != platform.node():
        return None
    try:
        with open(directory / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False

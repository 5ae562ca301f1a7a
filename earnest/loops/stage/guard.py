"""A script under guard: no network, no writing outside its scratch folder, no waiting, no questions."""

import builtins
import getpass
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from earnest.errors import UserError
from earnest.loops.stage import landlock

WRITES = ("w", "a", "x", "+")
REMOVES = ("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree")
ALWAYS = ("/dev", "/proc", "/sys")
LONGEST_SLEEP_S = 0.01


def install(scratch: Path) -> None:
    """Guard this process from here on. scratch: may be written; links in it are replaced by copies before they are."""
    allowed = [os.path.realpath(scratch), *ALWAYS]
    allowed += [
        os.path.realpath(path) for path in (os.path.expanduser("~/.cache"), os.environ.get("HF_HOME", "")) if path
    ]

    landlock.restrict(allowed)  # what is not Python, too: where there is no landlock, only Python is watched

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if isinstance(path, str | bytes) and _writes(mode, flags):
                _refuse_outside(os.fsdecode(path), allowed, scratch)
        elif event == "os.mkdir" or event in REMOVES:
            for path in args[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes):
                    _refuse_outside(os.fsdecode(path), allowed, scratch)

    sys.addaudithook(watch)
    socket.socket.connect = _no_network  # type: ignore[method-assign]
    socket.create_connection = _no_network  # type: ignore[assignment]
    builtins.input = _no_answer  # type: ignore[assignment]
    getpass.getpass = _no_answer  # type: ignore[assignment]
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(float(seconds), LONGEST_SLEEP_S))


def _writes(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in WRITES)
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND))


def _refuse_outside(path: str, allowed: list[str], scratch: Path) -> None:
    here = Path(os.path.abspath(path))
    if here.is_symlink() and here.is_relative_to(scratch) and here.exists() and here.is_file():
        original = here.resolve()
        here.unlink()
        shutil.copyfile(original, here)
    real = os.path.realpath(path)
    if not any(real == one or real.startswith(one + os.sep) for one in allowed):
        raise PermissionError(
            f"earnest check: the script writes to {path}, outside of its scratch folder; pass a folder beneath its own"
        )


def _no_network(*args: Any, **kwargs: Any) -> NoReturn:
    raise ConnectionError("earnest check: no network")


def _no_answer(prompt: object = "", *more: object) -> NoReturn:
    raise UserError(
        f"a script that asks {str(prompt).strip()[:80]!r}",
        "one that runs without being asked",
        "pass its answer as an argument, or check the part that trains: earnest.check(model, batch, loss_fn)",
    )

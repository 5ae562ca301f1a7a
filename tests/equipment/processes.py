"""Processes of their own that need no second to import torch: forked from a server that has done so, and has computed
nothing yet (a fork of a process whose OpenMP threads have run hangs at its first parallel region)."""

import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["earnest.cli", "earnest.recipes"])


def in_a_process(function: Callable[..., T], *args: object) -> T:
    """What a function of a module returns (or raises) in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=_server) as pool:
        return pool.submit(function, *args).result()


def in_processes(count: int, function: Callable[..., T], *args: object) -> list[T]:
    """What a function of a module returns in so many processes at once, whose number is its first argument."""
    with ProcessPoolExecutor(count, mp_context=_server) as pool:
        return [made.result() for made in [pool.submit(function, rank, *args) for rank in range(count)]]


class Earnest:
    """A command under way. terminal: the device of one that it sits at, in place of a file for what it writes."""

    def __init__(self, words: list[str], terminal: str = ""):
        self.output = Path(tempfile.mkstemp(prefix="earnest-test-")[1])
        self.process = _server.Process(target=_run, args=(words, str(self.output), terminal, dict(os.environ)))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def until(self, condition: Callable[[], bool], within_s: float = 240) -> "Earnest":
        """Wait for something that the command does."""
        end_s = time.monotonic() + within_s
        while not condition():
            assert self.process.is_alive() and time.monotonic() < end_s, self.output.read_text()
            time.sleep(0.005)
        return self

    def send(self, number: int) -> "Earnest":
        os.kill(self.pid, number)
        return self

    def end(self, within_s: float = 240) -> tuple[int, str]:
        """(exit code, negative after a signal that nobody handles; all that it has written)."""
        self.process.join(within_s)
        code = self.process.exitcode
        assert code is not None, f"still running: {self.output.read_text()}"
        said = self.output.read_text()
        self.output.unlink()
        return code, said


def _run(words: list[str], output: str, terminal: str, environment: dict[str, str]) -> None:
    from earnest.cli import main

    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    if terminal:
        os.environ |= {"COLUMNS": "200", "TERM": "xterm"}
        os.setsid()
        screen = os.open(terminal, os.O_RDWR)
        fcntl.ioctl(screen, termios.TIOCSCTTY, 0)
        os.dup2(screen, 0)
    for stream in (1, 2):
        os.dup2(screen if terminal else os.open(output, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))  # they knew another file
    sys.exit(main(words))

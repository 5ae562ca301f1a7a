"""Stops: Ctrl-C, SIGTERM and SIGHUP as exceptions, or as a wish that the work under way looks at."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CALLED = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal; its exit code is 128 + `signum`."""

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__(signum)
        self.signum = signum


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(handler: Handler) -> Generator[None, None, None]:
    """The three signals go to `handler`; one that is ignored (nohup) stays so. Only the main thread can ask for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextmanager
def raised() -> Generator[None, None, None]:
    """A signal raises `Stopped`, so that what is half-written is taken away."""

    def stop(signum: int, frame: FrameType | None) -> None:
        _leave_a_dead_terminal(signum)
        raise Stopped(signum)

    with handled(stop):
        yield


@contextmanager
def asked(say: Callable[[str], None]) -> Generator[Callable[[], int | None], None, None]:
    """Yield a function that returns the number of the signal that asked for an end, or None. The first signal is
    reported by `say` at once, by its name; a second one raises `Stopped`."""
    first: list[int] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        _leave_a_dead_terminal(signum)
        if first:
            raise Stopped(signum)
        first.append(signum)
        with suppress(OSError, RuntimeError, ValueError):  # a terminal that is gone, or in the middle of a line
            say(CALLED[signal.Signals(signum)])

    with handled(ask):
        yield lambda: first[0] if first else None


def _leave_a_dead_terminal(signum: int) -> None:
    """After SIGHUP a terminal that is gone refuses every letter, and the checkpoint must be written all the same."""
    if signum != signal.SIGHUP:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            if stream is not None and stream.isatty():
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

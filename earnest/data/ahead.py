"""Batches that are made while the step before them is computed."""

from collections.abc import Iterator
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
DEPTH = 2  # items that wait


def ahead(items: Iterator[Item], depth: int = DEPTH) -> Iterator[Item]:
    """The same items in the same order, made by a thread up to `depth` before they are asked for. What it raises is
    raised here; it ends with this iterator.

    A thread is enough: reading, tokenizers and torch do their work outside of Python's lock, and a clip takes 0.2 ms.
    """
    made: Queue[tuple[Item | None, BaseException | None]] = Queue(depth)
    stopped = Event()

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
                if stopped.is_set():
                    return
            made.put((None, StopIteration()))
        except BaseException as error:  # told to whoever asks next
            made.put((None, error))

    thread = Thread(target=make, name="earnest-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        while not made.empty():
            made.get_nowait()

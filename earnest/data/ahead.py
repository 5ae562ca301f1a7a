"""Batches that are made while the step before them is computed, and files that are read while others are used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
DEPTH = 2  # items that wait
WORKERS = 4  # threads that read files (assumed: an encoder on a GPU takes in less than four of them decode)


def ahead(items: Iterator[Item], depth: int = DEPTH) -> Iterator[Item]:
    """The same items in the same order, made by a thread up to `depth` items before they are asked for. An exception in
    the thread is raised here; the thread ends with this iterator.

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


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Result]:
    """`function` of each item, in the order of the items, computed by threads up to `workers` items ahead. What it
    raises is raised in its place; what is ahead of that, or of the end of this iterator, is given up."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "earnest-reader") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

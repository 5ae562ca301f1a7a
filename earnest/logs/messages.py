"""What a log says in words: steps that were skipped, overflow, a crash, too little memory, a stop; counted, quoted."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from earnest.logs.source import Source

LONGEST_QUOTE = 160
MOST_LINES = 20_000  # lines with one word that are looked at
LARGEST_BYTES = 256 << 20  # of a text beside the log; the log itself is read whole


class Saying(NamedTuple):
    """How a program says what happened. word: in lower case, in every such line · example: as it was printed."""

    kind: str
    word: bytes
    pattern: str
    example: str


SKIPPED = "a step was skipped, as a loss or gradient was not finite"
OVERFLOW = "half precision overflowed"
MEMORY = "the memory was too small"
STOPPED = "the run was stopped from outside"
FAILED = "the program failed"
SKIP = r"\bskip(?:s|ped|ping)?\b(?!\W*\d)"  # a number behind it: a column of that name
NOT_FINITE = r"\b(?:nan|inf|infinite|infinity|non-?finite)\b"
SAYINGS = [  # the first that fits a line names its kind
    Saying(SKIPPED, b"norm is ", r"norm is (?:nan|inf)", "WARNING: The grad norm is nan. Skipping updating the model."),
    Saying(SKIPPED, b"skip", rf"{NOT_FINITE}.{{0,60}}{SKIP}", "loss is NaN, skipping this batch"),
    Saying(SKIPPED, b"skip", rf"{SKIP}.{{0,60}}{NOT_FINITE}", "Skipping batch 12: non-finite loss"),
    Saying(SKIPPED, b"nan or inf found", r"nan or inf found", "NaN or Inf found in input tensor."),
    Saying(
        OVERFLOW,
        b"overflow",
        r"overflow\b(?!\W*\d).{0,80}(?:scale|skip)",
        "Gradient overflow.  Skipping step, loss scaler 0",
    ),
    Saying(OVERFLOW, b"scale is small", r"grad scale is small", "WARNING: Grad scale is small: 9.5e-07"),
    Saying(OVERFLOW, b"minimum loss scale", r"minimum loss scale", "FloatingPointError: Minimum loss scale reached"),
    Saying(MEMORY, b"out of memory", r"out of memory", "torch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB"),
    Saying(MEMORY, b"allocate memory", r"can't allocate memory", "DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    Saying(MEMORY, b"oom", r"\boom[-_ ]kill", "slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch."),
    Saying(STOPPED, b"time limit", r"due to time limit", "*** JOB 1 ON n1 CANCELLED AT 10:00 DUE TO TIME LIMIT ***"),
    Saying(STOPPED, b"cancelled at", r"\bcancelled at\b", "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 10:00 ***"),
    Saying(STOPPED, b"keyboardinterrupt", r"(?-i:KeyboardInterrupt)", "KeyboardInterrupt"),
    Saying(STOPPED, b"received sig", r"received sig(?:term|int|nal|usr)", "received SIGTERM, saving a checkpoint"),
    Saying(FAILED, b"segmentation fault", r"segmentation fault", "Segmentation fault (core dumped)"),
    Saying(FAILED, b"watchdog", r"watchdog caught", "Watchdog caught collective operation timeout: WorkNCCL(1)"),
    Saying(
        FAILED,
        b"e",  # of error and exception
        r"^(?:\[rank\d+\]:\s*)?(?-i:(?:\w+\.)*[A-Z]\w*(?:Error|Exception))(?::\s|$)",
        "RuntimeError: CUDA error: device-side assert triggered",
    ),
]
WORDS = {saying.word for saying in SAYINGS} - {b"e"} | {b"error", b"exception"}
_PATTERNS = [(saying.kind, re.compile(saying.pattern, re.IGNORECASE)) for saying in SAYINGS]


@dataclass
class Message:
    """One kind of message: how often it was said, on which lines first and last, and in which words last."""

    kind: str
    count: int
    first: int
    last: int
    words: str

    def told(self, end: str) -> str:
        """In a sentence; end: with which the log ends."""
        where = f"on line {self.last}" if self.count == 1 else f"{self.count} times, lines {self.first} to {self.last}"
        how = "the log ends with" if end.endswith(self.words) else "the log says"
        return f"{self.kind}: {how} {self.words!r} ({where})"


class Messages:
    """Gathers the messages of a log, a block of whole lines at a time."""

    def __init__(self) -> None:
        self.kinds: dict[str, Message] = {}
        self._looked = dict.fromkeys(WORDS, 0)
        self._lines, self._end = 0, ""

    def block(self, data: bytes) -> None:
        lines = data.replace(b"\r", b"\n") if b"\r" in data else data
        counted = number = 0
        for start, stop in sorted(self._with_a_word(lines)):
            number += data.count(b"\n", counted, start)
            counted = start
            self._line(self._lines + number + 1, lines[start:stop].decode("utf-8", "replace").strip())
        self._lines += data.count(b"\n")
        self._end = data.rstrip()[-4 * LONGEST_QUOTE :].decode("utf-8", "replace") or self._end

    def _with_a_word(self, lines: bytes) -> set[tuple[int, int]]:
        """Start and stop of the lines that hold one of `WORDS`."""
        lowered, spans = lines.lower(), set[tuple[int, int]]()
        for word in WORDS:
            at = lowered.find(word)
            while at >= 0 and self._looked[word] < MOST_LINES:
                self._looked[word] += 1
                start, stop = lowered.rfind(b"\n", 0, at) + 1, lowered.find(b"\n", at)
                spans.add((start, stop if stop >= 0 else len(lowered)))
                at = lowered.find(word, stop) if stop >= 0 else -1
        return spans

    def _line(self, number: int, line: str) -> None:
        line = line[:1000]
        kind = next((kind for kind, pattern in _PATTERNS if pattern.search(line)), None)
        if kind is not None:
            words = line[:LONGEST_QUOTE]
            known = self.kinds.setdefault(kind, Message(kind, 0, number, number, words))
            known.count, known.last, known.words = known.count + 1, number, words

    def notes(self) -> list[str]:
        """A sentence for each kind, in the order of their last lines."""
        return [message.told(self._end) for message in sorted(self.kinds.values(), key=lambda message: message.last)]


def messages_of(source: Source) -> list[str]:
    """The messages of a text that is not read for its numbers, up to LARGEST_BYTES of it."""
    messages, total = Messages(), 0
    for block in source.lines():
        messages.block(block)
        total += len(block)
        if total > LARGEST_BYTES:
            break
    return messages.notes()

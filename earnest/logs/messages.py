"""What a log says in words: steps that were skipped, overflow, a crash, too little memory, a stop; counted, quoted."""

import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from earnest.logs.source import Source
from earnest.messages import Kind, Message, Place

LONGEST_QUOTE = 160
MOST_LINES = 20_000  # lines with one word that are looked at
LARGEST_BYTES = 256 << 20  # of a text beside the log; the log itself is read whole


class Saying(NamedTuple):
    """How a program says what happened. word: in lower case, in every such line · example: as it was printed."""

    kind: Kind
    word: bytes
    pattern: str
    example: str


# a column of that name: a number right behind it, or its words, a colon and a number: "number of nan iterations: 0 |"
NO_COLUMN = r"(?!\W*\d|[\w ]{0,24}[:=]\s*[\d.]+\s*(?:[|,;]|$))"
SKIP = rf"\bskip(?:s|ped|ping)?\b{NO_COLUMN}"
NOT_FINITE = rf"\b(?:nan|inf|infinite|infinity|non-?finite)\b{NO_COLUMN}"
COUNTED = r"(?:[ _-](?:iterations|iters|steps|batches|updates|samples|events|grads|gradients|losses|values|count))"
# a counter that says none: `number of nan iterations: 0`, `overflow: False`; and steps that mixed precision skips while
# it looks for its scale
NO_SAYING = re.compile(
    rf"\b(?:skip(?:s|ped)?|nans?|infs?|non-?finite|overflows?|oom){COUNTED}?\s*[:=]\s*(?:0+(?:\.0*)?(?![\d.])|false\b)"
    rf"|\bskipped{COUNTED}\s*[:=]\s*\d+",
    re.IGNORECASE,
)
SAYINGS = [  # the first that fits a line names its kind
    Saying("skipped", b"norm is ", r"norm is (?:nan|inf)", "The grad norm is nan. Skipping updating the model."),
    Saying("skipped", b"skip", rf"{NOT_FINITE}.{{0,60}}{SKIP}", "loss is NaN, skipping this batch"),
    Saying("skipped", b"skip", rf"{SKIP}.{{0,60}}{NOT_FINITE}", "Skipping batch 12: non-finite loss"),
    Saying("skipped", b"nan", r"\bnan (?:iteration|step|batche?)s?\s*[:=]\s*[1-9]", "number of nan iterations:   3 |"),
    Saying(
        "failed",
        b"nan",
        r"\b(?:detected|encountered) nan\b|\bnan loss\b(?! *[:=])|\bloss is nan\b(?!.{0,40}skip)",
        "RuntimeError:  > Detected NaN loss",
    ),
    Saying("skipped", b"nan or inf found", r"nan or inf found", "NaN or Inf found in input tensor."),
    Saying(
        "overflow",
        b"overflow",
        r"overflow\b(?!\W*\d).{0,80}(?:scale|skip)",
        "Gradient overflow.  Skipping step, loss scaler 0",
    ),
    Saying("overflow", b"scale is small", r"grad scale is small", "WARNING: Grad scale is small: 9.5e-07"),
    Saying("overflow", b"minimum loss scale", r"minimum loss scale", "FloatingPointError: Minimum loss scale reached"),
    Saying(
        "nan",
        b"nan",
        r"(?:^|(?:it/s|s/it)\])\s*(?:tensor\(nan[^()]*(?:\([^()]*\))?[^()]*\)|\[?nan\]?)$",
        "40%|####      | 2/5 [00:01<00:01, 2.7it/s]nan",
    ),
    Saying("memory", b"out of memory", r"out of memory", "torch.OutOfMemoryError: CUDA out of memory. Tried 2.00 GiB"),
    Saying("memory", b"allocate memory", r"can't allocate memory", "DefaultCPUAllocator: can't allocate memory: 8"),
    Saying("memory", b"oom", r"\boom[-_ ]kill", "slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch."),
    Saying("stopped", b"time limit", r"due to time limit", "*** JOB 1 ON n1 CANCELLED AT 10:00 DUE TO TIME LIMIT ***"),
    Saying("stopped", b"cancelled at", r"\bcancelled at\b", "slurmstepd: *** JOB 1 ON n1 CANCELLED AT 10:00 ***"),
    Saying("stopped", b"keyboardinterrupt", r"(?-i:KeyboardInterrupt)", "KeyboardInterrupt"),
    Saying("stopped", b"received sig", r"received sig(?:term|int|nal|usr)", "received SIGTERM, saving a checkpoint"),
    Saying("failed", b"segmentation fault", r"segmentation fault", "Segmentation fault (core dumped)"),
    Saying("failed", b"watchdog", r"watchdog caught", "Watchdog caught collective operation timeout: WorkNCCL(1)"),
    Saying(
        "failed",
        b"e",  # of error and exception
        r"^(?:\[rank\d+\]:\s*)?(?-i:(?:\w+\.)*[A-Z]\w*(?:Error|Exception))(?::\s|$)",
        "RuntimeError: CUDA error: device-side assert triggered",
    ),
]
WORDS = {saying.word for saying in SAYINGS} - {b"e"} | {b"error", b"exception"}


@cache
def _patterns() -> list[tuple[Kind, re.Pattern[str]]]:
    """Compiled once a line has one of the words."""
    return [(saying.kind, re.compile(saying.pattern, re.IGNORECASE)) for saying in SAYINGS]


@dataclass
class _Seen:
    """One kind of message so far: how often it was printed, on which lines first and last, and its last words."""

    count: int
    first: int
    last: int
    words: str
    first_words: str

    @property
    def other(self) -> str:
        """The first words, if they were others."""
        return "" if self.first_words == self.words else self.first_words


class Messages:
    """Gathers the messages of a log, a block of whole lines at a time."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, _Seen] = {}
        self._looked = dict.fromkeys(WORDS, 0)
        self._lines, self._end = 0, ""

    def copy(self) -> "Messages":
        """Gathers on by itself."""
        return deepcopy(self)

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
        told = NO_SAYING.sub(" ", line)
        kind: Kind | None = next((one for one, pattern in _patterns() if pattern.search(told)), None)
        if kind is not None:
            words = line[:LONGEST_QUOTE]
            known = self.kinds.setdefault(kind, _Seen(0, number, number, words, words))
            known.count, known.last, known.words = known.count + 1, number, words

    def all(self, file: str = "") -> list[Message]:
        """One for each kind, in the order of their last lines."""
        seen = sorted(self.kinds.items(), key=lambda item: item[1].last)
        return [
            Message(
                kind, one.count, Place(file, one.first, one.last), one.words, self._end.endswith(one.words), one.other
            )
            for kind, one in seen
        ]


def messages_of(source: Source, file: str = "") -> list[Message]:
    """The messages of a text that is not read for its numbers, up to LARGEST_BYTES of it."""
    messages, total = Messages(), 0
    for block in source.lines():
        messages.block(block)
        total += len(block)
        if total > LARGEST_BYTES:
            break
    return messages.all(file)

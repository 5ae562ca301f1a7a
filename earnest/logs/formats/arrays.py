"""Histories that a program printed as arrays, a value an epoch: ``val_loss = [2.1, 1.9, ...]``, over one line or more.

They are read only in a text that holds no other rows.
"""

import re

from earnest.logs.names import guess
from earnest.logs.words import SPLITS, words

# numbers of an array that is a history; on one line there may be as many parts of one report (assumed)
FEWEST, FEWEST_ON_A_LINE = 5, 12
MOST = 1_000_000
NUMBERS = r"[-+\d.eE,\s]|nan|inf"
OPENS = re.compile(
    rf"(?P<before>[^\[\]]{{0,120}}?)[:=]?\s*(?:\b(?:np\.|torch\.)?(?:array|tensor)\()?\[(?P<body>(?:{NUMBERS})*)(?P<end>\]\W*)?",
    re.IGNORECASE,
)
GOES_ON = re.compile(rf"(?P<body>(?:{NUMBERS})*)(?P<end>\][^\[\]]{{0,40}})?", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf)", re.IGNORECASE)
TOLD = re.compile(  # of which split and what a sentence above an array says it is
    rf"(?:\b({'|'.join(sorted(SPLITS, key=len, reverse=True))})\w*\s+)?\b(loss|wer|cer|accuracy|perplexity)(?:e?s)?\b",
    re.IGNORECASE,
)


class Arrays:
    """Gathers the arrays of a text, a line at a time, each under its name or what the sentence above it says."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self._open: tuple[str, list[float]] | None = None
        self._sentence = ""

    def line(self, line: str) -> bool:
        """Whether a line is part of an array."""
        if self._open is None:
            match = OPENS.fullmatch(line.strip())
            if match is None or not re.search(r"\d", match["body"]):
                self._sentence = line if line.strip() else self._sentence
                return False
            name, values = self._name(match["before"]), []
            if name is None and not match["before"].strip() and not self._sentence and self._is_curve(match):
                name = "loss"  # nothing but numbers, and they fall: a program wrote its list of losses
            if name is None or (match["end"] and len(NUMBER.findall(match["body"])) < FEWEST_ON_A_LINE):
                return False  # the parts of a report, or anything else
            self._open = name, values
        else:
            match = GOES_ON.fullmatch(line.strip())
        name, values = self._open
        if match is None or len(values) > MOST:
            self._open = None
            return False
        values += map(float, NUMBER.findall(match["body"]))
        if match["end"]:
            self._open = None
            if len(values) >= FEWEST:
                self.found.setdefault(name, values)
        return True

    def rows(self) -> list[dict[str, float]]:
        """What was found, an epoch a row."""
        length = max(map(len, self.found.values()), default=0)
        return [{name: one[at] for name, one in self.found.items() if at < len(one)} for at in range(length)]

    def _is_curve(self, match: re.Match[str]) -> bool:
        """Whether the numbers of a list on one line are positive, not whole, and end below their beginning."""
        values = [float(text) for text in NUMBER.findall(match["body"])]
        third = len(values) // 3
        fall = third and sum(values[-third:]) < sum(values[:third])
        return (
            bool(fall)
            and len(values) >= FEWEST_ON_A_LINE
            and min(values) > 0
            and not all(value.is_integer() for value in values)
        )

    def _name(self, before: str) -> str | None:
        """A loss or another signal, as the text before an array or the sentence above it calls it."""
        own = before.strip(" \t:=\"'(")
        if own and guess(own) is not None:
            return own
        told = list(TOLD.finditer(" ".join(words(own)) or self._sentence))
        return f"{told[-1][1] or 'train'} {told[-1][2]}" if told else None


def has_arrays(lines: list[str]) -> bool:
    """Whether lines hold an array that is a history."""
    arrays = Arrays()
    for line in lines:
        arrays.line(line)
    return bool(arrays.found)

"""The rows of free text. `line.py` reads a single line; here lines are joined into rows."""

import re
from copy import copy, deepcopy
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from earnest.columns import Column, Table, joined
from earnest.logs import pieces
from earnest.logs.formats.arrays import Arrays, has_arrays
from earnest.logs.formats.headed import Headed, has_headed
from earnest.logs.formats.line import (
    ENDLESS,
    HEADING,
    MOST_SKELETONS,
    NOTHING,
    NUMBER,
    NUMBER_COMMA,
    OF,
    Cell,
    Plan,
    name_of,
    planned,
)
from earnest.logs.formats.text import NAME
from earnest.logs.log import Log
from earnest.logs.messages import Messages
from earnest.logs.nameless import NAMELESS
from earnest.logs.names import guess
from earnest.logs.source import ANSI, Source
from earnest.logs.words import SPLITS, STEP_NAMES, axis_of, in_english, words

NUMERAL = (
    r"[-+]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|"
    r"[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)"
)
SOFT = re.compile(r"[█▏▎▍▌▋▊▉\s]")
QUOTES = str.maketrans("‘’‚‛“”„：，；（）［］【】＝％｜　", "''''\"\"\":,;()[][]=%| ")
MOST_WAITING = 10_000
LONGEST_HEADING = 80
BELOW = "\0below/"  # before the name of a number below a heading of evaluation


def has_rows(source: Source) -> bool:
    """Whether a line near the beginning holds a number that has a name, or all of them are rows of a table."""
    head = source.head.decode("utf-8", "replace")
    lines = _lines(head)[:5000]
    return any(planned(line, NUMBER, {})[0].rows for line in lines) or has_arrays(lines) or has_headed(lines)


def read(source: Source) -> Log:
    """The rows of a text, its settings and its messages."""
    return pieces.read(source, Printed)


class Printed:
    """Blocks of printed lines -> a log. steady: a line is read by itself and by those before it."""

    steady = True

    def __init__(self, source: Source):
        head = ANSI.sub("", source.head.decode("utf-8", "replace"))
        commas = re.search(r"[=:]\s*\d+,(?:\d\d?|\d{4,})(?!\d)", head) is not None and not re.search(r"\d\.\d", head)
        self.notes = ["decimal commas read as points"] if commas else []
        self.rows, self.messages = _Rows(NUMBER_COMMA if commas else NUMBER, self.notes), Messages()

    def copy(self) -> "Printed":
        other = copy(self)
        other.rows, other.messages = self.rows.copy(), self.messages.copy()
        other.notes = other.rows.table.notes
        return other

    def block(self, block: bytes) -> None:
        self.messages.block(block)
        for line in _lines(block.decode("utf-8", "replace")):
            self.rows.line(line)

    def log(self, source: Source) -> Log:
        rows, log = self.rows, Log(NAME, {}, notes=self.notes)
        rows.end()
        source.messages += self.messages.all()
        if len(rows.plans) >= MOST_SKELETONS:
            log.notes.append(f"over {MOST_SKELETONS:,} kinds of lines: lines of further kinds were passed over")
        log.columns, config = rows.below_headings(rows.table.columns()), rows.config
        nameless = [name for name in log.columns if NAMELESS.fullmatch(name)]
        if len(nameless) < len(log.columns):  # numbers between lines that say what they are
            log.columns = {name: column for name, column in log.columns.items() if name not in nameless}
        _settle_counters(log)
        _settle_bars(log)
        for name in [
            name
            for name, column in log.columns.items()
            if len(column.row) == 1 and rows.table.rows > 3 and guess(name) is None
        ]:
            config.setdefault(name, float(log.columns.pop(name).value[0]))  # printed once: no measurement
        log.config = {name: int(value) if float(value).is_integer() else value for name, value in config.items()}
        return log


class _Rows:
    """Lines -> rows of a table. A line without a step goes on with the row before, until a name comes again.

    Where line after line has one skeleton, a pattern made for it reads them, and they become columns by the thousand.
    """

    def __init__(self, number: re.Pattern[str], notes: list[str]):
        self.table, self.config = Table(notes), dict[str, float]()
        self.number = number
        self.plans: dict[str, Plan] = {}
        self.before = NOTHING
        self.current: dict[str, float] = {}
        self.bars: dict[str, float] = {}
        self.split, self.headings = "train", dict[str, int]()
        self.alike: _Alike | None = None
        self.waiting: list[tuple[str, ...]] = []
        self.arrays, self.headed = Arrays(), Headed()

    def copy(self) -> "_Rows":
        """Reads on as this one would; the plans, which are found again, are shared."""
        other = copy(self)
        other.table, other.arrays, other.headed = self.table.copy(), deepcopy(self.arrays), self.headed.copy()
        other.config, other.current = {**self.config}, {**self.current}
        other.bars, other.headings, other.waiting = {**self.bars}, {**self.headings}, [*self.waiting]
        return other

    def line(self, line: str) -> None:
        if self.alike is not None:
            if match := self.alike.pattern.fullmatch(line):
                self.waiting.append(match.groups())
                if len(self.waiting) == MOST_WAITING:
                    self.unload()
                return
            self.unload()
            self.alike = None
        if self.table.rows == 0 and self.arrays.line(line):
            return
        plan, parts = planned(line, self.number, self.plans)
        if plan is NOTHING:
            self.unplanned(line, len(parts) > 1)
            return
        rows = [self.cells(row, plan, parts) for row in plan.rows]
        if plan.config:
            self.config.update(rows[0])
            return
        for row in rows:
            if "bar" in row:
                row["bar/" + ("0" if plan.bar == ENDLESS else parts[2 * plan.bar + 1])] = row.pop("bar")
            self.add(row)
        if (
            plan is self.before and not plan.within and len(rows) == 1 and not all(map(_counts, rows[0]))
        ):  # the second of its kind in a row: more will come
            self.alike = _alike(plan, parts, list(rows[0]))
        self.before = plan

    def unplanned(self, line: str, has_numbers: bool) -> None:
        """A line without a number that has a name: a heading, the header of a table, or a row of one."""
        if not has_numbers:
            self.headed.words(line)
            if len(line) < LONGEST_HEADING:
                self.heading(line)
        elif row := self.headed.numbers(line):
            self.add(row)

    def heading(self, line: str) -> None:
        if match := HEADING.match(line):
            self.split = SPLITS[match[1].lower()]
            self.headings[self.split] = self.headings.get(self.split, 0) + 1

    def cells(self, row: list[Cell], plan: Plan, parts: list[str]) -> dict[str, float]:
        """Names and values of a row; below a heading the names are marked with its split."""
        values = [self.value(parts[2 * place + 1]) * factor + offset for _, place, factor, offset in row]
        names = [name_of(cell, parts) for cell in row] if plan.within else [name for name, *_ in row]
        if self.split != "train":
            names = [name if _counts(name) or SPLITS.keys() & set(words(name)) else f"{BELOW}{name}" for name in names]
        return dict(zip(names, values, strict=True))

    def add(self, row: dict[str, float]) -> None:
        counting = all(map(_counts, self.current))
        if not self.current.keys().isdisjoint(row) or (not counting and any(map(_counts, row))):
            if not counting or any(value < self.bars.get(name, -1.0) for name, value in self.current.items()):
                # a bar without values is a row only if it falls back: an epoch begins there
                self.table.row(self.current)
            self.bars.update((name, value) for name, value in self.current.items() if name.startswith("bar/"))
            self.current = {}
        self.current |= row

    def unload(self) -> None:
        alike, waiting, self.waiting = self.alike, self.waiting, []
        if alike is None or not waiting:
            return
        cells = np.fromiter(map(float, chain.from_iterable(waiting)), np.float64, len(waiting) * alike.groups).reshape(
            -1, alike.groups
        )
        value = cells[:, alike.group] * alike.factor
        self.add(dict(zip(alike.names, value[0].tolist(), strict=True)))
        if len(value) > 1:
            self.table.row(self.current)
            for name, column in zip(alike.names, value[1:-1].T, strict=True):
                self.table.block(name, column)
            self.table.rows += len(value) - 2
            self.current = dict(zip(alike.names, value[-1].tolist(), strict=True))

    def end(self) -> None:
        self.unload()
        if self.current:
            self.table.row(self.current)
        if self.table.rows == 0:
            for row in self.arrays.rows():
                self.table.row(row)

    def below_headings(self, columns: dict[str, Column]) -> dict[str, Column]:
        """Columns below headings of evaluation are evaluation if headings of training end these blocks."""
        trained, evaluated = (self.headings.get(split, 0) for split in ("train", "eval"))
        blocks = trained > 0 and abs(trained - evaluated) <= 1
        return joined(columns, {name: name.replace(BELOW, "eval/" if blocks else "") for name in columns})

    def value(self, text: str) -> float:
        return float(text.replace(",", "" if self.number is NUMBER else "."))


class _Alike(NamedTuple):
    """A pattern for the lines of one skeleton, its `groups` numbers, and which of them goes to which column, times
    which factor."""

    pattern: re.Pattern[str]
    groups: int
    names: list[str]
    group: list[int]
    factor: np.ndarray


def _alike(plan: Plan, parts: list[str], names: list[str]) -> _Alike | None:
    """None if a number has an offset or commas. White space and a bar's filling may differ from line to line."""
    cells = plan.rows[0]
    if any(cell.offset for cell in cells) or any("," in number for number in parts[1::2]) or len(parts) > 200:
        return None
    wanted = sorted({cell.place for cell in cells})
    pattern = ""
    for place, part in enumerate(parts):
        if place % 2 == 0:
            pattern += _loose(part)
        elif place // 2 == plan.bar:
            pattern += re.escape(part)
        else:
            pattern += f"({NUMERAL})" if place // 2 in wanted else NUMERAL
    return _Alike(
        _compiled(pattern),
        len(wanted),
        names,
        [wanted.index(cell.place) for cell in cells],
        np.array([cell.factor for cell in cells]),
    )


def _loose(text: str) -> str:
    return "".join(
        SOFT.pattern + "*" if SOFT.match(piece) else re.escape(piece)
        for piece in re.split(r"([█▏▎▍▌▋▊▉\s]+)", text)
        if piece
    )


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _counts(name: str) -> bool:
    """Whether a column counts steps or epochs, and measures nothing."""
    return axis_of(name.removesuffix(OF)) is not None or name.startswith("bar/")


def _lines(text: str) -> list[str]:
    if "\x1b" in text or "\x08" in text:
        text = ANSI.sub("", text)
    if not text.isascii():
        text = in_english(text.translate(QUOTES))
    if "**" in text:  # bold in Markdown
        text = text.replace("**", "")
    return [line for line in text.replace("\r", "\n").split("\n") if line]


def _settle_counters(log: Log) -> None:
    """`Batch 0/590`: of a counter and what it counts up to, the second counts if it is the one that moves."""
    for total in [name for name in log.columns if name.endswith(OF)]:
        counts, name = log.columns.pop(total), total.removesuffix(OF)
        if len(np.unique(counts.value)) > 2 * len(np.unique(log.columns[name].value)) > 0 and len(counts.row) > 2:
            log.columns.setdefault("epoch", log.columns.pop(name))
            log.columns["step"] = counts


def _settle_bars(log: Log) -> None:
    """Of several progress bars (training, and an evaluation within it), the one that counts steps becomes the step
    column. Where it starts again a new epoch begins, if nothing else tells epochs."""
    bars = [name for name in log.columns if name.startswith("bar/")]
    if not bars:
        return
    spelled = {"_".join(words(name)) for name in log.columns}

    def worth(name: str) -> tuple[int, int, float]:
        value = log.columns[name].value
        return -int((np.diff(value) < 0).sum()), len(value), float(name.partition("/")[2])

    best = max(bars, key=worth)
    for name in bars:
        column = log.columns.pop(name)
        if name != best or spelled & set(STEP_NAMES):
            continue
        total, ends = float(name.partition("/")[2]), np.diff(column.value) < 0
        if ends.any() and total and (column.value[:-1][ends] >= 0.9 * total).all():  # each bar an epoch
            column = column._replace(value=column.value + total * np.append(0.0, np.cumsum(ends)))
            log.notes.append(f"a bar of {total:g} starts again after its end: each is an epoch, laid end to end")
        log.columns["step"] = column
        log.notes.append("steps are read off a progress bar, which may lag behind the values by a few")

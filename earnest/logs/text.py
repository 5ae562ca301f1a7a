r"""Free text: whatever a training loop printed.

``step 120/300 | loss 5.75 | lr 1e-4`` · ``key=value`` · ``key: value`` · a JSON object or a Python dictionary within a
line (transformers' Trainer, fairseq) · tqdm bars with carriage returns and a postfix · ANSI colours · ``Epoch 3: 6.01 →
5.76 (avg loss)`` · fairseq, espnet, audiocraft, Keras, torchvision.

Lines of one kind differ only in their numbers. So a line is split into its numbers and the text between them, its
*skeleton*, and the skeleton is understood once: a plan says which number goes to which column. The rest of such lines
costs one split and one look-up.
"""

import json
import re
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from earnest.logs.format import PRINTED, Format
from earnest.logs.log import Log, Table, flat
from earnest.logs.names import guess
from earnest.logs.settings import is_setting
from earnest.logs.source import Source
from earnest.logs.words import EPOCH_NAMES, SPLITS, STEP_NAMES, axis_of, words

NAME = "text"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b\n]{0,200}\x07|[\x08]")
_NUMBER = r"(?<![\w.])([-+]?(?:%s(?:[eE][-+]?\d+)?|(?:nan|inf|infinity)(?!\w)))"
NUMBER = re.compile(_NUMBER % r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)", re.IGNORECASE)
NUMBER_COMMA = re.compile(_NUMBER % r"(?:\d+(?:[.,]\d+)?|[.,]\d+)", re.IGNORECASE)
ENDLESS = -1
LONGEST = 20_000  # characters of a line that are looked at, and
MOST_SKELETONS = 20_000
MOST_WAITING = 10_000
MOST_NUMBERS = 6000  # numbers: one private-use character each
N = "[\ue000-\uf8ff]"
CLOCKS = re.compile(
    rf"{N}[-/.]{N}[-/.]{N}(?:[T ]+{N}:{N}(?::{N})?(?:[,.]{N})?)?|{N}:{N}(?::{N})?(?:[,.]{N})?(?:\s*[AP]M)?|{N}(?=\s*it/s|\s*s/it)"
)
BAR = re.compile(
    rf"^(?P<desc>[^|%]*?):?\s*{N}%\s*\|[^|]*\|\s*(?P<n>{N})(?P<k>[kMG]?)/(?P<total>{N})(?P<kk>[kMG]?)\s*(?:\[(?P<rest>.*?)\]?\s*)?$",
    re.DOTALL,
)
ENDLESS_BAR = re.compile(rf"^(?P<desc>[^|%]*?):?\s*(?P<n>{N})(?P<k>[kMG]?)it \[(?P<rest>.*?)\]?\s*$")
ESPNET = re.compile(rf"({N})epoch:(\w+):{N}-({N})batch:")
ESPNET_RESULTS = re.compile(rf"({N})epoch results:")
WITHIN_EPOCH = re.compile(rf"\bepoch\s*[:=#]?\s*\[?({N})\]?\s*[:|,]?\s*\[?\s*({N})\s*/\s*{N}", re.IGNORECASE)
LEADING = re.compile(rf"^\W*({N})\s*/\s*{N}\s*[\[\]━=|:, ]")
ARROW = re.compile(rf"({N})\s*(?:→|->|=>|-->)\s*({N})(?:\s*\(([A-Za-z_ ]+)\))?")
SPLIT_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
SECTION = re.compile(
    rf"\[({SPLIT_WORDS})\]|(?:^|(?<=[|\-\s]))({SPLIT_WORDS})(?:\s+(?:summary|results?|set))?\s*[:|](?!\s*{N})",
    re.IGNORECASE,
)
# possessive (`++`, `*+`): what a part has taken it keeps, so no line takes more than linear time
PAIR = re.compile(
    rf"""(?<![\w./@\-])(?P<name>[A-Za-z_][\w./@\-]{{0,100}}+(?:\ [A-Za-z_][\w./\-]{{0,100}}+){{0,4}}+)['"]?+\s*+"""
    rf"""(?:\([A-Za-z/ ]{{1,8}}\)\s*+)?+(?:(?P<sep>[:=]++|\[)\s*+|(?<=\s))['"~≈\[(]*+\s*+(?:tensor\(\[*+)?+"""
    rf"""(?P<value>{N})(?P<k>[kM](?![A-Za-z]))?"""
)
SHARE = re.compile(rf"\s*/\s*{N}(?:\s*\(({N})%\))?")
NUMERAL = r"[-+]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]+)?|[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)"
SOFT = re.compile(r"[█▏▎▍▌▋▊▉\s]")
CELL_END = re.compile(rf"(?:/{N})?\s*(?:%|$|[|,;\t]|\s-\s)")
CONFIG_LINE = re.compile(r"^\W*\w*(?:Namespace|Arguments|Args|Config|Configuration)\(")
THOUSANDS = {"": 1.0, None: 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class Cell(NamedTuple):
    """Number `index` of the line goes to column `name`, times `factor`, plus `offset`."""

    name: str
    index: int
    factor: float = 1.0
    offset: float = 0.0


class Plan(NamedTuple):
    """What lines with one skeleton hold: rows of cells; `bar`: which number is the progress bar's total, by which bars
    are told apart."""

    rows: list[list[Cell]]
    bar: int = ENDLESS
    config: bool = False


NOTHING = Plan([])


def claims(source: Source) -> bool:
    if not source.is_text:
        return False
    head = source.head.decode("utf-8", "replace")
    return any(_planned(line, NUMBER, {})[0].rows for line in _lines(head)[:5000])


def read(source: Source) -> Log:
    log = Log(NAME, {}, notes=source.notes)
    head = ANSI.sub("", source.head.decode("utf-8", "replace"))
    commas = re.search(r"[=:]\s*\d+,(?:\d\d?|\d{4,})(?!\d)", head) is not None and not re.search(r"\d\.\d", head)
    if commas:
        log.notes.append("decimal commas read as points")
    rows = _Rows(NUMBER_COMMA if commas else NUMBER)
    for block in source.lines():
        for line in _lines(block.decode("utf-8", "replace")):
            rows.line(line)
    rows.end()
    if len(rows.plans) >= MOST_SKELETONS:
        log.notes.append(f"over {MOST_SKELETONS:,} kinds of lines: lines of further kinds were passed over")
    log.columns, config = rows.table.columns(), rows.config
    _settle_bars(log)
    for name in [
        name
        for name, column in log.columns.items()
        if len(column.row) == 1 and rows.table.rows > 3 and guess(name) is None
    ]:
        config.setdefault(name, float(log.columns.pop(name).value[0]))  # printed once: a setting, not a measurement
    log.config = {name: int(value) if float(value).is_integer() else value for name, value in config.items()}
    return log


class _Rows:
    """Lines -> rows of a table. A line without a step goes on with the row before, until a name comes again.

    Where line after line has one skeleton, a pattern made for it reads them, and they become columns by the thousand.
    """

    def __init__(self, number: re.Pattern[str]):
        self.table, self.config = Table(), {}
        self.number = number
        self.plans: dict[str, Plan] = {}
        self.before = NOTHING
        self.current: dict[str, float] = {}
        self.bars: dict[str, float] = {}
        self.alike: _Alike | None = None
        self.waiting: list[tuple[str, ...]] = []

    def line(self, line: str) -> None:
        if self.alike is not None:
            if match := self.alike.pattern.fullmatch(line):
                self.waiting.append(match.groups())
                if len(self.waiting) == MOST_WAITING:
                    self.unload()
                return
            self.unload()
            self.alike = None
        plan, parts = _planned(line, self.number, self.plans)
        rows = [
            {name: self.value(parts[2 * index + 1]) * factor + offset for name, index, factor, offset in row}
            for row in plan.rows
        ]
        if plan.config:
            self.config.update(rows[0])
            return
        for row in rows:
            if "bar" in row:
                row["bar/" + ("0" if plan.bar == ENDLESS else parts[2 * plan.bar + 1])] = row.pop("bar")
            self.add(row)
        if (
            plan is self.before and len(rows) == 1 and not all(map(_counts, rows[0]))
        ):  # the second of its kind in a row: more will come
            self.alike = _alike(plan, parts, list(rows[0]))
        self.before = plan

    def add(self, row: dict[str, float]) -> None:
        counting = all(map(_counts, self.current))
        if not self.current.keys().isdisjoint(row) or (not counting and any(map(_counts, row))):
            if not counting or any(value < self.bars.get(name, -1.0) for name, value in self.current.items()):
                self.table.row(
                    self.current
                )  # a bar without values is a row only where it falls back: an epoch begins there
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
            present = np.ones(len(value) - 2, bool)
            for name, column in zip(alike.names, value[1:-1].T, strict=True):
                self.table.block(name, column, present)
            self.table.rows += len(present)
            self.current = dict(zip(alike.names, value[-1].tolist(), strict=True))

    def end(self) -> None:
        self.unload()
        if self.current:
            self.table.row(self.current)

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
    """None where a number has an offset or commas. White space and a bar's filling may differ from line to line."""
    cells = plan.rows[0]
    if any(cell.offset for cell in cells) or any("," in number for number in parts[1::2]) or len(parts) > 200:
        return None
    wanted = sorted({cell.index for cell in cells})
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
        [wanted.index(cell.index) for cell in cells],
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
    return axis_of(name) is not None or name.startswith("bar/")


def _lines(text: str) -> list[str]:
    if "\x1b" in text or "\x08" in text:
        text = ANSI.sub("", text)
    return [line for line in text.replace("\r", "\n").split("\n") if line]


def _planned(line: str, pattern: re.Pattern[str], plans: dict[str, Plan]) -> tuple[Plan, list[str]]:
    """The plan for a line, and its parts: text, number, text, ... After MOST_SKELETONS no new kind is looked at."""
    parts = pattern.split(line[:LONGEST])
    if len(parts) < 3 or len(parts) > 2 * MOST_NUMBERS:
        return NOTHING, parts
    skeleton = "\0".join(parts[::2])
    plan = plans.get(skeleton)
    if plan is None:
        if len(plans) >= MOST_SKELETONS:
            return NOTHING, parts
        plan = plans[skeleton] = _plan(skeleton)
    return plan, parts


def _plan(skeleton: str) -> Plan:
    texts = re.sub(r"\s{3,}", "  ", re.sub(N, "?", skeleton)).split(
        "\0"
    )  # long gaps cost the patterns below their square
    line = texts[0] + "".join(chr(0xE000 + index) + text for index, text in enumerate(texts[1:]))
    if CONFIG_LINE.match(line):
        return Plan([_pairs(line, "", known_only=False)], config=True)
    for pattern in (BAR, ENDLESS_BAR):
        if bar := pattern.match(line):
            return _bar_plan(bar)
    cells: list[Cell] = []
    if match := ESPNET.search(line):
        cells += [Cell("epoch", _index(match[1]))] + (
            [Cell("step", _index(match[3]))] if SPLITS.get(match[2]) == "train" else []
        )
        line = f"{match[2]}: " + line[match.end() :]
    elif match := ESPNET_RESULTS.search(line):
        cells += [Cell("epoch", _index(match[1]))]
        line = line[match.end() :]
    elif (match := WITHIN_EPOCH.search(line)) and not line[match.end() :].lstrip().startswith("/"):
        cells += [Cell("epoch", _index(match[1])), Cell("step", _index(match[2]))]
        line = line[: match.start()] + " " + line[match.end() :]
    line = CLOCKS.sub(" ", line)
    if (match := LEADING.match(line)) and not cells:
        cells.append(Cell("step", _index(match[1])))
        line = line[match.end() :]
    if match := ARROW.search(line):
        return _arrow_plan(line, match, cells)
    start, prefix = 0, ""
    for section in [*SECTION.finditer(line), None]:
        stop = section.start() if section else len(line)
        cells += _section(line[start:stop], prefix)
        if section:
            start, prefix = (
                section.end(),
                ""
                if SPLITS[(section[1] or section[2]).lower()] == "train"
                else (section[1] or section[2]).lower() + "/",
            )
    return Plan([_first_of_each(cells)]) if cells else NOTHING


def _section(text: str, prefix: str) -> list[Cell]:
    """A dictionary within the text, else its pairs."""
    left, right = text.find("{"), text.rfind("}")
    if 0 <= left < right:
        quoted = re.sub(rf"""["']?({N})["']?""", r'"\1"', text[left : right + 1])
        quoted = re.sub(r"\b(?:None|True|False)\b", "null", quoted.replace("'", '"'))
        quoted = re.sub(
            rf'(?<![\w.])[\w.]++\(("{N}")[^)]*\)', r"\1", quoted
        )  # tensor(2.3, device=...), np.float64(2.3)
        try:
            row = json.loads(quoted)
            leaves = {name: leaf for name, leaf in flat(row).items() if isinstance(leaf, str) and re.fullmatch(N, leaf)}
            return _pairs(text[:left], prefix) + [
                Cell(_in_split(name, prefix), _index(leaf)) for name, leaf in leaves.items()
            ]
        except (ValueError, RecursionError, AttributeError):
            pass
    return _pairs(text, prefix)


def _pairs(text: str, prefix: str, known_only: bool = True) -> list[Cell]:
    cells = []
    for match in PAIR.finditer(text):
        loose = match["sep"] is not None
        if not loose and "|" in text:  # `| name 3.5 |`: a cell of its own
            loose = bool(
                re.search(r"[|,;\t\]]\s*$", text[max(0, match.start() - 20) : match.start()])
                and CELL_END.match(text, match.end())
            )
        name = _name(match["name"], loose)
        index = _index(match["value"])
        if name and axis_of(name) is None and (share := SHARE.match(text, match.end())):  # Accuracy: 9836/10000 (98%)
            name, index = (name, _index(share[1])) if share[1] else (None, index)
        if name:
            cells.append(Cell(_in_split(name, prefix), index, THOUSANDS[match["k"]] if known_only else 1.0))
    return cells


def _in_split(name: str, prefix: str) -> str:
    return name if axis_of(name) or any(word in SPLITS for word in words(name)) else prefix + name


@lru_cache(maxsize=20_000)
def _name(text: str, loose: bool) -> str | None:
    """The longest end of the words before a number that is a known name; of unknown words those that an `=` or `:`
    follows."""
    named = text.split()
    for start in range(len(named)):
        candidate = " ".join(named[start:])
        if axis_of(candidate) or is_setting(candidate) or (guess(candidate) and len(words(candidate)) <= 4):
            return candidate
    return (" ".join(named) if len(named) <= 2 else named[-1]) if loose else None


def _bar_plan(bar: re.Match[str]) -> Plan:
    """tqdm: `desc:  40%|████      | 120/300 [00:10<00:15, 11.9it/s, loss=5.75, lr=0.0001]`."""
    desc, rest = bar["desc"], bar["rest"] or ""
    split = next((word for word in words(desc) if SPLITS.get(word, "train") != "train"), None)
    prefix = f"{split}/" if split else ""
    described = _pairs(desc + " ", prefix)
    posted = _pairs(CLOCKS.sub(" ", rest.partition(",")[2]), prefix)
    known = {*SPLITS, *EPOCH_NAMES, *STEP_NAMES, "of", "progress", "finetuning", "pretraining", "fit"}
    plain = all(word in known for word in words(re.sub(N, " ", desc)))
    if split:  # a validation bar counts batches of its own
        return Plan([_first_of_each(described + posted)]) if posted else NOTHING
    if not plain and not described and not posted:  # "Map", "Loading checkpoint shards"
        return NOTHING
    cells = _first_of_each([*described, *posted, Cell("bar", _index(bar["n"]), THOUSANDS[bar["k"]])])
    return Plan([cells], bar=_index(bar["total"]) if bar.re is BAR else ENDLESS)


def _arrow_plan(line: str, arrow: re.Match[str], cells: list[Cell]) -> Plan:
    """`Epoch 3: 6.01 → 5.76 (avg loss)`: the value at the epoch's start and at its end."""
    before = _pairs(line[: arrow.start()] + arrow[1], "")
    named = next(
        (cell.name for cell in before if cell.index == _index(arrow[1]) and cell.name.lower() not in EPOCH_NAMES), None
    )
    name = (arrow[3] or named or "").strip()
    if not name:
        return NOTHING
    axes = cells + [cell for cell in before if cell.index != _index(arrow[1]) and cell.name != name]
    at_start = [cell._replace(offset=-1.0) for cell in axes if cell.name.lower() in EPOCH_NAMES]
    return Plan([[*at_start, Cell(name, _index(arrow[1]))], [*axes, Cell(name, _index(arrow[2]))]])


def _index(char: str) -> int:
    return ord(char) - 0xE000


def _first_of_each(cells: list[Cell]) -> list[Cell]:
    kept: dict[str, Cell] = {}
    for cell in cells:
        kept.setdefault(cell.name, cell)
    return list(kept.values())


def _settle_bars(log: Log) -> None:
    """Of several bars (training, an evaluation within it) the one that counts steps; its falls are epochs where nothing
    else tells them."""
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


FORMAT = Format(NAME, "text", PRINTED, claims, read, suffixes=(".log", ".txt", ".out"))

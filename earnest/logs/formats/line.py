r"""One line of free text -> which of its numbers goes to which column.

``step 120/300 | loss 5.75 | lr 1e-4`` · ``key=value`` · ``key: value`` · a JSON object or a Python dictionary within a
line (transformers' Trainer, fairseq) · tqdm bars with a postfix · ``Epoch 3: 6.01 → 5.76 (avg loss)`` · fairseq,
espnet, audiocraft, Keras, torchvision.

A line is split into its numbers and the text between them, its *skeleton*. The skeleton is understood once, as a
`Plan`; other lines of the same skeleton cost one split and one look-up.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from earnest.logs.log import flat
from earnest.logs.names import guess
from earnest.logs.settings import is_setting
from earnest.logs.words import BARE_LOSSES, COUNTERS, EPOCH_NAMES, SPLITS, STEP_NAMES, axis_of, words
from earnest.records import loads

ENDLESS = -1
OF = "/of"  # behind the name of a counter: the number that it counts up to
LONGEST = 20_000  # characters of a line that are looked at, and
MOST_SKELETONS = 20_000
MOST_NUMBERS = 6000  # numbers: one private-use character each
N = "[\ue000-\uf8ff]"  # a number of the line, as the patterns below see it
INNER = "[\U00020000-\U00021fff]"  # a number within a name: a letter to the patterns
SPLIT_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
THOUSANDS = {"": 1.0, None: 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
EXAMPLES: list[tuple[re.Pattern[str], str]] = []  # every pattern, with a line that it is for; a test walks them


def _for(example: str, pattern: str, flags: int = 0) -> re.Pattern[str]:
    compiled = re.compile(pattern, flags)
    EXAMPLES.append((compiled, example))
    return compiled


_NUMBER = r"(?<![\w.])([-+]?(?:%s(?:[eE][-+]?\d+)?|(?:nan|inf|infinity)(?!\w)))"
NUMBER = _for(
    "step 1,200 loss 5.75 lr 1e-4 grad nan",
    _NUMBER % r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)",
    re.IGNORECASE,
)
NUMBER_COMMA = _for("step: 1; loss: 0,53", _NUMBER % r"(?:\d+(?:[.,]\d+)?|[.,]\d+)", re.IGNORECASE)
CLOCKS = _for(
    "2026-01-01 10:00:01,123 step 5 loss 3.5",
    rf"{N}[-/.]{N}[-/.]{N}(?:[T ]+{N}:{N}(?::{N})?(?:[,.]{N})?)?|{N}:{N}(?::{N})?(?:[,.]{N})?(?:\s*[AP]M)?"
    rf"|{N}(?=\s*it/s|\s*s/it)",
)
BAR = _for(
    "  3%|▎  | 10/300 [00:05<02:25, 1.99it/s, loss=5.75]",
    rf"^(?P<desc>[^%]*?):?\s*{N}%\s*\|[^|]*\|\s*(?P<n>{N})(?P<k>[kMG]?)/(?P<total>{N})(?P<kk>[kMG]?)\s*"
    r"(?:\[(?P<rest>.*?)\]?\s*)?$",
    re.DOTALL,
)
ENDLESS_BAR = _for(
    "3it [00:03, 11.9it/s, loss=2.5]", rf"^(?P<desc>[^|%]*?):?\s*(?P<n>{N})(?P<k>[kMG]?)it \[(?P<rest>.*?)\]?\s*$"
)
ESPNET = _for("INFO: 1epoch:train:51-100batch: loss=30.2", rf"({N})epoch:(\w+):{N}-({N})batch:")
ESPNET_RESULTS = _for("INFO: 1epoch results: [train] loss=31, [valid] loss=29", rf"({N})epoch results:")
WITHIN_EPOCH = _for(
    "Train Epoch: 1 [640/60000 (1%)]\tLoss: 1.3",
    rf"\bepoch\s*[:=#]?\s*\[?({N})\]?\s*[:|,]?\s*\[?\s*({N})\s*/\s*{N}",
    re.IGNORECASE,
)
LEADING = _for(" 50/100 [==>....] - ETA: 1s - loss: 0.53", rf"^\W*({N})\s*/\s*{N}\s*[\[\]━=|:, ]")
ARROW = _for("Epoch 3: 6.01 → 5.76 (avg loss)", rf"({N})\s*(?:→|->|=>|-->)\s*({N})(?:\s*\(([A-Za-z_ ]+)\))?")
INDEXED = _for(
    "critic (band 2) loss: 0.000 | Codebook 0 loss: 6.49",
    rf"\(?\b(codebook|book|cb|band|scale|period|head|layer|level|quantizer|quantiser)[ #]+({N})\)?(?=\s+[A-Za-z])",
    re.IGNORECASE,
)
ROW = _for(
    "│       │ mel/loss   │ 31.500 │ 31.600 │",
    rf"^\s*[|│][^|│\ue000-\uf8ff]*[|│]?\s*([A-Za-z][\w/. \-]*?)\s*[|│]\s*({N})\s*[|│]",
)
BRACKETED = _for(
    "[0/20][10/32]\tLoss_D: 1.8010\tLoss_G: 8.0963",
    rf"^\W*(?:epoch\s*[:=]?\s*)?\[\s*({N})\s*/\s*{N}\s*\]\s*\[\s*({N})\s*/\s*{N}\s*\]",
    re.IGNORECASE,
)
DARKNET = _for(
    "40245, 4.021: 6.907692, 6.910023 avg, 0.081346 rate, 0.38 seconds, 5151360 images",
    rf"^\s*({N})(?:,\s*{N})?:\s*({N}),\s*({N}) avg(?: loss)?,\s*({N}) rate,",
)
BARE_GAN = _for(
    "Avg : g 1.3729 d 0.0000 ad 0.0000| step 5976", rf"(?<![\w.])[gG]\s*[:=]?\s*({N})\s*[,|]?\s*[dD]\s*[:=]?\s*({N})"
)
LIST = _for("INFO [1.4626, 3.100, 54.2840]", rf"(?P<named>[:=]\s*)?[\[(]\s*({N}(?:\s*,\s*{N}){{2,}})\s*[\])]")
LOSSES = _for(
    "Losses: [2.56, 2.11, 8.75], step: 200", rf"(?i:\b(loss(?:es)?))\s*[:=]\s*\[\s*({N}(?:\s*,\s*{N}){{2,}})\s*\]"
)
SOURCE = _for(
    "2026-01-01 (trainer:87) INFO: loss = 3.5",
    rf"\([\w./\-]+:{N}\)|\[[\w./\-]+\.py:{N}(?::[\w.<>]+)?\]",  # [loss_scaler.py:183:update_scale] too
)
BRACKET = _for("train_loss[loss=75.2, over 900 frames], tot_loss[loss=75.1]", r"([A-Za-z_]\w*)\[[^\[\]]*\]")
HEADING = _for(
    " --> EVAL PERFORMANCE",
    rf"^\W*(?:begin|start)?\s*({SPLIT_WORDS})(?:\s+(?:performance|results?|metrics|summary|set|phase|loop))?\W*$",
    re.IGNORECASE,
)
SECTION = _for(
    "Valid Summary | Epoch 1 | ce 6.0E+00",
    rf"\[({SPLIT_WORDS})\]|(?:^|(?<=[|\-\s]))({SPLIT_WORDS})(?:\s+(?:summary|results?|set))?\s*[:|](?!\s*{N})"
    rf"|(?-i:(?<=\s)({SPLIT_WORDS.upper()})(?=\s+[A-Za-z]))|^\W*({SPLIT_WORDS})\s+(?=epoch\s+{N}\s+[A-Za-z])",
    re.IGNORECASE,
)
# possessive (`++`, `*+`): what a part has taken it keeps, so no line takes more than linear time
PAIR = _for(
    "iteration 100 | learning rate: 1.5E-04 | lm loss: 7.5E+00",
    rf"""(?<![\w./@\-])(?P<name>[A-Za-z_][\w./@\-]{{0,100}}+(?:\ [A-Za-z_][\w./\-]{{0,100}}+){{0,4}}+)['"]?+\s*+"""
    rf"""(?:\([A-Za-z/ ]{{1,8}}\)\s*+)?+(?:(?P<sep>[:=]++(?:\ =)?+|\[)\s*+|(?<=\s))['"~≈\[(]*+\s*+(?:tensor\(\[*+)?+"""
    rf"""(?P<value>{N})(?P<k>[kM](?![A-Za-z]))?""",
)
SHARE = _for(
    "Test set: Average loss: 0.05, Accuracy: 9836/10000 (98%)", rf"\s*/\s*(?P<of>{N})(?:\s*\((?P<percent>{N})%\))?"
)
NUMBERED = _for("Train loss 12 5.946629 Grad Norm 7.3", rf":?\s+(?P<value>{N})(?=\s|$)")  # behind a loss and its step
AT_STEP = _for(
    "Loss at step 100: 2.34",
    rf"\b((?:[A-Za-z]+[ _])?(?:loss|accuracy|perplexity))\s+(?:at|after|for|in|on)\s+"
    rf"(step|iteration|iter|epoch|batch)\s+({N})\s*[:=]\s*(?=(?:tensor\()?{N})",
    re.IGNORECASE,
)
ESTIMATED = _for(
    "Saving dict for global step 500: eval_accuracy = 0.85, loss = 0.72",
    rf"^.*?Saving dict for global step ({N}): (?:global_step = {N}, )?",
)
VALUE_FIRST = _for(
    "0.69 loss @ it 50",
    rf"({N})\s+((?:(?:{SPLIT_WORDS})[ _])?(?:loss|accuracy|perplexity|ppl))\b\s*(?=[@|,;)\]]|$|at\b|after\b|in\b)",
    re.IGNORECASE,
)
CELL_END = _for("| loss 3.5 | lr 0.1 |", rf"(?:/{N})?\s*(?:%|$|[|,;\t]|\s-\s)")
CONFIG_LINE = _for(
    "Namespace(lr=0.0001, max_grad_norm=1.0)", r"^\W*\w*(?:Namespace|Arguments|Args|Config|Configuration)\("
)


class Cell(NamedTuple):
    """Number `place` of the line goes to column `name`, times `factor`, plus `offset`."""

    name: str
    place: int
    factor: float = 1.0
    offset: float = 0.0


class Plan(NamedTuple):
    """What lines with one skeleton hold: rows of cells; `bar`: which number is the progress bar's total, by which bars
    are told apart; `within`: which numbers are within the cells' names."""

    rows: list[list[Cell]]
    bar: int = ENDLESS
    config: bool = False
    within: tuple[int, ...] = ()


NOTHING = Plan([])
BETWEEN = {"to", "from", "than", "above", "below", "about", "around", "by"}  # no name ends in these
LEADING_IN = {"and", "has", "info", "with", "the"}  # nor begins with these


def planned(line: str, pattern: re.Pattern[str], plans: dict[str, Plan]) -> tuple[Plan, list[str]]:
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


def marked(texts: list[str]) -> str:
    """The texts between the numbers of a line -> the line, with a private-use character for each number.

    Long gaps are shortened: they cost the patterns their square.
    """
    first, *others = [re.sub(r"\s{3,}", "  ", re.sub(N, "?", text)) for text in texts]
    return first + "".join(chr(0xE000 + index) + text for index, text in enumerate(others))


def _plan(skeleton: str) -> Plan:
    line = marked(skeleton.split("\0"))
    if CONFIG_LINE.match(line):
        return Plan([_pairs(line, "", known_only=False)], config=True)
    line = DARKNET.sub(r"step: \1, loss: \2, loss_avg: \3, learning_rate: \4,", line)
    line = ESTIMATED.sub(r"step: \1, eval: ", AT_STEP.sub(r"\2: \3, \1: ", line))
    line = BARE_GAN.sub(r"loss_g \1 loss_d \2", line)
    for pattern in (BAR, ENDLESS_BAR):
        if bar := pattern.match(line):
            return _bar_plan(bar)
    if row := ROW.match(line):
        return Plan([[Cell(row[1], _index(row[2]))]])
    cells, line = _counters(line)
    line = INDEXED.sub(
        lambda match: f"{match[1]}_{chr(0x20000 + _index(match[2]))}", SOURCE.sub(" ", CLOCKS.sub(" ", line))
    )
    if (match := LEADING.match(line)) and not cells:
        cells.append(Cell("step", _index(match[1])))
        line = line[match.end() :]
    if match := ARROW.search(line):
        return _arrow_plan(line, match, cells)
    unlisted = LIST.sub(" ", line)
    named = _named(unlisted)
    if any("_".join(words(cell.name)) in COUNTERS for cell in named):  # [Epoch 3 5064/50000][Iteration 781]
        cells = [cell for cell in cells if cell.name != "step"]
    if not any(guess(cell.name) for cell in named):
        named += [Cell(match[2], _index(match[1])) for match in VALUE_FIRST.finditer(unlisted)]
    match = LOSSES.search(line) or (None if named else LIST.search(line))
    if match and not match.groupdict().get("named"):
        named += [Cell(f"list_{number}", _index(char)) for number, char in enumerate(re.findall(N, match[2]), 1)]
    cells = _first_of_each(cells + named)
    within = {ord(char) - 0x20000 for cell in cells for char in re.findall(INNER, cell.name)}
    return Plan([cells], within=tuple(within)) if cells else NOTHING


def _counters(line: str) -> tuple[list[Cell], str]:
    """Epoch and step, if the line has a form of its own for them (espnet, PyTorch's examples), and its rest."""
    if match := ESPNET.search(line):
        steps = [Cell("step", _index(match[3]))] if SPLITS.get(match[2]) == "train" else []
        return [Cell("epoch", _index(match[1])), *steps], f"{match[2]}: " + line[match.end() :]
    if match := ESPNET_RESULTS.search(line):
        return [Cell("epoch", _index(match[1]))], line[match.end() :]
    if match := BRACKETED.match(line):
        return [Cell("epoch", _index(match[1])), Cell("step", _index(match[2]))], line[match.end() :]
    if (match := WITHIN_EPOCH.search(line)) and not line[match.end() :].lstrip().startswith("/"):
        cells = [Cell("epoch", _index(match[1])), Cell("step", _index(match[2]))]
        return cells, line[: match.start()] + " " + line[match.end() :]
    return [], line


def _named(line: str) -> list[Cell]:
    """The numbers that follow a name, in the split that a word before them tells."""
    cells: list[Cell] = []
    start, prefix = 0, ""
    for section in [*SECTION.finditer(line), None]:
        cells += _section(line[start : section.start() if section else len(line)], prefix)
        if section:
            word = next(filter(None, section.groups())).lower()
            start, prefix = section.end(), "" if SPLITS[word] == "train" else word + "/"
    return cells


def name_of(cell: Cell, parts: list[str]) -> str:
    """The column of a cell; a number within its name is the line's own."""
    return re.sub(INNER, lambda match: parts[2 * (ord(match[0]) - 0x20000) + 1], cell.name)


def _section(text: str, prefix: str) -> list[Cell]:
    """A dictionary within the text, else its pairs."""
    left, right = text.find("{"), text.rfind("}")
    if 0 <= left < right:
        quoted = re.sub(rf"""["']?({N})["']?""", r'"\1"', text[left : right + 1])
        quoted = re.sub(r"\b(?:None|True|False)\b", "null", quoted.replace("'", '"'))
        # tensor(2.3, device=...), np.float64(2.3)
        quoted = re.sub(rf'(?<![\w.])[\w.]++\(("{N}")[^)]*\)', r"\1", quoted)
        try:
            row = loads(quoted)
            found = flat(row) if isinstance(row, dict) else {}
            leaves = {name: leaf for name, leaf in found.items() if isinstance(leaf, str) and re.fullmatch(N, leaf)}
            return _pairs(text[:left], prefix) + [
                Cell(_in_split(name, prefix), _index(leaf)) for name, leaf in leaves.items()
            ]
        except (ValueError, AttributeError):
            pass
    return _pairs(text, prefix)


def _pairs(text: str, prefix: str, known_only: bool = True) -> list[Cell]:
    cells: list[tuple[Cell, int]] = []
    for match in PAIR.finditer(text):
        loose = match["sep"] is not None
        if not loose and "|" in text:  # `| name 3.5 |`: a cell of its own
            loose = bool(
                re.search(r"[|,;\t\]]\s*$", text[max(0, match.start() - 20) : match.start()])
                and CELL_END.match(text, match.end())
            )
        name = _name(match["name"], loose)
        place = _index(match["value"])
        share = SHARE.match(text, match.end()) if name else None
        first = not match["sep"] and not text[: match.start()].strip()
        if name and first and _is_loss(name) and (value := NUMBERED.match(text, match.end())):
            cells.append((Cell("step", place), match.start()))
            place = _index(value["value"])
        if name and share and axis_of(name):
            cells.append((Cell(name + OF, _index(share["of"])), match.start()))
        elif share:  # Accuracy: 9836/10000 (98%)
            name, place = (name, _index(share["percent"])) if share["percent"] else (None, place)
        if name:
            factor = THOUSANDS[match["k"]] if known_only else 1.0
            cells.append((Cell(_in_split(name, prefix), place, factor), match.start()))
    return _told_apart(cells, text)


def _is_loss(name: str) -> bool:
    known = guess(name)
    return known is not None and known.key.name == "loss"


def _told_apart(cells: list[tuple[Cell, int]], text: str) -> list[Cell]:
    """Cells of which two have one name: those in a bracket that has a name are called bracket/name."""
    names = [cell.name for cell, _ in cells]
    if len(set(names)) == len(names):
        return [cell for cell, _ in cells]
    brackets = [(match.start(), match.end(), match[1]) for match in BRACKET.finditer(text)]
    out: list[Cell] = []
    for cell, at in cells:
        bracket = next((name for start, stop, name in brackets if start < at < stop), None)
        again = names.count(cell.name) > 1 and bracket
        out.append(cell._replace(name=f"{bracket}/{cell.name}") if again else cell)
    return out


def _in_split(name: str, prefix: str) -> str:
    return name if axis_of(name) or any(word in SPLITS for word in words(name)) else prefix + name


@lru_cache(maxsize=20_000)
def _name(text: str, loose: bool) -> str | None:
    """The longest end of the words before a number that is a known name; of unknown words those that an `=` or `:`
    follows."""
    named = text.rpartition(". ")[2].split()
    while len(named) > 1 and named[0].lower() in LEADING_IN:
        named = named[1:]
    if not loose and named and named[-1].lower() in BETWEEN:  # prose: the loss dropped to 0.5
        return None
    for start in range(len(named)):
        candidate = re.sub(INNER, "0", " ".join(named[start:]))
        known = guess(candidate) is not None and len(words(candidate)) <= 4
        if known or axis_of(candidate) or is_setting(candidate) or candidate.lower() in BARE_LOSSES:
            return " ".join(named[start:])
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
        measured = [cell for cell in described + posted if not axis_of(cell.name.removesuffix(OF))]
        return Plan([_first_of_each(described + posted)]) if measured else NOTHING
    if not plain and not described and not posted:  # "Map", "Loading checkpoint shards"
        return NOTHING
    cells = _first_of_each([*described, *posted, Cell("bar", _index(bar["n"]), THOUSANDS[bar["k"]])])
    return Plan([cells], bar=_index(bar["total"]) if bar.re is BAR else ENDLESS)


def _arrow_plan(line: str, arrow: re.Match[str], cells: list[Cell]) -> Plan:
    """`Epoch 3: 6.01 → 5.76 (avg loss)`: the value at the epoch's start and at its end."""
    before = _pairs(line[: arrow.start()] + arrow[1], "")
    named = next(
        (cell.name for cell in before if cell.place == _index(arrow[1]) and cell.name.lower() not in EPOCH_NAMES), None
    )
    name = (arrow[3] or named or "").strip()
    if not name:
        return NOTHING
    axes = cells + [cell for cell in before if cell.place != _index(arrow[1]) and cell.name != name]
    at_start = [cell._replace(offset=-1.0) for cell in axes if cell.name.lower() in EPOCH_NAMES]
    return Plan([[*at_start, Cell(name, _index(arrow[1]))], [*axes, Cell(name, _index(arrow[2]))]])


def _index(char: str) -> int:
    return ord(char) - 0xE000


def _first_of_each(cells: list[Cell]) -> list[Cell]:
    kept: dict[str, Cell] = {}
    for cell in cells:
        kept.setdefault(cell.name, cell)
    return list(kept.values())

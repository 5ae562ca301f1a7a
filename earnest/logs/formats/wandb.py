"""W&B's offline log, ``run-ID.wandb``, without wandb installed (its newer versions hold no Python reader).

The file is LevelDB's log format (github.com/google/leveldb/blob/main/doc/log_format.md): blocks of 32 KiB, each record
in fragments of CRC (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last), behind a header of 7 bytes,
``:W&B``, magic, version. A record is a protobuf ``Record`` (wandb/proto/wandb_internal.proto): history = 2, config = 5,
run = 17; an item of each has key = 1, nested_key = 2 and value_json = 16.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from earnest.columns import Table
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.formats.proto import fields
from earnest.logs.log import Log, number
from earnest.logs.source import EXPECTED, HOLE, Source
from earnest.records import loads

NAME = "wandb"
BLOCK_BYTES = 32768
MOST_EMPTY_BLOCKS = 2048  # 64 MB
HEADER_BYTES = 7
HISTORY, CONFIG, RUN = 2, 5, 17
VARINT = rb"[\x80-\xff]*+[\x00-\x7f]"
NUMERAL = rb"(-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|NaN|-?Infinity)"
PLAIN_ITEM = re.compile(
    rb"\n%b[\n\x12]%b([^\x00-\x1f\x82]++)\x82\x01%b%b" % (VARINT, VARINT, VARINT, NUMERAL), re.DOTALL
)
# the record's number; history, and its length
BEFORE_ITEMS = re.compile(rb"\x08%b\x12%b" % (VARINT, VARINT), re.DOTALL)
AFTER_ITEMS = re.compile(rb"(?:\x12%b\x08%b)?" % (VARINT, VARINT), re.DOTALL)  # the history's step


def claims(source: Source) -> bool:
    return not source.is_dir and source.raw[:4] == b":W&B"


def read(source: Source) -> Log:
    table, config, damaged = Table(source.notes), dict[str, Any](), 0
    for record in records(source):
        if row := _plain_row(record):
            table.row(row)
            continue
        try:
            for kind, wire, _, begin, end in fields(record):
                if wire != 2:
                    continue
                if kind == HISTORY:
                    table.row(_history(record, begin, end))
                elif kind == CONFIG:
                    config |= _items(record, begin, end)
                elif kind == RUN:
                    for part, part_wire, _, at, until in fields(record, begin, end):
                        if part == 4 and part_wire == 2:
                            config |= _items(record, at, until)
        except (ValueError, IndexError):
            damaged += 1
    if damaged:
        source.notes.append(f"{damaged} records are damaged and were left out")
    if not table.rows:
        raise UserError(
            f"{source.path.name} is a W&B log without history",
            EXPECTED,
            "log something with wandb.log, or pass another file",
        )
    config.pop("_wandb", None)
    return Log(NAME, table.columns(), config=config, notes=source.notes)


def _plain_row(record: bytes) -> dict[str, float] | None:
    """A history record whose items are all numbers, in any order (wandb-core shuffles them), read with one pattern;
    None for any other."""
    before, *items = PLAIN_ITEM.split(record)
    if not items or any(items[2:-1:3]) or not BEFORE_ITEMS.fullmatch(before) or not AFTER_ITEMS.fullmatch(items[-1]):
        return None
    return {_name(key): float(value) for key, value in zip(items[0::3], items[1::3], strict=True)}


@lru_cache(maxsize=10_000)
def _name(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def records(source: Source) -> Iterator[bytes]:
    """Whole records; a fragment cut by a kill ends the reading."""
    empty = 0  # blocks of zeros, one after another
    data, offset, parts = b"", 0, []  # offset: position of data[0] in the file
    at = 0
    for block in source.blocks():
        data, offset, at = data[at:] + block, offset + at, 0 if offset + at else HEADER_BYTES
        while True:
            left = BLOCK_BYTES - (offset + at) % BLOCK_BYTES
            if left < 7:  # a header does not fit: the block's end is padding
                at += left
                continue
            if at + 7 > len(data):
                break
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            if not 1 <= kind <= 4 or length > left - 7:
                damaged = any(data[at : at + 7])
                if damaged:
                    source.notes.append("a block is damaged; its rest was left out")
                empty = 0 if damaged else empty + 1
                if empty == MOST_EMPTY_BLOCKS:
                    source.notes.append(HOLE)
                    return
                at += left
                parts = []
                if at > len(data):
                    break
                continue
            if at + 7 + length > len(data):
                break
            piece = data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind == 1:
                yield piece
            elif kind == 2:
                parts = [piece]
            elif parts:
                parts.append(piece)
                if kind == 4:
                    yield b"".join(parts)
                    parts = []
    if parts or at < len(data):
        source.notes.append("the last record is cut short and was left out")


def _history(record: bytes, start: int, stop: int) -> dict[str, float]:
    cells: dict[str, float] = {}
    for part, wire, _, begin, end in fields(record, start, stop):
        if part == 1 and wire == 2:
            name, text = _item(record, begin, end)
            try:
                value: Any = float(text)  # NaN and Infinity too
            except ValueError:
                value = number(text.strip('"')) if text.startswith('"') else _one_level(name, text, cells)
            if value is not None:
                cells[name] = value
    return cells


def _one_level(name: str, text: str, cells: dict[str, float]) -> None:
    """{"train": {"loss": 3}} logged as one value."""
    if text.startswith("{") and len(text) < 10_000 and '"_type"' not in text:
        try:
            leaves = loads(text)
        except ValueError:
            return
        if not isinstance(leaves, dict):
            return
        cells.update((f"{name}/{leaf}", value) for leaf, cell in leaves.items() if (value := number(cell)) is not None)


def _items(record: bytes, start: int, stop: int) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for part, wire, _, begin, end in fields(record, start, stop):
        if part == 1 and wire == 2:
            name, text = _item(record, begin, end)
            try:
                items[name] = loads(text)
            except ValueError:
                continue
    return items


def _item(record: bytes, start: int, stop: int) -> tuple[str, str]:
    names: list[str] = []
    text = ""
    for part, wire, _, begin, end in fields(record, start, stop):
        if wire == 2 and part in (1, 2):
            names.append(record[begin:end].decode("utf-8", "replace"))
        elif wire == 2 and part == 16:
            text = record[begin:end].decode("utf-8", "replace")
    return "/".join(name for name in names if name), text


FORMAT = Format(NAME, "W&B", 80, claims, read, suffixes=(".wandb",))

"""Typed records from JSON and back: `read` checks what was said against a dataclass or a record of msgspec's, `plain`
writes it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from earnest import streams
from earnest.columns import Json
from earnest.errors import UserError
from earnest.files import read_small
from earnest.streams import Stream

T = TypeVar("T")
MOST_LEAVES = 64  # of one mapping that is taken apart; a longer one is a table
# assumed: no log or configuration has so many lists and tables in one document; as objects they would fill 1 GB
MOST_NODES = 3_000_000
MOST_BYTES = 64 << 20  # of a configuration; tokenizers are read by their own library


def loads(text: str | bytes) -> Json:
    """Plain values from JSON. Raises ValueError for what is none, nested too deep, or over MOST_NODES nodes."""
    nodes = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if nodes > MOST_NODES:
        raise ValueError(f"over {MOST_NODES:,} lists and tables")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a configuration beside weights holds. Raises UserError for anything else, and if the file
    cannot be read."""
    expected, fix = "a configuration: one JSON object", "mend the file, or copy or download it again"
    try:
        stored = loads(read_small(path, MOST_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: {reason}", expected, fix) from error
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds {shortened(stored)}", expected, fix)
    return cast(dict[str, Any], stored)


def read(type_: type[T], value: Any, what: str, fix: str) -> T:
    """Plain JSON values -> `type_`, a dataclass or any annotation; unknown fields are passed over.

    what: names the value in the error · fix: its way out. Raises UserError if the value does not fit the type.
    """
    try:
        return msgspec.convert(value, type_, dec_hook=_decode, str_keys=True)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        expected, _, place = str(error).partition(" - at ")
        where = place.strip("`").removeprefix("$").strip(".") if "[...]" not in place else ""
        raise UserError(
            f"{what}{f' at {where}' if where else ''} = {shortened(value)}", _in_words(expected), fix
        ) from error


def plain(value: Any) -> Any:
    """A record -> what JSON holds: dataclasses, msgspec's records and mappings become objects, tuples and numpy's
    arrays lists, streams their names; a field that is None is left out."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(item) for name, item in msgspec.structs.asdict(value).items() if item is not None}
    if is_dataclass(value) and not isinstance(value, type | Stream):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain(item) for name, item in named.items() if item is not None}
    if isinstance(value, Mapping):
        table = cast(Mapping[Any, Any], value)
        return {str(name): plain(item) for name, item in table.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, HasList):  # a number or array of numpy, or a tensor
        return value.tolist()
    return str(value) if isinstance(value, Stream) else value


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings -> (dotted name, value); one of more than `MOST_LEAVES` entries is a value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and 0 < len(cast(Mapping[str, Any], value)) <= MOST_LEAVES:
            yield from leaves(cast(Mapping[str, Any], value), f"{before}{name}.")
        else:
            yield f"{before}{name}", value


@runtime_checkable
class HasList(Protocol):
    """What becomes numbers, or lists of them, by its own means."""

    def tolist(self) -> Any: ...


def shortened(value: Any, most: int = 60) -> str:
    """A value in few characters, for a message."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table {name: value}",
    "null": "nothing",
}


def _in_words(expected: str) -> str:
    """msgspec's message in plain words: "Expected `int` >= 2" -> "a whole number >= 2"."""
    named = re.sub(
        r"`([\w | ]+)`", lambda found: " or ".join(WORDS.get(one, one) for one in found[1].split(" | ")), expected
    )
    return re.sub(r", got .*|Invalid ", "", named).removeprefix("Expected ")


def _decode(type_: type, value: Any) -> Any:
    if type_ is Stream and isinstance(value, str):
        return streams.parse(value)
    raise ValueError(f"Expected `{type_.__name__}`")

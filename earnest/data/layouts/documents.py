"""Lists of clips in JSON or parquet: a row for each object, or for each part of a recording that an object names.

Manifests of NeMo, Qwen3-TTS and moshi are flat. Lhotse's cuts name their audio under `recording`, and what is said
under `supervisions`; GigaSpeech and whisper give a recording and the `segments` of it: whatever the nesting, a row is
what stands around the innermost object that has a text.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from earnest.data.layouts.beside import as_cell
from earnest.data.layouts.opened import full_lines, text_of, unreadable
from earnest.data.layouts.roles import NAMES, is_header, names_audio, plain_name
from earnest.records import loads

EXPECTED = "one JSON object a line, or a list of them, in UTF-8"
PARTS = ("audios", "segments", "supervisions", "utterances")  # what a list of parts is called
LISTS = ("data", "items", "clips", *PARTS)  # what one document calls its list
OWN = frozenset(name for role in ("text", "start_s", "end_s", "duration_s") for name in NAMES[role])  # of each part


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line or number, {column: cell}) of one object a line, a list of objects, or one object of names: {file: text} or
    {file: {...}}; an empty field is left out. Raises UserError for what is not JSON."""
    for number, fields in json_objects(path):
        for row in _parts(fields, {}, 0.0):
            yield number, row


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """`json_rows` of metadata.parquet, which audiofolders of the Hub may have. Raises UserError for what is not
    parquet."""
    import polars as pl

    try:
        schema = pl.read_parquet_schema(path)
        plain = [name for name, type_ in schema.items() if not type_.is_nested() and type_ != pl.Binary]
        rows = pl.read_parquet(path, columns=plain)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, 0, error, "a table in parquet", "download it again") from error
    for number, row in enumerate(rows.iter_rows(named=True), 1):
        yield number, {name: as_cell(value) for name, value in row.items() if value is not None}


def _parts(fields: Mapping[str, Any], around: Mapping[str, str], start_s: float) -> Iterator[dict[str, str]]:
    """The rows of an object: one, or one for each part of a recording; `around` is what the objects about it say."""
    row, parts = {**around}, list[dict[str, Any]]()
    for name, value in fields.items():
        if name in PARTS and (objects := _objects(value)):
            parts = objects
        elif isinstance(value, dict) and "path" not in value:  # the recording of a cut, and its sources
            nested = cast(dict[str, Any], value)
            for inner, cell in [*nested.items(), *(_objects(nested.get("sources")) or [{}])[0].items()]:
                if not isinstance(cell, dict | list) and cell is not None and inner not in OWN and inner not in fields:
                    row.setdefault(inner, as_cell(cell))
        elif value is not None:
            row[name] = as_cell(value)
    begins = next((name for name in NAMES["start_s"] if name in fields), "")
    start_s += _seconds(fields.get(begins))
    if not parts:
        yield row | ({begins: f"{start_s:g}"} if begins and start_s else {})
        return
    shared = {name: cell for name, cell in row.items() if plain_name(name) not in OWN}
    for part in parts:
        yield from _parts(part, shared, start_s)


def _objects(value: object) -> list[dict[str, Any]]:
    """A list of objects, or an empty one."""
    items = cast(list[Any], value) if isinstance(value, list) else []
    return cast(list[dict[str, Any]], items) if items and all(isinstance(item, dict) for item in items) else []


def _seconds(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or number, object). Raises UserError for what is not JSON."""
    number = 0
    try:
        full = (text for _, text in full_lines(path))
        first, second = next(full, ""), next(full, "")
        # one object in one line is a line, unless it is a .json of other names: {"a.wav": "a text"}
        names = loads(first) if _is_object(first) else None
        of_lines = isinstance(names, dict) and (
            bool(second) or not path.name.lower().removesuffix(".gz").endswith(".json") or is_header(list(names))
        )
        of_lines = of_lines and (bool(second) or not _is_table(cast(dict[str, Any], names)))
        if of_lines:
            for number, text in full_lines(path):
                yield number, _object(loads(text))
            return
        for number, item in enumerate(_listed(loads(text_of(path))), 1):
            yield number, _object(item)
    except ValueError as error:
        raise unreadable(path, number, error, EXPECTED) from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(loads(line), dict)
    except ValueError:
        return False


def _listed(value: Any) -> Iterable[Any]:
    """The objects of a JSON value. A map of names is a list of what they name, a map of columns a table; a document
    with a list is that list, each with what the document says of all."""
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        inner = next((fields[name] for name in LISTS if _objects(fields.get(name))), None)
        if isinstance(inner, list):
            of_all = {name: cell for name, cell in fields.items() if isinstance(cell, str) and name not in OWN}
            return [{**of_all, **item} for item in cast(list[dict[str, Any]], inner)]
        if _is_table(fields):
            return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
        if is_header(list(fields)) and not any(map(names_audio, fields)):
            return [fields]
        return [
            {"audio": name, **(cast(dict[str, Any], item) if isinstance(item, dict) else {"text": item})}
            for name, item in fields.items()
        ]
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__}")
    return cast(list[Any], value)


def _is_table(fields: Mapping[str, Any]) -> bool:
    """Whether names are those of columns, each with all its cells, as `Dataset.to_dict` and pandas give them."""
    lengths = {len(cast(list[Any], cells)) if isinstance(cells, list) else 0 for cells in fields.values()}
    return is_header(list(fields)) and len(lengths) == 1 and max(lengths) > 1


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:40]!r} is no object")
    return cast(dict[str, Any], value)

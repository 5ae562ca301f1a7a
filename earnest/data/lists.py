"""Lists of clips: tables with or without a header between commas, bars or tabs, JSON lines, JSON; and the rows of each.

A list is told by its contents, not by its name: its header bears known names, or its cells find audio files.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, cast

from earnest.data.beside import as_cell
from earnest.data.paths import AudioFiles
from earnest.data.roles import Role, chosen_columns, guessed_names, is_header, named_roles, names_audio
from earnest.errors import UserError
from earnest.records import loads

SUFFIXES = (".csv", ".tsv", ".txt", ".list", ".lst", ".psv", ".json", ".jsonl", ".ndjson", ".manifest")
NAMES = ("text", "transcript", "transcripts")  # Kaldi's `text` has no suffix
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".manifest")
SAMPLE = 200  # rows that decide what a list is
Row = dict[str, str]


@dataclass(frozen=True)
class ClipList:
    """A list and what its columns are; `rows` reads it."""

    path: Path
    here: PurePosixPath
    """Its folder, relative to the root."""
    form: "Form"
    roles: Mapping[Role, tuple[str, ...]]
    found: bool
    """Whether a sample of its rows finds audio files."""

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(line, {column: cell}). Raises UserError that names the line of a row that does not fit."""
        return self.form.rows(self.path)


@dataclass(frozen=True)
class Form:
    """How a list is written. `delimiter`: None for JSON; "" for an identifier, blanks or a colon, and the text."""

    delimiter: str | None
    columns: tuple[str, ...] = ()
    header: bool = True
    titles: tuple[str, ...] = ()
    """What a header calls the columns, if their names are guessed in spite of it."""

    def rows(self, path: Path) -> Iterator[tuple[int, Row]]:
        if self.delimiter is None:
            yield from _json_rows(path)
            return
        for line, cells in islice(_cells(path, self.delimiter), int(self.header), None):
            if len(cells) != len(self.columns):
                comma = self.delimiter == ","
                raise UserError(
                    f"{path}:{line} does not have the {len(self.columns)} columns of the "
                    + ("header" if self.header else "lines before it"),
                    f"a table in UTF-8 with {'commas' if comma else repr(self.delimiter)} between its columns",
                    "put texts with commas between double quotes" if comma else "mend the line",
                )
            yield line, dict(zip(self.columns, cells, strict=True))


def read_list(path: Path, root: AudioFiles, words: Sequence[str] = ()) -> ClipList | None:
    """What a file is as a list of clips; None if it is none. words: the user's ROLE=COLUMN.

    Raises UserError for a list that is not in UTF-8, whose lines do not fit, or that lacks a column the user named.
    """
    here = PurePosixPath(path.parent.relative_to(root.root).as_posix()) if path.is_relative_to(root.root) else None
    here = here or PurePosixPath(path.parent.as_posix())
    form = Form(None) if _is_json(path) else _form_of_text(path, lambda cell: root.is_audio(cell, here))
    if form is None:
        return None
    sample = [row for _, row in islice(form.rows(path), SAMPLE)]
    columns = list(form.columns) or list(dict.fromkeys(column for row in sample for column in row))
    chosen: dict[Role, str] = {role: _column(name, columns, form) for role, name in chosen_columns(words).items()}
    roles = named_roles(columns, chosen, path)
    if "audio" not in roles:
        return None
    shares = {
        column: sum(root.is_audio(row.get(column, ""), here) for row in sample) for column in roles["audio"]
    }  # `id` beside `path`, `path` beside an empty `audio`: the one that finds the files
    best = max(shares, key=shares.__getitem__, default="")
    roles["audio"] = (best,) if shares.get(best) else roles["audio"][:1]
    return ClipList(path, here, form, roles, bool(shares.get(best)))


def _column(name: str, columns: Sequence[str], form: Form) -> str:
    """A column that the user named; of a list without a header they may count: --data.columns text=3."""
    if name in form.titles:
        return columns[form.titles.index(name)]
    if name not in columns and name.isdecimal() and not form.header and 1 <= int(name) <= len(columns):
        return columns[int(name) - 1]
    return name


# --- text
# ---------------------------------------------------------------------------------------------------------------


def _form_of_text(path: Path, is_audio: Callable[[str], bool]) -> Form | None:
    """How a table in text is written, from its first lines."""
    lines = list(islice(_lines(path), SAMPLE))
    if not lines:
        return None
    delimiter = _delimiter(path, [line for _, line in lines])
    if delimiter == "":
        pairs = [cells for _, cells in islice(_cells(path, ""), SAMPLE)]
        finds = sum(is_audio(cells[0]) for cells in pairs)
        return Form("", ("audio", "text"), header=False) if finds > len(pairs) / 2 else None
    rows = [cells for _, cells in islice(_cells(path, delimiter), SAMPLE)]
    if not rows:
        return None
    if is_header(rows[0]) and not any(is_audio(cell) for cell in rows[0]):
        return Form(delimiter, tuple(cell.strip() for cell in rows[0]))
    width = max(set(map(len, rows)), key=[len(cells) for cells in rows].count)
    names = guessed_names([cells for cells in rows if len(cells) == width], is_audio)
    if "audio" in names:
        titles = (
            () if _of_audio(rows[0], is_audio) or not all(_of_audio(row, is_audio) for row in rows[1:]) else rows[0]
        )
        return Form(delimiter, tuple(names), bool(titles), tuple(title.strip() for title in titles))
    # a table whose header has other names: its columns can be chosen
    return Form(delimiter, tuple(cell.strip() for cell in rows[0])) if path.suffix in (".csv", ".tsv") else None


def _of_audio(cells: Sequence[str], is_audio: Callable[[str], bool]) -> bool:
    return any(is_audio(cell) or names_audio(cell) for cell in cells)


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    """What stands between the columns: what every line has, of a bar, a tab or a semicolon; else the comma of a csv, or
    "" if an identifier and blanks begin each line."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    for delimiter in ("|", "\t"):
        if all(delimiter in line for line in lines):
            return delimiter
    if path.suffix.lower() != ".csv":
        return ""
    return ";" if all(";" in line for line in lines) and is_header(lines[0].split(";")) else ","


def _cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a table; the empty column of a list with ``||`` between its columns is left out."""
    if delimiter in (",", ";"):
        yield from _csv_cells(path, delimiter)
        return
    for line, text in _lines(path):
        if delimiter == "":
            # JSUT `id:text`; LibriSpeech, Kaldi `id text`
            match = re.match(r"\s*([^\s:]+)(?::|\s+)\s*(.*)", text)
            yield line, [match[1], match[2]] if match else [text.strip(), ""]
        else:
            yield line, [_unquoted(cell) for cell in text.split("||" if "||" in text else delimiter)]


def _unquoted(cell: str) -> str:
    """Quotes are letters between bars and tabs, but for those of a writer that doubled the ones inside."""
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _csv_cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            for cells in reader:
                line = reader.line_num
                if cells:
                    yield line, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, line, error, "a CSV table with a header, in UTF-8") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file, without empty lines."""
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _unreadable(path, number, error, "text in UTF-8") from error


def _unreadable(path: Path, line: int, error: Exception, expected: str) -> UserError:
    return UserError(f"{path}, after line {line}: {error}", expected, "mend the file")


# --- JSON
# ---------------------------------------------------------------------------------------------------------------


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in JSON_SUFFIXES


def is_conversations(path: Path) -> bool:
    """Whether a JSON file holds conversations (`chatml`), rather than a list of clips."""
    if not _is_json(path) or not path.is_file():
        return False
    row = next((row for _, row in _json_objects(path)), {})
    return "messages" in row or "samples" in row


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """One object a line, a list of objects, or one object of names: {file: text} or {file: {...}}; an empty field is
    left out."""
    for number, fields in _json_objects(path):
        yield number, {column: as_cell(value) for column, value in fields.items() if value is not None}


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    expected = "one JSON object a line, or a list of them, in UTF-8"
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            full = (line for line in file if line.strip())
            first, second = next(full, ""), next(full, "")
            # one object in one line is a line, unless it is a .json of other names: {"a.wav": "a text"}
            names = loads(first) if _is_object(first) else None
            lines = isinstance(names, dict) and (
                bool(second) or path.suffix.lower() != ".json" or is_header(list(names))
            )
            file.seek(0)
            if lines:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        yield number, _object(loads(text))
                return
            for number, item in enumerate(_listed(loads(file.read())), 1):
                yield number, _object(item)
    except ValueError as error:
        raise _unreadable(path, number, error, expected) from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(loads(line), dict)
    except ValueError:
        return False


def _listed(value: Any) -> Iterable[Any]:
    """The objects of a JSON value; a map of names is a list of what they name."""
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        inner = next((fields[name] for name in ("data", "items", "clips", "utterances") if name in fields), None)
        if isinstance(inner, list):
            return cast(list[Any], inner)
        return [
            {"audio": name, **(cast(dict[str, Any], item) if isinstance(item, dict) else {"text": item})}
            for name, item in fields.items()
        ]
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__}")
    return cast(list[Any], value)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}")
    return cast(dict[str, Any], value)

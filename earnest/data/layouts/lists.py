"""Lists of clips: tables with or without a header between commas, bars or tabs, JSON lines, JSON; and the rows of each.

A list is told by its contents, not by its name: its header bears known names, or its cells find audio files.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from earnest.data.layouts.documents import json_objects, json_rows, parquet_rows
from earnest.data.layouts.joined import WAVES, fairseq_rows, is_fairseq, kaldi_rows
from earnest.data.layouts.opened import full_lines, lines_of, opened, unreadable
from earnest.data.layouts.paths import AudioFiles
from earnest.data.layouts.roles import (
    Role,
    chosen_columns,
    guessed_names,
    is_header,
    named_roles,
    names_audio,
    plain_name,
)
from earnest.errors import UserError

SUFFIXES = frozenset(
    (".csv", ".tsv", ".txt", ".list", ".lst", ".psv", ".data", ".json", ".jsonl", ".ndjson", ".manifest", ".parquet")
)
NAMES = ("text", "transcript", "transcripts", WAVES)  # Kaldi's `text` has no suffix
WEAK = ("source", "recording_id", "ytid", "youtube_id")  # which name many things; they count if they find files
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".manifest")
MOST_FIND = 0.5  # assumed: a column whose name says nothing names the files if so many of its cells find one
SAMPLE = 200  # rows that decide what a list is
FESTVOX = re.compile(r'\(\s*(\S+)\s+"(.*)"\s*\)')  # CMU Arctic: ( arctic_a0001 "a text" )
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
    """How a list is written. `delimiter`: "" for an identifier, blanks or a colon, and the text. `read`: what reads a
    list that is no table."""

    delimiter: str = ""
    columns: tuple[str, ...] = ()
    header: int = 1
    """Lines before the rows."""
    titles: tuple[str, ...] = ()
    """What a header calls the columns, if their names are guessed in spite of it."""
    read: Callable[[Path], Iterator[tuple[int, Row]]] | None = None

    def rows(self, path: Path) -> Iterator[tuple[int, Row]]:
        if self.read:
            yield from self.read(path)
            return
        for line, cells in islice(_cells(path, self.delimiter), self.header, None):
            if not self.header and not cells[0].strip():
                continue  # Databaker: the sounds of the clip in the line before
            if self.delimiter == "\t" and self.header and len(cells) > len(self.columns):
                most = len(self.columns) - 1  # MTG-Jamendo: the last column is a list
                cells = [*cells[:most], ", ".join(cells[most:])]
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
    form = _form(path, lambda cell: root.is_audio(cell, here))
    if form is None:
        return None
    sample = [row for _, row in islice(form.rows(path), SAMPLE)]
    columns = list(form.columns) or list(dict.fromkeys(column for row in sample for column in row))
    chosen: dict[Role, str] = {role: _column(name, columns, form) for role, name in chosen_columns(words).items()}
    roles = named_roles(columns, chosen, path)
    candidates = roles.get("audio", ())
    if not candidates:  # the column that finds files, whatever its name
        taken = {column for named in roles.values() for column in named}
        candidates = tuple(column for column in columns if column not in taken)
    shares = {column: sum(root.is_audio(row.get(column, ""), here) for row in sample) for column in candidates}
    # `id` beside `path`, `path` beside an empty `audio`: the one that finds the files
    best = max(shares, key=shares.__getitem__, default="")
    found = bool(shares.get(best)) and ("audio" in roles or shares[best] > MOST_FIND * len(sample))
    if not found and (plain_name(candidates[0] if candidates else "") in WEAK or "audio" not in roles):
        return None
    roles["audio"] = (best,) if found else roles["audio"][:1]
    return ClipList(path, here, form, roles, found)


def _form(path: Path, is_audio: Callable[[str], bool]) -> Form | None:
    if path.name == WAVES:
        return Form(read=kaldi_rows)
    if is_fairseq(path):
        return Form(read=fairseq_rows)
    if path.suffix.lower() == ".parquet":
        return Form(read=parquet_rows)
    return Form(read=json_rows) if _is_json(path) else _form_of_text(path, is_audio)


def _column(name: str, columns: Sequence[str], form: Form) -> str:
    """A column that the user named; of a list without a header they may count: --data.columns text=3."""
    if name in form.titles:
        return columns[form.titles.index(name)]
    if name not in columns and name.isdecimal() and not form.header and 1 <= int(name) <= len(columns):
        return columns[int(name) - 1]
    return name


# --- text -------------------------------------------------------------------------------------------------------------


def _form_of_text(path: Path, is_audio: Callable[[str], bool]) -> Form | None:
    """How a table in text is written, from its first lines."""
    lines = list(islice(full_lines(path), SAMPLE))
    if not lines:
        return None
    delimiter = _delimiter(path, [line for _, line in lines])
    if delimiter == "":
        pairs = [cells for _, cells in islice(_cells(path, ""), SAMPLE)]
        finds = sum(is_audio(cells[0]) for cells in pairs)
        return Form("", ("audio", "text"), header=0) if finds > len(pairs) / 2 else None
    rows = [cells for _, cells in islice(_cells(path, delimiter), SAMPLE)]
    if not rows:
        return None
    if is_header(rows[0]) and not any(is_audio(cell) for cell in rows[0]):
        return Form(delimiter, tuple(cell.strip() for cell in rows[0]))
    width = max(set(map(len, rows)), key=[len(cells) for cells in rows].count)
    names = guessed_names([cells for cells in rows if len(cells) == width], is_audio)
    if "audio" in names:
        heads = next((place for place, row in enumerate(rows) if _of_audio(row, is_audio)), 0)  # FMA's table has three
        heads = heads if all(_of_audio(row, is_audio) for row in rows[heads:]) else 0
        return Form(delimiter, tuple(names), heads, tuple(title.strip() for title in rows[heads - 1]) if heads else ())
    # a table whose header has other names: its columns can be chosen
    return Form(delimiter, tuple(cell.strip() for cell in rows[0])) if path.suffix in (".csv", ".tsv") else None


def _of_audio(cells: Sequence[str], is_audio: Callable[[str], bool]) -> bool:
    return any(is_audio(cell) or names_audio(cell) for cell in cells)


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    """What stands between the columns: what every line has, of a bar, a tab or a semicolon; else the comma of a csv, or
    "" if an identifier and blanks begin each line."""
    if path.name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    for delimiter in ("|", "\t", "=="):
        if all(delimiter in line for line in lines):
            return delimiter
    if not path.name.lower().removesuffix(".gz").endswith(".csv"):
        return ""
    return ";" if all(";" in line for line in lines) and is_header(lines[0].split(";")) else ","


def _cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a table; the empty column of a list with ``||`` between its columns is left out."""
    if delimiter in (",", ";"):
        yield from _csv_cells(path, delimiter)
        return
    for line, text in full_lines(path):
        if delimiter == "":
            # JSUT `id:text`; LibriSpeech, Kaldi `id text`
            match = FESTVOX.fullmatch(text.strip()) or re.match(r"\s*([^\s:]+)(?::|\s+)\s*(.*)", text)
            yield line, [match[1], match[2]] if match else [text.strip(), ""]
        else:
            yield (
                line,
                [_unquoted(cell) for cell in text.split("||" if delimiter == "|" and "||" in text else delimiter)],
            )


def _unquoted(cell: str) -> str:
    """A cell between bars or tabs. Quotes there are letters of the text, unless a CSV writer put the cell in quotes and
    doubled those inside."""
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _csv_cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        with opened(path, newline="") as file:
            reader = csv.reader(lines_of(file, path), strict=True, delimiter=delimiter)
            for cells in reader:
                line = reader.line_num
                if cells:
                    yield line, cells
    except (csv.Error, UnicodeError) as error:
        way = "close the double quote that a cell opens; one within a cell is written twice"
        if "field larger" in str(error):
            way += f"; a text has at most {csv.field_size_limit():,} characters"
        raise unreadable(path, line, error, "a CSV table with a header, in UTF-8", way) from error


# --- JSON -------------------------------------------------------------------------------------------------------------


def _is_json(path: Path) -> bool:
    return PurePosixPath(path.name.lower().removesuffix(".gz")).suffix in JSON_SUFFIXES


def is_list(path: Path) -> bool:
    """Whether a file may be a list, by its name."""
    return PurePosixPath(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES or path.name in NAMES


def is_conversations(path: Path) -> bool:
    """Whether a JSON file holds conversations (`chatml`), rather than a list of clips."""
    if not _is_json(path) or not path.is_file():
        return False
    row = next((row for _, row in json_objects(path)), {})
    return "messages" in row or "samples" in row

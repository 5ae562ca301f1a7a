"""TensorBoard event files, and a tree of them.

A record is length (uint64), CRC of it (4 bytes), data, CRC of it (4 bytes), all little-endian
(tensorflow/core/lib/io/record_writer.h). The data is an ``Event``: wall_time = 1 (double), step = 2, file_version = 3,
summary = 5; a ``Summary`` holds values = 1, each tag = 1, simple_value = 2 (float), tensor = 8, metadata = 9
(tensorflow/core/util/event.proto, framework/summary.proto).

A scalar's record differs from its neighbour's in the wall time, the step and four bytes of value. So records of one
length are laid out as a matrix, a row is walked once per kind of record (tag, length of the step), and the columns of
the matrix are the fields. CRCs are not checked (most of the time of TensorBoard's own reader); a broken chain of
lengths ends the reading, as a damaged file would.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from earnest.columns import Column, Grown
from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.formats.proto import fields
from earnest.logs.log import Log
from earnest.logs.source import EXPECTED, FIX, HOLE, Source
from earnest.logs.words import SPLITS

NAME = "tensorboard"
FRAME_BYTES = 16
BLOCK_BYTES = 1 << 20  # of a block's records there are a dozen arrays
SHORT_BYTES = 512  # longer records are no scalars: images, histograms, text
LONGEST_BYTES = 1 << 31
LONGEST_READ_BYTES = 8 << 20  # longer ones are passed over: no configuration has so many letters
MOST_SHARED = 100  # arrays of rows that a tag's are compared with
# tensorflow/core/framework/types.proto
FLOAT_TYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}
FLOAT_FIELDS = {5: np.dtype("<f4"), 6: np.dtype("<f8")}  # TensorProto: float_val, double_val, packed


Pieces = dict[str, tuple[Grown, Grown]]  # tag -> record numbers, and values as they are stored


def claims(source: Source) -> bool:
    if source.is_dir:
        return next(_files_of_run(source.path), None) is not None
    return (
        source.raw[8 + 4 : 13 + 4][:1] == b"\x09" and source.raw[1:8] == bytes(7) and b"brain.Event:" in source.raw[:64]
    )


def _event_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*tfevents*") if path.is_file())


def read(source: Source) -> Log:
    """One file, or a directory: its files in the order they were begun, and the writers below it that belong to the
    run."""
    log = Log(NAME, {}, notes=source.notes)
    gathered: dict[str, list[Column]] = {}
    steps: list[np.ndarray] = []
    rows = 0
    for prefix, path in _files_of_run(source.path) if source.is_dir else [("", source.path)]:
        file = source if path == source.path else Source(path)
        tags, step, texts = _scalars(file)
        if file is not source:
            log.notes += [f"{path.name}: {note}" for note in file.notes]
        shifted = {id(row): row + rows if rows else row for row, _ in tags.values()}  # those that tags share stay so
        for tag, (row, value) in tags.items():
            gathered.setdefault(prefix + tag, []).append(Column(shifted[id(row)], value))
        log.config |= texts
        steps.append(step)
        rows += len(step)
    log.columns = _joined(gathered)
    log.step = np.concatenate(steps) if steps else np.zeros(0, np.int64)
    if not gathered:
        raise UserError(f"{source.path.name} holds TensorBoard events without a scalar", EXPECTED, FIX)
    return log


def _joined(gathered: dict[str, list[Column]]) -> dict[str, Column]:
    """The pieces of each column joined into one column. Columns that shared arrays of rows share the joined array
    too."""
    rows: dict[tuple[int, ...], np.ndarray] = {}
    columns: dict[str, Column] = {}
    for name, pieces in gathered.items():
        places = tuple(id(piece.row) for piece in pieces)
        if len(pieces) > 1 and places not in rows:
            rows[places] = np.concatenate([piece.row for piece in pieces])
        one = len(pieces) == 1
        columns[name] = pieces[0] if one else Column(rows[places], np.concatenate([piece.value for piece in pieces]))
    return columns


def _files_of_run(folder: Path) -> Iterator[tuple[str, Path]]:
    """(prefix of its tags, file). Keras writes train/ and validation/, add_scalars a folder a curve, add_hparams one
    named by the time."""
    yield from (("", path) for path in sorted(_event_files(folder), key=_begun))
    for below in _below(folder):
        prefix = "" if re.fullmatch(r"\d+\.\d+", below.name) else f"{below.name}/"
        yield from ((prefix, path) for path in sorted(_event_files(below), key=_begun))


def _below(folder: Path) -> list[Path]:
    """The folders below one whose events are of the same run: a split, a time stamp, or a curve of add_scalars."""
    has_events = any(_event_files(folder))  # asked once: there may be thousands of folders
    return sorted(path for path in folder.iterdir() if path.is_dir() and _belongs(path, has_events))


def _belongs(below: Path, beside_events: bool) -> bool:
    if below.name.lower() in SPLITS or re.fullmatch(r"\d{9,}\.\d+", below.name):
        return True
    return (
        beside_events
        and not any(path.is_dir() for path in below.iterdir())
        and not re.match(r"version_|run|exp", below.name)
    )


def _begun(path: Path) -> tuple[int, str]:
    match = re.search(r"tfevents\.(\d+)", path.name)
    return int(match[1]) if match else 0, path.name


def _scalars(source: Source) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray, dict[str, Any]]:
    """tag -> (record number, value), the step of every record, and the configuration that text summaries hold."""
    pieces: Pieces = {}
    steps = Grown(np.dtype(np.int32))
    texts: dict[str, Any] = {}
    rows = 0
    for data, start_N, length_N in _records(source):
        step_N = np.zeros(len(start_N), np.int64)
        for length in np.unique(length_N[length_N <= SHORT_BYTES]):
            same = np.flatnonzero(length_N == length)
            _of_one_length(data, start_N[same], int(length), same, step_N, rows, pieces)
        for index in np.flatnonzero(length_N > SHORT_BYTES):
            step_N[index] = _long(data, int(start_N[index]), int(length_N[index]), texts)
        steps.add(step_N.astype(_narrow(max(int(step_N.max()), -int(step_N.min())))))
        rows += len(step_N)
    return *_in_rows(pieces, steps.array), texts


def _in_rows(pieces: Pieces, step_N: np.ndarray) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """tag -> (row, value), and the step of every row. Neighbouring records of one step are a row, if no tag is twice in
    one: tags that are always written together then share one array of rows, and one of steps later on."""
    first_R = np.flatnonzero(np.append(True, step_N[1:] != step_N[:-1])[: len(step_N)])  # record of each row
    rows = _rows_of(pieces, first_R)
    if any((np.diff(row) == 0).any() for row in rows.values()):
        first_R = np.arange(len(step_N))
        rows = _rows_of(pieces, first_R)
    tags: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for tag in list(pieces):
        record, value = (grown.array for grown in pieces.pop(tag))
        if (record[1:] < record[:-1]).any():
            value = value[np.argsort(record, kind="stable")]
        tags[tag] = rows[tag], value.astype(np.float64)
    return tags, step_N[first_R].astype(np.int64)


def _rows_of(pieces: Pieces, first_R: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each tag's records; tags of the same rows have the same array."""
    rows: dict[str, np.ndarray] = {}
    shared: list[np.ndarray] = []
    for tag, (record, _) in pieces.items():
        record_N = record.array
        if (record_N[1:] < record_N[:-1]).any():  # one chunk's lengths come one after another
            record_N = np.sort(record_N)
        row = np.searchsorted(first_R, record_N, side="right") - 1
        known = next((other for other in shared[:MOST_SHARED] if np.array_equal(other, row)), row)
        if known is row:
            shared.append(row)
        rows[tag] = known
    return rows


def _narrow(largest: int) -> np.dtype[Any]:
    """A signed type of few bytes for whole numbers from 0 on."""
    return np.dtype(np.int32 if largest < 2**31 else np.int64)


def _records(source: Source) -> Iterator[tuple[bytes, np.ndarray, np.ndarray]]:
    """Chunks of whole records: the bytes, where each record's data starts, and its length."""
    rest, passed = b"", 0  # passed: bytes to pass over, of a record too long for a scalar or of a hole
    for block in source.blocks(BLOCK_BYTES):
        if passed >= len(block):
            passed -= len(block)
            continue
        data, passed = rest + block[passed:], 0
        start_N, length_N, end, broken = _chain(data)
        if len(start_N):
            yield data, start_N, length_N
        rest = data[end:]
        length = int.from_bytes(rest[:8], "little")
        if broken and not any(rest[:FRAME_BYTES]):
            source.notes.append(HOLE)
            return
        if broken:
            source.notes.append("the chain of records breaks (a damaged file?); what came before was read")
            return
        if len(rest) >= 8 and length > LONGEST_READ_BYTES:
            rest, passed = b"", FRAME_BYTES + length - len(rest)
    if rest or passed:
        source.notes.append("the last record is cut short and was left out")


def _chain(data: bytes) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """Follow lengths from record to record.

    Guess every place that looks like the start of a short event (seven high bytes of the length 0, data starting with
    wall_time's tag); if each guess's end is the next guess, the guesses are the chain. A plain walk bridges the places
    between.
    """
    size = len(data)
    bytes_N = np.frombuffer(data, np.uint8)
    if size < FRAME_BYTES:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 0, False
    looks = bytes_N[12:-1] == 0x09
    for offset in range(2, 8):
        looks &= bytes_N[offset : offset + len(looks)] == 0
    guess_N = np.flatnonzero(looks)
    length_N = bytes_N[guess_N].astype(np.int64) | bytes_N[guess_N + 1].astype(np.int64) << 8
    next_N = guess_N + FRAME_BYTES + length_N
    follows_N = np.append(next_N[:-1] == guess_N[1:], False)
    breaks = np.flatnonzero(~follows_N)
    starts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    at, broken = 0, False
    while at + FRAME_BYTES <= size:
        index = int(np.searchsorted(guess_N, at))
        if index < len(guess_N) and guess_N[index] == at:
            # the guesses up to here are a chain, and the last of them is a record
            stop = int(breaks[np.searchsorted(breaks, index)]) + 1
            if next_N[stop - 1] > size:
                stop -= 1
            if stop > index:
                starts.append(guess_N[index:stop])
                lengths.append(length_N[index:stop])
                at = int(next_N[stop - 1])
                continue
        length = int.from_bytes(data[at : at + 8], "little")
        if not 0 < length <= LONGEST_BYTES:  # an event holds a time at least: length 0 is a hole
            broken = True
            break
        if at + FRAME_BYTES + length > size:
            break
        starts.append(np.array([at]))
        lengths.append(np.array([length]))
        at += FRAME_BYTES + length
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), at, broken
    return np.concatenate(starts).astype(np.int64) + 12, np.concatenate(lengths).astype(np.int64), at, broken


def _of_one_length(
    data: bytes, start_N: np.ndarray, length: int, row_N: np.ndarray, step_N: np.ndarray, rows: int, pieces: Pieces
) -> None:
    """Decode records of one length as a matrix. Records are grouped if all their bytes agree except wall time, step and
    the last four, which hold the value."""
    if length < 11:
        return
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), length)
    event_NL = windows[start_N]
    step_bytes_N = np.where(event_NL[:, 9] == 0x10, 1 + np.argmax(event_NL[:, 10 : min(20, length)] < 0x80, axis=1), 0)
    for step_bytes in np.unique(step_bytes_N):
        chosen = np.flatnonzero(step_bytes_N == step_bytes)
        event = event_NL[chosen]
        head = 9 + (1 + int(step_bytes) if step_bytes else 0)
        step = np.zeros(len(event), np.int64)
        for index in range(int(step_bytes)):
            step |= (event[:, 10 + index] & 0x7F).astype(np.int64) << min(7 * index, 63)
        step_N[row_N[chosen]] = step
        body = event[:, head:-4] if length - head > 4 else event[:, head:]
        left = _hashes(body)
        order = np.argsort(left, kind="stable")
        edges = np.flatnonzero(np.diff(left[order])) + 1
        for group in np.split(order, edges):
            _decode(event[group], head, rows + row_N[chosen[group]], pieces, depth=0)


def _hashes(matrix: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every row: equal rows, equal hashes; `_decode` compares the bytes themselves."""
    rng = np.random.default_rng(0)
    weights: np.ndarray = rng.integers(1, 2**63, matrix.shape[1], dtype=np.uint64)
    total = np.zeros(len(matrix), np.uint64)
    for column in range(matrix.shape[1]):
        total += matrix[:, column].astype(np.uint64) * weights[column]
    return total


def _decode(event_NL: np.ndarray, head: int, row_N: np.ndarray, pieces: Pieces, depth: int) -> None:
    """Walk the first record; take the same bytes of every record that is built the same, and go on with the others."""
    length = event_NL.shape[1]
    try:
        scalars = list(_values(event_NL[0].tobytes(), head))
    except (ValueError, IndexError):
        scalars = []
    if not scalars:
        return
    fixed = np.ones(length, bool)
    fixed[:head] = False
    for _, start, stop, _ in scalars:
        fixed[start:stop] = False
    same = (event_NL[:, fixed] == event_NL[0, fixed]).all(axis=1)
    for tag, start, stop, dtype in scalars:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            value = np.ascontiguousarray(event_NL[same, start:stop]).view(dtype)[:, 0]
        record = row_N[same].astype(_narrow(int(row_N[-1])))
        for grown, piece in zip(
            pieces.setdefault(tag, (Grown(record.dtype), Grown(dtype))), (record, value), strict=True
        ):
            grown.add(piece)
    if not same.all() and depth < 200:
        _decode(event_NL[~same], head, row_N[~same], pieces, depth + 1)


def _values(event: bytes, start: int = 0) -> Iterator[tuple[str, int, int, np.dtype[Any]]]:
    """(tag, first and last byte of its value, its type) of every scalar of an event."""
    for number, wire, _, begin, end in fields(event, start):
        if number != 5 or wire != 2:
            continue
        for value_number, value_wire, _, value_begin, value_end in fields(event, begin, end):
            if value_number != 1 or value_wire != 2:
                continue
            tag, place = "", None
            for number_in, wire_in, _, at, until in fields(event, value_begin, value_end):
                if number_in == 1 and wire_in == 2:
                    tag = event[at:until].decode("utf-8", "replace")
                elif number_in == 2 and wire_in == 5:
                    place = (at, until, np.dtype("<f4"))
                elif number_in == 8 and wire_in == 2:
                    place = _tensor(event, at, until)
            if tag and place:
                yield tag, place[0], place[1], place[2]


def _tensor(event: bytes, start: int, stop: int) -> tuple[int, int, np.dtype] | None:
    """First and last byte of the one number of a TensorProto, and its type.

    dtype = 1, tensor_content = 4, float_val = 5, double_val = 6.
    """
    dtype = 0
    for number, wire, value, begin, end in fields(event, start, stop):
        if number == 1 and wire == 0:
            dtype = value
        elif number == 4 and wire == 2 and dtype in FLOAT_TYPES and end - begin == FLOAT_TYPES[dtype].itemsize:
            return begin, end, FLOAT_TYPES[dtype]
        elif number in FLOAT_FIELDS and wire == 2 and end - begin == FLOAT_FIELDS[number].itemsize:
            return begin, end, FLOAT_FIELDS[number]
    return None


def _long(data: bytes, start: int, length: int, texts: dict[str, Any]) -> int:
    """The step of a long record; transformers writes its arguments and the model's configuration as JSON text
    (integration_utils.py)."""
    step = 0
    try:
        for number, wire, value, begin, end in fields(data, start, start + length):
            if number == 2 and wire == 0:
                step = value
            elif number == 5 and wire == 2 and length < 1 << 20:
                text = data[begin:end]
                if (tag := re.search(rb"(args|model_config)/text_summary", text)) and (
                    setting := re.search(rb"\{.*\}", text, re.DOTALL)
                ):
                    texts[tag[1].decode()] = setting[0].decode("utf-8", "replace")
    except (ValueError, IndexError):
        pass
    return step if step < 2**62 else 0


def _parts(folder: Path) -> Iterator[Path]:
    """The event files of a folder, and the folders below it whose events are of the same run."""
    yield from _event_files(folder)
    yield from _below(folder)


FORMAT = Format(NAME, "TensorBoard events", 50, claims, read, parts=_parts)

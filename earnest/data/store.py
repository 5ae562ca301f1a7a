"""The store of codes: each clip is encoded once per codec and kept in Hugging Face `datasets` tables on disk.

CACHE/<codec name>-<fingerprint>/ holds codec.json (what encoded the clips) and one table for each stretch of clips that
were encoded together. Tables are added, never changed: a killed run loses only the stretch that it was encoding, and
two runs may fill one store.
"""

import hashlib
import json
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from pyarrow import compute

from earnest.data.ahead import ahead
from earnest.data.audio import ClipError, is_long, read_wave, wave_pieces
from earnest.data.clip import Clip
from earnest.data.clips import taken
from earnest.data.decoding import read_clips, skip
from earnest.data.row import Row
from earnest.files import fingerprint, whole_file, write_whole

log = logging.getLogger(__name__)

FEATURES = Features(
    {"key": Value("string"), "codes": List(Value("uint16")), "frames": Value("int32"), "wave_sha256": Value("string")}
)
STRETCH_SAMPLES = 2**24  # audio read before it is encoded and written: 17 minutes at 16 kHz, 64 MiB
PIECE_S, CONTEXT_S = 300, 2  # a longer clip is encoded in such pieces; each hears so much of its neighbours (assumed)
TRIED_CLIPS = 4  # of different lengths, on which a codec shows whether it takes padding
BATCH_S = 60.0  # audio in one call of the codec; assumed to fit the memory of a laptop


class CodeTable(Sequence[Row]):
    """Encoded clips, in the order asked for, each a `Row` whose codes (uint16) are a view of the table on disk: nothing
    of them is in memory until they are laid out, and a clip takes 4 bytes here.

    `codec` says what encoded them: name, fingerprint, sample_rate_hz, hop_samples, codebooks, codebook_size.
    """

    def __init__(self, tables: Sequence[Dataset], place_N: np.ndarray, clips: Sequence[Clip], codec: dict[str, Any]):
        """place_N: which row of the tables, one after the other, each clip has."""
        self.clips, self.codec = clips, codec
        chunks = [chunk for table in tables for chunk in cast(Any, table.data).column("codes").chunks]
        self._values = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks]
        self._first_rows = [0, *accumulate(len(chunk) for chunk in chunks)]
        self._place_N = np.asarray(place_N, np.int32)

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        clip = self.clips[index]
        place = int(self._place_N[index])
        chunk = bisect_right(self._first_rows, place) - 1
        start, end = self._offsets[chunk][place - self._first_rows[chunk] :][:2]
        codes_CT = self._values[chunk][start:end].reshape(self.codec["codebooks"], -1)
        return Row(codes_CT, clip.text, clip.speaker, clip.language, clip.tags, clip.place)


def encode_clips(
    clips: Sequence[Clip], codec: Any, cache: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[CodeTable, list[str]]:
    """`encode_sides` of one side."""
    (table,), skipped = encode_sides([clips], codec, cache, on_progress)
    return table, skipped


def encode_sides(
    sides: Sequence[Sequence[Clip]],
    codec: Any,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[CodeTable], list[str]]:
    """The codes of the clips of each side, encoded or read from the store: (tables, one line for each clip that was
    skipped). Of `Clips` no objects are kept.

    `codec` is a torch module with the Codec protocol. A clip is found again as long as its path, size and time of
    change are the same; a codec with other weights has a store of its own. Audio is read by threads, a stretch ahead of
    the encoder. A clip's codes are those of the clip alone, up to rounding: clips of different lengths share a batch
    only of a codec that then gives the same codes (`frames_to_redo`), else clips with the same number of frames do.
    `on_progress(done, total)` counts the clips that have to be encoded. Raises UserError if more than 5 % of the clips
    cannot be used, ValueError if the codec breaks its protocol.
    """
    facts = _codec_facts(codec)
    store = Path(cache) / f"{codec.name.replace('/', '--')}-{facts['fingerprint'][:16]}"
    store.mkdir(parents=True, exist_ok=True)
    if not (store / "codec.json").exists():
        write_whole(store / "codec.json", json.dumps(facts, indent=1))
    known = _all_keys(_tables(store))
    missing = [taken(side, np.flatnonzero(_rows_of(side, known) < 0)) for side in sides]
    total, wanted = sum(map(len, sides)), sum(map(len, missing))
    skipped: list[ClipError] = []
    done, redone = 0, None
    with _evaluating(codec):
        long = [clip for clip in chain(*missing) if is_long(clip.path, clip.segment)]
        for clip in long:
            try:
                _add(store, [_encode_long(clip, codec)])
            except ClipError as error:
                skip(error, skipped, total)
            done += 1
            on_progress(done, wanted)
        left = set(long)
        rest = (clip for clip in chain(*missing) if clip not in left)
        waves = read_clips(rest, codec.sample_rate_hz, skipped, total, codec.channels)
        for stretch in ahead(_stretches(waves), depth=1):
            rows: list[dict[str, Any]] = []
            redone = frames_to_redo(codec, [wave_N for _, wave_N in stretch]) if redone is None else redone
            for batch in _batches(stretch, codec, math.inf if redone is None else redone):
                rows += _encode(batch, codec, redone)
                done += len(batch)
                on_progress(done, wanted)
            _add(store, rows)
    tables = _tables(store)
    known = _all_keys(tables)
    found = list[CodeTable]()
    for side in sides:
        row_N = _rows_of(side, known)
        kept_N = np.flatnonzero(row_N >= 0)
        found.append(CodeTable(tables, row_N[kept_N], taken(side, kept_N), facts))
    return found, [str(error) for error in skipped]


def _all_keys(tables: Sequence[Dataset]) -> pa.ChunkedArray:
    """The keys of all rows, one table after the other; of a key that comes twice the first row counts."""
    return pa.chunked_array(
        [chunk for table in tables for chunk in cast(Any, table.data).column("key").chunks], pa.string()
    )


def _rows_of(clips: Sequence[Clip], known: pa.ChunkedArray) -> np.ndarray:
    """Which row each clip has, -1 for none."""
    rows: Any = cast(Any, compute).index_in(pa.array(map(_key, clips), pa.string()), value_set=known)
    return rows.fill_null(-1).to_numpy()


def _codec_facts(codec: Any) -> dict[str, Any]:
    facts = {
        name: getattr(codec, name) for name in ("name", "sample_rate_hz", "hop_samples", "codebooks", "codebook_size")
    }
    if facts["codebook_size"] > 2**16:
        raise ValueError(
            f"codec {codec.name}: {facts['codebook_size']} codes in a codebook; the store holds up to 65536"
        )
    # The facts are part of it: one set of weights may be used with fewer codebooks.
    return {
        **facts,
        "fingerprint": hashlib.sha256((json.dumps(facts) + fingerprint(codec.state_dict())).encode()).hexdigest(),
    }


def _key(clip: Clip) -> str:
    try:
        stat = clip.path.stat()
    except OSError:
        return f"absent {clip.path}"  # reading it fails later, and is counted there
    part = f"\n{clip.segment}" if clip.segment else ""
    return hashlib.sha256(
        f"{clip.path.absolute()}\n{stat.st_size}\n{stat.st_mtime_ns}{part}".encode(errors="surrogateescape")
    ).hexdigest()


def _tables(store: Path) -> list[Dataset]:
    """The tables of a store; one that is damaged is removed, as its clips can be encoded again."""
    tables: list[Dataset] = []
    for path in sorted(store.glob("table-*.arrow")):
        try:
            table = Dataset.from_file(str(path))
            table.data.validate(full=True)
            tables.append(table)
        except (ValueError, TypeError, OSError) as error:  # pyarrow's errors are both
            log.warning("the table %s of the cache is damaged (%s): its clips are encoded again", path, error)
            path.unlink(missing_ok=True)
    return tables


def _add(store: Path, rows: list[dict[str, Any]]) -> None:
    name = hashlib.sha256("".join(row["key"] for row in rows).encode()).hexdigest()[:16]
    with (
        whole_file(store / f"table-{name}.arrow") as aside,
        ArrowWriter(path=str(aside), features=FEATURES) as writer,
    ):
        for row in rows:
            writer.write(row)
        writer.finalize()


@contextmanager
def _evaluating(codec: torch.nn.Module) -> Generator[None, None, None]:
    """No gradients, and no dropout or running statistics that change; the codec is left as it was."""
    was_training = codec.training
    codec.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        codec.train(was_training)


def _stretches(waves: Iterable[tuple[Clip, np.ndarray]]) -> Iterator[list[tuple[Clip, np.ndarray]]]:
    """Gather clips into stretches of STRETCH_SAMPLES, so that memory and what a kill can lose stay small."""
    stretch: list[tuple[Clip, np.ndarray]] = []
    samples = 0
    for clip, wave_N in waves:
        stretch.append((clip, wave_N))
        samples += wave_N.size
        if samples >= STRETCH_SAMPLES:
            yield stretch
            stretch, samples = [], 0
    if stretch:
        yield stretch


def frames_to_redo(codec: Any, waves: Sequence[np.ndarray]) -> float | None:
    """How many frames at a clip's end are to be encoded again, with nothing behind them, so that a padded batch gives
    the codes that each clip has alone: 0 if none, inf if no number is enough. Tried on the shortest of these waves that
    differ in length; None if all are of one length.

    Of a causal codec (Mimi, EnCodec at 24 kHz) none; of one that is made of convolutions (DAC, the embedded one) as
    many as one of them sees. The Higgs tokenizer's semantic encoder attends over the whole row."""
    reach = max(codec.context_frames)  # of its decoder; an encoder sees as far, which is tried here
    for redone in (0, math.ceil(reach) if math.isfinite(reach) else 0):
        by_frames = {frames: wave_N for wave_N in waves if (frames := _frames(codec, wave_N)) >= 2 * redone}
        tried = [by_frames[frames] for frames in sorted(by_frames)[:TRIED_CLIPS]]
        if len(tried) < 2:
            return None
        pairs = zip(_padded_codes(tried, codec, redone), tried, strict=True)
        if all(np.array_equal(codes_CT, codes_together([wave_N], codec)[0]) for codes_CT, wave_N in pairs):
            return redone
    return math.inf


def _padded_codes(waves: Sequence[np.ndarray], codec: Any, redone: float) -> list[np.ndarray]:
    """codes_CT of waves of different lengths in one batch, the last `redone` frames of each from a batch of ends twice
    as long; of waves of one length, or with `redone` 0 or inf, as they come."""
    codes = codes_together(waves, codec)
    if not redone or len({codes_CT.shape[1] for codes_CT in codes}) == 1:
        return codes
    last = int(redone)
    ends = [wave_N[..., (_frames(codec, wave_N) - 2 * last) * codec.hop_samples :] for wave_N in waves]
    return [
        np.concatenate([codes_CT[:, :-last], end_CT[:, -last:]], axis=1)
        for codes_CT, end_CT in zip(codes, codes_together(ends, codec), strict=True)
    ]


def _frames(codec: Any, wave_N: np.ndarray) -> int:
    return math.ceil(wave_N.shape[-1] / codec.hop_samples)


def _batches(
    stretch: list[tuple[Clip, np.ndarray]], codec: Any, redone: float
) -> Iterator[list[tuple[Clip, np.ndarray]]]:
    """Gather clips from short to long, at most BATCH_S of audio (or one clip) together, padding counted. Clips that are
    too short to have so many frames encoded again share a batch with those of the same number of frames only."""
    most = BATCH_S * codec.sample_rate_hz / codec.hop_samples
    batch: list[tuple[Clip, np.ndarray]] = []
    last = 0
    for frames, clip, wave_N in sorted(
        ((_frames(codec, wave_N), clip, wave_N) for clip, wave_N in stretch), key=lambda one: one[0]
    ):
        if batch and ((frames != last and last < 2 * redone) or frames * (len(batch) + 1) > most):
            yield batch
            batch = []
        batch.append((clip, wave_N))
        last = frames
    if batch:
        yield batch


def _encode(batch: Sequence[tuple[Clip, np.ndarray]], codec: Any, redone: float | None) -> list[dict[str, Any]]:
    """Encode one batch of clips: the rows of the table. Raises ValueError when the codec breaks its protocol."""
    waves = [wave_N for _, wave_N in batch]
    is_above = len(batch) == 1 and waves[0].shape[-1] > PIECE_S * codec.sample_rate_hz
    codes = [codes_in_pieces(waves, codec)] if is_above else _padded_codes(waves, codec, redone or 0)
    return [
        {
            "key": _key(clip),
            "codes": codes_CT.astype(np.uint16).ravel(),
            "frames": codes_CT.shape[1],
            "wave_sha256": hashlib.sha256(wave_N.tobytes()).hexdigest(),
        }
        for (clip, wave_N), codes_CT in zip(batch, codes, strict=True)
    ]


def codes_together(waves: Sequence[np.ndarray], codec: Any) -> list[np.ndarray]:
    """codes_CT of each wave, (N,) or (channels, N), encoded together: behind a shorter one there is silence up to the
    end of the longest."""
    frames = [_frames(codec, wave_N) for wave_N in waves]
    wave_BN = torch.zeros(len(waves), *waves[0].shape[:-1], max(frames) * codec.hop_samples)
    for index, wave_N in enumerate(waves):
        wave_BN[index, ..., : wave_N.shape[-1]] = torch.as_tensor(wave_N)
    codes_BCT: np.ndarray = codec.encode(wave_BN.to(codec.device)).cpu().numpy()
    expected = (len(waves), codec.codebooks, max(frames))
    if codes_BCT.shape != expected or codes_BCT.min() < 0 or codes_BCT.max() >= codec.codebook_size:
        raise ValueError(
            f"codec {codec.name} gave codes {codes_BCT.shape} from {codes_BCT.min(initial=0)} to "
            f"{codes_BCT.max(initial=0)}; it promises {expected} below {codec.codebook_size}"
        )
    return [codes_CT[:, :count] for codes_CT, count in zip(codes_BCT, frames, strict=True)]


def codes_in_pieces(waves: Iterable[np.ndarray], codec: Any) -> np.ndarray:
    """codes_CT of a long wave, (N,) or (channels, N), that comes in pieces of any length. What a codec needs for its
    layers grows with the audio that it is given at once: it gets PIECE_S, with CONTEXT_S of its neighbours."""
    hop = codec.hop_samples
    piece, context = int(PIECE_S * codec.sample_rate_hz / hop), math.ceil(CONTEXT_S * codec.sample_rate_hz / hop)
    codes, start, first = list[np.ndarray](), 0, 0  # start: the frame at which `held` begins; first: the next to encode
    held: np.ndarray | None = None
    for wave_N in chain(waves, [None]):
        if wave_N is not None:
            held = wave_N if held is None else np.concatenate([held, wave_N], axis=-1)
        assert held is not None, "a wave has a piece"
        while True:
            frames = start + held.shape[-1] / hop  # that are here
            last = first + piece if wave_N is not None else min(math.ceil(frames), first + piece)
            if frames < last + context if wave_N is not None else first >= last:
                break
            codes_CT = codes_together([held[..., : (last + context - start) * hop]], codec)[0]
            codes.append(codes_CT[:, first - start : last - start])
            first, before = last, start
            start = max(start, first - context)
            held = held[..., (start - before) * hop :]
    return np.concatenate(codes, axis=1)


def codes_of_file(path: Path, codec: Any) -> tuple[np.ndarray, int]:
    """(codes_CT, samples) of an audio file of any length, encoded in pieces if it is long. Raises ClipError as
    `read_wave`."""
    samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal samples
        for wave_N in wave_pieces(path, codec.sample_rate_hz, codec.channels):
            samples += wave_N.shape[-1]
            yield wave_N

    with _evaluating(codec):
        if is_long(path):
            return codes_in_pieces(counted(), codec), samples
        wave_N = read_wave(path, codec.sample_rate_hz, codec.channels)
        return codes_together([wave_N], codec)[0], wave_N.shape[-1]


def _encode_long(clip: Clip, codec: Any) -> dict[str, Any]:
    """The row of a clip that is never held whole."""
    digest = hashlib.sha256()

    def read() -> Iterator[np.ndarray]:
        for wave_N in wave_pieces(clip.path, codec.sample_rate_hz, codec.channels, clip.segment):
            digest.update(wave_N.tobytes())
            yield wave_N

    codes_CT = codes_in_pieces(read(), codec)
    codes = codes_CT.astype(np.uint16).ravel()
    return {"key": _key(clip), "codes": codes, "frames": codes_CT.shape[1], "wave_sha256": digest.hexdigest()}

"""The store of codes: each clip is encoded once per codec and kept in Hugging Face `datasets` tables on disk.

CACHE/<codec name>-<fingerprint>/ holds codec.json (what encoded the clips) and one table for each stretch of clips that
were encoded together. Tables are added, never changed: a killed run loses only the stretch that it was encoding, and
two runs may fill one store.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from earnest.data.audio import ClipError, is_long, read_wave, wave_pieces
from earnest.data.clip import Clip
from earnest.data.folder import read_clips, skip
from earnest.data.row import Row
from earnest.files import fingerprint, whole_file, write_whole

log = logging.getLogger(__name__)

FEATURES = Features(
    {"key": Value("string"), "codes": List(Value("uint16")), "frames": Value("int32"), "wave_sha256": Value("string")}
)
STRETCH_SAMPLES = 2**24  # audio read before it is encoded and written: 17 minutes at 16 kHz, 64 MiB
PIECE_S, CONTEXT_S = 300, 2  # a longer clip is encoded in such pieces; each hears so much of its neighbours (assumed)
BATCH_S = 60.0  # audio in one call of the codec; assumed to fit the memory of a laptop


class CodeTable(Sequence[Row]):
    """Encoded clips, in the order asked for, each a `Row` whose codes (uint16) are a view of the table on disk: nothing
    of them is in memory until they are laid out, and a clip takes 16 bytes here.

    `codec` says what encoded them: name, fingerprint, sample_rate_hz, hop_samples, codebooks, codebook_size.
    """

    def __init__(self, tables: Sequence[Dataset], place_N: np.ndarray, clips: Sequence[Clip], codec: dict[str, Any]):
        """place_N: which row of the tables, one after the other, each clip has."""
        self.clips, self.codec, self._tables, self._place_N = clips, codec, tables, place_N
        chunks = [chunk for table in tables for chunk in cast(Any, table.data).column("codes").chunks]
        self._values = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]
        offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        chunk_N = np.repeat(np.arange(len(chunks), dtype=np.int32), [len(ends) - 1 for ends in offsets])
        starts = np.concatenate([ends[:-1] for ends in offsets] or [np.zeros(0, np.int64)])
        sizes = np.concatenate([np.diff(ends) for ends in offsets] or [np.zeros(0, np.int64)])
        self._chunk_N, self._start_N, self._size_N = chunk_N[place_N], starts[place_N], sizes[place_N]

    def of(self, clips: Sequence[Clip]) -> "CodeTable":
        """The rows of some clips, in their order; of those that are here."""
        place = {clip: index for index, clip in enumerate(self.clips)}
        kept = [(clip, place[clip]) for clip in clips if clip in place]
        place_N = np.array([index for _, index in kept], np.int64)
        return CodeTable(self._tables, self._place_N[place_N], [clip for clip, _ in kept], self.codec)

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
        start, size = int(self._start_N[index]), int(self._size_N[index])
        codes_CT = self._values[self._chunk_N[index]][start : start + size].reshape(self.codec["codebooks"], -1)
        return Row(codes_CT, clip.text, clip.speaker, clip.language, clip.tags, clip.place)


def encode_clips(
    clips: Sequence[Clip], codec: Any, cache: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[CodeTable, list[str]]:
    """The codes of clips, encoded or read from the store: (table, one line for each clip that was skipped).

    `codec` is a torch module with the Codec protocol. A clip is found again as long as its path, size and time of
    change are the same; a codec with other weights has a store of its own. Only clips with the same number of frames
    share a batch, so that a clip's codes are those of the clip alone, up to rounding: with more padding its last frames
    would differ (measured: 12 % of the codes of the last five). `on_progress(done, total)` counts the clips that have
    to be encoded. Raises UserError if more than 5 % of the clips cannot be used, ValueError if the codec breaks its
    protocol.
    """
    facts = _codec_facts(codec)
    store = Path(cache) / f"{codec.name.replace('/', '--')}-{facts['fingerprint'][:16]}"
    store.mkdir(parents=True, exist_ok=True)
    if not (store / "codec.json").exists():
        write_whole(store / "codec.json", json.dumps(facts, indent=1))
    known = {key for table in _tables(store) for key in _keys(table)}
    keys = [_key(clip) for clip in clips]
    wanted = {clip: key for clip, key in zip(clips, keys, strict=True) if key not in known}
    skipped: list[ClipError] = []
    done = 0
    with _evaluating(codec):
        long = [clip for clip in wanted if is_long(clip.path, clip.segment)]
        for clip in long:
            try:
                _add(store, [_encode_long(clip, codec, wanted[clip])])
            except ClipError as error:
                skip(error, skipped, len(clips))
            done += 1
            on_progress(done, len(wanted))
        rest = [clip for clip in wanted if clip not in set(long)]
        waves = read_clips(rest, codec.sample_rate_hz, skipped, len(clips), codec.channels)
        for stretch in _stretches(waves):
            rows: list[dict[str, Any]] = []
            for batch in _batches(stretch, codec):
                rows += _encode(batch, codec, wanted)
                done += len(batch)
                on_progress(done, len(wanted))
            _add(store, rows)

    tables = _tables(store)
    place = {key: index for index, key in enumerate(key for table in tables for key in _keys(table))}
    kept = [(clip, place[key]) for clip, key in zip(clips, keys, strict=True) if key in place]
    place_N = np.array([index for _, index in kept], np.int64)
    return CodeTable(tables, place_N, [clip for clip, _ in kept], facts), [str(error) for error in skipped]


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


def _keys(table: Dataset) -> list[str]:
    return cast(Any, table.data).column("key").to_pylist()


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


def _batches(stretch: list[tuple[Clip, np.ndarray]], codec: Any) -> Iterator[list[tuple[Clip, np.ndarray]]]:
    """Gather clips of the same number of frames, at most BATCH_S of audio (or one clip) together."""

    def frames(pair: tuple[Clip, np.ndarray]) -> int:
        return math.ceil(pair[1].shape[-1] / codec.hop_samples)

    for count, group in groupby(sorted(stretch, key=frames), key=frames):
        together = max(1, int(BATCH_S * codec.sample_rate_hz / (count * codec.hop_samples)))
        while batch := list(islice(group, together)):
            yield batch


def _encode(batch: Sequence[tuple[Clip, np.ndarray]], codec: Any, keys: Mapping[Clip, str]) -> list[dict[str, Any]]:
    """Encode one batch of clips of the same number of frames: the rows of the table. Raises ValueError when the codec
    breaks its protocol."""
    waves = [wave_N for _, wave_N in batch]
    is_above = len(batch) == 1 and waves[0].shape[-1] > PIECE_S * codec.sample_rate_hz
    codes_BCT = codes_in_pieces(waves, codec)[None] if is_above else _codes(waves, codec)
    return [
        {
            "key": keys[clip],
            "codes": codes_CT.astype(np.uint16).ravel(),
            "frames": codes_CT.shape[1],
            "wave_sha256": hashlib.sha256(wave_N.tobytes()).hexdigest(),
        }
        for (clip, wave_N), codes_CT in zip(batch, codes_BCT, strict=True)
    ]


def _codes(waves: Sequence[np.ndarray], codec: Any) -> np.ndarray:
    """codes_BCT of waves (N,) or (channels, N) of the same number of frames."""
    *channels, samples = waves[0].shape
    frames = math.ceil(samples / codec.hop_samples)
    wave_BN = torch.zeros(len(waves), *channels, frames * codec.hop_samples)
    for index, wave_N in enumerate(waves):
        wave_BN[index, ..., : wave_N.shape[-1]] = torch.as_tensor(wave_N)
    codes_BCT: np.ndarray = codec.encode(wave_BN.to(codec.device)).cpu().numpy()
    expected = (len(waves), codec.codebooks, frames)
    if codes_BCT.shape != expected or codes_BCT.min() < 0 or codes_BCT.max() >= codec.codebook_size:
        raise ValueError(
            f"codec {codec.name} gave codes {codes_BCT.shape} from {codes_BCT.min(initial=0)} to "
            f"{codes_BCT.max(initial=0)}; it promises {expected} below {codec.codebook_size}"
        )
    return codes_BCT


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
            codes_CT = _codes([held[..., : (last + context - start) * hop]], codec)[0]
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
        return _codes([wave_N], codec)[0], wave_N.shape[-1]


def _encode_long(clip: Clip, codec: Any, key: str) -> dict[str, Any]:
    """The row of a clip that is never held whole."""
    digest = hashlib.sha256()

    def read() -> Iterator[np.ndarray]:
        for wave_N in wave_pieces(clip.path, codec.sample_rate_hz, codec.channels, clip.segment):
            digest.update(wave_N.tobytes())
            yield wave_N

    codes_CT = codes_in_pieces(read(), codec)
    codes = codes_CT.astype(np.uint16).ravel()
    return {"key": key, "codes": codes, "frames": codes_CT.shape[1], "wave_sha256": digest.hexdigest()}

"""Teachers: audio encoders and language models of transformers; a clip -> its features at the codec's frames, kept on
disk.

Clips go through a teacher whole and one at a time: nothing is padded, so no padding is pooled. Features are averaged by
time over each codec frame, whatever the two frame rates are. A codec frame without features (a pause between words)
does not exist for that teacher.
"""

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soxr
import torch
from safetensors import SafetensorError

from earnest.data.clip import Clip
from earnest.errors import UserError
from earnest.files import fingerprint, whole_directory
from earnest.records import loads

CLIPS_PER_SHARD = 256
PIECE_S, AROUND_S = 60.0, 5.0  # of a long clip; heard before and after each piece
WHISPER_S = 30.0  # of audio that Whisper's encoder has positions for
Item = TypeVar("Item")


@dataclass(frozen=True)
class Timed:
    """Features of one clip at the teacher's own frames: row t of values_TF is valid from start_s_T[t] to end_s_T[t], in
    order of time."""

    values_TF: np.ndarray
    start_s_T: np.ndarray
    end_s_T: np.ndarray


class Teacher(ABC):
    """A frozen model; called with (wave_N, sample_rate_hz, clip), it returns `Timed` features.

    `alignment` says how the times were found. `layer` counts hidden states as transformers does: 0 the input, -1 the
    last.
    """

    alignment: str

    def __init__(self, name: str, model: Any, layer: int):
        self.name, self.layer = name, layer
        self.model = model.eval().requires_grad_(False)
        self.fingerprint = fingerprint(model.state_dict())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @abstractmethod
    def __call__(self, wave_N: np.ndarray, sample_rate_hz: int, clip: Clip) -> Timed:
        """wave_N: of one clip, float32, at any rate."""

    def hidden(self, **inputs: torch.Tensor) -> np.ndarray:
        """Inputs of a batch of 1 -> values_TF of `layer`."""
        with torch.no_grad():
            inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            return self.model(**inputs, output_hidden_states=True).hidden_states[self.layer][0].float().cpu().numpy()


class WaveTeacher(Teacher):
    """WavLM, HuBERT, wav2vec 2.0 and others that begin with strided convolutions on the waveform. A long clip is heard
    in pieces, with some seconds around each: attention over three hours would need terabytes."""

    alignment = "the centres of the encoder's frames"

    def __init__(self, name: str, model: Any, layer: int, extractor: Any):
        super().__init__(name, model, layer)
        self.extractor, self.sample_rate_hz = extractor, extractor.sampling_rate
        self.hop, self.receptive = 1, 1
        for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
            self.receptive += (kernel - 1) * self.hop
            self.hop *= stride

    def __call__(self, wave_N: np.ndarray, sample_rate_hz: int, clip: Clip) -> Timed:
        wave_N = soxr.resample(wave_N, sample_rate_hz, self.sample_rate_hz)
        wave_N = np.pad(wave_N, (0, max(0, self.receptive - len(wave_N))))
        frames = (len(wave_N) - self.receptive) // self.hop + 1
        piece = round(PIECE_S * self.sample_rate_hz / self.hop)
        values_TF = np.concatenate([self._piece(wave_N, first, piece, frames) for first in range(0, frames, piece)])
        centre_T = np.arange(len(values_TF)) * self.hop + self.receptive / 2
        return Timed(
            values_TF, (centre_T - self.hop / 2) / self.sample_rate_hz, (centre_T + self.hop / 2) / self.sample_rate_hz
        )

    def _piece(self, wave_N: np.ndarray, first: int, count: int, frames: int) -> np.ndarray:
        """values_TF of up to `count` frames from `first` on, of `frames` that the clip has."""
        around = round(AROUND_S * self.sample_rate_hz / self.hop)
        begin, end = max(0, first - around), first + count + around
        stop = (end - 1) * self.hop + self.receptive if end < frames else len(wave_N)
        part_N = wave_N[begin * self.hop : stop]
        values_TF = self.hidden(**self.extractor(part_N, sampling_rate=self.sample_rate_hz, return_tensors="pt"))
        return values_TF[first - begin : first - begin + count]


class WhisperTeacher(Teacher):
    """Whisper's encoder, on the clip alone, without the padding to 30 s that generation adds."""

    alignment = "the encoder's frames"

    def __init__(self, name: str, model: Any, layer: int, extractor: Any):
        super().__init__(name, model.get_encoder(), layer)
        self.extractor, self.sample_rate_hz = extractor, extractor.sampling_rate
        self.hop = 2 * extractor.hop_length  # the second convolution's stride
        self.positions_PD = self.model.embed_positions.weight.clone()

    def __call__(self, wave_N: np.ndarray, sample_rate_hz: int, clip: Clip) -> Timed:
        wave_N = soxr.resample(wave_N, sample_rate_hz, self.sample_rate_hz)
        most = round(WHISPER_S * self.sample_rate_hz)
        values_TF = np.concatenate([self._piece(wave_N[start : start + most]) for start in range(0, len(wave_N), most)])
        start_T = np.arange(len(values_TF)) * self.hop / self.sample_rate_hz
        return Timed(values_TF, start_T, start_T + self.hop / self.sample_rate_hz)

    def _piece(self, wave_N: np.ndarray) -> np.ndarray:
        wave_N = np.pad(wave_N, (0, -len(wave_N) % self.hop))
        frames = len(wave_N) // self.hop
        inputs = self.extractor(
            wave_N, sampling_rate=self.sample_rate_hz, return_tensors="pt", padding=False, truncation=False
        )
        self.model.embed_positions = torch.nn.Embedding.from_pretrained(self.positions_PD[:frames])
        self.model.config.max_source_positions = frames
        return self.hidden(input_features=inputs["input_features"][..., : 2 * frames])


class TextTeacher(Teacher):
    """A language model that reads the transcript; the feature of a word is the mean of its tokens' hidden states.

    The first token of a causal model is an attention sink with a huge norm: one token is put before the text for this,
    and dropped.
    """

    alignment = (
        "words as timed in the metadata, else spread evenly over the letters between the first and the last sound"
    )

    def __init__(self, name: str, model: Any, layer: int, tokenizer: Any):
        super().__init__(name, model, layer)
        self.tokenizer = tokenizer
        sinks = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
        self.sink_id = next(token for token in sinks if token is not None)

    def __call__(self, wave_N: np.ndarray, sample_rate_hz: int, clip: Clip) -> Timed:
        words = word_times(clip, wave_N, sample_rate_hz)
        dim = self.model.config.get_text_config().hidden_size
        if not words:
            return Timed(np.zeros((0, dim), np.float32), np.zeros(0), np.zeros(0))
        pieces = [
            self.tokenizer(f" {word}" if index else word, add_special_tokens=False)["input_ids"]
            for index, (word, _, _) in enumerate(words)
        ]
        ids = [self.sink_id, *itertools.chain(*pieces)]
        values_TF = self.hidden(input_ids=torch.tensor([ids]))[1:]
        ends = np.cumsum([len(piece) for piece in pieces])
        spans = [
            (values_TF[end - len(piece) : end], word)
            for end, piece, word in zip(ends, pieces, words, strict=True)
            if piece
        ]
        means = [values.mean(0) for values, _ in spans]
        return Timed(
            np.stack(means), np.array([word[1] for _, word in spans]), np.array([word[2] for _, word in spans])
        )


def load_teacher(name_or_path: str, layer: int | None = None, device: str | torch.device = "cpu") -> Teacher:
    """A checkpoint of transformers, by directory or Hub name. `layer` None: the last of an audio encoder; the last but
    one of a language model, as its last is shaped to predict the vocabulary.

    Raises UserError if it cannot be read.
    """
    import transformers

    auto: Any = transformers  # its Auto classes have no types
    try:
        config = auto.AutoConfig.from_pretrained(name_or_path)
        depth = int(config.get_text_config().num_hidden_layers)
        if layer is not None and not -depth - 1 <= layer <= depth:
            raise UserError(
                f"layer {layer} of teacher {name_or_path!r}",
                f"one of its hidden states, {-depth - 1} to {depth}",
                "choose a layer it has",
            )
        if config.model_type == "whisper" or hasattr(config, "conv_kernel"):
            extractor = auto.AutoFeatureExtractor.from_pretrained(name_or_path)
            model = auto.AutoModel.from_pretrained(name_or_path, dtype=torch.float32).to(device)
            kind = WhisperTeacher if config.model_type == "whisper" else WaveTeacher
            return kind(name_or_path, model, -1 if layer is None else layer, extractor)
        tokenizer = auto.AutoTokenizer.from_pretrained(name_or_path)
        model = auto.AutoModel.from_pretrained(name_or_path, dtype="auto").to(device)
        return TextTeacher(name_or_path, model, -2 if layer is None else layer, tokenizer)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"teacher {name_or_path!r}: {' '.join(str(error).split())[:200]}",
            "a speech encoder or a language model that transformers can read, with its tokenizer or feature extractor",
            "check the name and the network",
        ) from error


def word_times(clip: Clip, wave_N: np.ndarray, sample_rate_hz: int) -> list[tuple[str, float, float]]:
    """(word, start_s, end_s) of each word: as the clip's `words` say; without them, the letters of the text are spread
    evenly between the first and the last sound (within 40 dB of the loudest 10 ms).

    Raises UserError if `words` are not a list of [word, start_s, end_s] in order of time.
    """
    if clip.words:
        try:
            timed: Any = loads(clip.words)
            words = [(str(word), float(start), float(end)) for word, start, end in timed]
            edges = [edge for _, start, end in words for edge in (start, end)]
            if edges != sorted(edges):
                raise ValueError("times that go back")
            return words
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{clip.name}: words {clip.words[:60]!r}: {error}",
                '[["hello", 0.12, 0.48], ...]: word, start and end in seconds, in order of time',
                "mend the column words, or leave it out",
            ) from error
    words = clip.text.split()
    hop = max(1, sample_rate_hz // 100)
    level = np.sqrt(np.square(np.pad(wave_N, (0, -len(wave_N) % hop)).reshape(-1, hop)).mean(1))
    if not words or not level.any():
        return []
    loud = np.flatnonzero(level > 0.01 * level.max())
    first_s, last_s = loud[0] * hop / sample_rate_hz, (loud[-1] + 1) * hop / sample_rate_hz
    edges = first_s + (last_s - first_s) * np.cumsum([0, *(len(word) + 1 for word in words)]) / sum(
        len(word) + 1 for word in words
    )
    return [(word, float(start), float(end)) for word, start, end in zip(words, edges, edges[1:], strict=False)]


def pool(timed: Timed, frames: int, frame_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Average features over each of `frames` codec frames, by time -> (features_TF float32, exists_T).

    A codec frame exists if features cover any part of it; each feature weighs as much as it covers. Computed as the
    difference of two integrals, from the beginning to the end and to the start of the codec frame.
    """
    dim = timed.values_TF.shape[1]
    if not len(timed.values_TF):
        return np.zeros((frames, dim), np.float32), np.zeros(frames, bool)
    start_T, end_T = timed.start_s_T, np.maximum(timed.end_s_T, timed.start_s_T)
    start_T = np.maximum(start_T, np.r_[-np.inf, end_T[:-1]])  # an overlap belongs to the first
    edges = np.stack([start_T, end_T], 1).ravel()
    length_T = end_T - start_T
    # Integrals up to each edge, of coverage and of features: linear inside a feature's time, constant in a gap.
    covered_E = np.repeat(np.r_[0, length_T.cumsum()], 2)[1:-1]
    integral_EF = np.repeat(
        np.r_[np.zeros((1, dim)), (timed.values_TF * length_T[:, None]).cumsum(0, dtype=np.float64)], 2, 0
    )[1:-1]
    at_s = np.arange(frames + 1) / frame_rate_hz
    right = np.searchsorted(edges, at_s, "right").clip(1, len(edges) - 1)
    share = ((at_s - edges[right - 1]) / np.maximum(edges[right] - edges[right - 1], 1e-9)).clip(0, 1)
    covered_T = np.diff(covered_E[right - 1] + share * (covered_E[right] - covered_E[right - 1]))
    integral_TF = np.diff(
        integral_EF[right - 1] + share[:, None] * (integral_EF[right] - integral_EF[right - 1]), axis=0
    )
    exists_T = covered_T > 1e-6
    return (integral_TF / np.maximum(covered_T, 1e-9)[:, None] * exists_T[:, None]).astype(np.float32), exists_T


class FeatureTable:
    """Features of clips at the codec's frames, read from disk when they are used."""

    def __init__(self, shards: list[Path], names: list[list[str]]):
        self.place: dict[str, tuple[int, int, int]] = {}  # clip -> shard, first row, rows
        self.features: list[np.ndarray] = []
        self.exists: list[np.ndarray] = []
        for index, (shard, members) in enumerate(zip(shards, names, strict=True)):
            self.features.append(np.load(shard / "features.npy", mmap_mode="r"))
            self.exists.append(np.load(shard / "exists.npy"))
            counts = np.load(shard / "frames.npy")
            for name, end, count in zip(members, counts.cumsum(), counts, strict=True):
                self.place[name] = (index, int(end - count), int(count))

    @property
    def dim(self) -> int:
        return self.features[0].shape[1]

    @property
    def exists_frac(self) -> float:
        """Share of the frames for which the teacher has features."""
        return float(np.concatenate(self.exists).mean())

    def rows(self, name: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames `first` to `first` + `count` of a clip: (features_TF float32, exists_T); beyond its end nothing
        exists."""
        shard, start, frames = self.place[name]
        features_TF, exists_T = np.zeros((count, self.dim), np.float32), np.zeros(count, bool)
        have = max(0, min(count, frames - first))
        features_TF[:have] = self.features[shard][start + first : start + first + have]
        exists_T[:have] = self.exists[shard][start + first : start + first + have]
        return features_TF, exists_T

    def sample(self, most: int = 50_000) -> torch.Tensor:
        """features_NF of frames that exist, evenly spread, about `most` of them."""
        total = sum(int(exists.sum()) for exists in self.exists)
        step = max(1, total // most)
        picked = [
            features[np.flatnonzero(exists)[::step]]
            for features, exists in zip(self.features, self.exists, strict=True)
        ]
        return torch.as_tensor(np.concatenate(picked).astype(np.float32))


def teach(
    teacher: Teacher,
    clips: Sequence[Clip],
    waves: Iterable[np.ndarray],
    sample_rate_hz: int,
    hop_samples: int,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """The teacher's features of every clip: computed, or read from an earlier run's shards in `cache`.

    waves: wave_N of each clip, float32, at `sample_rate_hz`. A shard is found again as long as the teacher's weights,
    the codec's frames, and the clips' audio, texts and word times are the same.
    """
    of_teacher = f"{teacher.fingerprint} {teacher.layer} {teacher.alignment} {sample_rate_hz} {hop_samples}"
    folder = Path(cache) / Path(teacher.name).name
    shards: list[Path] = []
    names: list[list[str]] = []
    done = 0
    for members in _batched(zip(clips, waves, strict=True), CLIPS_PER_SHARD):
        digest = hashlib.sha256(of_teacher.encode())
        for clip, wave_N in members:
            digest.update(
                json.dumps([clip.name, clip.text, clip.words]).encode() + np.ascontiguousarray(wave_N).tobytes()
            )
        shard = folder / digest.hexdigest()[:24]
        if shard.exists():
            done += len(members)
            on_progress(done, len(clips))
        else:
            rows: list[tuple[np.ndarray, np.ndarray]] = []
            for clip, wave_N in members:
                timed = teacher(wave_N, sample_rate_hz, clip)
                rows.append(pool(timed, -(-len(wave_N) // hop_samples), sample_rate_hz / hop_samples))
                done += 1
                on_progress(done, len(clips))
            _write(shard, rows)
        shards.append(shard)
        names.append([clip.name for clip, _ in members])
    return FeatureTable(shards, names)


def _write(shard: Path, rows: list[tuple[np.ndarray, np.ndarray]]) -> None:
    with whole_directory(shard) as aside:
        np.save(aside / "features.npy", np.concatenate([features_TF for features_TF, _ in rows]).astype(np.float16))
        np.save(aside / "exists.npy", np.concatenate([exists_T for _, exists_T in rows]))
        np.save(aside / "frames.npy", np.array([len(exists_T) for _, exists_T in rows]))


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

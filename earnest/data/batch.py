"""`Batch`: what a model sees and what it is scored on, and how clips are gathered into batches."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from earnest import streams
from earnest.data.masks import IGNORE
from earnest.streams import TEXT, Codebook, Stream

_PLACES = "places before the batch was moved"  # no field: a changed copy has its own


@dataclass(frozen=True)
class Prompt:
    """What comes before the audio that is to be generated: the first three fields of an `Example`."""

    text_S: Tensor
    tokens_SC: Tensor
    is_audio_S: Tensor

    def __len__(self) -> int:
        return len(self.text_S)


@dataclass(frozen=True)
class Example:
    """One clip laid out over positions, targets already aligned with the logits that predict them.

    text_S: text id at each position (a placeholder at audio) · tokens_SC: codebook tokens (0 at text) · is_audio_S:
    which of the two a position holds · text_targets_S, audio_targets_SC: what its logits must predict, or IGNORE.
    """

    text_S: Tensor
    tokens_SC: Tensor
    is_audio_S: Tensor
    text_targets_S: Tensor
    audio_targets_SC: Tensor

    def __len__(self) -> int:
        return len(self.text_S)

    def before_end(self, eos_id: int | None) -> "Example":
        """The positions before the first whose audio target is `eos_id`: those of any clip that begins so, wherever it
        ends."""
        if eos_id is None:
            return self
        before_S = (self.audio_targets_SC == eos_id).any(1).cumsum(0) == 0
        return Example(*(column[before_S] for column in vars(self).values()))


@dataclass(frozen=True)
class Spans:
    """Clips whose positions lie one after the other, without padding.

    lengths: positions per clip · step_P: number of each position within its clip · bounds: where each clip begins, and
    where the last one ends, (clips + 1,) of int32, as attention's kernels of packed clips want it.
    """

    lengths: list[int]
    step_P: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        step_P = torch.cat([torch.arange(length) for length in lengths])
        return cls(list(lengths), step_P, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32))

    def to(self, device: torch.device | str) -> "Spans":
        step_P, bounds = (column.to(device, non_blocking=True) for column in (self.step_P, self.bounds))
        return Spans(self.lengths, step_P, bounds)


@dataclass(frozen=True)
class Places:
    """Where the positions of a batch that exist are, P of them in row-major order, and what counts there.

    exist_P: place of each among all (clip, position) · clip_P: its clip's row · text_N, audio_M: those that hold text
    and audio, among all · counted: rows of P with a target, per stream · clips, texts, audios: how the P, the N and the
    M are parted into clips.
    """

    exist_P: Tensor
    clip_P: Tensor
    text_N: Tensor
    audio_M: Tensor
    counted: Mapping[Stream, Tensor]
    clips: Spans
    texts: Spans
    audios: Spans

    @classmethod
    def of(cls, batch: "Batch") -> Self:
        exist_P = batch.exists_BS.flatten().nonzero()[:, 0]
        audio_BS = batch.exists_BS & batch.is_audio_BS
        counted = {
            stream: (batch.targets(stream).flatten()[exist_P] != IGNORE).nonzero()[:, 0] for stream in batch.streams
        }
        return cls(
            exist_P,
            exist_P // batch.exists_BS.shape[1],
            (batch.exists_BS & ~audio_BS).flatten().nonzero()[:, 0],
            audio_BS.flatten().nonzero()[:, 0],
            counted,
            *(Spans.of(of_BS.sum(1).tolist()) for of_BS in (batch.exists_BS, batch.exists_BS & ~audio_BS, audio_BS)),
        )

    def to(self, device: torch.device | str) -> "Places":
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        moved |= {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Spans)}
        counted = {stream: row_N.to(device, non_blocking=True) for stream, row_N in self.counted.items()}
        return replace(self, **moved, counted=counted)


def taken(column_BSX: Tensor, place_N: Tensor) -> Tensor:
    """(B, S, ...) -> (N, ...): what a column has at some of the `Places`."""
    return column_BSX.flatten(0, 1).index_select(0, place_N)


@dataclass(frozen=True)
class Batch:
    """`Example`s of several clips, padded at the end; `exists_BS` is False at padding, `clip_B` are the clips'
    numbers."""

    clip_B: Tensor
    exists_BS: Tensor
    text_BS: Tensor
    tokens_BSC: Tensor
    is_audio_BS: Tensor
    text_targets_BS: Tensor
    audio_targets_BSC: Tensor

    @property
    def codebooks(self) -> int:
        return self.tokens_BSC.shape[-1]

    @property
    def streams(self) -> list[Stream]:
        return [TEXT, *streams.codebooks(self.codebooks)]

    @property
    def padding_frac(self) -> float:
        return 1 - self.exists_BS.float().mean().item()

    def holds(self, stream: Stream) -> Tensor:
        """Which positions hold a token of the stream, (B, S)."""
        return self.is_audio_BS if isinstance(stream, Codebook) else self.exists_BS & ~self.is_audio_BS

    def tokens(self, stream: Stream) -> Tensor:
        """The input ids of the stream, (B, S); only those at positions that hold its tokens mean something."""
        return self.tokens_BSC[..., stream.index] if isinstance(stream, Codebook) else self.text_BS

    def targets(self, stream: Stream) -> Tensor:
        """What the stream's logits must predict at each position, or IGNORE, (B, S)."""
        return self.audio_targets_BSC[..., stream.index] if isinstance(stream, Codebook) else self.text_targets_BS

    def counted(self) -> dict[Stream, int]:
        """How many targets count, per stream."""
        audio_C: list[int] = (self.audio_targets_BSC != IGNORE).sum((0, 1)).tolist()
        return {TEXT: int((self.text_targets_BS != IGNORE).sum()), **_by_codebook(audio_C)}

    def positions(self) -> dict[Stream, int]:
        """How many positions hold a token of each stream: what `counted` is a part of."""
        audio = int(self.is_audio_BS.sum())
        return {TEXT: int(self.exists_BS.sum()) - audio, **_by_codebook([audio] * self.codebooks)}

    def pairs(self) -> Iterator[tuple[Stream, Tensor, Tensor, Tensor]]:
        """Per stream: (stream, clip, input token, target) of every counted position, each (N,): for label histograms
        and bigrams."""
        clip_BS = self.clip_B[:, None].expand(self.text_BS.shape)
        for stream in self.streams:
            targets_BS = self.targets(stream)
            counts_BS = targets_BS != IGNORE
            yield stream, clip_BS[counts_BS], self.tokens(stream)[counts_BS], targets_BS[counts_BS]

    @property
    def places(self) -> Places:
        """Found where the batch was before it was moved, if it was: a GPU is waited for to say how many there are."""
        return self.__dict__.get(_PLACES) or Places.of(self)

    def to(self, device: torch.device | str) -> "Batch":
        moved = replace(
            self, **{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        )
        moved.__dict__[_PLACES] = self.places.to(device)
        return moved

    def pinned(self) -> "Batch":
        """The tensor in page-locked memory, from which a GPU copies while it computes; the tensor itself if there is no
        GPU."""
        if not torch.cuda.is_available():
            return self
        return replace(self, **{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


def _by_codebook(counts_C: Sequence[int]) -> dict[Stream, int]:
    return {Codebook(c): count for c, count in enumerate(counts_C)}


def collate(examples: Sequence[Example], clips: Sequence[int], pad_id: int) -> Batch:
    """Pad at the end: text with `pad_id`, tokens with 0, targets with IGNORE."""

    def padded(name: str, value: int) -> Tensor:
        return pad_sequence([getattr(example, name) for example in examples], batch_first=True, padding_value=value)

    lengths_B = torch.tensor([len(example) for example in examples])
    return Batch(
        clip_B=torch.tensor(list(clips)),
        exists_BS=torch.arange(int(lengths_B.max()))[None] < lengths_B[:, None],
        text_BS=padded("text_S", pad_id),
        tokens_BSC=padded("tokens_SC", 0),
        is_audio_BS=padded("is_audio_S", False),
        text_targets_BS=padded("text_targets_S", IGNORE),
        audio_targets_BSC=padded("audio_targets_SC", IGNORE),
    )


class Plan(Sequence[list[int]]):
    """One epoch as lists of clips, in 4 bytes a clip."""

    def __init__(self, order_N: np.ndarray, start_B: np.ndarray, end_B: np.ndarray):
        """order_N: clips; batch b holds those from start_B[b] to end_B[b]."""
        self._order_N, self._start_B, self._end_B = order_N, start_B, end_B

    def __len__(self) -> int:
        return len(self._start_B)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._order_N[self._start_B[index] : self._end_B[index]].tolist()


def bucketed(lengths: Sequence[int], positions_per_batch: int, seed: int | None = None, epoch: int = 0) -> Plan:
    """Plan one epoch: clips of similar length share a batch of at most `positions_per_batch` positions, padding
    counted.

    With a `seed`, which clips meet and the order of batches are drawn anew each epoch, the same for the same (seed,
    epoch); without one, batches run from short to long. Every clip is in exactly one batch, one longer than the
    budget alone.
    """
    random = None if seed is None else np.random.default_rng([seed, epoch])
    length_N = np.asarray(lengths)
    if random is not None:
        # A jitter of up to 5 % of the length mixes neighbours without spending much on padding (assumed, not tuned).
        keys_N = random.uniform(0.95, 1.05, len(length_N))
        keys_N *= length_N
    else:
        keys_N = length_N
    order_N = np.argsort(keys_N, kind="stable").astype(np.int32)
    starts, longest = array("i", [0]), 0
    for at in range(len(order_N)):
        length = lengths[order_N[at]]
        longest = max(longest, length)
        if at > starts[-1] and longest * (at + 1 - starts[-1]) > positions_per_batch:
            starts.append(at)
            longest = length
    start_B = np.asarray(starts)
    end_B = np.append(start_B[1:], len(order_N))
    if random is not None:
        shuffled = [*range(len(start_B))]
        random.shuffle(shuffled)
        start_B, end_B = start_B[shuffled], end_B[shuffled]
    return Plan(order_N, start_B, end_B)

"""`Corpus`: the encoded clips of one split, laid out over positions on demand and gathered into batches."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from earnest.data.batch import Batch, Example, Plan, bucketed, collate
from earnest.data.masks import IGNORE
from earnest.data.row import Row, Turn, Vary
from earnest.data.vary import Variation
from earnest.errors import TooLongError, UserError

Layout = Callable[[Row], Example]
TooLong = Literal["leave_out", "cut", "refuse"]
NAMED = 3  # clips in a refusal


class LaysOut(Protocol):
    """What a corpus asks of a model: a part of `models.system.System`."""

    eos_id: int | None

    def positions(self, frames: int, text: str | None, speaker: str = "") -> int: ...

    def positions_of(self, turns: Sequence[Turn[Tensor]]) -> int: ...

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example: ...


def layout_of(model: LaysOut) -> Layout:
    """The model's own layout, for rows: of a conversation its turns, of a clip that was cut the positions before its
    end."""

    def lay_out(row: Row) -> Example:
        codes_CT = torch.as_tensor(row.codes_CT.astype(np.int64))
        example = model.lay_out(codes_CT, row.text, row.speaker, row.turns or None)
        return example if row.ends else example.before_end(model.eos_id)

    return lay_out


def length_of(model: LaysOut, lay_out: Layout) -> Callable[[Row], int]:
    """Positions of a row in the model's layout. They follow from frames and texts, so that it need not be laid out;
    raises TooLongError as `lay_out` does."""

    def length(row: Row) -> int:
        if not (row.ends or model.eos_id is None):
            return len(lay_out(row))
        return model.positions_of(row.turns) if row.turns else model.positions(row.frames, row.text, row.speaker)

    return length


class Chosen(Sequence[Row]):
    """Some rows of a table, some of them cut: nothing of a row is kept but its number, if not all are chosen."""

    def __init__(self, table: Sequence[Row], index_N: Sequence[int], frames: Mapping[int, int]):
        """frames: number of a chosen row -> the frames that are left of it."""
        self.table, self.index_N, self.cut = table, index_N, frames

    def __len__(self) -> int:
        return len(self.index_N)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...
    def __getitem__(self, index: int | slice) -> "Row | Chosen":
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            cut = {new: self.cut[old] for new, old in enumerate(places) if old in self.cut}
            return Chosen(self.table, self.index_N[index], cut)
        place = range(len(self))[index]
        row = self.table[self.index_N[place]]
        frames = self.cut.get(place)
        return row if frames is None else replace(row, codes_CT=row.codes_CT[:, :frames], ends=False)


class Corpus:
    """Rows in the layout of one model, each epoch in the version that `vary` draws.

    `too_long` says what becomes of a clip whose text or audio is too long for the layout: "leave_out" lists it in
    `left_out`. "cut" keeps as many of its first frames as fit and counts the clip in `cut`; a conversation, and a clip
    of which not one frame fits, is left out. "refuse" raises UserError.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        lay_out: Layout,
        pad_id: int,
        positions_per_batch: int,
        vary: Vary | None = None,
        too_long: TooLong = "leave_out",
        length: Callable[[Row], int] | None = None,
    ):
        """length: positions of a row, without laying it out; for a corpus of a million clips (`length_of`)."""
        self.lay_out = lay_out
        self.length: Callable[[Row], int] = length or self._laid_length
        self.pad_id = pad_id
        self.positions_per_batch = positions_per_batch
        self.vary = vary or Variation()
        length_N = np.full(len(rows), -1, np.int32)  # -1: left out
        kept, cut = 0, dict[int, int]()
        self.left_out: list[str] = []
        speakers = set[str]()
        for index, row in enumerate(rows):
            try:
                positions = self.length(self.vary(row, None))
            except TooLongError as error:
                frames = self._fitting(row) if too_long == "cut" else 0
                if not frames:
                    self.left_out.append(f"{row.source}: {error.seen}")
                    continue
                cut[kept] = frames
                positions = self._length_of_first(row, frames)
            length_N[index] = positions
            kept += 1
            speakers.add(row.speaker)
        chosen = range(len(rows)) if kept == len(rows) else array("i", np.flatnonzero(length_N >= 0).tolist())
        self.lengths: Sequence[int] = (length_N[length_N >= 0] if self.left_out else length_N).data
        self.rows = Chosen(rows, chosen, cut)
        self.speakers = tuple(sorted(speakers))
        self.cut = len(cut)
        if too_long == "refuse" and self.left_out:
            more = f"; and {len(self.left_out) - NAMED} more" if len(self.left_out) > NAMED else ""
            raise UserError(
                "; ".join(self.left_out[:NAMED]) + more,
                "clips that can be taken whole",
                "shorten them, raise data.max_duration_s or the model's context, or set data.too_long to cut "
                "or leave_out",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def plan(self, seed: int | None = None, epoch: int = 0) -> Plan:
        """One epoch as lists of clips: shuffled by (seed, epoch), or from short to long without a seed."""
        return bucketed(self.lengths, self.positions_per_batch, seed, epoch)

    def batch(self, clips: Sequence[int], seed: int | None = None, epoch: int = 0) -> Batch:
        """These clips in the version of (seed, epoch), which depends on nothing else; without a seed, their
        beginnings."""
        randoms = [None if seed is None else np.random.default_rng([seed, epoch, clip]) for clip in clips]
        examples = [self.example(self.rows[clip], random) for clip, random in zip(clips, randoms, strict=True)]
        return collate(examples, clips, self.pad_id)

    def batches(self, most: int | None = None) -> Iterator[Batch]:
        """Every example once, in a fixed order, for evaluation; of more than `most` clips, evenly spaced ones. A clip
        longer than the window is split into consecutive windows."""
        every = 1 if most is None else -(-len(self.rows) // most) or 1
        windows = [
            (clip, window) for clip in range(0, len(self.rows), every) for window in self._windows(self.rows[clip])
        ]
        if len(windows) == -(-len(self.rows) // every):
            clips_of = [clip for clip, _ in windows]
            for members in bucketed([self.lengths[clip] for clip in clips_of], self.positions_per_batch):
                yield self.batch([clips_of[member] for member in members])
            return
        examples = [self.example(window) for _, window in windows]
        for members in bucketed([len(example) for example in examples], self.positions_per_batch):
            clips = [windows[member][0] for member in members]
            yield collate([examples[member] for member in members], clips, self.pad_id)

    def _windows(self, row: Row) -> list[Row]:
        """The row in pieces as long as what evaluation sees of it."""
        first = self.vary(row, None)
        seen = first.frames
        if seen == row.frames:
            return [row]
        return [
            replace(
                row,
                codes_CT=row.codes_CT[..., start : start + seen],
                ends=first.ends or (row.ends and start + seen >= row.frames),
            )
            for start in range(0, row.frames, seen)
        ]

    def groups(
        self, accumulation_steps: int, seed: int, skip: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Batch]]:
        """One rank's micro-batches of one optimizer step after another, epoch after epoch, from the step after `skip`
        on.

        Which clips a step sees depends on (seed, step) alone, so a resumed run sees what the uninterrupted one would
        have. A group never crosses an epoch: the last one of an epoch may be smaller. Every rank gets equally many
        micro-batches; if an epoch runs out, one in which nothing counts.
        """
        epoch = 0
        while True:
            plan = self.plan(seed, epoch)
            for start in range(0, len(plan), accumulation_steps * ranks):
                if skip:
                    skip -= 1
                    continue
                step = plan[start : start + accumulation_steps * ranks]
                mine = [self.batch(clips, seed, epoch) for clips in step[rank::ranks]]
                missing = -(-len(step) // ranks) - len(mine)
                yield mine + ([_uncounted(self.batch(step[0], seed, epoch))] * missing if missing else [])
            epoch += 1

    def _fitting(self, row: Row) -> int:
        """How many of its first frames fit, 0 for a conversation."""

        def too_long(frames: int) -> bool:
            try:
                self._length_of_first(row, frames)
            except TooLongError:
                return True
            return False

        return 0 if row.turns else bisect_left(range(1, row.frames + 1), True, key=too_long)

    def _laid_length(self, row: Row) -> int:
        return len(self.lay_out(row))

    def _length_of_first(self, row: Row, frames: int) -> int:
        return self.length(self.vary(replace(row, codes_CT=row.codes_CT[:, :frames], ends=False), None))

    def example(self, row: Row, random: np.random.Generator | None = None) -> Example:
        """The row laid out, in the version of `random`."""
        try:
            return self.lay_out(self.vary(row, random))
        except TooLongError:
            if random is None:
                raise
            return self.example(row)  # a long reference was drawn; the version of evaluation is known to fit


def _uncounted(batch: Batch) -> Batch:
    return replace(
        batch,
        text_targets_BS=torch.full_like(batch.text_targets_BS, IGNORE),
        audio_targets_BSC=torch.full_like(batch.audio_targets_BSC, IGNORE),
    )

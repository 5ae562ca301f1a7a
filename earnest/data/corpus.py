"""`Corpus`: the encoded clips of one split, laid out over positions on demand and gathered into batches."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from earnest.data.batch import Batch, Example, bucketed, collate
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

    def lay_out(
        self, codes_CT: Tensor | None, text: str | None, speaker: str = "", turns: Sequence[Turn[Tensor]] | None = None
    ) -> Example: ...


def layout_of(model: LaysOut) -> Layout:
    """The model's own layout, for rows: of a conversation its turns, of a clip that was cut the positions before its
    end."""

    def lay_out(row: Row) -> Example:
        codes_CT = torch.as_tensor(row.codes_CT)
        example = model.lay_out(codes_CT, row.text, row.speaker, row.turns or None)
        return example if row.ends else example.before_end(model.eos_id)

    return lay_out


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
    ):
        self.lay_out = lay_out
        self.pad_id = pad_id
        self.positions_per_batch = positions_per_batch
        self.vary = vary or Variation()
        self.rows: list[Row] = []
        self.lengths: list[int] = []
        self.left_out: list[str] = []
        self.cut = 0
        for row in rows:
            try:
                length = len(self.example(row))
            except TooLongError as error:
                short = self._shortened(row) if too_long == "cut" else None
                if short is None:
                    self.left_out.append(f"{row.source}: {error.seen}")
                    continue
                row, length = short, len(self.example(short))
                self.cut += 1
            self.rows.append(row)
            self.lengths.append(length)
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

    def plan(self, seed: int | None = None, epoch: int = 0) -> list[list[int]]:
        """One epoch as lists of clips: shuffled by (seed, epoch), or from short to long without a seed."""
        return bucketed(self.lengths, self.positions_per_batch, seed, epoch)

    def batch(self, clips: Sequence[int], seed: int | None = None, epoch: int = 0) -> Batch:
        """These clips in the version of (seed, epoch), which depends on nothing else; without a seed, their
        beginnings."""
        randoms = [None if seed is None else np.random.default_rng([seed, epoch, clip]) for clip in clips]
        examples = [self.example(self.rows[clip], random) for clip, random in zip(clips, randoms, strict=True)]
        return collate(examples, clips, self.pad_id)

    def batches(self) -> Iterator[Batch]:
        """Every example once, in a fixed order, for evaluation. A clip longer than the window is split into consecutive
        windows."""
        windows = [(clip, window) for clip, row in enumerate(self.rows) for window in self._windows(row)]
        if len(windows) == len(self.rows):
            for clips in bucketed(self.lengths, self.positions_per_batch):
                yield self.batch(clips)
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

    def _shortened(self, row: Row) -> Row | None:
        """The row with as many of its first frames as fit; None if that is none."""

        def first(frames: int) -> Row:
            return replace(row, codes_CT=row.codes_CT[:, :frames], ends=False)

        def too_long(frames: int) -> bool:
            try:
                self.example(first(frames))
            except TooLongError:
                return True
            return False

        frames = 0 if row.turns else bisect_left(range(1, row.frames + 1), True, key=too_long)
        return first(frames) if frames else None

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

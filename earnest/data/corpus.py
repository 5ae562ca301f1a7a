"""`Corpus`: the encoded clips of one split, laid out over positions on demand and gathered into batches."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from earnest.data.batch import Batch, Example, bucketed, collate
from earnest.data.masks import IGNORE
from earnest.data.vary import Variation
from earnest.errors import UserError

# codes_CT, text, speaker, tags, language, source; for a model of conversations perhaps turns; of a clip that was cut,
# ends=False
Row = Mapping[str, Any]
LayOut = Callable[..., Example]  # codes_CT, text, speaker, and turns and ends where the row has them
Vary = Callable[[Row, np.random.Generator | None], Row]
TooLong = Literal["leave_out", "cut", "refuse"]
NAMED = 3  # clips in a refusal


class Corpus:
    """Rows in the layout of one model, each epoch in the version that `vary` draws.

    What becomes of a clip that cannot be taken (its text or audio is too long) is `too_long`: "leave_out" lists it in
    `left_out`; "cut" keeps as many of its first frames as can be taken, counts it in `cut`, and leaves out where not
    even one can, or where it is a conversation; "refuse" raises UserError.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        lay_out: LayOut,
        pad_id: int,
        positions_per_batch: int,
        vary: Vary | None = None,
        too_long: TooLong = "leave_out",
    ):
        self.lay_out = lay_out
        self.pad_id = pad_id
        self.positions_per_batch = positions_per_batch
        self.vary = vary or Variation()
        self.rows, self.lengths, self.left_out, self.cut = [], [], [], 0
        for row in rows:
            try:
                length = len(self.example(row))
            except UserError as error:
                short = self._shortened(row) if too_long == "cut" else None
                if short is None:
                    self.left_out.append(f"{row['source']}: {error.seen}")
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
                "shorten them, raise data.max_duration_s or the model's context, or set data.too_long to cut or leave_out",
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
        """All there is, once, in a fixed order, as evaluation sees it: of a clip that is shown in windows all of them,
        side by side."""
        windows = [(clip, window) for clip, row in enumerate(self.rows) for window in self._windows(row)]
        lengths = (
            self.lengths if len(windows) == len(self.rows) else [len(self.example(window)) for _, window in windows]
        )
        for members in bucketed(lengths, self.positions_per_batch):
            clips, rows = zip(*(windows[member] for member in members), strict=True)
            yield collate([self.example(row) for row in rows], clips, self.pad_id)

    def _windows(self, row: Row) -> list[Row]:
        """The row in pieces as long as what evaluation sees of it."""
        frames, seen = row["codes_CT"].shape[-1], self.vary(row, None)["codes_CT"].shape[-1]
        if seen == frames:
            return [row]
        return [{**row, "codes_CT": row["codes_CT"][..., start : start + seen]} for start in range(0, frames, seen)]

    def groups(
        self, accumulation_steps: int, seed: int, skip: int = 0, rank: int = 0, ranks: int = 1
    ) -> Iterator[list[Batch]]:
        """One rank's micro-batches of one optimizer step after another, epoch after epoch, from the step after `skip`
        on.

        Which clips a step sees depends on (seed, step) alone, so a resumed run sees what the uninterrupted one would
        have. A group never crosses an epoch: the last one of an epoch may be smaller. Every rank gets equally many
        micro-batches; where an epoch runs out, one in which nothing counts.
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
        """The row with as many of its first frames as can be taken; None where that is none."""

        def first(frames: int) -> Row:
            return {**row, "codes_CT": row["codes_CT"][:, :frames], "ends": False}

        def refused(frames: int) -> bool:
            try:
                self.example(first(frames))
            except UserError:
                return True
            return False

        frames = 0 if "turns" in row else bisect_left(range(1, row["codes_CT"].shape[1] + 1), True, key=refused)
        return first(frames) if frames else None

    def example(self, row: Row, random: np.random.Generator | None = None) -> Example:
        """The row laid out, in the version of `random`."""
        version = self.vary(row, random)
        given = {name: version[name] for name in ("turns", "ends") if name in version}
        try:
            return self.lay_out(torch.as_tensor(version["codes_CT"]), version["text"], version["speaker"], **given)
        except UserError:
            if random is None:
                raise
            return self.example(row)  # a long reference was drawn; the version of evaluation is known to fit


def _uncounted(batch: Batch) -> Batch:
    return replace(
        batch,
        text_targets_BS=torch.full_like(batch.text_targets_BS, IGNORE),
        audio_targets_BSC=torch.full_like(batch.audio_targets_BSC, IGNORE),
    )

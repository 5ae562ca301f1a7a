"""`Corpus`: the encoded clips of one split, laid out over positions on demand and gathered into batches."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from earnest.data.batch import Batch, Example, bucketed, collate
from earnest.errors import UserError

LayOut = Callable[[Tensor, str, str], Example]  # codes_CT, text, speaker


class Corpus:
    """Rows with `codes_CT`, `text` and `speaker`, in the layout of one model.

    A clip that the model cannot take (its text or audio is too long) is left out and listed in `left_out`.
    """

    def __init__(self, rows: Sequence, lay_out: LayOut, pad_id: int, positions_per_batch: int):
        self.lay_out = lay_out
        self.pad_id = pad_id
        self.positions_per_batch = positions_per_batch
        self.rows, self.lengths, self.left_out = [], [], []
        for row in rows:
            try:
                self.lengths.append(len(self._example(row)))
                self.rows.append(row)
            except UserError as error:
                self.left_out.append(f"{row['source']}: {error.seen}")

    def __len__(self) -> int:
        return len(self.rows)

    def plan(self, seed: int | None = None, epoch: int = 0) -> list[list[int]]:
        """One epoch as lists of clips: shuffled by (seed, epoch), or from short to long without a seed."""
        return bucketed(self.lengths, self.positions_per_batch, seed, epoch)

    def batch(self, clips: Sequence[int]) -> Batch:
        return collate([self._example(self.rows[clip]) for clip in clips], clips, self.pad_id)

    def batches(self) -> Iterator[Batch]:
        """Every clip once, in a fixed order."""
        for clips in self.plan():
            yield self.batch(clips)

    def groups(self, accumulation_steps: int, seed: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of one optimizer step after another, epoch after epoch, from the step after `skip` on.

        Which clips a step sees depends on (seed, step) alone, so a resumed run sees what the uninterrupted one would have.
        A group never crosses an epoch: the last one of an epoch may be smaller.
        """
        epoch = 0
        while True:
            plan = self.plan(seed, epoch)
            for start in range(0, len(plan), accumulation_steps):
                if skip:
                    skip -= 1
                else:
                    yield [self.batch(clips) for clips in plan[start : start + accumulation_steps]]
            epoch += 1

    def _example(self, row) -> Example:
        return self.lay_out(torch.as_tensor(row["codes_CT"]), row["text"], row["speaker"])

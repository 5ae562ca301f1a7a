"""What an epoch changes about a clip: which window of it is seen, and by which words it is described, if by any."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from earnest.data.row import Row

Words = Literal["text", "tags", "both"]


@dataclass(frozen=True)
class Variation:
    """`vary(row, random)`: this epoch's version of a row.

    Training draws random windows, so that no clip is known by its position alone. Evaluation (random None) takes the
    start of the row and its tags unchanged, and never the null input, so that its numbers compare from step to step.
    """

    window_frames: int | None = None  # None: whole clips; a shorter clip comes whole, nothing is padded here
    window_ends: bool = False  # whether every window ends, as a loop does, or only those that reach the end of the clip
    unconditional_frac: float = 0.0  # share of rows, drawn one by one, whose text becomes None: the null input
    words: Words = "text"  # what a clip is described by; with both, tags follow the text
    shuffle_tags: bool = False
    drop_tags_frac: float = 0.0  # share of tags left out, drawn one by one

    @property
    def described_by(self) -> tuple[str, ...]:
        """The columns of which a clip must have at least one."""
        return ("text", "tags") if self.words == "both" else (self.words,)

    def __call__(self, row: Row, random: np.random.Generator | None = None) -> Row:
        codes_CT = row.codes_CT
        start, ends = 0, row.ends
        if self.window_frames is not None:
            if random is not None:
                start = int(random.integers(max(row.frames - self.window_frames, 0) + 1))
            codes_CT = codes_CT[..., start : start + self.window_frames]
            ends = ends and (self.window_ends or start + self.window_frames >= row.frames)
        tags = [tag.strip() for tag in row.tags.split(",") if tag.strip()] if self.words != "text" else []
        if random is not None:
            kept = [tag for tag in tags if random.random() >= self.drop_tags_frac]
            tags = [kept[int(index)] for index in random.permutation(len(kept))] if self.shuffle_tags else kept
        own = (row.text or "") if self.words != "tags" else ""
        text: str | None = ", ".join(part for part in (own, *tags) if part)
        if random is not None and random.random() < self.unconditional_frac:
            text = None
        return replace(row, codes_CT=codes_CT, text=text, start_frame=start, ends=ends)

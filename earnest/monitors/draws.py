"""What training has drawn from the data: which windows of which clips, how many without their text, and which codes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.data.row import Row, Vary
from earnest.monitors import Monitor
from earnest.probes.results import Crops, Results, Unconditional
from earnest.run import Step
from earnest.signals import key
from earnest.streams import Codebook


class Draws(Monitor):
    """Between a `Corpus` and `vary`, which varies its rows; counts since the run started or was resumed. Evaluation is
    not counted."""

    def __init__(self, vary: Vary):
        self.vary = vary
        self.draws: Counter[str] = Counter()
        self.starts: dict[str, set[int]] = defaultdict(set)
        self.possible: dict[str, int] = {}
        self.without_text = 0

    def __call__(self, row: Row, random: np.random.Generator | None = None) -> Row:
        version = self.vary(row, random)
        if random is not None:
            self.draws[row.source] += 1
            self.starts[row.source].add(version.start_frame)
            self.possible[row.source] = row.frames - version.frames + 1
            self.without_text += version.text is None
        return version

    def probes(self) -> Results:
        """The probes ``crops`` (means over the clips drawn from) and ``unconditional``."""
        clips = len(self.draws)
        if not clips:
            return Results()
        crops = Crops(
            draws=self.draws.total() / clips,
            distinct=sum(map(len, self.starts.values())) / clips,
            possible=sum(self.possible.values()) / clips,
            clips=clips,
        )
        return Results(crops=crops, unconditional=Unconditional(self.without_text, self.draws.total()))


class Targets(Monitor):
    """How much of each codebook has been a target since the run started. EOS and its like are not counted."""

    def __init__(self, codebooks: int, codes: int):
        self.counts_CV = torch.zeros(codebooks, codes, dtype=torch.long)

    def counted(self, groups: Iterable[Sequence[Batch]]) -> Iterator[Sequence[Batch]]:
        """The same groups; what they hold is counted as they pass."""
        codebooks, codes = self.counts_CV.shape
        for group in groups:
            for batch in group:
                targets_BSC = batch.audio_targets_BSC
                counted_BSC = (targets_BSC != IGNORE) & (targets_BSC < codes)
                place_BSC = targets_BSC + codes * torch.arange(codebooks, device=targets_BSC.device)
                counts = torch.bincount(place_BSC[counted_BSC], minlength=codebooks * codes)
                self.counts_CV += counts.reshape(codebooks, codes).to(self.counts_CV)
            yield group

    def step(self, step: Step) -> Mapping[str, float]:
        """seen_frac and seen_perplexity of each codebook."""
        signals: dict[str, float] = {}
        for c, counts_V in enumerate(self.counts_CV.double()):
            p_V = counts_V[counts_V > 0] / counts_V.sum()
            signals[key("seen_frac", Codebook(c))] = len(p_V) / len(counts_V)
            signals[key("seen_perplexity", Codebook(c))] = (-(p_V * p_V.log()).sum()).exp().item()
        return signals

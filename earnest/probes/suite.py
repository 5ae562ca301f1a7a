"""The probes that a run of earnest makes, before its first step and after its last."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from earnest.data.corpus import Corpus
from earnest.losses.tokens import TokenObjective
from earnest.probes.labels import alignment, dropped_inputs
from earnest.probes.parameters import Frozen, differing, split_in_two
from earnest.probes.reach import not_optimized
from earnest.probes.reading import conditioning, reload
from earnest.probes.results import Ranks, Results
from earnest.probes.rounding import low_precision
from earnest.probes.splits import duplicates, noise

RELOADED_PARAMETERS = (
    500_000_000  # a larger model is not read back after training: two of it may not fit into memory (assumed)
)


def at_start(objective: TokenObjective, optimizer: torch.optim.Optimizer, train: Corpus, held_out: Corpus) -> Results:
    """What can be known before the first step."""
    batch = train.batch(train.plan()[0]).to(next(objective.parameters()).device)
    return Results(
        alignment=alignment(objective.model, batch),
        inputs=dropped_inputs(objective.model, batch),
        optimizer=not_optimized(objective, optimizer),
        low_precision=low_precision(objective, optimizer),
        accumulation=split_in_two(objective, batch),
        duplicates=duplicates(train.rows, held_out.rows),
        noise=noise(train.rows),
    )


def at_end(
    model: Any,
    frozen: Frozen,
    of_ranks: Sequence[Mapping[str, str]],
    load: Callable[[Path], Any],
    checkpoint: Path,
    held_out: Corpus,
    step: int,
) -> Results:
    """What only a trained and saved model shows.

    of_ranks: `fingerprints` of the parameters on every rank, none if these hold shards · load: reads the checkpoint as
    a resumed run would.
    """
    small = sum(p.numel() for p in model.parameters()) <= RELOADED_PARAMETERS
    return Results(
        frozen=frozen.changed(step),
        ranks=Ranks(tuple(differing(of_ranks)), len(of_ranks), step) if of_ranks else None,
        conditioning=conditioning(model, held_out, step),
        reload=reload(model, load(checkpoint), held_out, step) if small else None,
    )

"""Experiments on a model, its batches and its optimizer, cheap enough for every run; rules read their results
(`Run.probes`).

Each probe is a function that leaves model and random numbers as they were and returns what its rule needs. `at_start`
and `at_end` are those that one run of ours makes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from earnest.data.corpus import Corpus
from earnest.losses.tokens import TokenObjective
from earnest.probes.labels import alignment, dropped_inputs
from earnest.probes.parameters import Frozen, differing, not_optimized, prints, split_in_two
from earnest.probes.reading import conditioning, reload
from earnest.probes.splits import duplicates, noise

__all__ = ["Frozen", "at_end", "at_start", "differing", "prints"]

RELOADED_PARAMETERS = (
    500_000_000  # a larger model is not read back after training: two of it may not fit into memory (assumed)
)


def at_start(
    objective: TokenObjective, optimizer: torch.optim.Optimizer, train: Corpus, held_out: Corpus
) -> dict[str, Any]:
    """What can be known before the first step: probes by name."""
    batch = train.batch(train.plan()[0]).to(next(objective.parameters()).device)
    found = {
        "alignment": alignment(objective.model, batch),
        "inputs": dropped_inputs(objective.model, batch),
        "optimizer": not_optimized(objective, optimizer),
        "accumulation": split_in_two(objective, batch),
        "duplicates": duplicates(train.rows, held_out.rows),
        "noise": noise(train.rows),
    }
    return {name: result for name, result in found.items() if result}


def at_end(
    model: Any,
    frozen: Frozen,
    of_ranks: Sequence[Mapping[str, str]],
    load: Callable[[Path], Any],
    checkpoint: Path,
    held_out: Corpus,
    step: int,
) -> dict[str, Any]:
    """What only a trained and saved model shows: probes by name.

    of_ranks: `prints` of the parameters on every rank, none where these hold shards · load: reads the checkpoint as a
    resumed run would.
    """
    found: dict[str, Any] = {
        "frozen": frozen.changed(step),
        "ranks": {"ranks": len(of_ranks), "differing": differing(of_ranks), "step": step} if of_ranks else None,
        "conditioning": conditioning(model, held_out, step),
    }
    if sum(p.numel() for p in model.parameters()) <= RELOADED_PARAMETERS:
        found["reload"] = reload(model, load(checkpoint), held_out, step)
    return {name: result for name, result in found.items() if result}

"""Two probes that score held-out clips again: with exchanged texts, and with the model that its checkpoint gives."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from earnest.data import baselines
from earnest.data.batch import Batch
from earnest.data.corpus import Corpus
from earnest.data.row import Row
from earnest.losses.tokens import score
from earnest.models.system import System
from earnest.probes.results import Conditioning, Reload
from earnest.probes.state import untouched
from earnest.streams import TEXT

CLIPS = 64  # held-out clips that are scored with each other's text (assumed: the interval says how rough that is)


def conditioning(model: System, held_out: Corpus, step: int) -> dict[str, Conditioning] | None:
    """How much higher audio's held-out cross-entropy is if clips get each other's texts.

    Paired by clip; one that another's text makes too long is left out. None if there are no two texts, or conversations
    in place of them.
    """
    versions = [held_out.vary(row, None) for row in held_out.rows[:CLIPS]]
    texts = [version.text for version in versions]
    if len(set(texts)) < 2 or any(version.turns for version in versions):
        return None
    # Each clip gets the next text that differs from its own.
    other = [next(text for text in texts[clip:] + texts[:clip] if text != texts[clip]) for clip in range(len(texts))]
    exchanged = [replace(version, text=text) for version, text in zip(versions, other, strict=True)]
    settings = held_out.lay_out, held_out.pad_id, held_out.positions_per_batch, _same
    swapped = Corpus(exchanged, *settings)
    if not len(swapped):
        return None
    fitting = {row.source for row in swapped.rows}
    sides = Corpus([version for version in versions if version.source in fitting], *settings), swapped
    (own_nats, counted), (other_nats, _) = (_audio_nats(model, side.batches(), len(side)) for side in sides)
    gap = other_nats - own_nats
    low, high = baselines.bootstrap_interval(gap, counted)
    return {"text": Conditioning(float(gap.sum() / counted.sum()), (float(low), float(high)), len(swapped), step)}


def _same(row: Row, random: np.random.Generator | None) -> Row:
    """The variation that changes nothing."""
    return row


def reload(model: System, loaded: System, held_out: Corpus, step: int) -> Reload:
    """One held-out batch scored by the model and by the one that its checkpoint gave, and the names of tensors that
    only one of the two has."""
    before, after = model.state_dict(), loaded.state_dict()
    batches = list(islice(held_out.batches(), 1))
    nats, counted = _audio_nats(model, batches, len(held_out))
    loaded_nats, _ = _audio_nats(loaded.to(model.device), batches, len(held_out))
    return Reload(
        ce_before=float(nats.sum() / counted.sum()),
        ce_after=float(loaded_nats.sum() / counted.sum()),
        missing=tuple(sorted(before.keys() - after.keys())),
        unexpected=tuple(sorted(after.keys() - before.keys())),
        step=step,
    )


@torch.no_grad()
def _audio_nats(model: System, batches: Iterable[Batch], clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy and counted targets of all codebooks together, per clip."""
    nats, counted = np.zeros(clips), np.zeros(clips)
    with untouched(model):
        for batch in batches:
            here = batch.to(model.device)
            for stream, sums in score(model.outputs(here), here, {})[1].items():
                if stream != TEXT:
                    np.add.at(nats, batch.clip_B.numpy(), sums.ce_B.double().cpu().numpy())
                    np.add.at(counted, batch.clip_B.numpy(), sums.counted_B.double().cpu().numpy())
    return nats, counted

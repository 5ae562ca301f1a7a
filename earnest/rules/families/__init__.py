"""The rules, by family; a file enters its rules into the catalogue when it is imported."""

from earnest.rules.families import (
    adversarial,
    batch,
    bookkeeping,
    data,
    generalisation,
    gradients,
    labels,
    learning,
    loss,
    quantiser,
    schedule,
    shift,
    sound,
    starts,
    trainer,
)

__all__ = [
    "adversarial",
    "batch",
    "bookkeeping",
    "data",
    "generalisation",
    "gradients",
    "labels",
    "learning",
    "loss",
    "quantiser",
    "schedule",
    "shift",
    "sound",
    "starts",
    "trainer",
]

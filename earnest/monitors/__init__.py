"""What is measured beside the loss: a `Step` in, signals and results of probes out."""

from collections.abc import Mapping
from typing import Protocol

from earnest.probes.results import Results
from earnest.run import Step


class Monitor(Protocol):
    """Looks at every step of a training, earnest's own or anybody's.

    A monitor that needs more than the step (the model, its batches, time) is given it before the first one.
    """

    def step(self, step: Step) -> Mapping[str, float]:
        """Called after the optimizer's step, with the gradients still in place: signals that are added to its row."""
        return {}

    def probes(self) -> Results:
        """What is known so far; asked from time to time, and at the end."""
        return Results()

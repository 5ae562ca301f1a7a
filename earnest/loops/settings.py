"""How a training is watched: what `earnest.watch`, every callback and the command line take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.rules.finding import SEVERITIES, Severity


@dataclass(eq=False)
class Settings:
    """What stands before the script.

    Args:
        out: The run directory; one that is taken gets a number.
        every: Steps between two rows, after the first 20.
        streams: Names of the losses of tokens, in the order in which they are computed.
        stop_on: End the training once a finding of this severity is believed.
        alert: Tell the tracker in use too (W&B, Trackio, MLflow, TensorBoard).
        facts: What is known beside (`earnest explain facts`).
    """

    out: Annotated[str | Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: runs/watch)")] = None
    every: int = 10
    streams: Annotated[Sequence[str], tyro.conf.UseAppendAction] = ()
    stop_on: Severity | None = None
    alert: bool = True
    facts: Annotated[Mapping[str, Any] | None, tyro.conf.Suppress] = None

    def __post_init__(self) -> None:
        if self.stop_on is not None and self.stop_on not in SEVERITIES:
            told = f"one of {', '.join(SEVERITIES)}, or None"
            raise UserError(f"stop_on={self.stop_on!r}", told, "stop_on='critical'")
        if self.every < 1:
            raise UserError(f"every={self.every}", "steps between two rows, at least 1", "every=10")
        self.known()

    def known(self) -> Facts:
        """The facts that were given. Raises UserError for one that is none."""
        return Facts().updated(self.facts or {})

"""Planted faults: a system whose input or states are changed on their way, and a batch with its labels elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.data.batch import Batch, Example, Prompt
from earnest.data.masks import IGNORE
from earnest.models.system import Continuation, Output, System
from earnest.streams import Stream


class Wrapped(System):
    """`change_input`: batch -> batch. `change_states`: (states_PD, batch) -> states; shared states stay shared."""

    def __init__(
        self,
        model: System,
        change_states: Callable[[Tensor, Batch], Tensor] | None = None,
        change_input: Callable[[Batch], Batch] | None = None,
    ):
        super().__init__()
        self.model, self.change_states, self.change_input = model, change_states, change_input
        self.codebooks, self.eos_id = model.codebooks, model.eos_id

    def outputs(self, batch: Batch) -> dict[Stream, Output]:
        outputs: Mapping[Stream, Output] = self.model.outputs(self.change_input(batch) if self.change_input else batch)
        if self.change_states is None:
            return dict(outputs)
        states = {id(output.states_PD): output.states_PD for output in outputs.values()}
        changed = {name: self.change_states(states_PD, batch) for name, states_PD in states.items()}
        return {stream: Output(changed[id(output.states_PD)], output.head) for stream, output in outputs.items()}

    def order(self, stream: Stream) -> int:
        return self.model.order(stream)

    def lay_out(self, *args: Any, **kwargs: Any) -> Example:
        return self.model.lay_out(*args, **kwargs)

    def prompt(self, *args: Any, **kwargs: Any) -> Prompt:
        return self.model.prompt(*args, **kwargs)

    def begin(self, prompts: Sequence[Prompt]) -> Continuation:
        return self.model.begin(prompts)

    def save_pretrained(self, path: str | Path) -> None:
        self.model.save_pretrained(path)


def shifted(batch: Batch, by: int) -> Batch:
    """Targets moved towards the front (1: shifted twice) or the back (-1: not shifted)."""
    moved = {name: torch.roll(getattr(batch, name), -by, dims=1) for name in ("text_targets_BS", "audio_targets_BSC")}
    for targets in moved.values():
        targets.select(1, -1 if by > 0 else 0).fill_(IGNORE)
    return replace(batch, **moved)

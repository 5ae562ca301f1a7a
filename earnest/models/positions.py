"""A decoder that is continued by one position of each sequence at a time, captured or not."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from earnest.errors import UserError
from earnest.models.compiled import check_compiler, compiled
from earnest.models.prepacked import CachedAttention, RotaryTable, frames_to_capture, normed

Step = Callable[[Tensor], Tensor]
ROOM = 256  # positions, doubled until there is room for all: what is compiled for a length serves others too


class Layer(Protocol):
    """A layer for one position."""

    attention: CachedAttention

    def advance(self, hidden_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor: ...


class Positions:
    """The layers of a decoder with their keys and values, for one new position of each sequence at a time.

    positions: how many the layers hold. first_B1: at which each sequence begins, behind its padding. each: positions of
    a frame. Within `captured` every tensor keeps its shape and its place: torch.compile takes a step whole, and a GPU
    replays it as one graph, without Python between its kernels.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        rotary: RotaryTable,
        norm: Any,
        positions: int,
        first_B1: Tensor,
        each: int = 1,
    ):
        self.layers, self.rotary, self.norm, self.positions, self.first_B1 = layers, rotary, norm, positions, first_B1
        self.padded = bool(first_B1.any())
        frames = frames_to_capture()
        self.step: Step = self._grown if frames is None else self._captured(positions + frames * each)

    def advance(self, hidden_BD: Tensor) -> Tensor:
        """The states (B, D), normed, of one new position of each sequence."""
        states_BD = self.step(hidden_BD)
        self.positions += 1
        return states_BD

    def _grown(self, hidden_BD: Tensor) -> Tensor:
        """Attention sees the positions that there are."""
        cos_B1H, sin_B1H = self.rotary.at(self.positions - self.first_B1, self.positions)
        exists_B11S = None
        if self.padded:
            place_S = torch.arange(self.positions + 1, device=hidden_BD.device)
            exists_B11S = (place_S >= self.first_B1)[:, None, None]
        return self._through(hidden_BD, cos_B1H, sin_B1H, exists_B11S)

    def _through(self, hidden_BD: Tensor, cos_B1H: Tensor, sin_B1H: Tensor, exists_B11S: Tensor | None) -> Tensor:
        for layer in self.layers:
            hidden_BD = layer.advance(hidden_BD, cos_B1H, sin_B1H, exists_B11S)
        return normed(hidden_BD, self.norm)

    def _captured(self, needed: int) -> Step:
        device = self.first_B1.device
        if self.rotary.follows_length:
            raise UserError(
                f"--compile of a model whose rotary embedding is {self.rotary.embedding.rope_type}",
                "one whose frequencies do not depend on the length",
                "leave --compile out",
            )
        check_compiler(device)
        room = ROOM
        while room < needed:
            room *= 2
        self.place_S = torch.arange(room, device=device)
        self.at_1 = torch.tensor([self.positions], device=device)
        self.rotary.at(self.first_B1, room)  # makes the table
        for layer in self.layers:
            layer.attention.past.make_room(room, self.at_1)
        step: Step = compiled(self._fixed, dynamic=False)
        return _Replayed(step, self.at_1) if device.type == "cuda" else step

    def _fixed(self, hidden_BD: Tensor) -> Tensor:
        """Attention sees all the room, and is told which positions there are."""
        exists_BS = (self.place_S >= self.first_B1) & (self.place_S <= self.at_1)
        row_B = (self.at_1 - self.first_B1)[:, 0]
        cos_B1H, sin_B1H = self.rotary.rows(row_B)
        states_BD = self._through(hidden_BD, cos_B1H, sin_B1H, exists_BS[:, None, None])
        self.at_1 += 1
        return states_BD


class _Replayed:
    """A step as a CUDA graph, captured at its first call. Not tried on a GPU yet (docs/performance.md)."""

    def __init__(self, step: Step, at_1: Tensor):
        self.step, self.at_1 = step, at_1
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, hidden_BD: Tensor) -> Tensor:
        if self.graph is None:
            self.hidden_BD = hidden_BD.clone()
            self.graph = self._graph()
        self.hidden_BD.copy_(hidden_BD)
        self.graph.replay()
        return self.states_BD

    def _graph(self) -> torch.cuda.CUDAGraph:
        """What warms up writes behind the positions that there are, where it is written again."""
        before_1, graph, stream = self.at_1.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step(self.hidden_BD)
                self.at_1.copy_(before_1)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            self.states_BD = self.step(self.hidden_BD)
        return graph

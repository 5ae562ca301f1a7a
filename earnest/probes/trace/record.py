"""One run of a loss, written down: ids looked up in tables, rows of logits that are scored, calls of loss functions."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from earnest.probes.trace.scores import Scores, scores_of

LOOKUPS: Mapping[
    Callable[..., Any], tuple[int, int]
] = {  # function -> where its ids and its table are among its arguments
    F.embedding: (0, 1),
    torch.embedding: (1, 0),
    Tensor.__getitem__: (1, 0),
}
PRODUCTS: Mapping[Callable[..., Any], int] = {  # function -> the axis of its classes, if it makes logits
    F.linear: -1,
    torch.addmm: -1,
    torch.mm: -1,
    torch.matmul: -1,
    Tensor.matmul: -1,
    Tensor.__matmul__: -1,
    Tensor.__rmatmul__: -1,
    torch.bmm: -1,
    torch.baddbmm: -1,
    torch.einsum: -1,
    F.conv1d: 1,
}
LOSSES: Mapping[Callable[..., Any], str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll_loss",
    F.log_softmax: "log_softmax",
    torch.log_softmax: "log_softmax",
    Tensor.log_softmax: "log_softmax",
    torch.logsumexp: "logsumexp",
    Tensor.logsumexp: "logsumexp",
    F.kl_div: "kl_div",
    F.mse_loss: "mse_loss",
    F.l1_loss: "l1_loss",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy",
}
FEWEST_CLASSES = 5  # with fewer, one negative entry in a row is no sign of a label
CHUNK = 2**22  # entries of logits that are worked on at once
FRAMES = 24  # of the Python stack that are kept for a line


class Line(NamedTuple):
    """A line of somebody's code."""

    path: str
    number: int
    function: str


class Key(NamedTuple):
    """A product that may be an output layer: its weight, its width, and its number among the calls that share both."""

    weight: int
    width: int
    call: int


@dataclass(frozen=True)
class Lookup:
    """Ids looked up in a table: index as int64, and the table itself, whose name the model knows."""

    index: np.ndarray
    table: Tensor
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class LossCall:
    """A call of a loss function: `result` holds the graph that leads from it back to the logits."""

    function: str
    label_smoothing: float
    result: Tensor
    lines: tuple[Line, ...]


@dataclass
class Record:
    """What one run did. `scores` and `weights` by the output layer's key, in order of the calls."""

    lookups: list[Lookup] = field(default_factory=list[Lookup])
    losses: list[LossCall] = field(default_factory=list[LossCall])
    scores: dict[Key, Scores] = field(default_factory=dict[Key, Scores])
    weights: dict[Key, Tensor | None] = field(default_factory=dict[Key, Tensor | None])
    nodes: dict[Key, Any] = field(default_factory=dict[Key, Any])  # the output layers' places in the graph
    prints: dict[Key, np.ndarray] = field(
        default_factory=dict[Key, np.ndarray]
    )  # per row of logits and codebook, two numbers
    used: dict[bool, set[int]] = field(default_factory=lambda: {True: set(), False: set()})  # ids of parameters that
    # were computed with, by whether gradients were on


Changes = Mapping[int, tuple[np.ndarray, np.ndarray]]  # number of a lookup -> (flat places, what is added to their ids)


class Recorder(TorchFunctionMode):
    """Writes down what runs inside it.

    changes: ids that are looked up in place of the user's · printed: output layers, and their codebooks, of which every
    row is reduced to two numbers that change with it (`Record.prints`).
    """

    def __init__(self, changes: Changes | None = None, printed: Mapping[Key, int] | None = None):
        super().__init__()
        self.record = Record()
        self._changes, self._printed = changes or {}, printed
        self._calls: dict[tuple[int, int], int] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in LOOKUPS:
            args = self._lookup(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._printed is None and isinstance(result, Tensor):
            used = self.record.used[torch.is_grad_enabled()]
            used.update(id(one) for one in (*args, *kwargs.values()) if isinstance(one, nn.Parameter))
        if func in PRODUCTS and isinstance(result, Tensor) and result.is_floating_point():
            self._product(func, args, kwargs, result)
        elif func in LOSSES and isinstance(result, Tensor) and result.requires_grad and self._printed is None:
            smoothing = float(kwargs.get("label_smoothing", 0.0))
            self.record.losses.append(LossCall(LOSSES[func], smoothing, result, lines()))
        return result

    def _lookup(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        at, table_at = LOOKUPS[func]
        given = {0: "input", 1: "weight"}
        index = args[at] if len(args) > at else kwargs.get(given[at])
        table = args[table_at] if len(args) > table_at else kwargs.get(given[table_at])
        if not _is_index(index) or not _is_table(table, func):
            return args
        number = len(self.record.lookups)
        if number in self._changes:
            places, added = self._changes[number]
            index = index.clone(memory_format=torch.contiguous_format)
            index.view(-1)[torch.from_numpy(places)] += torch.from_numpy(added).to(index)
            if len(args) > at:
                args = (*args[:at], index, *args[at + 1 :])
            else:
                kwargs[given[at]] = index
        self.record.lookups.append(
            Lookup(index.detach().cpu().numpy().astype(np.int64), table, () if self._printed is not None else lines())
        )
        return args

    def _product(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        logits = result.movedim(PRODUCTS[func], -1) if PRODUCTS[func] != -1 else result
        if logits.ndim < 2 or logits.shape[-1] < FEWEST_CLASSES:
            return
        weight = next(
            (one for one in (*args, *kwargs.values()) if isinstance(one, nn.Parameter) and one.ndim > 1), None
        )
        place = id(weight) if weight is not None else 0, int(logits.shape[-1])
        key = Key(*place, self._calls.get(place, 0))
        self._calls[place] = key.call + 1
        if self._printed is not None:
            if key in self._printed:
                self.record.prints[key] = prints(logits.detach(), self._printed[key])
            return
        if not result.requires_grad:
            return
        kept, record = logits.detach(), self.record

        def scored(gradient: Tensor) -> None:
            moved = gradient.movedim(PRODUCTS[func], -1) if PRODUCTS[func] != -1 else gradient
            with torch.no_grad():
                found = scores_of(moved.detach(), kept)
            if found is not None:
                record.scores[key] = found if key not in record.scores else record.scores[key].joined(found)

        record.weights[key], record.nodes[key] = weight, result.grad_fn
        result.register_hook(scored)


def _is_index(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32) and index.ndim > 0


def _is_table(table: Any, func: Callable[..., Any]) -> bool:
    if not isinstance(table, Tensor) or table.ndim != 2 or not table.is_floating_point():
        return False
    return func is not Tensor.__getitem__ or isinstance(table, nn.Parameter)


def prints(logits: Tensor, codebooks: int) -> np.ndarray:
    """Two numbers for every row of logits and codebook: their products with two fixed random directions, (rows,
    codebooks, 2)."""
    width = logits.shape[-1] // codebooks
    rows = logits.reshape(-1, codebooks, width)
    directions = torch.randn(width, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(rows.device)
    step = max(1, CHUNK // logits.shape[-1])
    with torch.no_grad():
        parts = [part.double().nan_to_num(posinf=1e9, neginf=-1e9) @ directions for part in rows.split(step)]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, codebooks, 2))


def lines() -> tuple[Line, ...]:
    """Where we are in other people's code, innermost line first; torch and earnest are left out."""
    frame, found = sys._getframe(2), list[Line]()
    while frame is not None and len(found) < FRAMES:
        path = frame.f_code.co_filename
        if "/torch/" not in path and "/earnest/" not in path and not path.startswith("<frozen"):
            found.append(Line(path, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(found)

"""One run of a loss, written down: ids looked up in tables, rows of logits that are scored, calls of loss functions."""

import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

import earnest
from earnest.probes.alike import alike_rows
from earnest.probes.given import given_instead
from earnest.probes.results import AlikeRows
from earnest.probes.trace import graph
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
    torch.tensordot: -1,
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
NOBODYS = (*(f"{Path(package.__file__ or '').parent}{os.sep}" for package in (torch, earnest)), "<frozen")


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
    """Ids looked up in a table: index as int64; the table's name, and a number that is its own."""

    index: np.ndarray
    table: str
    number: int


class Given(NamedTuple):
    """A loss function, what it was given instead of what it expects, and the lines of the call."""

    function: str
    instead: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Record:
    """What one run did, in plain values.

    scores, layers, lines: by output layer in order of the calls: its scored rows, the name of its weights, and the
    lines of the loss call that its logits reach, innermost first · losses: loss functions that were called · used:
    parameters that were computed with while gradients were on · alike: of tables without a gradient, ids that share a
    row · given: inputs of loss functions that are not what these expect.
    """

    lookups: list[Lookup]
    scores: dict[Key, Scores]
    layers: dict[Key, str]
    lines: dict[Key, tuple[Line, ...]]
    losses: tuple[str, ...]
    used: frozenset[str]
    alike: tuple[AlikeRows, ...] = ()
    given: tuple[Given, ...] = ()


Changes = Mapping[int, tuple[np.ndarray, np.ndarray]]  # number of a lookup -> (flat places, what is added to their ids)


def called(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a function. Copies of torch's functions with arguments of their own hand these to torch's if they
    see that somebody listens; then the copy is called, unheard."""
    try:
        return func(*args, **kwargs)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error) or (copy := _handed_on()) is None:
            raise
        return copy(*args, **kwargs)


def _handed_on() -> Callable[..., Any] | None:
    """The function that has just called torch's `handle_torch_function`."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "handle_torch_function":
        frame = frame.f_back
    caller = frame.f_back if frame is not None else None
    found: Callable[..., Any] | None = caller.f_globals.get(caller.f_code.co_name) if caller is not None else None
    return found


class ThrownAway:
    """Finds parameters whose results nothing reads, such as those of logits when a model is only asked for hidden
    states. A result is read by a loss, or by a function that cuts the gradient off.

    read: ids of parameters of which something was read.
    """

    def __init__(self) -> None:
        self.read: set[int] = set()
        self._made: dict[int, tuple[weakref.ref[Tensor], frozenset[int]]] = {}  # by id of a result that waits

    def follow(self, is_loss: bool, arguments: Sequence[Any], result: Tensor) -> None:
        """One function was called."""
        behind: set[int] = set()
        for one in arguments:
            for tensor in one if isinstance(one, list | tuple) else (one,):
                if isinstance(tensor, nn.Parameter):
                    behind.add(id(tensor))
                elif isinstance(tensor, Tensor) and (made := self._made.get(id(tensor))) and made[0]() is tensor:
                    behind |= made[1]
        behind -= self.read
        if is_loss or not result.requires_grad:
            self.read |= behind
        elif behind:
            self._made[id(result)] = weakref.ref(result), frozenset(behind)


class Recorder(TorchFunctionMode):
    """Writes down what runs inside it (`finished`).

    changes: what is added to ids that are looked up · printed: output layers, and their codebooks, of which every row
    is reduced to two numbers that change with it (`prints`); nothing else is then written down.
    """

    def __init__(self, changes: Changes | None = None, printed: Mapping[Key, int] | None = None):
        super().__init__()
        self.prints: dict[Key, np.ndarray] = {}
        self._changes, self._printed = changes or {}, printed
        self._calls: dict[tuple[int, int], int] = {}
        self._lookups: list[tuple[np.ndarray, Tensor]] = []
        self._losses: list[tuple[str, Any, tuple[Line, ...]]] = []  # function, its place in the graph, lines
        self._nodes: dict[Key, Any] = {}  # the output layers' places in the graph
        self._scores: dict[Key, Scores] = {}
        self._used: dict[int, Tensor] = {}
        self._frozen: dict[int, tuple[Tensor, list[Tensor]]] = {}  # tables without gradient; their ids
        self._given: list[Given] = []
        self._thrown_away = ThrownAway()
        self._hooks: list[RemovableHandle] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in LOOKUPS:
            args = self._lookup(func, args, kwargs)
        result = called(func, args, kwargs)
        if not isinstance(result, Tensor):
            return result
        if self._printed is None and torch.is_grad_enabled():
            self._used.update((id(one), one) for one in (*args, *kwargs.values()) if isinstance(one, nn.Parameter))
            self._thrown_away.follow(func in LOSSES, (*args, *kwargs.values()), result)
        if func in PRODUCTS and result.is_floating_point() and not result.is_nested:
            self._product(func, args, kwargs, result)
        elif func in LOSSES and result.requires_grad and self._printed is None:
            called_at = lines()
            self._losses.append((LOSSES[func], result.grad_fn, called_at))
            instead = given_instead(LOSSES[func], args[0] if args else kwargs.get("input"))
            if instead is not None:
                self._given.append(Given(LOSSES[func], instead, called_at))
        return result

    @property
    def lookups(self) -> int:
        """How many have been written down."""
        return len(self._lookups)

    @property
    def scored(self) -> bool:
        """Whether any output layer was."""
        return bool(self._scores)

    def finished(self, names: Mapping[int, str]) -> Record:
        """What was written down. names: id of a parameter -> its name. Asked for once: nothing is held afterwards."""
        scored = [key for key in self._nodes if key in self._scores]
        record = Record(
            [Lookup(index, names.get(id(table), "a table"), id(table)) for index, table in self._lookups],
            {key: self._scores[key] for key in scored},
            {key: graph.layer_name(key.weight, self._nodes[key], names) for key in scored},
            graph.loss_lines(
                [(node, found) for _, node, found in self._losses], {self._nodes[key]: key for key in scored}
            ),
            tuple(dict.fromkeys(function for function, _, _ in self._losses)),
            frozenset(names[number] for number in self._used if number in names and number in self._thrown_away.read),
            tuple(self._alike(names)),
            tuple(self._given),
        )
        self.let_go()
        return record

    def _alike(self, names: Mapping[int, str]) -> Iterator[AlikeRows]:
        """Equal rows in the model's frozen tables. A table is left out if a trained table, such as an adapter's, is
        looked up with the same ids: it tells them apart."""
        for number, (table, looked_up) in self._frozen.items():
            of_others = [index for index, other in self._lookups if other is not table and other.requires_grad]
            ids = torch.cat([one.reshape(-1).to(table.device) for one in looked_up])
            if number in names and not any(one.size == ids.numel() for one in of_others):
                found = alike_rows(names[number], table, ids)
                if found is not None:
                    yield found

    def let_go(self) -> None:
        """Drop all tensors and graphs. A hook and the graph that holds it refer to each other in a cycle that Python's
        garbage collector cannot see."""
        for hook in self._hooks:
            hook.remove()
        for held in (self._hooks, self._nodes, self._losses, self._lookups, self._used, self._frozen):
            held.clear()

    def forget(self) -> None:
        """Begin anew, as if nothing had been written down; calls and lookups are counted on."""
        for hook in self._hooks:
            hook.remove()
        for held in (self._hooks, self._nodes, self._losses, self._scores, self._used, self._frozen, self._given):
            held.clear()
        self._thrown_away = ThrownAway()

    def _lookup(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        at, table_at = LOOKUPS[func]
        given = {0: "input", 1: "weight"}
        index = args[at] if len(args) > at else kwargs.get(given[at])
        table = args[table_at] if len(args) > table_at else kwargs.get(given[table_at])
        if index is None or table is None or not _is_index(index) or not _is_table(table, func):
            return args
        number = len(self._lookups)
        if number in self._changes:
            places, added = self._changes[number]
            index = index.clone(memory_format=torch.contiguous_format)
            index.view(-1)[torch.as_tensor(places)] += torch.as_tensor(added).to(index)
            if len(args) > at:
                args = (*args[:at], index, *args[at + 1 :])
            else:
                kwargs[given[at]] = index
        if self._printed is None and torch.is_grad_enabled() and _is_frozen(table):
            self._frozen.setdefault(id(table), (table, []))[1].append(index.detach())
        self._lookups.append((index.detach().cpu().numpy().astype(np.int64), table))
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
                self.prints[key] = prints(logits.detach(), self._printed[key])
            return
        if not result.requires_grad:
            return
        kept, scores = logits.detach(), self._scores

        def scored(gradient: Tensor) -> None:
            moved = gradient.movedim(PRODUCTS[func], -1) if PRODUCTS[func] != -1 else gradient
            with torch.no_grad():
                found = scores_of(moved.detach(), kept)
            if found is not None:
                scores[key] = found if key not in scores else scores[key].joined(found)

        self._nodes[key] = result.grad_fn
        self._hooks.append(result.register_hook(scored))


def _is_frozen(table: Tensor) -> bool:
    return isinstance(table, nn.Parameter) and not table.requires_grad


def _is_index(index: Any) -> bool:
    whole = isinstance(index, Tensor) and not index.is_nested
    return whole and index.dtype in (torch.int64, torch.int32) and index.ndim > 0


def _is_table(table: Any, func: Callable[..., Any]) -> bool:
    if not isinstance(table, Tensor) or table.ndim != 2 or not table.is_floating_point():
        return False
    return func is not Tensor.__getitem__ or isinstance(table, nn.Parameter)


def prints(logits: Tensor, codebooks: int) -> np.ndarray:
    """Two numbers for every row of logits and codebook: their products with two fixed random directions, (rows,
    codebooks, 2)."""
    width = logits.shape[-1] // codebooks
    rows = logits.reshape(-1, codebooks, width)
    directions = _directions(width).to(rows.device)
    step = max(1, CHUNK // logits.shape[-1])
    with torch.no_grad():
        parts = [part.double().nan_to_num(posinf=1e9, neginf=-1e9) @ directions for part in torch.split(rows, step)]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, codebooks, 2))


def prints_of_linear(states: Tensor, weight: Tensor, bias: Tensor | None, codebooks: int) -> np.ndarray:
    """The same of the logits that these states (..., D) and weights (V, D) would give; they are not computed."""
    directions = _directions(len(weight) // codebooks).to(weight.device)
    with torch.no_grad():
        weight_KVD = weight.detach().reshape(codebooks, -1, weight.shape[-1])
        printed_KDN = torch.stack([one.double().T @ directions for one in weight_KVD])
        found = torch.einsum("rd,kdn->rkn", states.detach().reshape(-1, states.shape[-1]).double(), printed_KDN)
        if bias is not None:
            found = found + bias.detach().double().reshape(codebooks, -1) @ directions
        return found.nan_to_num(posinf=1e9, neginf=-1e9).cpu().numpy()


def _directions(width: int) -> Tensor:
    return torch.randn(width, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def lines() -> tuple[Line, ...]:
    """The lines of other people's code that we were called from, innermost first; torch and earnest are left out."""
    frame, found = sys._getframe(2), list[Line]()
    while frame is not None and len(found) < FRAMES:
        path = frame.f_code.co_filename
        if not path.startswith(NOBODYS):
            found.append(Line(path, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(found)

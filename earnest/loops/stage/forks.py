"""The script forks where ids are first looked up with gradients on: each child goes on by itself, with other ids."""

import contextlib
import gc
import os
import pickle
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from earnest.errors import UserError
from earnest.probes.reach import not_optimized, without_gradient
from earnest.probes.results import Gradients, MicroBatches, Optimizer
from earnest.probes.trace.record import (
    LOOKUPS,
    PRODUCTS,
    Changes,
    Key,
    Line,
    Record,
    Recorder,
    called,
    lines,
    prints_of_linear,
)
from earnest.probes.trace.sight import Prints

T = TypeVar("T")
Lines = tuple[Line, ...]


@dataclass
class Step:
    """What the first child saw up to the first optimizer step."""

    record: Record
    gradients: Gradients
    optimizer: Optimizer
    micro_batches: MicroBatches
    weight: int  # id of a parameter of the model, which is the same in the parent


class Forking(TorchFunctionMode):
    """Waits for the first lookup in a table, or the first function of trained weights, with gradients on, and calls
    `begin` there, once; and `ready` at the first function of any weights."""

    def __init__(self, ready: Callable[[], None], begin: Callable[[], None]):
        super().__init__()
        self._ready: Callable[[], None] | None = ready
        self._begin: Callable[[], None] | None = begin

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._ready is not None and func in COMPUTES and any(isinstance(one, torch.nn.Parameter) for one in args):
            ready, self._ready = self._ready, None
            ready()
        if self._begin is not None and torch.is_grad_enabled() and _begins(func, args):
            begin, self._begin = self._begin, None
            with contextlib.suppress(GoOn):
                begin()
        return called(func, args, kwargs or {})


COMPUTES = (*LOOKUPS, *PRODUCTS, F.conv2d, F.conv_transpose1d, F.conv_transpose2d)  # functions of weights


def _begins(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether a training step begins with this function. A table may be frozen, as under adapters: it says what the ids
    of the batch are. Else a weight is trained, or what was computed from one."""
    if func in LOOKUPS:
        return any(isinstance(one, torch.nn.Parameter) and one.ndim == 2 for one in args)
    return func in COMPUTES and any(isinstance(one, Tensor) and one.requires_grad and one.ndim > 1 for one in args)


class ToTheStep(Recorder):
    """Runs in a child process: records the first micro-batch, and sends a `Step` before the first optimizer step."""

    def __init__(self, send: Callable[[Any], None]):
        super().__init__()
        self._send_found = send
        self._lost, self._waiting = list[Lines](), list[Lines]()  # micro-batches, by who called backward()
        self._depth = 0
        self._first: Any = None  # the table that a micro-batch begins with
        self._closed = self._scored = False
        backward = torch.autograd.backward

        def counted(*args: Any, **kwargs: Any) -> None:
            self._depth += 1  # checkpointing calls backward() inside of it
            try:
                backward(*args, **kwargs)
            finally:
                self._depth -= 1
            if not self._depth:
                self._waiting.append(lines()[:1])
                self._scored = True

        torch.autograd.backward = counted
        torch.optim.Optimizer.zero_grad = _after(self._empty, torch.optim.Optimizer.zero_grad)  # type: ignore[method-assign]
        torch.nn.Module.zero_grad = _after(self._empty, torch.nn.Module.zero_grad)  # type: ignore[method-assign]
        register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: self._stepped(optimizer))
        ending.append(lambda error: send(error))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._lost and self._scored and not self._waiting and torch.is_grad_enabled() and _begins(func, args):
            self.forget()  # what was lost says nothing about what is trained
            self._first, self._closed, self._scored = None, False, False
        if func in LOOKUPS and not self._closed and torch.is_grad_enabled():
            table = args[LOOKUPS[func][1]] if len(args) > LOOKUPS[func][1] else None
            self._first = table if self._first is None else self._first
            self._closed = self._scored and table is self._first
        if self._closed or self._scored:
            return called(func, args, kwargs or {})
        return super().__torch_function__(func, types, args, kwargs)

    def _empty(self) -> None:
        self._lost, self._waiting = self._lost + self._waiting, []

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        if not (self._waiting or self._lost):
            return
        held = {id(one): one for group in optimizer.param_groups for one in group["params"]}
        trained = [one for key, one in self._used.items() if key in held]  # a frozen codec's table is of another model
        weight = [*trained, *(table for _, table in self._lookups)][:1]
        if not weight:
            return
        model = model_of(weight)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        record = self.finished(names)
        every = alive(torch.optim.Optimizer) or [optimizer]
        missing = set.intersection(*({*not_optimized(model, one).missing} for one in every))
        missing -= set(without_gradient(model, record.used).without_gradient)
        optimized = Optimizer(tuple(name for name in names.values() if name in missing), len(names))
        weights = [float(one.weight.sum()) for one in record.scores.values()]
        lost = [line for line in self._lost if not self._waiting or line in self._waiting]  # others are a warm-up
        count = len(lost) + len(self._waiting)
        batches = MicroBatches(count, len(lost), weights[0] if len(weights) == 1 else None)
        gradients = without_gradient(model, record.used, {names[key] for key in held if key in names})
        self._send_found(Step(record, gradients, optimized, batches, id(weight[0])))


class ToThePrints(Recorder):
    """Runs in a child process: continues with other ids, and sends what the output layers give as soon as all have been
    called."""

    def __init__(self, changes: Changes, printed: Mapping[Key, int], send: Callable[[Any], None]):
        super().__init__(changes, printed)
        self._wanted, self._send_found = set(printed), send
        ending.append(lambda error: send(self.prints))
        register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: send(self.prints))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and len(self._wanted - self.prints.keys()) == 1:
            self._last(*args, **(kwargs or {}))
        result = super().__torch_function__(func, types, args, kwargs)
        if self._wanted <= self.prints.keys():
            self._send_found(self.prints)
        return result

    def _last(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:  # torch's own names
        """Send the prints of the last output layer without its logits, which may be many."""
        place = id(weight), len(weight)
        key = Key(*place, self._calls.get(place, 0))
        if key in self._wanted and key not in self.prints and isinstance(weight, torch.nn.Parameter):
            assert self._printed is not None
            self.prints[key] = prints_of_linear(input, weight, bias, self._printed[key])
            self._send_found(self.prints)


def _after(first: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        first()
        return function(*args, **kwargs)

    return both


ending: list[Callable[[UserError], None]] = []  # what is done with it if the script ends in this process


def alive(kind: type[T]) -> list[T]:
    """All objects of a kind that there are; a weak reference is none, and may not even be asked."""
    return [one for one in gc.get_objects() if issubclass(type(one), kind)]


def weights() -> list[torch.nn.Parameter]:
    """All parameters that hold numbers."""
    return [
        one for one in alive(torch.nn.Parameter) if not torch.nn.parameter.is_lazy(one) and one.device.type == "cpu"
    ]


def with_id(number: int) -> list[Tensor]:
    """The parameter with this id, if there is one."""
    return [one for one in alive(torch.nn.Parameter) if id(one) == number]


def model_of(weights: Sequence[Tensor]) -> torch.nn.Module:
    """The largest module that holds the first of these; of wrappers, which hold a single module, what they hold."""
    holding: list[torch.nn.Module] = []
    for module in alive(torch.nn.Module):
        if any(parameter is weight for parameter in module.parameters() for weight in weights[:1]):
            holding.append(module)
    if not holding:
        return torch.nn.Module()
    most = max(sum(parameter.numel() for parameter in module.parameters()) for module in holding)
    whole = [module for module in holding if sum(parameter.numel() for parameter in module.parameters()) == most]
    model = max(whole, key=lambda module: sum(len(name) for name, _ in module.named_parameters()))
    while (inner := list(model.children())) and len(inner) == 1 and any(inner[0] is one for one in whole):
        model = inner[0]
    return model


class ForkedReplay:
    """Runs of the script's own code from here on, each in a child that may take `wait_s`."""

    def __init__(self, wait_s: float):
        self.wait_s = wait_s
        self.step: Step | None = None

    def record(self) -> Record:
        found = self._in_child(lambda send: ToTheStep(send).__enter__())
        assert isinstance(found, Step)
        self.step = found
        return found.record

    def look(self, changes: Changes, printed: Mapping[Key, int]) -> Prints:
        found: Prints = self._in_child(lambda send: ToThePrints(changes, printed, send).__enter__())
        return found

    def _in_child(self, run: Callable[[Callable[[Any], None]], object]) -> Any:
        """Fork; the child returns into the script after `run` has armed it, and sends one object when it is done."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(reading)
            run(lambda found: _send(writing, found))
            raise GoOn
        os.close(writing)
        try:
            found = _receive(reading, self.wait_s)
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if isinstance(found, UserError):
            raise found
        return found


class GoOn(BaseException):
    """Raised in a child process, to leave the parent's work and continue with the script."""


def _send(writing: int, found: Any) -> None:
    data = pickle.dumps(found)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(struct.pack("<Q", len(data)) + data)
    os._exit(0)


def _receive(reading: int, wait_s: float) -> Any:
    data, until = b"", time.monotonic() + wait_s
    while len(data) < 8 or len(data) < 8 + struct.unpack("<Q", data[:8])[0]:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        part = os.read(reading, 2**20) if ready else b""
        if not part:
            raise UserError(
                "no loss from the script" + ("" if ready else f" within {wait_s:.0f} s"),
                "a forward and backward pass, and an optimizer step",
                "pass arguments that make the first step early: a small model, small batches, short clips",
            )
        data += part
    return pickle.loads(data[8:])

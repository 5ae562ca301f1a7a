"""The first step of somebody's training, traced while it happens: which logits each label is scored on, what the
targets are, and which parts of the batch nothing reads.

The first micro-batch is written down as it runs. What its logits have seen is then found by running the model forward a
few times more, without gradients, before the first optimizer step; random numbers and buffers are put back.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from earnest.loops.judge import judged
from earnest.loops.keep import random_state, set_random_state
from earnest.loops.processes import WouldWait, sharded
from earnest.probes.reach import has_gradient, is_whole
from earnest.probes.results import Inputs, MicroBatches, Optimizer, Results
from earnest.probes.trace.match import Ids
from earnest.probes.trace.read import Reading
from earnest.probes.trace.record import Changes, Key, Record, Recorder
from earnest.probes.trace.sight import Prints
from earnest.probes.trace.streams import streams
from earnest.probes.trace.tracing import trace
from earnest.streams import Stream

MOST_LOOKS = 10  # forward passes of the first micro-batch; the first two tell how exactly a run repeats itself
MOST_CALLS = 8  # of the models, in one micro-batch
MAY_BE_UNREAD = ("mask", "position", "type_ids", "length", "cache")  # which may rightly change nothing
READS_NOTHING = ("__get__", "size", "dim", "numel", "is_floating_point", "type", "detach", "requires_grad_")


class Reader(Recorder):
    """A recorder that also notes the memory that any function reads. off: nothing is written down any more."""

    def __init__(self) -> None:
        super().__init__()
        self.off = False
        self.read: set[int] = set()
        self.reached: dict[int, np.ndarray] = {}  # number of a lookup -> places that a gradient reaches

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.off:
            return func(*args, **(kwargs or {}))
        func = getattr(func, "__wrapped__", func)  # a loss function that is listened to
        if getattr(func, "__name__", "") not in READS_NOTHING:
            for one in (*args, *(kwargs or {}).values()):
                if isinstance(one, Tensor):
                    self.read.add(memory(one))
        before = self.lookups
        result = super().__torch_function__(func, types, args, kwargs)
        if self.lookups > before and isinstance(result, Tensor) and result.requires_grad:

            def reached(gradient: Tensor) -> None:
                now = gradient.ne(0).any(-1).cpu().numpy()
                self.reached[before] = now | self.reached.get(before, np.zeros_like(now))

            self._hooks.append(result.register_hook(reached))
        return result


def memory(tensor: Tensor) -> int:
    """The address of a tensor's storage, 0 if it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class FirstStep:
    """From the first call of a model until the first backward pass; then `results`.

    report: where a line goes that says what cannot be looked at · columns: of the data set, beside what reaches the
    model.
    """

    def __init__(self, report: Callable[[str], None]):
        self.report, self.replays = report, True
        self.columns: tuple[str, ...] = ()
        self.calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
        self.recorder: Reader | None = None
        self.record_of_run: Record | None = None
        self.named: dict[Stream, int] = {}  # stream -> classes, in the order of their output layers
        self._entered = self._waited = self.recorded = False
        self._evaluated = self._trains_in_evaluation_mode = False
        self._looks = 0
        self._names: dict[int, str] = {}
        self._count = self._lost = self._waiting = 0  # micro-batches; set to zero unused; neither that nor used yet
        self._reached: Tensor | None = None  # a parameter that the first backward pass has reached
        self.may_skip = False  # whether the loop throws gradients away on purpose, that are not finite

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a model's forward pass, of the first micro-batch. Within somebody else's mode nothing is traced."""
        if self.recorded or not torch.is_grad_enabled():
            return
        if not module.training and not self._trains_in_evaluation_mode:
            self._evaluated = True  # or trained in evaluation mode, which the backward pass will tell
            return
        if self.recorder is None and not _get_current_function_mode_stack():
            self.recorder = Reader()
            self.recorder.__enter__()
            self._entered = True
        if len(self.calls) < MOST_CALLS:
            self.calls.append((module, args, kwargs))

    def scored(self) -> None:
        """To be called before a backward pass: the recording ends with the first one, except for the gradients of the
        logits."""
        self._trains_in_evaluation_mode = self._evaluated and not self.calls
        self.recorded = not self._trains_in_evaluation_mode
        if self.recorder is not None:
            self.recorder.off = True
        self._count_lost()

    def went_back(self) -> None:
        """After a backward pass."""
        self._count, self._waiting = self._count + 1, self._waiting + 1
        if self._reached is None:
            every = (p for model, _, _ in self.calls for p in model.parameters())
            self._reached = next((p for p in every if has_gradient(p) and is_whole(p)), None)
        if self._reached is not None and self._reached.grad is not None:
            self.may_skip |= not bool(self._reached.grad.isfinite().all())

    def _count_lost(self) -> None:
        if self._waiting and self._reached is not None and not has_gradient(self._reached):
            self._lost, self._waiting = self._lost + self._waiting, 0

    def _micro_batches(self, optimizers: Sequence[torch.optim.Optimizer]) -> MicroBatches | None:
        """None if there are several optimizers, each with micro-batches of its own, or if it cannot be told."""
        if len(optimizers) != 1 or self.may_skip or id(self._reached) not in held_by(optimizers):
            return None
        self._count_lost()
        record = self.record_of_run
        weights = [float(one.weight.sum()) for one in record.scores.values()] if record is not None else []
        return MicroBatches(self._count, self._lost, weights[0] if len(weights) == 1 else None)

    def waits(self) -> bool:
        """Whether the step that comes is not the one to look at: the model was in evaluation mode so far, and its calls
        from now on are known to be training."""
        if not self._trains_in_evaluation_mode or self._waited:
            return False
        self._waited, self._count, self._waiting, self._reached = True, 0, 0, None
        return True

    def leave(self) -> None:
        """Take the recorder off torch's stack, unless somebody has put another mode on it since. Not to be called
        within a backward pass, during which torch has taken it off itself."""
        modes = _get_current_function_mode_stack()
        if self._entered and modes and modes[-1] is self.recorder:
            self._entered = False
            modes[-1].__exit__(None, None, None)

    def results(self, models: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Results:
        """What was found; called before the first optimizer step, with the gradients in place."""
        self.leave()
        self._names = named_parameters(models)
        in_parts = any(sharded(model) for model in (*models.values(), *(model for model, _, _ in self.calls)))
        found = Results() if in_parts else Results(optimizer=not_given(models, optimizers))
        if self.recorder is None:
            return found
        if in_parts:
            self._no_replays("each process holds a part of the parameters")
        root = self.calls[0][0]
        traced = trace(self)
        for reading in traced.readings:
            if reading.offset is None and not reading.itself:
                reading.offset = at_least_two(reading, traced.arrays, self.recorder.reached)
        self.named = {stream: reading.scores.classes for stream, reading in streams(traced.readings).items()}
        of_batch = judged(root, traced)
        found = found.updated(Results(micro_batches=self._micro_batches(optimizers)))
        dropped = (*self._unread(), *self._not_handed_on(root))
        return found.updated(of_batch).updated(Results(inputs=Inputs(dropped) if traced.readings or dropped else None))

    def done(self) -> None:
        """Lets go of the batch and of what was written down."""
        if self.recorder is not None:
            self.recorder.let_go()
        self.calls, self.recorder, self._reached = [], None, None

    def _unread(self) -> tuple[str, ...]:
        """Tensors that a model was given by name, and that no function read."""
        assert self.recorder is not None
        return tuple(
            dict.fromkeys(
                name
                for _, _, kwargs in self.calls
                for name, value in kwargs.items()
                if isinstance(value, Tensor)
                and value.numel() > 1
                and not any(word in name for word in MAY_BE_UNREAD)
                and memory(value) not in self.recorder.read
            )
        )

    def _not_handed_on(self, root: nn.Module) -> tuple[str, ...]:
        """Columns of the data that the model is called without, although a part of it has an argument so named."""
        given = {name for _, _, kwargs in self.calls for name in kwargs}
        lacking = [column for column in self.columns if column not in given]
        taken = {
            name
            for module in root.modules()
            if lacking and next(module.children(), None) is not None
            for name in inspect.signature(module.forward).parameters
        }
        return tuple(name for name in lacking if name in taken and not any(word in name for word in MAY_BE_UNREAD))

    # what tracing asks for

    def record(self) -> Record:
        assert self.recorder is not None
        self.record_of_run = self.recorder.finished(self._names)
        return self.record_of_run

    def look(self, changes: Changes, printed: Mapping[Key, int]) -> Prints:
        self._looks += 1
        if not self.replays or self._looks > MOST_LOOKS:
            return {}
        with torch.no_grad(), PutBack([module for module, _, _ in self.calls]), Recorder(changes, printed) as again:
            try:
                for module, args, kwargs in self.calls:
                    module(*args, **kwargs)
            except WouldWait:
                self._no_replays("the model's forward pass waits for the other processes")
                return {}
        return again.prints

    def _no_replays(self, why: str) -> None:
        self.replays = False
        self.report(f"earnest: {why}: which tokens a row has seen is not looked at; losses and targets are")


def at_least_two(reading: Reading, arrays: Sequence[Ids], reached: Mapping[int, np.ndarray]) -> int | None:
    """How far before the last label of every clip the last token stands that any row has seen, if that is two or more
    in all clips; rows of other labels may have seen more than this label's own, so that nothing follows from less.

    It needs no second run, and holds where a loop hands states from one model to the next.
    """
    for number, flat in reading.places.items():
        last: dict[tuple[int, ...], int] = {}  # clip (and codebook) -> place of its last label
        grad: dict[tuple[int, ...], int] = {}
        for one in flat[flat >= 0].tolist():
            calls, place = arrays[number].source(one)
            of = next((reached[call] for call in calls if call in reached), None)
            if of is None or of.ndim not in (2, 3):
                return None
            clip, *rest = (int(index) for index in np.unravel_index(place, of.shape))
            axis = 0 if of.ndim == 2 or of.shape[2] < of.shape[1] else 1  # of time, the longer of the two
            other = tuple(rest[:axis] + rest[axis + 1 :])
            at = (calls[0], clip, *other)
            if rest[axis] >= last.get(at, -1):
                last[at] = rest[axis]
                row = of[clip] if of.ndim == 2 else of[clip].take(other[0], 1 - axis)
                grad[at] = int(row.nonzero()[0].max()) if row.any() else -1
        ahead = {last[at] - grad[at] for at in last if grad[at] >= 0}
        if len(ahead) == 1 and len(last) > 1 and (least := ahead.pop()) >= 2:
            return least
    return None


def prefixed(model: str, path: str) -> str:
    """The path of a module or parameter behind its model's name; the path alone if the model has none."""
    return f"{model}.{path}" if model else path


def named_parameters(models: Mapping[str, nn.Module]) -> dict[int, str]:
    """id of a parameter -> its name, after that of its model if there are several."""
    return {id(p): prefixed(name, path) for name, model in models.items() for path, p in model.named_parameters()}


def held_by(optimizers: Iterable[torch.optim.Optimizer]) -> set[int]:
    """The ids of all parameters that these optimizers hold."""
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}


def not_given(models: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Optimizer:
    """Parameters that got a gradient and that no optimizer holds; what gets none may be left out on purpose."""
    held = held_by(optimizers)
    trained = {
        prefixed(name, path): p
        for name, model in models.items()
        for path, p in model.named_parameters()
        if p.requires_grad
    }
    missing = tuple(name for name, p in trained.items() if id(p) not in held and has_gradient(p))
    return Optimizer(missing, len(trained))


class PutBack:
    """Restores random numbers and buffers when the block ends, whatever ran inside; each block begins with the same
    random numbers."""

    def __init__(self, modules: Sequence[nn.Module]):
        self.buffers = {id(one): one for module in modules for one in module.buffers()}.values()

    def __enter__(self) -> None:
        self.random = random_state()
        self.were = [(one, one.detach().clone()) for one in self.buffers]
        torch.manual_seed(0)

    def __exit__(self, *error: object) -> None:
        set_random_state(self.random)
        for one, was in self.were:
            if one.shape == was.shape:
                one.copy_(was)

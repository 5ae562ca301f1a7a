"""Somebody's model, batch and loss, in whatever form they come."""

import copy
import dataclasses
import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from earnest.errors import UserError
from earnest.loops.keep import Kept
from earnest.probes.reach import without_gradient
from earnest.probes.results import Gradients
from earnest.probes.trace.hidden import HiddenRecorder
from earnest.probes.trace.record import Changes, Key, Record, Recorder
from earnest.probes.trace.sight import Prints

LossFunction = Callable[[nn.Module, Any], Any]


class Subject:
    """A loss that can be run again: `record` and `look` are what tracing asks for."""

    def __init__(self, model: nn.Module, batch: Any, loss_fn: LossFunction | None, kept: Kept):
        self.model, self.batch, self.kept = model, batch, kept
        self._loss_fn = loss_fn or loss_of_model
        self.loss_nats = float("nan")
        self.arguments: set[str] = set()  # keyword arguments that the model was called with
        self.gradients = Gradients()
        self.hidden = False  # whether hidden states are written down in place of logits

    def record(self) -> Record:
        hook = self.model.register_forward_pre_hook(self._note_arguments, with_kwargs=True)
        try:
            recorder, loss = self._recorded()
            if not recorder.scored:
                self.hidden = True
                hidden, _ = self._recorded()
                recorder = hidden if hidden.scored else recorder
        except UserError:
            raise
        except Exception as error:
            raise _cannot_run(error, self.model, self.batch) from error
        finally:
            hook.remove()
        if loss is None and all(parameter.grad is None for parameter in self.model.parameters()):
            raise UserError("a loss function that returns nothing, and calls no backward()", *NO_LOSS)
        if not recorder.scored and not math.isfinite(self.loss_nats) and loss is not None:
            fix = "print its parts: a mean over no targets (labels that are all ignored)? inputs that are not finite?"
            raise UserError(f"a loss of {self.loss_nats}", "a finite loss of this model and batch", fix)
        record = recorder.finished({id(parameter): name for name, parameter in self.model.named_parameters()})
        self.gradients = without_gradient(self.model, record.used)
        return record

    def _recorded(self) -> tuple[Recorder, Tensor | None]:
        with self._recorder() as recorder:
            loss = self.run(self.batch)
            if loss is not None:
                loss.backward()
        return recorder, loss

    def _recorder(self, changes: Changes | None = None, printed: Mapping[Key, int] | None = None) -> Recorder:
        return HiddenRecorder(self.model, changes, printed) if self.hidden else Recorder(changes, printed)

    def look(self, changes: Changes, printed: Mapping[Key, int]) -> Prints:
        with self._recorder(changes, printed) as recorder:
            self.run(self.batch)
        return recorder.prints

    def run(self, batch: Any) -> Tensor | None:
        """The loss of a batch, from the state that every run starts from."""
        self.kept.reset()
        with torch.enable_grad():
            loss = scalar(self._loss_fn(self.model, copied(batch)))
        if loss is not None:
            if not loss.requires_grad:
                raise UserError("a loss without a gradient", *NO_LOSS)
            self.loss_nats = float(loss.detach())
        return loss

    def _note_arguments(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.arguments |= set(kwargs)


NO_LOSS = (
    "a loss that is computed from the model's logits, with gradients on",
    "return the loss; compute it outside of torch.no_grad(), and do not detach() it",
)


def loss_of_model(model: nn.Module, batch: Any) -> Any:
    """The loss that the model computes itself."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if dataclasses.is_dataclass(batch):
        return model(**{field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)})
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def scalar(result: Any) -> Tensor | None:
    """The loss in what a loss function or a model returns: a tensor, an object or a mapping with `loss`, several losses
    (they are added), or a tuple that begins with one."""
    if result is None:
        return None
    if isinstance(result, Tensor):
        if result.numel() != 1:
            raise UserError(
                f"a loss of shape {tuple(result.shape)}",
                "one number",
                "pass a loss_fn(model, batch) that returns the loss",
            )
        return result.reshape(())
    if (loss := getattr(result, "loss", None)) is not None:
        return scalar(loss)
    if isinstance(result, Mapping):
        every = cast(Mapping[str, Any], result)
        named = {name: loss for name, loss in every.items() if "loss" in str(name).lower()} or every
        parts = [part.reshape(()) for part in (named.get("loss"),) if isinstance(part, Tensor)] or [
            part.reshape(()) for part in named.values() if isinstance(part, Tensor) and part.numel() == 1
        ]
        if parts:
            return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
    if isinstance(result, tuple | list) and result:
        return scalar(cast(Sequence[Any], result)[0])
    raise UserError(
        f"{type(result).__name__} without a loss",
        "a loss: a tensor, or something with .loss",
        "pass loss_fn(model, batch) -> loss, or give the model its labels",
    )


def copied(batch: Any) -> Any:
    """The batch with tensors of its own: losses pop labels, and write -100 into them."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, Mapping):
        items, new = cast(Mapping[str, Any], batch), cast(Any, copy.copy(batch))
        try:
            for name, value in items.items():
                new[name] = copied(value)
        except TypeError:
            return {name: copied(value) for name, value in items.items()}
        return new
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return cast(Any, type(batch))(*map(copied, cast(Sequence[Any], batch)))
    if isinstance(batch, tuple | list):
        return cast(Any, type(batch))(map(copied, cast(Sequence[Any], batch)))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        new = copy.copy(batch)
        for field in dataclasses.fields(batch):
            object.__setattr__(new, field.name, copied(getattr(batch, field.name)))
        return new
    return copy.copy(batch)


def tensors(batch: Any) -> Iterator[Tensor]:
    """Every tensor in a batch."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from tensors(value)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from tensors(getattr(batch, field.name))


def refuse(model: Any, batch: Any) -> None:
    """Raises UserError if this model cannot be traced, or not on this batch."""
    if not isinstance(model, nn.Module):
        fix = "MLX, JAX and compiled graphs have no hooks that earnest can use: check the same code in PyTorch"
        raise UserError(
            f"a model of type {type(model).__qualname__}", "a torch.nn.Module, or a transformers Trainer", fix
        )
    parameters = list(model.parameters())
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in parameters):
        raise UserError(
            "a model with lazy layers, which have no weights yet",
            "one whose parameters exist",
            "run it once on a batch before: model(batch)",
        )
    if any(parameter.is_inference() for parameter in parameters):
        raise UserError(
            "a model made in inference mode",
            "one whose parameters take gradients",
            "load it outside of inference_mode()",
        )
    if not any(parameter.requires_grad for parameter in parameters):
        kinds = ", ".join(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})) or "none"
        raise UserError(
            f"a model of which nothing is trained (parameters: {kinds})",
            "one as it is trained: adapters added, not frozen, not quantised for inference",
            "call earnest.check where the training loop begins",
        )
    ours, theirs = {p.device.type for p in parameters}, {tensor.device.type for tensor in tensors(batch)}
    if theirs and not ours & theirs:
        raise UserError(
            f"a batch on {', '.join(sorted(theirs))}, and a model on {', '.join(sorted(ours))}",
            "both on one device",
            "move the batch: batch.to(model.device)",
        )


def _cannot_run(error: Exception, model: nn.Module, batch: Any) -> UserError:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "/earnest/" not in frame.filename and "/torch/" not in frame.filename]
    own = [frame for frame in theirs if "site-packages" not in frame.filename]
    place = next(reversed(own or theirs), None)
    at = f" at {place.filename}:{place.lineno}" if place else ""
    message = " ".join(str(error).split())[:200]
    fix = "run one step of the training by hand: it stops here too"
    quantised = sorted({type(one).__name__ for one in model.modules() if ".quantized" in type(one).__module__})
    if quantised:
        fix = f"{', '.join(quantised)} are quantised for inference and take no gradients: check the model before"
    if isinstance(batch, Mapping):
        taken = inspect.signature(model.forward).parameters
        lacking = [
            name
            for name, one in taken.items()
            if one.default is one.empty
            and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
            and name not in batch
        ]
        if lacking and isinstance(error, TypeError | ValueError):
            fix = f"forward() needs {', '.join(lacking)}, which the batch lacks (it has {', '.join(map(str, batch))})"
    return UserError(f"{type(error).__name__}: {message}{at}", "a loss that runs on this model and batch", fix)

"""Hooks on the functions of torch that every training calls: losses, backward passes, clipping of gradients, scaling of
losses.

The functions are replaced while somebody listens, also where a module has imported them by name, and put back
afterwards. What they compute is untouched, and a listener that raises is not heard of here (`guard.py`).
"""

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad


@dataclass(frozen=True)
class LossCall:
    """One call of a cross-entropy. logits (N, V) or (N, V, ...), target (N) or (N, ...) ids, result as the caller gets
    it; plain: no class weights and no smoothing, so that the result is a cross-entropy; place: file and line."""

    logits: Tensor
    target: Tensor
    result: Tensor
    ignored: int
    reduction: str
    plain: bool
    place: tuple[str, int]


class Listener(Protocol):
    """Whoever wants to know."""

    def scored(self, call: LossCall) -> None: ...
    def before_backward(self, roots: Sequence[Tensor]) -> None: ...
    def after_backward(self, roots: Sequence[Tensor]) -> None: ...
    def clipped(self, parameters: Sequence[Tensor], most: float, norm: Tensor) -> None: ...
    def scaled(self, loss: Tensor, result: Tensor) -> None: ...


LISTENERS: list[Listener] = []
_undo: list[Callable[[], None]] = []


def listen(listener: Listener) -> None:
    """Call this listener from torch's functions. The first listener puts the hooks in place."""
    if not LISTENERS:
        _install()
    LISTENERS.append(listener)


def unlisten(listener: Listener) -> None:
    """Call this listener no more. When the last one goes, torch's functions are as they were."""
    if listener in LISTENERS:
        LISTENERS.remove(listener)
        if not LISTENERS:
            while _undo:
                _undo.pop()()


def _install() -> None:
    for name in ("cross_entropy", "nll_loss"):
        original = getattr(F, name)
        _replace_everywhere(original, _loss_function(original))
    _replace_everywhere(torch.autograd.backward, _backward(torch.autograd.backward))
    if (clips := getattr(clip_grad, "_clip_grads_with_norm_", None)) is not None:  # since torch 2.6
        _replace_everywhere(clips, _clips(clips))
    scale = GradScaler.scale

    def scaled(self: GradScaler, outputs: Any) -> Any:
        result = scale(self, outputs)
        if isinstance(outputs, Tensor):
            for listener in tuple(LISTENERS):
                listener.scaled(outputs, result)
        return result

    GradScaler.scale = scaled  # type: ignore[method-assign]
    _undo.append(lambda: setattr(GradScaler, "scale", scale))


def _replace_everywhere(original: Any, new: Any) -> None:
    """Put `new` in place of a function in every module that holds it under some name, as after ``from
    torch.nn.functional import ...``."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                setattr(module, name, new)
                _undo.append(lambda module=module, name=name: setattr(module, name, original))


def _loss_function(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    signature = inspect.signature(original)
    inside = threading.local()

    @functools.wraps(original)
    def loss_function(*args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling() or getattr(inside, "it", False):
            return original(*args, **kwargs)
        inside.it = True  # within a mode of torch the original calls itself by its name, which is this function's
        try:
            result = original(*args, **kwargs)
        finally:
            inside.it = False
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        asked = given.arguments
        if not asked["target"].is_floating_point() and asked["input"].ndim > 1:
            call = LossCall(
                asked["input"],
                asked["target"],
                result,
                asked["ignore_index"],
                asked["reduction"],
                asked["weight"] is None and not asked.get("label_smoothing"),
                _place(),
            )
            for listener in tuple(LISTENERS):
                listener.scored(call)
        return result

    return loss_function


def _backward(original: Callable[..., None]) -> Callable[..., None]:
    inside = [False]

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        if torch.compiler.is_compiling() or inside[0]:  # checkpointing calls it within itself, in a thread of its own
            return original(tensors, *args, **kwargs)
        roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        for listener in tuple(LISTENERS):
            listener.before_backward(roots)
        inside[0] = True
        try:
            original(tensors, *args, **kwargs)
        finally:
            inside[0] = False
        for listener in tuple(LISTENERS):
            listener.after_backward(roots)
        return None

    return backward


def _clips(original: Callable[..., None]) -> Callable[..., None]:
    def clips(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> None:
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        for listener in tuple(LISTENERS):
            listener.clipped(parameters, float(max_norm), total_norm)
        original(parameters, max_norm, total_norm, *args, **kwargs)

    return clips


def _place() -> tuple[str, int]:
    """The innermost line outside of torch and earnest."""
    frame = sys._getframe(2)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in ("/torch/", "/earnest/")):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno

"""A script on the processor, in float32, whatever it asks for."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from earnest.loops.stage.replaced import tell
from earnest.probes.trace.record import called

OTHERS = ("cuda", "mps", "xpu", "npu", "hpu", "musa")
HALVES = (torch.float16, torch.bfloat16)
NOTHING = [
    "set_device",
    "synchronize",
    "empty_cache",
    "reset_peak_memory_stats",
    "reset_max_memory_allocated",
    "ipc_collect",
    "manual_seed",
    "manual_seed_all",
    "set_per_process_memory_fraction",
]
ZERO = ["memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device"]


class OnProcessor(TorchFunctionMode):
    """Other devices become the processor, half precision float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.cuda, Tensor.pin_memory):
            return args[0]
        if func in (Tensor.half, Tensor.bfloat16):
            return args[0].float()
        args = tuple(_here(one) for one in args) if any(map(_elsewhere, args)) else args
        if kwargs and any(map(_elsewhere, kwargs.values())):
            kwargs = {name: _here(value) for name, value in kwargs.items()}
        return called(func, args, kwargs or {})


def _elsewhere(value: Any) -> bool:
    if isinstance(value, torch.dtype):
        return value in HALVES
    if isinstance(value, torch.device):
        return value.type in OTHERS
    return isinstance(value, str) and value.split(":")[0] in OTHERS


def _here(value: Any) -> Any:
    if not _elsewhere(value):
        return value
    return (
        torch.float32
        if isinstance(value, torch.dtype)
        else torch.device("cpu")
        if isinstance(value, torch.device)
        else "cpu"
    )


def install() -> OnProcessor:
    """From here on; the mode that is returned must be entered."""
    for name in NOTHING:
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    for name in ZERO:
        setattr(torch.cuda, name, lambda *args, **kwargs: 0)
    torch.cuda.get_device_name = lambda *args, **kwargs: "cpu"
    torch.cuda.mem_get_info = lambda *args, **kwargs: (0, 0)  # type: ignore[assignment]
    torch.compile = _not_compiled  # type: ignore[assignment]
    torch.set_default_device = lambda device: None
    torch.set_num_threads = lambda threads: None  # type: ignore[assignment]  # forked children need one thread
    torch.set_num_interop_threads = lambda threads: None  # type: ignore[assignment]
    _quiet("set_default_dtype", torch, lambda dtype: dtype in HALVES)
    _without_autocast()
    load = torch.load
    torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, "map_location": "cpu"})
    return OnProcessor()


def _quiet(name: str, module: Any, ignored: Callable[[Any], bool]) -> None:
    original = getattr(module, name)
    setattr(module, name, lambda value: None if ignored(value) else original(value))


def _not_compiled(model: Any = None, *args: Any, **kwargs: Any) -> Any:
    tell("torch.compile: left out")
    return model if model is not None else lambda function: function


def _without_autocast() -> None:
    """Contexts of mixed precision do nothing: what a row has seen is clearer in float32."""

    class Autocast(contextlib.ContextDecorator):
        def __init__(self, *args: Any, **kwargs: Any):
            pass

        def __enter__(self) -> "Autocast":
            return self

        def __exit__(self, *error: Any) -> None:
            pass

    torch.autocast = torch.amp.autocast = torch.cuda.amp.autocast = Autocast  # type: ignore[assignment,misc]
    torch.amp.autocast_mode.autocast = Autocast  # type: ignore[assignment,misc]

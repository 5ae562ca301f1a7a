"""What a training asks of its machine, turned down: workers, trackers, several processes, half precision."""

import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import distributed as parallel
from torch.utils.data import DataLoader

from earnest.loops.stage.packages import StandIn
from earnest.loops.stage.replaced import tell

MOST_CLIPS = 4  # in a batch
LOADER = {"num_workers": 0, "pin_memory": False, "persistent_workers": False, "prefetch_factor": None, "timeout": 0}
ARGUMENTS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "fp16": False,
    "tf32": None,
    "torch_compile": False,
    "deepspeed": None,
    "fsdp": "",
    "report_to": [],
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
    "dataloader_persistent_workers": False,
    "dataloader_prefetch_factor": None,
    "push_to_hub": False,
    "optim": "adamw_torch",
    "eval_on_start": False,
    "use_liger_kernel": False,
    "ddp_backend": None,
}

END_OF_TEXT = {"gpt2": 50256, "r50k_base": 50256, "p50k_base": 50256, "cl100k_base": 100257, "o200k_base": 199999}


def install() -> None:
    """From here on; transformers and accelerate are changed when they are imported (`on_import`)."""
    _with(DataLoader, "__init__", LOADER)
    _small_batches()
    torch.multiprocessing.spawn = _spawn  # type: ignore[attr-defined]
    multiprocessing.cpu_count = lambda: 1
    _one_process()


def of_training_args(module: Any) -> None:
    """TrainingArguments without a GPU, trackers and workers; both versions of their names."""
    arguments = module.TrainingArguments
    known = {name: value for name, value in ARGUMENTS.items() if name in arguments.__dataclass_fields__}
    after = arguments.__post_init__

    def __post_init__(self: Any) -> None:
        for name, value in known.items():
            if name == "optim" and str(self.optim).startswith(("adamw_torch", "OptimizerNames.ADAMW_TORCH")):
                continue
            setattr(self, name, value)
        if os.path.isabs(str(self.output_dir)):  # a folder of somebody else's machine
            self.output_dir = tempfile.mkdtemp()
        after(self)

    arguments.__post_init__ = __post_init__


def of_accelerate(accelerate: Any) -> None:
    """Accelerator on the processor. What mixed precision does to a model's outputs stays; autocast itself does
    nothing."""
    init = accelerate.Accelerator.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("mixed_precision") in ("fp16", "fp8"):
            kwargs["mixed_precision"] = "bf16"
        for name in ("log_with", "deepspeed_plugin", "fsdp_plugin", "megatron_lm_plugin"):
            if kwargs.pop(name, None) is not None:
                tell(f"Accelerator({name}=...): left out")
        init(self, *args, **{**kwargs, "cpu": True})

    accelerate.Accelerator.__init__ = __init__


def of_lightning(lightning: Any) -> None:
    """Trainer (or Fabric) of either package on the processor, without trackers."""
    fixed = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
    of_trainer = {"enable_progress_bar": False, "num_sanity_val_steps": 0, "benchmark": False}
    for name, more in (("Trainer", of_trainer), ("Fabric", {"loggers": None})):
        if hasattr(lightning, name):
            _always(getattr(lightning, name), {**fixed, **more}, lightning.__name__.rpartition(".")[0])


def _always(owner: Any, fixed: dict[str, Any], package: str) -> None:
    init = owner.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if "loggers" not in fixed and kwargs.get("logger", True):  # some callbacks want one
            fixed["logger"] = importlib.import_module(f"{package}.loggers.logger").DummyLogger()
        init(self, *args, **{**kwargs, **fixed})

    owner.__init__ = __init__


def of_lightning_loggers(loggers: Any) -> None:
    """Every logger of Lightning becomes one of its class, with its arguments, that writes nothing."""
    nothing = importlib.import_module(f"{loggers.__name__}.logger").DummyLogger
    for name in loggers.__all__:
        kind = getattr(loggers, name)
        if isinstance(kind, type) and not issubclass(nothing, kind):
            its = {"__init__": _silent(kind, nothing), "__module__": kind.__module__}
            silent = type(name, (nothing, kind), its)
            for module in (loggers, sys.modules[kind.__module__]):
                setattr(module, name, silent)


def _silent(kind: type, nothing: Any) -> Callable[..., None]:
    @functools.wraps(kind.__init__)  # its arguments are asked for by name
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        vars(self).update(vars(nothing()))

    return __init__


LIGHTNING: dict[str, Callable[[Any], None]] = {
    f"{package}.{module}": change
    for package in ("pytorch_lightning", "lightning.pytorch")
    for module, change in (("trainer", of_lightning), ("loggers", of_lightning_loggers))
} | {f"{package}.fabric": of_lightning for package in ("lightning_fabric", "lightning.fabric")}


def of_tiktoken(tiktoken: Any) -> None:
    """Vocabularies that are fetched at first use: bytes, with the id that ends a text where it stands in theirs."""
    original = tiktoken.get_encoding

    def get_encoding(name: str) -> Any:
        try:
            return original(name)
        except (OSError, ValueError):  # those of requests are OSErrors
            end = END_OF_TEXT.get(name, max(END_OF_TEXT.values()))
            tell(f"vocabulary {name} of tiktoken: bytes")
            ranks = {bytes([byte]): byte for byte in range(256)}
            return tiktoken.Encoding(name, pat_str=".", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end})

    tiktoken.get_encoding = get_encoding


def of_pipelines(pipelines: Any) -> None:
    """transformers 5 asks the Hub whether a checkpoint for speech has an n-gram model beside it."""
    if hasattr(pipelines, "_maybe_load_ctc_decoder"):
        pipelines._maybe_load_ctc_decoder = lambda *args, **kwargs: None


def of_evaluate(evaluate: Any) -> None:
    """Metrics that are fetched at first use measure nothing: what is said before the first step needs none."""
    original = evaluate.load

    def load(path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(path, *args, **kwargs)
        except (OSError, ValueError, ImportError):
            tell(f"metric {path}: a stand-in that measures nothing")
            return StandIn(path)

    evaluate.load = load


def of_datasets(datasets: Any) -> None:
    """`map` and `filter` start no further processes."""
    for name in ("map", "filter"):
        _with(datasets.Dataset, name, {"num_proc": None})
        _with(datasets.DatasetDict, name, {"num_proc": None})


def _with(owner: Any, name: str, fixed: dict[str, Any]) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{name: fixed.get(name, value) for name, value in kwargs.items()})

    setattr(owner, name, call)


def _small_batches() -> None:
    """A few clips are enough to tell where labels are scored."""
    init = DataLoader.__init__

    @functools.wraps(init)
    def __init__(self: Any, dataset: Any, batch_size: int | None = 1, *args: Any, **kwargs: Any) -> None:
        if isinstance(batch_size, int) and batch_size > MOST_CLIPS:
            tell(f"batches of {batch_size}: of {MOST_CLIPS}")
            batch_size = MOST_CLIPS
        init(self, dataset, batch_size, *args, **kwargs)

    DataLoader.__init__ = __init__  # type: ignore[method-assign]


def _spawn(function: Callable[..., Any], args: tuple[Any, ...] = (), *more: Any, **kwargs: Any) -> None:
    tell("torch.multiprocessing.spawn: one process, this one")
    function(0, *args)


def _one_process() -> None:
    """Calls of torch.distributed that need no group are answered as for one process; a group is one of this process."""
    start = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        if not dist.is_initialized():
            tell(f"torch.distributed ({backend or 'default'}): gloo, one process")
            start("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]

    dist.init_process_group = init_process_group
    for module in (torch.nn.parallel, parallel):
        module.DistributedDataParallel = OneProcess  # type: ignore[attr-defined,misc]
    for name, answer in (("get_rank", 0), ("get_world_size", 1), ("barrier", None)):
        _answered(name, answer)


def _answered(name: str, answer: Any) -> None:
    original = getattr(dist, name)
    setattr(dist, name, lambda *args, **kwargs: original(*args, **kwargs) if dist.is_initialized() else answer)


class OneProcess(torch.nn.Module):
    """Stands in for DistributedDataParallel, whose threads for summing gradients do not survive a fork, so that a
    forked process would wait for them."""

    def __init__(self, module: torch.nn.Module, *args: Any, **kwargs: Any):
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

"""In which precision the forward pass is computed, and the weights are kept."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch

Precision = Literal["auto", "bf16", "no"]
Item = TypeVar("Item")


def resolve_precision(wanted: Precision) -> str:
    """What accelerate is asked for; "auto" is bf16 on a GPU that has it and on an x86 CPU with AVX-512 BF16 or AMX.

    Products of 1700 x 576 by 576 x 768 are 4.4 times as fast in bf16 as in fp32 on a CPU with AVX-512 BF16, and 5 times
    as slow if oneDNN may use AVX2 only, which has no such instruction (measured on one core).
    """
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "no"


def fast_float32() -> None:
    """Let a GPU multiply float32 matrices, where autocast is off, in TF32: some eight times as fast."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def computed_in(device: torch.device, wanted: Precision) -> Callable[[], AbstractContextManager[object]]:
    """The context in which a run's model computes outside of its training: on an accelerator the run's precision, as
    float32 takes some ten times as long there; on a CPU the precision of the weights."""
    if device.type == "cpu" or resolve_precision(wanted) != "bf16":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def under(context: Callable[[], AbstractContextManager[object]], items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each of them made under a context of its own. What the caller does with an item is not under the
    context."""
    iterator = iter(items)
    while True:
        with context():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@torch.no_grad()
def train_in_float32(model: torch.nn.Module) -> None:
    """Keep the weights that are trained in float32; frozen ones stay as they were released.

    Autocast computes in bf16 all the same. In bf16 itself, whose numbers are 2^-8 of themselves apart, most steps of
    AdamW round to nothing: at a learning rate of 2e-5, 30 % of the entries ever move, and no weight of a norm does
    (benchmarks/bf16_weights.py)."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()

"""Whether what a step changes survives in the weights' own precision."""

import inspect
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from earnest.probes.results import LowPrecision

SAMPLED = 4096  # entries of a tensor, evenly spread
# A step of TRIED_RATE from 1.0 is less than half of what lies between two numbers of bfloat16 there (2**-8 below 1,
# 2**-7 above); float16 is finer. TRIED_STEPS of them are more than that, so an optimizer that keeps the rest moves.
TRIED_RATE = {torch.bfloat16: 1e-3, torch.float16: 1e-4}
TRIED_STEPS, TRIED_SHAPE = 16, (64, 64)


def low_precision(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[LowPrecision, ...]:
    """Trained parameters in bfloat16 or float16, by type; none if all are wider."""
    of_type: dict[torch.dtype, dict[str, nn.Parameter]] = defaultdict(dict)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in trained:
        if parameter.dtype in TRIED_RATE:
            of_type[parameter.dtype][name] = parameter
    entries = sum(parameter.numel() for _, parameter in trained)
    return tuple(_of_type(dtype, named, entries, optimizer) for dtype, named in of_type.items())


def _of_type(
    dtype: torch.dtype, named: dict[str, nn.Parameter], trained: int, optimizer: torch.optim.Optimizer | None
) -> LowPrecision:
    rates = _rates(optimizer, named) if optimizer is not None else {}
    return LowPrecision(
        type=str(dtype).removeprefix("torch."),
        names=tuple(named),
        parameters=sum(parameter.numel() for parameter in named.values()),
        trained=trained,
        optimizer=type(_innermost(optimizer)).__name__ if optimizer is not None else None,
        keeps_more=_keeps_more(optimizer, dtype, list(named.values())) if optimizer is not None else None,
        still_frac=still_frac([(named[name], rate) for name, rate in rates.items()]) if rates else None,
        learning_rate=max(rates.values(), default=None),
    )


@torch.no_grad()
def still_frac(weights: list[tuple[Tensor, float]]) -> float:
    """Share of sampled entries that are the same after a step of `rate` either way, of tensors with their rates."""
    still = looked = 0
    for tensor, rate in weights:
        sample_N = tensor.detach().reshape(-1)[:: -(-tensor.numel() // SAMPLED) or 1]
        step_N = torch.full_like(sample_N, rate)
        still += (
            int(((sample_N + step_N == sample_N) & (sample_N - step_N == sample_N)).sum())
            * tensor.numel()
            / max(1, len(sample_N))
        )
        looked += tensor.numel()
    return still / max(1, looked)


def _rates(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter]) -> dict[str, float]:
    """Learning rate of each parameter that the optimizer holds: the peak, if a schedule says it."""
    rate_of: dict[int, float] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rate_of[id(parameter)] = float(group.get("initial_lr", group["lr"]))
    return {name: rate_of[id(parameter)] for name, parameter in named.items() if id(parameter) in rate_of}


def _innermost(optimizer: Any) -> Any:
    """The optimizer within those that wrap it, as accelerate does."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


def _keeps_more(optimizer: torch.optim.Optimizer, dtype: torch.dtype, ours: list[nn.Parameter]) -> bool | None:
    """Whether small steps add up in numbers of this type under such an optimizer. Tried on a fresh one with the same
    settings; None if one cannot be made."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not {id(parameter) for parameter in held} & {id(parameter) for parameter in ours}:
        return None  # it holds copies of its own, or other parameters: `not_optimized` tells that
    plain = _innermost(optimizer)
    taken = inspect.signature(type(plain)).parameters
    settings = {name: value for name, value in plain.defaults.items() if name in taken} | {"lr": TRIED_RATE[dtype]}
    settings |= {"weight_decay": 0.0} if "weight_decay" in settings else {}
    kept = torch.random.get_rng_state()
    try:
        weight = nn.Parameter(torch.ones(TRIED_SHAPE, dtype=dtype, device=ours[0].device))
        fresh = type(plain)([weight], **settings)
        for _ in range(TRIED_STEPS):
            weight.grad = torch.ones_like(weight)
            fresh.step()
        return bool((weight != 1).any())
    except Exception:  # somebody's own optimizer, with whatever arguments it takes
        return None
    finally:
        torch.random.set_rng_state(kept)

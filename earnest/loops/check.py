"""`earnest.check`: a model, a batch and a loss, looked at before training."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from msgspec.structs import replace
from torch import nn

from earnest.loops.answer import diagnosis
from earnest.loops.judge import judged, told
from earnest.loops.keep import Kept
from earnest.loops.subject import LossFunction, Subject, copied, refuse
from earnest.probes.reach import not_optimized
from earnest.probes.results import FrozenTensors, Inputs, Optimizer
from earnest.probes.rounding import low_precision
from earnest.probes.trace.tracing import Traced, trace
from earnest.rules.finding import Diagnosis


def check(
    model: nn.Module,
    batch: Any = None,
    loss_fn: LossFunction | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    end_id: int | None = None,
) -> Diagnosis:
    """Diagnose a training before its first step: which logits each label is scored on, what these have seen, what the
    targets are, and what a gradient reaches.

    model: any, or a transformers Trainer (then nothing else is needed) · batch: one batch as the training loop has it
    (mapping, tuple or dataclass), best of three clips or more of unequal length · loss_fn: (model, batch) -> loss,
    several losses (they are added), or None if it calls backward() itself; the model's own loss if not given.

    The model, its gradients, modes and buffers, and the random numbers are left as they were. Raises UserError if the
    loss does not run on this batch, or has no gradient.
    """
    if hasattr(model, "compute_loss") and hasattr(model, "get_train_dataloader"):
        model, batch, loss_fn, optimizer = _of_trainer(model, batch, optimizer)
    refuse(model, batch)
    with Kept(model) as kept:
        subject = Subject(model, batch, loss_fn, kept)
        traced = trace(subject)
        results = replace(
            judged(model, traced, end_id),
            gradients=subject.gradients,
            frozen=_moved(model, kept),
            inputs=_dropped(subject, traced),
            optimizer=_not_optimized(subject, optimizer) if optimizer is not None else None,
            low_precision=low_precision(model, optimizer),
        )
    return diagnosis(results, told(traced))


def _not_optimized(subject: Subject, optimizer: torch.optim.Optimizer) -> Optimizer:
    """The parameters that get a gradient and are not in the optimizer. Those without a gradient are left out: an
    optimizer would not train them either."""
    found = not_optimized(subject.model, optimizer)
    return replace(
        found, missing=tuple(name for name in found.missing if name not in subject.gradients.without_gradient)
    )


def _moved(model: nn.Module, kept: Kept) -> FrozenTensors:
    """Buffers that a run of the model changed, in modules without a trained parameter."""
    moved = {id(buffer) for buffer in kept.moved_buffers()}
    modules: dict[str, nn.Module] = dict(model.named_modules())
    frozen: list[str] = []
    for name, module in modules.items():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            own = [own for own, buffer in module.named_buffers(recurse=False) if id(buffer) in moved]
            frozen += [f"{name}.{each}" if name else each for each in own]
    return FrozenTensors(tuple(frozen), len(list(model.buffers())), 0)


def _dropped(subject: Subject, traced: Traced) -> Inputs | None:
    """Tensors that the model was called with, and that change neither logits nor loss."""
    if not isinstance(subject.batch, Mapping) or not traced.readings:
        return None
    printed = {key: one.codebooks if one.axis is None else 1 for key, one in traced.record.scores.items()}
    subject.look({}, printed)
    loss = subject.loss_nats
    dropped = list[str]()
    for name, value in cast(Mapping[str, Any], subject.batch).items():
        others = _others(value) if name in subject.arguments else []
        if others and all(_same_loss(subject, name, other, loss) for other in others):
            dropped.append(name)
    return Inputs(tuple(dropped))


def _same_loss(subject: Subject, name: str, other: torch.Tensor, loss: float) -> bool:
    """Whether another value of one entry of the batch changes nothing."""
    changed = copied(subject.batch)
    changed[name] = other
    try:
        subject.run(changed)
    except Exception:  # whoever refuses a value has read it
        return False
    return subject.loss_nats == loss


def _others(value: Any) -> list[torch.Tensor]:
    """Tensors of the same kind with other values; none for masks and constants, which may rightly change nothing. Of
    lengths only the largest may count, which a mere change of places would keep."""
    if not isinstance(value, torch.Tensor) or value.dtype == torch.bool or value.numel() < 2:
        return []
    if value.is_floating_point():
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
        return [value + value.detach().std().clamp(min=1e-3) * noise]
    known: torch.Tensor = torch.unique(value)
    known = known[known >= 0]
    if len(known) <= 2:
        return []
    turned = torch.where(value >= 0, known[(torch.searchsorted(known, value) + 1) % len(known)], value)
    return [turned, torch.where(value > 0, value - 1, value)]


def _of_trainer(trainer: Any, batch: Any, optimizer: torch.optim.Optimizer | None) -> tuple[Any, ...]:
    """Model, batch and loss of a transformers Trainer."""
    if batch is None:
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss_fn: Callable[[nn.Module, Any], Any] = trainer.compute_loss
    return trainer.model, batch, loss_fn, optimizer or trainer.optimizer

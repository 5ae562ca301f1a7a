"""`earnest.check`: a model, a batch and a loss, looked at before training."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from earnest.loops.keep import Kept
from earnest.loops.subject import LossFunction, Subject, copied, refuse
from earnest.probes.parameters import not_optimized
from earnest.probes.results import Alignment, FrozenTensors, Gradients, Inputs, Results
from earnest.probes.trace.read import Reading, where
from earnest.probes.trace.record import Record
from earnest.probes.trace.streams import streams
from earnest.probes.trace.targets import delays, targets
from earnest.probes.trace.tracing import Traced, trace
from earnest.rules import diagnose
from earnest.rules.finding import Diagnosis
from earnest.run import Run
from earnest.streams import Stream

ASKED = (
    "A103",
    "A203",
    "A205",
    "A206",
    "A302",
    "A305",
    "A306",
    "A307",
    "C102",
    "C104",
    "C105",
    "C106",
    "D403",
)  # of a batch


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
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        gradients: list[Gradients] = []
        traced = trace(_Watched(subject, gradients), names)
        named = streams(traced.readings)
        results = Results(
            alignment=_alignment(named),
            targets=targets(model, named, traced.arrays, end_id) or None,
            delays=delays(model, named, traced.arrays),
            gradients=gradients[0],
            frozen=_moved(model, kept),
            inputs=_dropped(subject, traced),
            optimizer=not_optimized(model, optimizer) if optimizer is not None else None,
        )
    return _diagnosis(results, named, traced)


class _Watched:
    """A subject whose gradients are looked at after its first run."""

    def __init__(self, subject: Subject, found: list[Gradients]):
        self.subject, self.found, self.look = subject, found, subject.look

    def record(self) -> Record:
        record = self.subject.record()
        self.found.append(without_gradient(self.subject.model, record.used[True]))
        return record


def without_gradient(model: nn.Module, used: Set[int]) -> Gradients:
    """After a backward pass. used: ids of the parameters that were computed with while gradients were on."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in trained.items() if parameter.grad is not None and parameter.grad.any()}
    kinds = {_kind(name) for name in reached}
    none = [name for name in trained if name not in reached]
    beside = [name for name in none if _kind(name) in kinds and "expert" not in name]
    cut = [name for name in none if name not in beside and id(trained[name]) in used]
    idle = [name for name in none if name not in beside and name not in cut]
    return Gradients(tuple(none), 1, 0, tuple(beside), tuple(cut), tuple(idle))


def _kind(name: str) -> str:
    """A parameter's name without its numbers."""
    return re.sub(r"\d+", "*", name)


def _alignment(named: Mapping[Stream, Reading]) -> dict[Stream, Alignment] | None:
    found = {
        stream: Alignment(
            0 if reading.itself else reading.offset if reading.offset is not None else 1,
            codebook_matches=not reading.behind,
            later=reading.later,
            where=where(reading.lines),
            layer=reading.layer,
            tokens=reading.tokens,
        )
        for stream, reading in named.items()
        if reading.offset is not None or reading.itself or reading.behind is not None
    }
    return found or None


def _moved(model: nn.Module, kept: Kept) -> FrozenTensors:
    """Buffers that a run moved, in modules of which nothing is trained although the model is."""
    moved = {id(buffer) for buffer in kept.moved_buffers()}
    frozen = [
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if next(module.parameters(), None) is not None and not any(p.requires_grad for p in module.parameters())
        for own, buffer in module.named_buffers(recurse=False)
        if id(buffer) in moved
    ]
    return FrozenTensors(tuple(frozen), len(list(model.buffers())), 0)


def _dropped(subject: Subject, traced: Traced) -> Inputs | None:
    """Tensors that the model was called with, and that change neither logits nor loss."""
    if not isinstance(subject.batch, Mapping) or not traced.readings:
        return None
    printed = {key: one.codebooks if one.axis is None else 1 for key, one in traced.record.scores.items()}
    subject.look({}, printed)
    loss = subject.loss_nats
    dropped = []
    for name, value in subject.batch.items():
        if name not in subject.arguments or (other := _other(value)) is None:
            continue
        changed = copied(subject.batch)
        changed[name] = other
        try:
            subject.run(changed)
        except Exception:  # whoever refuses a value has read it
            continue
        if subject.loss_nats == loss:
            dropped.append(name)
    return Inputs(tuple(dropped))


def _other(value: Any) -> torch.Tensor | None:
    """A tensor of the same kind with other values; None for masks and constants, which may rightly change nothing."""
    if not isinstance(value, torch.Tensor) or value.dtype == torch.bool or value.numel() < 2:
        return None
    if value.is_floating_point():
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
        return value + value.detach().std().clamp(min=1e-3) * noise
    known = value.unique()
    known = known[known >= 0]
    if len(known) <= 2:
        return None
    return torch.where(value >= 0, known[(torch.searchsorted(known, value) + 1) % len(known)], value)


def _diagnosis(results: Results, named: Mapping[Stream, Reading], traced: Traced) -> Diagnosis:
    found = diagnose(Run.of(probes=results))
    not_checked = [one for one in found.not_checked if one.rule in ASKED]
    return replace(found, verdicts=[], not_checked=not_checked, mapping=dict(_told(named, traced)))


def _told(named: Mapping[Stream, Reading], traced: Traced) -> Iterator[tuple[str, str]]:
    """What was taken for what: stream -> output layer, vocabulary, tokens, and the line of the loss."""
    for stream, reading in named.items():
        tokens = f", its tokens in {reading.tokens}" if reading.tokens else ", its labels are no input of the model"
        exact = "" if reading.scores.exact else ", with label smoothing"
        line = where(reading.lines)
        yield (
            str(stream),
            f"{reading.layer} ({reading.scores.classes} classes{exact}){tokens}; scored at {_short(line)}",
        )
    if not named:
        functions = ", ".join(dict.fromkeys(call.function for call in traced.record.losses)) or "no loss function"
        yield "nothing", f"no cross-entropy over classes reaches backward() ({functions} was called): not judged"


def _short(line: str) -> str:
    return os.path.relpath(line) if line.startswith(os.getcwd() + os.sep) else line


def _of_trainer(trainer: Any, batch: Any, optimizer: torch.optim.Optimizer | None) -> tuple[Any, ...]:
    """Model, batch and loss of a transformers Trainer."""
    if batch is None:
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss_fn: Callable[[nn.Module, Any], Any] = trainer.compute_loss
    return trainer.model, batch, loss_fn, optimizer or trainer.optimizer

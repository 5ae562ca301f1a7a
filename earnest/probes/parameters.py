"""What is trained, what is frozen, and whether a step's gradient depends on how the step is cut."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

import torch
from torch import nn

from earnest.data.batch import Batch
from earnest.files import fingerprint
from earnest.losses.tokens import TokenObjective
from earnest.probes.results import Accumulation, FrozenTensors
from earnest.probes.state import untouched
from earnest.streams import Stream

HASHED = 2**20  # of a tensor's entries: the tables of 128256 rows of a frozen backbone take milliseconds, not seconds


class Frozen:
    """Tensors that training should not change, and a check whether they have changed."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self.tensors = tensors
        self.before = fingerprints(tensors)

    def changed(self, step: int) -> FrozenTensors:
        now = fingerprints(self.tensors)
        return FrozenTensors(tuple(name for name in now if now[name] != self.before[name]), len(now), step)


def not_trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that require no gradient, and the buffers."""
    frozen: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return frozen | dict(model.named_buffers())


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """A fingerprint of each tensor, or of HASHED of its entries, evenly spread: a change of weights changes most of
    them."""
    return {
        name: fingerprint({name: tensor.detach().reshape(-1)[:: -(-tensor.numel() // HASHED) or 1]})
        for name, tensor in tensors.items()
    }


def differing(of_ranks: Iterable[Mapping[str, str]]) -> list[str]:
    """Names of the tensors that are not the same on every rank, from `fingerprints` of each."""
    first, *others = of_ranks
    return [name for name in first if any(other.get(name) != first[name] for other in others)]


def split_in_two(objective: TokenObjective, batch: Batch) -> Accumulation | None:
    """The gradient of a batch in two micro-batches, beside that of the same batch whole. None if the batch holds one
    clip."""
    clips = len(batch.clip_B)
    if clips < 2:
        return None
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def gradient(parts: list[Batch]) -> list[torch.Tensor]:
        counted: dict[Stream, int] = {}
        for part in parts:
            for stream, count in part.counted().items():
                counted[stream] = counted.get(stream, 0) + count
        total = [torch.zeros_like(parameter) for parameter in trained]
        for part in parts:
            loss, _ = objective(part, counted)
            for sum_, slope in zip(total, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
                if slope is not None:
                    sum_ += slope
        return total

    def norm(tensors: Iterable[torch.Tensor]) -> float:
        return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())

    with untouched(objective):
        whole, cut = gradient([batch]), gradient([rows(batch, 0, clips // 3 or 1), rows(batch, clips // 3 or 1, clips)])
    size = norm(whole)
    if not size:
        return None
    distance = norm(one - other for one, other in zip(cut, whole, strict=True))
    return Accumulation(norm(cut) / size, distance / size, steps=2)


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """Some clips of a batch, without the padding that only the others need."""
    part = {field.name: getattr(batch, field.name)[start:stop] for field in fields(batch)}
    longest = int(part["exists_BS"].sum(1).max())
    return replace(
        batch, **{name: tensor if name == "clip_B" else tensor[:, :longest] for name, tensor in part.items()}
    )

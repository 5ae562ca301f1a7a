"""How much memory a training takes, and what would make it fit: weights, gradients, optimizer, activations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import psutil
import torch
from torch import nn

from earnest.data.batch import collate
from earnest.losses.tokens import TokenObjective
from earnest.models.precision import resolve_precision
from earnest.models.system import System
from earnest.training.tokens.assembly import TokenAssembly
from earnest.training.tokens.config import TokenConfig

GB = 1e9
MEASURED_FRAMES = (12, 24)  # two lengths are measured: the difference is what the additional positions take
STATE_BYTES = {"float32": 8, "int8": 2}  # AdamW's two means of an entry
ADAPTERS_FRAC = 0.005  # of a model's weights, in adapters of rank 16 (measured: 24 of 5771 million in Higgs)


@dataclass(frozen=True)
class Plan:
    """Bytes by what they are for; activations None if they were not measured."""

    weights: int
    gradients: int
    optimizer: int
    activations: int | None

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + (self.activations or 0)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        named = [f"{name} {_gb(size)}" for name, size in parts.items()]
        kept = "activations not measured" if self.activations is None else f"activations {_gb(self.activations)}"
        return f"{', '.join(named)}, {kept}: {_gb(self.total)}"


def memory_plan(assembly: TokenAssembly, config: TokenConfig, counts_only: bool = False) -> Iterator[str]:
    """Lines that say what a step of `data.positions_per_batch` positions takes, how much this machine has, and, if that
    is too little, what would take less. Activations are measured by running the model; not if counts_only, as its
    weights are then not loaded."""
    model, positions = assembly.model, config.data.positions_per_batch
    per_position = {} if counts_only else {flag: kept_bytes(assembly, config, flag) for flag in (False, True)}

    def plan(recompute: bool, states: str, positions: int, frac: float = 1.0) -> Plan:
        trained = round(frac * sum(p.numel() for p in model.parameters() if p.requires_grad))
        stored = sum(p.numel() * _width(p, counts_only) for p in model.parameters())
        average = stored if config.optimizer.ema_decay else 0
        return Plan(
            stored + average,
            4 * trained,
            STATE_BYTES[states] * trained,
            round(per_position[recompute] * positions) if per_position else None,
        )

    chosen = plan(config.recompute, config.optimizer.states, positions)
    where, room = _room()
    yield f"memory of a step of {positions} positions: {chosen}; {where} has {_gb(room)}"
    if chosen.total <= room:
        return
    yield "it does not fit; what would take less:"
    options = {
        "--recompute": plan(True, config.optimizer.states, positions),
        "--optimizer.states int8": plan(config.recompute, "int8", positions),
        f"--data.positions-per-batch {positions // 4}": plan(config.recompute, config.optimizer.states, positions // 4),
        "all three": plan(True, "int8", positions // 4),
    }
    if hasattr(config, "lora") and not config.lora.rank:  # type: ignore[attr-defined]
        options["--lora.rank 16"] = plan(config.recompute, config.optimizer.states, positions, ADAPTERS_FRAC)
    for name, other in options.items():
        yield f"  {name}: {_gb(other.total)}{', which fits' if other.total <= room else ''}"


def kept_bytes(assembly: TokenAssembly, config: TokenConfig, recompute: bool) -> float:
    """Bytes that a position keeps from the forward to the backward pass, in the precision of the run."""
    model = assembly.model
    before = model.training, model.recompute
    model.train()
    model.recompute_layers(recompute)
    autocast = resolve_precision(config.mixed_precision) == "bf16"
    try:
        sizes = [_kept(model, assembly, frames, autocast) for frames in MEASURED_FRAMES]
    finally:
        model.train(before[0])
        model.recompute_layers(before[1])
    (few, less), (many, more) = sizes
    return max(0.0, (more - less) / (many - few))


def _kept(model: System, assembly: TokenAssembly, frames: int, autocast: bool) -> tuple[int, int]:
    """(positions, bytes) of what autograd keeps of a batch of random codes; weights are not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no address comes twice
        return tensor

    alive: list[torch.Tensor] = []
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, model.codes, (model.codebooks, frames), generator=random)
    batch = collate([model.lay_out(codes, "seven")] * 2, range(2), model.pad_id).to(model.device)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(model.device.type, torch.bfloat16, enabled=autocast),
    ):
        TokenObjective(model, assembly.weights)(batch, batch.counted())
    return int(batch.exists_BS.sum()), sum(kept.values())


def out_of_memory(config: TokenConfig, error: BaseException) -> tuple[str, str, str]:
    """The three lines of a step that did not fit."""
    _, room = _room()
    smaller = replace(config.data, positions_per_batch=max(1, config.data.positions_per_batch // 4))
    return (
        f"out of memory: {' '.join(str(error).split())[:160]}",
        f"a step of {config.data.positions_per_batch} positions that fits into {_gb(room)}",
        f"`earnest check` shows the plan; --recompute, --optimizer.states int8, --data.positions-per-batch "
        f"{smaller.positions_per_batch} and adapters (--lora.rank 16) take less",
    )


def _room() -> tuple[str, int]:
    """(name, bytes) of the memory that a step must fit into: the GPU's, or this machine's."""
    if torch.cuda.is_available():
        properties = cast(Any, torch.cuda).get_device_properties(0)
        return properties.name, properties.total_memory
    return "this machine", psutil.virtual_memory().total


def _width(parameter: nn.Parameter, counts_only: bool) -> int:
    """Bytes of an entry: trained ones are kept in float32."""
    return 4 if parameter.requires_grad or counts_only else parameter.element_size()


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.0f} MB"

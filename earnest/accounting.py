"""What of a model is trained: ``earnest check RECIPE`` lists its tensors, which are frozen, and which a loss's gradient
reaches."""

import re
from collections import Counter
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from earnest.codecs import load_codec
from earnest.data.batch import Batch, collate
from earnest.errors import UserError
from earnest.losses.tokens import TokenObjective
from earnest.training.config import LMConfig

FRAMES, TEXTS = (9, 12), ("seven", "a slow piano")  # of the batch that is scored: random codes
YES, LATER, ZERO, NONE = "yes", "from step 2", "zero", "none"


@dataclass
class Group:
    """Tensors of one shape at the same place of every layer; `gradient` counts what their gradients were."""

    name: str
    shape: tuple[int, ...]
    trained: bool
    tensors: int = 0
    gradient: Counter = field(default_factory=Counter)

    @property
    def parameters(self) -> int:
        return self.tensors * torch.Size(self.shape).numel()


def audit(model: nn.Module, reached: dict[str, str] | None = None) -> list[Group]:
    """All parameters, gathered over layers. reached: per name what its gradient was (see `gradients`)."""
    groups: dict[tuple, Group] = {}
    for name, parameter in model.named_parameters():
        collapsed = re.sub(r"\.\d+\.", ".*.", name)
        key = collapsed, tuple(parameter.shape), parameter.requires_grad
        group = groups.setdefault(key, Group(*key))
        group.tensors += 1
        if reached and parameter.requires_grad:
            group.gradient[reached[name]] += 1
    return list(groups.values())


def gradients(model: nn.Module, objective: TokenObjective, batch: Batch) -> dict[str, str]:
    """What gradient each trained tensor gets from the loss of a batch: "yes", "zero", "none", or "from step 2".

    A projection that starts at zero passes nothing on at first, so a second backward pass follows one small step.
    The model is changed by it.
    """
    seen = []
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        objective(batch, batch.counted())[0].backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        seen.append({name: NONE if p.grad is None else YES if p.grad.any() else ZERO for name, p in trained.items()})
        with torch.no_grad():
            for parameter in trained.values():
                if parameter.grad is not None:
                    parameter.sub_(1e-3 * parameter.grad)
    return {name: LATER if first != YES and seen[1][name] == YES else first for name, first in seen[0].items()}


def check_recipe(config: LMConfig, counts_only: bool = False, console: Console | None = None) -> None:
    """Build the model, score two clips of random codes, and print every group of tensors with its share and its
    gradient.

    counts_only: shapes alone, on torch's meta device, for a model that would not fit here. Raises UserError where the
    recipe trains no language model.
    """
    if not isinstance(config, LMConfig):
        raise UserError(
            f"a recipe of {type(config).__name__}", "one that trains a language model", "earnest check mot-tiny"
        )
    console = console or Console()
    torch.manual_seed(config.seed)
    codec = load_codec(config.codec)
    if counts_only:
        with torch.device("meta"):
            model = config.build(codec)
        reached = None
    else:
        model = config.build(codec).train()
        random = torch.Generator().manual_seed(config.seed)
        codes = [torch.randint(0, model.codes, (model.codebooks, frames), generator=random) for frames in FRAMES]
        batch = collate(
            [model.lay_out(codes_CT, text) for codes_CT, text in zip(codes, TEXTS, strict=True)], [0, 1], model.pad_id
        )
        reached = gradients(model, TokenObjective(model, config.weights(model.codebooks)), batch)
    groups = audit(model, reached)
    total = sum(group.parameters for group in groups)
    table = Table("tensors", "shape", "parameters", "share", "", "gradient", box=None, pad_edge=False)
    for group in sorted(groups, key=lambda group: not group.trained):
        shape = " × ".join(map(str, group.shape))
        got = ", ".join(
            word if count == group.tensors else f"{word} ({count} of {group.tensors})"
            for word, count in group.gradient.items()
        )
        table.add_row(
            group.name,
            f"{group.tensors} × ({shape})" if group.tensors > 1 else shape,
            f"{group.parameters:,}",
            f"{group.parameters / total:.2%}",
            "trained" if group.trained else "frozen",
            got,
        )
    console.print(table)
    trained = sum(group.parameters for group in groups if group.trained)
    console.print(f"trained: {trained:,} ({trained / total:.2%}) of {total:,} parameters", highlight=False)
    if note := config.size_note(model):
        console.print(note, highlight=False)

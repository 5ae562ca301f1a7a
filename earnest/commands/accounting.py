"""What of a model is trained: ``earnest check RECIPE`` lists its tensors, which are frozen, and which a loss's gradient
reaches."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from earnest.codecs import load_codec
from earnest.data.batch import collate
from earnest.errors import UserError
from earnest.lines import aligned
from earnest.losses.adversarial import feature_matching
from earnest.losses.codec import CodecBatch
from earnest.losses.tokens import TokenObjective
from earnest.models.precision import train_in_float32
from earnest.models.shapes import CODECS
from earnest.training.codec.assembly import CodecAssembly
from earnest.training.codec.config import CodecConfig
from earnest.training.codec.gan_steps import weighted_sum
from earnest.training.tokens.assembly import TokenAssembly
from earnest.training.tokens.memory import memory_plan

FRAMES, TEXTS = (9, 12), ("seven", "a slow piano")  # of the batch that a language model scores: random codes
WAVES, WAVE_S = 2, 0.5  # of noise that a codec reconstructs
YES, LATER, ZERO, NONE = "yes", "from step 2", "zero", "none"


@dataclass
class Group:
    """Tensors of one shape at the same place of every layer; `gradient` counts what their gradients were."""

    name: str
    shape: tuple[int, ...]
    trained: bool
    tensors: int = 0
    gradient: Counter[str] = field(default_factory=Counter[str])

    @property
    def parameters(self) -> int:
        return self.tensors * torch.Size(self.shape).numel()


def audit(model: nn.Module, reached: dict[str, str] | None = None) -> list[Group]:
    """All parameters, gathered over layers. reached: per name what its gradient was (see `gradients`)."""
    groups: dict[tuple[str, tuple[int, ...], bool], Group] = {}
    for name, parameter in model.named_parameters():
        collapsed = re.sub(r"\.\d+\.", ".*.", name)
        key = collapsed, tuple(parameter.shape), parameter.requires_grad
        group = groups.setdefault(key, Group(*key))
        group.tensors += 1
        if reached and parameter.requires_grad:
            group.gradient[reached[name]] += 1
    return list(groups.values())


def gradients(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, str]:
    """What gradient each trained tensor gets from a loss: "yes", "zero", "none", or "from step 2".

    A projection that starts at zero passes nothing on at first, so a second backward pass follows one small step.
    The model is changed by it.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    first, second = _pass(model, trained, loss), _pass(model, trained, loss)
    return {name: LATER if first[name] != YES and second[name] == YES else first[name] for name in trained}


def _pass(model: nn.Module, trained: dict[str, nn.Parameter], loss: Callable[[], Tensor]) -> dict[str, str]:
    model.zero_grad(set_to_none=True)
    loss().backward()
    kinds = {name: NONE if p.grad is None else YES if p.grad.any() else ZERO for name, p in trained.items()}
    with torch.no_grad():
        for parameter in trained.values():
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad)
    return kinds


def check_recipe(assemble: Any, config: Any, counts_only: bool = False, console: Console | None = None) -> None:
    """Build the model, score a small random batch, and print every group of tensors with its share and its gradient,
    and the memory that training takes.

    counts_only: shapes alone, on torch's meta device, for a model that would not fit here; those of the released
    checkpoints are known, so nothing is downloaded."""
    console = console or Console()
    torch.manual_seed(config.seed)
    is_codec = isinstance(config, CodecConfig)
    arguments = (config,) if is_codec else (config, _codec(config.codec, counts_only))
    assembly = _without_weights(assemble, arguments) if counts_only else assemble(*arguments)
    if isinstance(assembly, TokenAssembly):
        if not counts_only:
            train_in_float32(assembly.model)
        plan = memory_plan(assembly, config, counts_only)
    else:
        plan = ()
    model, loss, note = _of_codec(assembly) if isinstance(assembly, CodecAssembly) else _of_tokens(assembly)
    groups = audit(model, None if counts_only else gradients(model.train(), loss))
    _print(groups, note, console)
    for line in plan:
        console.print(line, highlight=False)
    if counts_only:
        console.print("by the shapes of the released checkpoints: no weight was read", highlight=False)


def _codec(name: str, counts_only: bool) -> Any:
    return CODECS[name] if counts_only and name in CODECS else load_codec(name)


def _without_weights(assemble: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        with torch.device("meta"):
            return assemble(*arguments)
    except RuntimeError as error:  # transformers refuses to read a checkpoint there
        raise UserError(
            f"--counts-only of a model that starts from a checkpoint ({str(error).split('.')[0]})",
            "a released checkpoint whose shapes are known, or a model from scratch, whose sizes are options",
            "leave out --counts-only, or name no checkpoint",
        ) from error


def _of_tokens(assembly: TokenAssembly) -> tuple[nn.Module, Callable[[], Tensor], str]:
    """The model, its loss on two clips of random codes, and a note on its size."""
    model = assembly.model

    def loss() -> Tensor:
        random = torch.Generator().manual_seed(0)
        codes = [torch.randint(0, model.codes, (model.codebooks, frames), generator=random) for frames in FRAMES]
        examples = [model.lay_out(codes_CT, text) for codes_CT, text in zip(codes, TEXTS, strict=True)]
        batch = collate(examples, range(len(examples)), model.pad_id)
        return TokenObjective(model, assembly.weights)(batch, batch.counted())[0]

    return model, loss, assembly.note


def _of_codec(assembly: CodecAssembly) -> tuple[nn.Module, Callable[[], Tensor], str]:
    """Codec and discriminator, the sum of both their losses on noise, and a note on what is not asked for."""
    codec, discriminator = assembly.codec, assembly.discriminator()
    model = nn.ModuleDict({"codec": codec, "discriminator": discriminator})
    objective = assembly.objective({})

    def loss() -> Tensor:
        random = torch.Generator().manual_seed(0)
        wave_BN = 0.1 * torch.randn(WAVES, round(WAVE_S * codec.sample_rate_hz), generator=random)
        result = codec(wave_BN)
        losses, _ = objective(result, CodecBatch(wave_BN))
        losses |= result.quantised.losses
        real, fake = discriminator(wave_BN), discriminator(result.wave_BN)
        losses["adv_g"], losses["feat"] = assembly.adversary.generator_loss(fake)[0], feature_matching(real, fake)[0]
        loss_d, _ = assembly.adversary.discriminator_loss(real, discriminator(result.wave_BN.detach()))
        return weighted_sum(losses, assembly.weights(1)) + loss_d

    taught = ", ".join(assembly.teachers)
    return model, loss, f"without the losses of the teachers: {taught}" if taught else ""


def _print(groups: Iterable[Group], note: str, console: Console) -> None:
    groups = sorted(groups, key=lambda group: not group.trained)
    total = sum(group.parameters for group in groups)
    rows = [("tensors", "shape", "parameters", "share", "", "gradient")]
    for group in groups:
        shape = " × ".join(map(str, group.shape))
        gradient = ", ".join(
            word if count == group.tensors else f"{count} {word}" for word, count in group.gradient.items()
        )
        rows.append(
            (
                group.name,
                f"{group.tensors} × ({shape})" if group.tensors > 1 else shape,
                f"{group.parameters:,}",
                f"{group.parameters / total:.2%}",
                "trained" if group.trained else "frozen",
                gradient,
            )
        )
    for cells in aligned(rows, console.width, {2, 3}):
        console.print("".join(cells).rstrip(), highlight=False, markup=False)
    trained = sum(group.parameters for group in groups if group.trained)
    console.print(f"trained: {trained:,} ({trained / total:.2%}) of {total:,} parameters", highlight=False)
    if note:
        console.print(note, highlight=False)

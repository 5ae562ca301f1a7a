"""The optimizers of a loop: whose loss leaves gradients where, and whether they are cleared in time.

Told from a few gradients, and their versions, before and after each backward pass; nothing is copied and no graph is
walked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from earnest.monitors import Monitor
from earnest.probes.reach import has_gradient
from earnest.probes.results import GeneratorStep, KeptGradients, LostClipping, Results
from earnest.streams import Part

PROBES = 4  # tensors of each side that are looked at
CYCLES = 3  # that must show the same fault
UNJUDGED = 50  # steps of a generator that a discriminator, which is trained already, has no part in (assumed)
LOOKED = 2 * CYCLES  # steps of an optimizer until which its gradients are looked at for what is old
WORDS = ("discriminator", "disc", "critic", "netd", "adversary", "judge")


@dataclass
class Pass:
    """One backward pass: its number, how many steps anybody had made before it, its loss, and the sides in which it
    left gradients."""

    number: int
    phase: int
    loss: Tensor
    touched: frozenset[str]


@dataclass
class Side:
    """One optimizer.

    held: ids of its parameters; given: passes whose gradients are in place; own: the last pass that it stepped on by
    itself; calls: of its modules since anybody's step; fed: one of them with what a gradient could go back through,
    since the other side's step; reached: by a pass since its own step; holds_old: gradients of before that step; kept:
    steps that used such; clips: limits and norms since the last pass that reached it; clipped: steps that used such;
    unclipped: steps before which a later pass had made all of them void.
    """

    optimizer: torch.optim.Optimizer
    modules: tuple[nn.Module, ...]
    named: bool
    held: frozenset[int]
    probes: list[Tensor] = field(default_factory=list[Tensor])
    given: list[Pass] = field(default_factory=list[Pass])
    own: Pass | None = None
    calls: int = 0
    fed: bool = False
    most_calls: int = 0
    steps: int = 0
    reached: bool = False
    holds_old: bool = False
    kept: int = 0
    clips: list[tuple[float, Tensor]] = field(default_factory=list[tuple[float, Tensor]])
    clips_are_void: bool = False
    clipped: int = 0
    unclipped: int = 0

    @property
    def holds_any(self) -> bool:
        return any(map(has_gradient, self.probes))


class Sides(Monitor):
    """Optimizers by name, as they come. `losses`: of each side, its own losses since they were taken."""

    def __init__(self) -> None:
        self.sides: dict[str, Side] = {}
        self.losses: dict[str, list[Tensor]] = {}
        self._pending: list[Pass] = []  # since anybody's step
        self._before: dict[str, list[tuple[int, int]]] = {}
        self._passes = 0
        self._polluted = self._attached = self._cleared = self._judged = self._unjudged = 0
        self._hooks: list[Callable[[], None]] = []

    def add(self, name: str, optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> None:
        """Watch one more optimizer. modules: the largest modules, by name, whose parameters all belong to this
        optimizer."""
        named = any(
            word in f"{name} {path} {type(module).__name__}".lower()
            for path, module in modules.items()
            for word in WORDS
        ) or any(word in name.lower() for word in WORDS)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        side = Side(optimizer, tuple(modules.values()), named, frozenset(map(id, parameters)))
        by_size = sorted(parameters, key=lambda parameter: parameter.numel())[: max(PROBES, len(parameters) // 2)]
        side.probes = by_size[:: max(1, len(by_size) // PROBES)][:PROBES]
        self.sides[name] = side
        for module in side.modules:
            handle = module.register_forward_pre_hook(partial(self._called, side), with_kwargs=True)
            self._hooks.append(handle.remove)

    def close(self) -> None:
        while self._hooks:
            self._hooks.pop()()

    def _called(self, side: Side, module: nn.Module, args: object, kwargs: Mapping[str, object]) -> None:
        side.calls += torch.is_grad_enabled()
        side.fed |= torch.is_grad_enabled() and (_requires_grad(args) or _requires_grad(tuple(kwargs.values())))

    def clips(self, parameters: Sequence[Tensor], most: float, norm: Tensor) -> None:
        """The gradients of parameters are clipped at a norm of `most`; norm: what it was."""
        for side in self.sides.values():
            if parameters and id(parameters[0]) in side.held:
                side.clips = [*side.clips[-20:], (most, norm.detach())]

    def before_backward(self) -> None:
        for side in self.sides.values():
            if 0 < side.steps <= LOOKED:
                side.holds_old = side.holds_any and (side.holds_old or not side.reached)
        if len(self.sides) < 2:
            return
        for name, side in self.sides.items():
            self._before[name] = [_version(p) for p in side.probes]
            if side.given and not side.holds_any:
                side.given = []

    def after_backward(self, loss: Tensor) -> None:
        self._passes += 1
        touched = frozenset(
            name
            for name, side in self.sides.items()
            if len(self.sides) == 1 or self._before.get(name) != [_version(p) for p in side.probes]
        )
        made = Pass(self._passes, sum(side.steps for side in self.sides.values()), loss, touched)
        self._pending.append(made)
        for name in touched:
            self.sides[name].given.append(made)
            self.sides[name].reached = True
            self.sides[name].clips_are_void |= bool(self.sides[name].clips)
            self.sides[name].clips = []

    def before_step(self, name: str) -> None:
        """Called before an optimizer's step, with the gradients in place."""
        side = self.sides[name]
        mine = [one for one in self._pending if name in one.touched]
        alone = [one for one in mine if one.touched == {name}]
        own = alone or [one for one in mine if one.phase == mine[-1].phase]
        if own:
            side.own = own[-1]
            self.losses.setdefault(name, []).append(torch.stack([one.loss for one in own]).sum())
        side.kept += side.holds_old
        side.clipped, side.unclipped = side.clipped + bool(side.clips), side.unclipped + side.clips_are_void
        side.clips_are_void = False
        side.steps, side.reached, side.holds_old = side.steps + 1, False, False
        side.most_calls = max(side.most_calls, side.calls)
        if len(self.sides) == 2:
            self._look(name)
        for one in self.sides.values():
            one.calls = 0

    def after_step(self, name: str) -> None:
        """What has been stepped on by this side is behind it; what others wait for stays."""
        self.sides[name].clips = []
        others = {one for one in self.sides if one != name}
        self._pending = [one for one in self._pending if self._is_waited_for(one, others)]

    def _is_waited_for(self, one: Pass, others: set[str]) -> bool:
        return any(
            other in one.touched and (own := self.sides[other].own) is not None and own.number < one.number
            for other in others
        ) or any(other in one.touched and self.sides[other].own is None for other in others)

    def _look(self, name: str) -> None:
        """Called at each step. Does the discriminator step on gradients of another side's loss? Does the
        discriminator's loss reach the generator?"""
        discriminator = self._discriminator()
        if discriminator is None:
            return
        judge, other = self.sides[discriminator], next(one for one in self.sides if one != discriminator)
        if name == discriminator and judge.own is not None:
            foreign = [one for one in judge.given if one is not judge.own and other in one.touched]
            # without its name, a part that two losses share must not be taken for a discriminator
            sure = judge.named or any(one.number < judge.own.number for one in foreign)
            self._polluted += bool(foreign) and sure and judge.own.touched == {discriminator}
            self._attached += other in judge.own.touched and (judge.calls > 1 or judge.named)
        elif name == other and judge.own is not None:
            self._cleared += other in judge.own.touched and judge.own not in self.sides[other].given
            self._judged += judge.fed
            self._unjudged += judge.most_calls > 0 and not judge.fed
            judge.fed = False

    def _discriminator(self) -> str | None:
        """The side that is the discriminator: by its name, or because it is called more often before its own step, on
        real and on generated audio."""
        named = [name for name, side in self.sides.items() if side.named]
        if len(named) == 1:
            return named[0]
        first, second = self.sides
        calls = {name: side.most_calls for name, side in self.sides.items()}
        if min(side.steps for side in self.sides.values()) < 1 or calls[first] == calls[second]:
            return None
        judge = max((first, second), key=lambda name: calls[name])
        return judge if calls[judge] > 1 else None

    def roles(self) -> dict[str, Part]:
        """side -> the stream of its loss; empty if there is one side, or all step on the same losses."""
        owns = {id(side.own) for side in self.sides.values() if side.own is not None}
        if len(self.sides) < 2 or len(owns) < 2:
            return {}
        judge = self._discriminator() if len(self.sides) == 2 else None
        if judge is None:
            return {name: Part(name) for name in self.sides}
        return {name: Part("loss_d" if name == judge else "loss_g") for name in self.sides}

    def probes(self) -> Results:
        """The probes ``kept_gradients``, ``lost_clipping`` and ``generator_step``, after a few rounds of the loop."""
        steps = [side.steps for side in self.sides.values()]
        if not steps or min(steps) <= CYCLES:
            return Results()
        kept = KeptGradients(tuple(name for name, side in self.sides.items() if side.kept >= CYCLES), max(steps))
        void = [name for name, side in self.sides.items() if side.unclipped >= CYCLES and not side.clipped]
        found = Results(kept_gradients=kept, lost_clipping=LostClipping(tuple(void), max(steps)))
        if len(steps) != 2 or not self.roles():
            return found
        attached = self._attached >= CYCLES
        generator_step = GeneratorStep(
            self._polluted >= CYCLES,
            attached,
            attached and self._cleared >= CYCLES,
            self._unjudged if self._unjudged >= UNJUDGED and not self._judged else 0,
        )
        return found.updated(Results(generator_step=generator_step))


def modules_of(models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, nn.Module]:
    """The largest modules, by name, of which the optimizer holds every trained parameter."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found: dict[str, nn.Module] = {}

    def visit(path: str, module: nn.Module) -> None:
        every = [id(parameter) for parameter in module.parameters()]
        if every and all(one in held for one in every):
            found[path] = module
        elif any(one in held for one in every):
            for name, child in module.named_children():
                visit(f"{path}.{name}", child)

    for path, module in models.items():
        visit(path, module)
    return found


def _requires_grad(given: object) -> bool:
    if isinstance(given, Tensor):
        return given.requires_grad
    return isinstance(given, list | tuple) and any(map(_requires_grad, cast(Sequence[object], given)))


def _version(parameter: Tensor) -> tuple[int, int]:
    return (0, 0) if parameter.grad is None else (id(parameter.grad), parameter.grad._version)

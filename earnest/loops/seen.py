"""What is seen of a training from outside: from hooks to monitors, and from these to rows of signals."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from earnest.facts import Facts
from earnest.loops.calls import Calls
from earnest.loops.first_step import FirstStep, held_by, named_parameters, not_given, prefixed
from earnest.loops.hooks import LossCall
from earnest.loops.processes import sharded
from earnest.monitors.gradients import REACHED_STEPS, Updates
from earnest.monitors.guard import Guard
from earnest.monitors.modes import Modes
from earnest.monitors.quantisers import Quantisers
from earnest.monitors.remainders import Remainders
from earnest.monitors.sides import Sides, modules_of
from earnest.monitors.tokens import Scored, Tokens, rows_of_ids
from earnest.probes.reach import has_gradient, is_whole, sorted_by_kind
from earnest.probes.results import NoStep, Optimizer, Results
from earnest.run import Step
from earnest.signals import key
from earnest.streams import AUDIO, TEXT, Codebook, Part

EARLY = 20  # steps that are all looked at
PASSES_WITHOUT_STEP = 200  # more micro-batches than anybody accumulates before the first step (assumed)
PROBED = 16  # parameters, and entries of each


class Receiver(Protocol):
    """What becomes of it."""

    def row(self, step: Step) -> None: ...
    def facts(self, facts: Facts) -> None: ...
    def probes(self, results: Results) -> None: ...
    def stepped(self, index: int) -> None: ...


class Seen:
    """A listener of `hooks`, and of models and optimizers, which may come later (`add_model`, `add_optimizer`).

    index: optimizer steps of the first optimizer so far · every: steps between two rows, after the first `EARLY`.
    """

    def __init__(self, to: Receiver, guard: Guard, every: int, names: Sequence[str], first_step: FirstStep, index: int):
        self.to, self.guard, self.every, self.index = to, guard, every, index
        self.models: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.in_parts = False  # then no norm of this process's parameters or gradients is that of the training
        self.first: FirstStep | None = first_step
        self.calls, self.tokens, self.sides, self.modes = Calls(names), Tokens(), Sides(), Modes()
        self.quantisers, self.remainders = Quantisers(guard), Remainders()
        self.updates: dict[str, Updates] = {}
        self._moved: dict[str, float] = {}
        self._norms: dict[str, list[Tensor]] = {}
        self._clips: dict[str, list[Tensor]] = {}
        self._told_most: float | None = None
        self._waiting: dict[str, Tensor] = {}
        self._in_no_optimizer: set[str] = set()
        self._reach_steps: dict[str, int] = {}
        self._inputs: list[Tensor] = []
        self._root: nn.Module | None = None
        self._unscaled: dict[int, Tensor] = {}
        self._micro_batches = 0
        self._first_weights: list[tuple[Tensor, Tensor]] = []
        self._evaluated = self._stays_in_evaluation = False
        self._began_s, self._rows_from, self._from = time.perf_counter(), index, index
        self.used: frozenset[str] = frozenset()

    # models and optimizers

    def add_model(self, name: str, model: nn.Module) -> None:
        self.models[name], self.in_parts = model, self.in_parts or sharded(model)
        self.guard.call("Quantisers", lambda: self.quantisers.add(model), None)

    def add_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self.optimizers[name] = optimizer
        names = named_parameters(self.models)
        self._waiting |= {
            names[id(p)]: p
            for group in optimizer.param_groups
            for p in group["params"]
            if p.requires_grad and id(p) in names
        }
        self._reach_steps[name] = 0
        self.guard.call("Sides", lambda: self.sides.add(name, optimizer, modules_of(self.models, optimizer)), None)

    @property
    def looks(self) -> bool:
        """Whether the step under way is one that becomes a row."""
        return is_due(self.index + 1, self.every)

    # what happens

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A model's forward pass begins."""
        self._root = module
        if self.first is not None:
            first = self.first
            self.guard.call("FirstStep", lambda: first.called(module, args, kwargs), None)
        if module.training:
            if self._evaluated:
                self._evaluated = False
                self.calls.begin()
                self._report_evaluation()
        else:
            self.calls.begin()
        given = (*args, *kwargs.values())
        self._inputs = [one for one in given if isinstance(one, Tensor) and one.dtype == torch.int64 and one.ndim > 1]

    def scored(self, call: LossCall) -> None:
        self.guard.call("Tokens", lambda: self._scored(call), None)

    def _scored(self, call: LossCall) -> None:
        learns = torch.is_grad_enabled() and call.result.requires_grad
        evaluates = self._root is not None and not self._root.training and not (learns and self._stays_in_evaluation)
        trains = learns and not evaluates
        if not trains and not evaluates:
            return  # a teacher's loss, or one that is only looked at
        if not trains and not self.calls.named:
            return
        stream = self.calls.stream(call, trains)
        logits, target = call.logits.detach(), call.target.reshape(-1)
        if logits.ndim > 2:
            logits = logits.movedim(1, -1)
        logits_NV = logits.reshape(-1, logits.shape[-1])
        number, count = self.calls.number(stream), len(set(self.calls.named.values()))
        ids = rows_of_ids(self._inputs, len(target), number, count) if self.tokens.looks or not trains else None
        self._evaluated |= not trains
        scored = Scored(logits_NV, target, ids, call.ignored)
        self.tokens.score(stream, scored, mean_nats(call), "train" if trains else "eval")

    def before_backward(self, roots: Sequence[Tensor]) -> None:
        in_evaluation = self._root is not None and not self._root.training
        if in_evaluation and not self._stays_in_evaluation:  # what was taken for an evaluation is trained on
            self.tokens.take("eval")
            self._evaluated = False
        elif self._evaluated and in_evaluation:
            self._evaluated = False
            self._report_evaluation()
        self._stays_in_evaluation = in_evaluation
        if self.first is not None:
            self.guard.call("FirstStep", self.first.scored, None)
        self.guard.call("Sides", self.sides.before_backward, None)
        self.guard.call("Remainders", self.remainders.before_backward, None)

    def after_backward(self, roots: Sequence[Tensor]) -> None:
        self._micro_batches += 1
        if not self.optimizers or not self.index:
            self.guard.call("NoStep", self._look_for_a_step, None)
        if self.first is not None:
            self.guard.call("FirstStep", self.first.went_back, None)
        self.calls.begin()
        self.guard.call("Sides", lambda: self._went_back(roots), None)
        self._unscaled.clear()

    def _went_back(self, roots: Sequence[Tensor]) -> None:
        losses = [self._unscaled.get(id(root), root).detach().float().sum() for root in roots]
        self.sides.after_backward(torch.stack(losses).sum())
        if len(self.optimizers) == 1:  # several have micro-batches of their own
            self.guard.call("Remainders", lambda: self.remainders.after_backward(*self.optimizers.values()), None)

    def _look_for_a_step(self) -> None:
        """Of the weights that the first backward pass gave gradients, a few are kept, and looked at later."""
        if self._micro_batches == 1 and self._root is not None:
            reached = [p for p in self._root.parameters() if has_gradient(p) and is_whole(p)][:PROBED]
            self._first_weights = [(p, p.detach().reshape(-1)[:PROBED].clone()) for p in reached]
        if self._micro_batches == PASSES_WITHOUT_STEP and self._first_weights:
            same = all(torch.equal(p.detach().reshape(-1)[:PROBED], was) for p, was in self._first_weights)
            self.to.probes(Results(no_step=NoStep(self._micro_batches, same)))
            self.to.stepped(self.index)

    def scaled(self, loss: Tensor, result: Tensor) -> None:
        self._unscaled[id(result)] = loss
        if self.first is not None:
            self.first.may_skip = True

    def clipped(self, parameters: Sequence[Tensor], most: float, norm: Tensor) -> None:
        if is_whole(norm):
            self.guard.call("Sides", lambda: self.sides.clips(parameters, most, norm), None)

    def _sort_clips(self, name: str) -> None:
        """Give this optimizer the norms that were clipped before its step."""
        for most, norm in self.sides.sides[name].clips:
            self._norms.setdefault(name, []).append(norm)
            if most < float("inf"):
                self._clips.setdefault(name, []).append((norm > most).float())
                if self._told_most is None:
                    self._told_most = most
                    self.to.facts(Facts(max_grad_norm=most))

    def before_step(self, name: str) -> None:
        """Before an optimizer's step, with the gradients in place."""
        if self.first is not None and not self.first.waits():
            first, self.first = self.first, None
            results = lambda: first.results(self.models, list(self.optimizers.values()))  # noqa: E731
            found = self.guard.call("FirstStep", results, Results())
            self._name_streams(first)
            first.done()
            self.to.probes(found)
        self.guard.call("Sides", lambda: self.sides.before_step(name), None)
        self.guard.call("Norms", lambda: self._sort_clips(name), None)
        if not self.in_parts:
            self.guard.call("Reached", lambda: self._reached(name), None)
        if self.looks:
            self.guard.call("Modes", lambda: self.modes.look(self.models, self.optimizers[name], self.index + 1), None)
            if name not in self._norms and not self.in_parts:
                self.guard.call("Norms", lambda: self._measure_norm(name), None)
            if not self.in_parts:
                self.guard.call("Updates", lambda: self._begin_updates(name), None)

    def after_step(self, name: str) -> None:
        self.guard.call("Sides", lambda: self.sides.after_step(name), None)
        if self.looks and name in self.updates:
            now = Step(self.index + 1, {})
            self._moved |= self.guard.call("Updates", lambda: self.updates[name].step(now), {})
        if name != next(iter(self.optimizers)):
            return
        self.guard.call("Remainders", self.remainders.stepped, None)
        self.index += 1
        if self.index == self._from + 2:
            self.to.facts(
                Facts(
                    accumulation_steps=max(
                        1, self._micro_batches // max(1, len(self.optimizers) if self.sides.roles() else 1)
                    )
                )
            )
        self._micro_batches = 0
        if is_due(self.index, self.every):
            self.report()
        self.tokens.looks = self.quantisers.looks = self.looks
        self.to.stepped(self.index)

    # what comes of it

    def report(self) -> None:
        """Write a row of what has been seen since the last one."""
        step = Step(self.index, {})
        signals: dict[str, float] = {}
        signals |= self.guard.call("Sides", self._losses, {})
        signals |= self.guard.call("Tokens", lambda: self.tokens.step(step), {})
        signals |= self.guard.call("Norms", self._norm_signals, {})
        signals |= self._code_signals(step)
        signals |= self._moved
        self._moved = {}
        now = time.perf_counter()
        if self.index > self._rows_from:
            signals[key("step_s")] = (now - self._began_s) / (self.index - self._rows_from)
        self._began_s, self._rows_from = now, self.index
        self.to.row(Step(self.index, signals))
        self.to.probes(self.guard.call("Sides", self.sides.probes, Results()))
        self.to.probes(self.guard.call("Modes", self.modes.probes, Results()))
        if len(self.optimizers) == 1:
            self.to.probes(self.guard.call("Remainders", self.remainders.probes, Results()))

    def _code_signals(self, step: Step) -> dict[str, float]:
        first = self.quantisers.window is None
        signals = self.guard.call("Quantisers", lambda: self.quantisers.step(step), {})
        if first and signals:
            self.to.facts(self.guard.call("Quantisers", self.quantisers.facts, Facts()))
        return dict(signals)

    def _report_evaluation(self) -> None:
        signals = self.guard.call("Tokens", lambda: self.tokens.take("eval"), {})
        if signals:
            self.to.row(Step(self.index, signals))

    def finish(self) -> None:
        if self._evaluated:
            self._report_evaluation()
        if self.index > self._rows_from:
            self.report()
        if self.first is not None:
            self.first.leave()
            self.first.done()
        self.sides.close()
        self.quantisers.close()

    def counts(self) -> Facts:
        """What has been counted of the targets."""
        counts, repeats = self.tokens.label_counts(), self.tokens.repeat_frac()
        return Facts(label_counts=counts or None, repeat_frac=repeats or None)

    def _name_streams(self, first: FirstStep) -> None:
        self.used = first.record_of_run.used if first.record_of_run is not None else frozenset()
        self.tokens.rename(self.calls.name(first.named))
        sizes = dict(self.tokens.classes)
        books = [stream for stream in sizes if isinstance(stream, Codebook)]
        audio = next((size for stream, size in sizes.items() if stream == AUDIO or stream in books), None)
        self.to.facts(
            Facts(classes=sizes or None, text_vocab=sizes.get(TEXT), audio_vocab=audio, codebooks=len(books) or None)
        )

    def _losses(self) -> dict[str, float]:
        """Means over the steps since the last row."""
        roles, losses = self.sides.roles(), self.sides.losses
        self.sides.losses = {}
        means = {name: float(torch.stack(values).mean()) for name, values in losses.items()}
        main = next(iter(self.optimizers))
        if not roles:
            return {key("loss"): means[main]} if main in means else {}
        return {key("loss", roles[name]): value for name, value in means.items()}

    def _norm_signals(self) -> dict[str, float]:
        norms, clips, roles = self._norms, self._clips, self.sides.roles()
        self._norms, self._clips = {}, {}
        signals: dict[str, float] = {}
        of_gan = Part("loss_d") in roles.values()
        main = next((name for name, role in roles.items() if role == Part("loss_g")), next(iter(self.optimizers)))
        for name, optimizer in self.optimizers.items():
            stream = None if name == main else Part("discriminator" if of_gan else name)
            signals[key("learning_rate", stream)] = float(optimizer.param_groups[0]["lr"])
            if name in norms:
                signals[key("grad_norm", stream)] = float(torch.stack(norms[name]).mean())
            if name in clips:
                signals[key("clipped_frac", stream)] = float(torch.stack(clips[name]).mean())
        return signals

    def _measure_norm(self, name: str) -> None:
        grads = [p.grad for group in self.optimizers[name].param_groups for p in group["params"] if p.grad is not None]
        grads = [grad for grad in grads if not grad.is_sparse]
        if grads:
            norms = torch._foreach_norm([one.detach() for one in grads])  # pyright: ignore[reportPrivateImportUsage]
            device = norms[0].device
            self._norms[name] = [torch.linalg.vector_norm(torch.stack([norm.to(device).float() for norm in norms]))]

    def _begin_updates(self, name: str) -> None:
        if name in self.updates:
            self.updates[name].begin()
        else:
            names, groups = named_parameters(self.models), self.optimizers[name].param_groups
            mine = [(names[id(p)], p) for group in groups for p in group["params"] if id(p) in names]
            # what no gradient reaches is a finding of its own, not one of its updates
            self.updates[name] = Updates((path, p) for path, p in mine if p.grad is not None)

    def _reached(self, name: str) -> None:
        """The probe ``gradients``, once every optimizer has made its first steps; of several, whose models may be found
        and get their gradients one after the other, the probe ``optimizer`` again."""
        self._reach_steps[name] += 1
        if self._reach_steps[name] <= REACHED_STEPS:
            now = not_given(self.models, list(self.optimizers.values()))
            self._in_no_optimizer |= set(now.missing)
            self._waiting = {n: p for n, p in self._waiting.items() if not has_gradient(p)}
            if min(self._reach_steps.values()) == REACHED_STEPS:
                reached = {name for model in self.models.items() for name in trained_names(*model)} - set(self._waiting)
                found = sorted_by_kind(reached, self._waiting, self.used, REACHED_STEPS, self.index + 1)
                self._reach_steps = {one: REACHED_STEPS + 1 for one in self._reach_steps}
                self.to.probes(Results(gradients=found))
                if len(self.optimizers) > 1:
                    names, held = named_parameters(self.models), held_by(self.optimizers.values())
                    missing = [n for i, n in names.items() if n in self._in_no_optimizer and i not in held]
                    self.to.probes(Results(optimizer=Optimizer(tuple(missing), now.trained)))


def trained_names(name: str, model: nn.Module) -> list[str]:
    """The names of the parameters of a model that are trained, behind the model's name."""
    return [prefixed(name, path) for path, p in model.named_parameters() if p.requires_grad]


def is_due(index: int, every: int) -> bool:
    """Whether a row is written at this step: at each of the first ones, then at every `every`-th."""
    return index <= EARLY or index % every == 0


def mean_nats(call: LossCall) -> Tensor | None:
    """The mean over counted targets, if the call's own result says it."""
    if not call.plain:
        return None
    result = call.result.detach().float()
    if call.reduction == "mean":
        return result
    return result.sum() / (call.target != call.ignored).sum().clamp(min=1)

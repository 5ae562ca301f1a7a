"""`earnest.watch`: any training, watched while it runs. A run directory is written, and judged as it grows.

The training is not changed: functions of torch are listened to (`hooks.py`), everything that is measured runs under a
guard, and only the first process of several watches (`processes.py`).
"""

import atexit
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.logs.names import guess
from earnest.loops import hooks
from earnest.loops.discover import Discovery
from earnest.loops.first_step import FirstStep
from earnest.loops.looks import Looks
from earnest.loops.processes import alone, inner, place
from earnest.loops.seen import Seen
from earnest.loops.settings import Settings
from earnest.monitors.guard import Guard
from earnest.probes.results import Results
from earnest.report.told import told
from earnest.rules import diagnose
from earnest.rules.finding import SEVERITIES, Diagnosis, Finding, Severity
from earnest.run import RunWriter, Step, read_run
from earnest.signals import SIGNALS
from earnest.threads import machine

# Steps after which the run is judged (0: none was made); later ones are a quarter apart.
FIRST_LOOKS = (0, 1, 4, 7, 12, 20, 32, 50, 80)
LOOK_SHARE = 0.005  # of the time that has passed, further looks may take
Models = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | Mapping[str, torch.optim.Optimizer]


class TrainingStopped(UserError):
    """A finding of the severity that `stop_on` names is believed; raised from the optimizer's step."""


def watch(
    model: Models | None = None,
    optimizer: Optimizers | None = None,
    out: str | Path | None = None,
    *,
    every: int = 10,
    streams: Sequence[str] = (),
    stop_on: Severity | None = None,
    alert: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> "Watch":
    """Watch a training that begins now, until `close` (or the end of the process, or of a ``with`` block).

    model, optimizer: one, several, or several by name (``{"generator": g, "discriminator": d}``); if not given, those
    that train are found when they first run · out: the run directory, runs/watch if not given; one that is taken gets
    a number · every: steps between two rows, after the first 20 · streams: names of the losses of tokens, in the order
    in which they are computed (text, audio, codebook_0, ...); found by shapes if not given · stop_on: from this
    severity on, a finding ends the training: the optimizer's step raises `TrainingStopped` · alert: tell the tracker in
    use too · facts: what is known beside (`earnest explain facts`).

    Losses, labels, logits, gradient norms, learning rates and update sizes are found by hooks. What breaks in here is
    reported once and left out; the training goes on. Raises UserError for a fact that is none, or a wrong argument.
    """
    settings = Settings(out, every, streams, stop_on, alert, facts)
    return Watch(named(model, "model"), named(optimizer, "optimizer"), settings)


def named(given: Any, kind: Literal["model", "optimizer"]) -> dict[str, Any]:
    """One, several, or several by name -> by name. A single model has no name, so that its tensors keep theirs."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        found = dict(cast(Mapping[str, Any], given))
    elif isinstance(given, list | tuple):
        every = list(cast(Sequence[Any], given))
        found = {f"{kind}_{number}" if len(every) > 1 else "": one for number, one in enumerate(every)}
    else:
        found = {"": given}
    found = {name: unwrapped(one) for name, one in found.items()}
    wanted = nn.Module if kind == "model" else torch.optim.Optimizer
    for one in found.values():
        if not isinstance(one, wanted):
            fix = f"pass the {kind} of the training, or leave it out: it is found when it first runs"
            raise UserError(f"a {kind} of type {type(one).__qualname__}", f"a torch {wanted.__name__}", fix)
    return found


def unwrapped(one: Any) -> Any:
    """An optimizer without the wrapper of accelerate, a model without that of DistributedDataParallel."""
    within = getattr(one, "optimizer", None)
    return within if isinstance(within, torch.optim.Optimizer) else inner(one)


class Watch:
    """A training under watch. `findings`: what is believed so far; `out`: the run directory, None on other processes
    than the first."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        settings: Settings,
        raises: bool = True,
        resumed_at: int | None = None,
    ):
        self.stop_on, self.raises, self.should_stop, self.guard = settings.stop_on, raises, False, Guard(calls=alone)
        self.looks: Looks | None = None
        self.out: Path | None = None
        self.closed = False
        self._spent_s, self._began_s, self._looked_at = 0.0, time.perf_counter(), 0
        self._undo: list[Callable[[], None]] = []
        self._steps: dict[str, tuple[Callable[[], None], ...]] = {}  # hooks on each optimizer's steps
        if place()[0]:
            self.closed = True
            return
        self.out = free_directory(Path(settings.out or Path("runs") / "watch"), resumed_at is not None)
        self.looks = Looks(self.out, self.guard, settings.alert)
        self.writer = RunWriter(self.out)
        self.writer.event(resumed_at or 0, "resumed" if resumed_at is not None else "started")
        self.writer.facts(self._facts(models).updated(settings.known()))
        first = FirstStep(self.guard.report)
        self.seen = Seen(self, self.guard, settings.every, settings.streams, first, resumed_at or 0)
        for name, model in models.items():
            self._add_model(name, model)
        for name, optimizer in optimizers.items():
            self._add_optimizer(name, optimizer)
        self._undo.append(Discovery(self.seen, self._add_model, self._add_optimizer, self._replace_optimizer).close)
        hooks.listen(self.seen)
        atexit.register(self._at_exit)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        self.close("finished" if error[0] is None else "interrupted")

    @property
    def findings(self) -> list[Finding]:
        """Believed so far, in the order of their importance."""
        order = {severity: number for number, severity in enumerate(SEVERITIES)}
        believed = [] if self.looks is None else self.looks.believed.findings
        return sorted(believed, key=lambda one: (order[one.severity], -one.confidence))

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return 0 if self.out is None else self.seen.index

    def log(self, step: int | None = None, **values: float) -> None:
        """Add what the training knows itself, by names as logs have them: loss=2.3, eval_loss=2.5, lr=1e-4. A name that
        is no signal is left out."""
        if self.out is None or self.closed:
            return
        known = {name: guess(name) for name in values}
        signals = {
            str(place.key): float(values[name])
            for name, place in known.items()
            if place is not None and place.key.name in SIGNALS
        }
        if signals:
            self.writer.step(self.step if step is None else step, signals)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Add what is known beside. Raises UserError for a fact that is none."""
        if self.out is not None and not self.closed:
            self.writer.facts(Facts().updated(facts))

    def diagnosis(self) -> Diagnosis:
        """The run, judged as it is now. Raises UserError on a process that writes none."""
        if self.out is None:
            raise UserError("a process that writes no run", "the first process (rank 0)", "ask for it on rank 0 only")
        return diagnose(read_run(self.out))

    def close(self, how: str = "finished") -> None:
        """Stop watching; the run is judged a last time."""
        if self.closed:
            return
        self._leave()
        self.guard.call("finish", self.seen.finish, None)
        self.guard.call("judge", lambda: self._judge(ended=True), None)
        self.writer.event(self.seen.index, how)
        self.writer.close()
        print(f"earnest: {len(self.findings)} findings; `earnest report {self.out}` writes the page", file=sys.stderr)

    def _leave(self) -> None:
        """Take all hooks away."""
        self.closed = True
        atexit.unregister(self._at_exit)
        hooks.unlisten(self.seen)
        for undo in (*self._undo, *(undo for both in self._steps.values() for undo in both)):
            undo()

    def _at_exit(self) -> None:
        self.close("finished" if getattr(sys, "last_value", None) is None else "interrupted")

    # what `Seen` hands over

    def row(self, step: Step) -> None:
        self.guard.call("row", lambda: self.writer.step(step.index, step.signals), None)

    def facts(self, facts: Facts) -> None:
        self.guard.call("facts", lambda: self.writer.facts(facts), None)

    def probes(self, results: Results) -> None:
        if results.known():
            self.guard.call("probes", lambda: self.writer.probes(results), None)

    def stepped(self, index: int) -> None:
        if place()[0] and not self.closed:  # a script that makes itself one of several after watching has begun
            self._leave()
            return
        began_s = time.perf_counter()
        if self._is_time(index, began_s):
            self._looked_at = index
            self.guard.call("judge", self._judge, None)
            self._spent_s += time.perf_counter() - began_s
        if self.should_stop and self.raises:
            finding = next(one for one in self.findings if self._stops(one))
            self.close("interrupted")
            raise TrainingStopped(
                f"{finding.severity} {finding.rule} {finding.name}: {finding.summary}",
                f"a training without a {self.stop_on} finding (stop_on={self.stop_on!r})",
                finding.fix,
            )

    def _is_time(self, index: int, now_s: float) -> bool:
        last = FIRST_LOOKS[-1]
        due = index in FIRST_LOOKS or (index > last and index >= 1.25 * self._looked_at)
        allowed = self._spent_s < LOOK_SHARE * (now_s - self._began_s) or index <= last or index >= 2 * self._looked_at
        return due and allowed

    def _judge(self, ended: bool = False) -> None:
        assert self.looks is not None
        counts = self.seen.counts()
        if counts.known():
            self.writer.facts(counts)
        for finding in self.looks.new(self.seen.index, ended):
            print(told(finding, self.seen.index), file=sys.stderr)
            self.should_stop |= self._stops(finding)

    def _stops(self, finding: Finding) -> bool:
        return self.stop_on is not None and SEVERITIES.index(finding.severity) <= SEVERITIES.index(self.stop_on)

    # hooks on models and optimizers

    def _add_model(self, name: str, model: nn.Module) -> None:
        self.seen.add_model(name, model)
        if self.seen.first is not None:
            self.writer.facts(self._facts(self.seen.models))

    def _add_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self.seen.add_optimizer(name, optimizer)
        self._follow(name, optimizer)

    def _replace_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Another one that holds the same parameters goes on in its place."""
        for undo in self._steps.pop(name):
            undo()
        self.seen.optimizers[name] = self.seen.sides.sides[name].optimizer = optimizer
        self._follow(name, optimizer)

    def _follow(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        before = optimizer.register_step_pre_hook(lambda _, args, kwargs: self._before_step(name, args, kwargs))
        after = optimizer.register_step_post_hook(lambda *_: self.seen.after_step(name))
        self._steps[name] = (before.remove, after.remove)

    def _before_step(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The gradients of a step that is given a closure are there once the closure has run."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self.seen.before_step(name)
            return None
        waiting = [True]

        def watched() -> Any:
            loss = closure()
            if waiting:
                waiting.clear()
                self.seen.before_step(name)
            return loss

        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

    @staticmethod
    def _facts(models: Mapping[str, nn.Module]) -> Facts:
        parameters = {id(p): p for model in models.values() for p in model.parameters()}.values()
        said: dict[str, Any] = {
            "versions": {"torch": torch.__version__},
            "machine": machine(torch.get_num_threads()),
        }
        if models:
            said |= {
                "system": " + ".join(type(model).__name__ for model in models.values()),
                "parameters": sum(p.numel() for p in parameters),
                "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            }
        return Facts().updated(said)


def free_directory(path: Path, goes_on: bool) -> Path:
    """`path`, or the first of path-2, path-3, ... that holds no run. goes_on: the run continues, and `path` is taken as
    it is."""
    number, free = 1, path
    while not goes_on and (free / "run.json").exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free

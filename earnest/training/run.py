"""A run from its start to its end, the same for language models and codecs: where it starts, its seed, the loop, what
is due after a step, how it is interrupted, how it ends."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed

from earnest.errors import UserError
from earnest.monitors import Monitor
from earnest.monitors.gradients import REACHED_STEPS
from earnest.monitors.guard import Guard, Guarded
from earnest.run import Step, checkpoints, read_run
from earnest.signals import key
from earnest.training.checkpoint import checkpoint_step, load_training_state
from earnest.training.precision import Precision, resolve_precision
from earnest.training.reporter import Reporter

OnProgress = Callable[[str, int, int, str], None]  # stage, done, total, note


def silent(stage: str, done: int, total: int, note: str) -> None:
    """An `OnProgress` that shows nothing."""


class Config(Protocol):
    """What every configuration has: a dataclass of fields, each documented and an option of the command line."""

    @property
    def seed(self) -> int: ...
    @property
    def mixed_precision(self) -> Precision: ...


@dataclass(frozen=True)
class Start:
    """Where a run starts: anew, or from a checkpoint with the state that its training was in."""

    run_dir: Path
    resumed: bool
    accelerator: Accelerator
    checkpoint: Path | None = None

    @property
    def step(self) -> int:
        """Steps that are behind it."""
        return checkpoint_step(self.checkpoint) if self.checkpoint else 0


AnyReporter = TypeVar("AnyReporter", bound=Reporter)


class Training(ABC, Generic[AnyReporter]):
    """A run that is put together: what the loop needs of it."""

    last_step: int
    guard: Guard
    monitors: list[Monitor]
    reporter: AnyReporter | None
    """None on all processes but the first: these wait for it at the next step's gradients."""

    @property
    @abstractmethod
    def every(self) -> Mapping[str, int]:
        """What is made after how many steps: row, evaluation, demos, checkpoint; 0 for the last step alone."""

    @abstractmethod
    def begin(self) -> None:
        """Write what is known before the first step. A run that is continued loads its state after it."""

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """Optimizer steps, without end."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the model: plain values and tensors. All processes call it together."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""

    def report(self, step: Step, due: Collection[str]) -> None:
        """Show what is due after a step."""
        state = self.state() if "checkpoint" in due else {}
        if self.reporter:
            monitors = [Guarded(monitor, self.guard) for monitor in self.monitors]
            self.reporter.report(measured(step, monitors), due, state)
            if "probes" in due:
                for monitor in monitors:
                    self.reporter.writer.probes(monitor.probes())


def measured(step: Step, monitors: Iterable[Monitor]) -> Step:
    """The step with the signals of the monitors beside its own."""
    signals = dict(step.signals)
    for monitor in monitors:
        signals |= monitor.step(step)
    return Step(step.index, signals)


@contextmanager
def started(config: Config, run_dir: Path, resume: bool) -> Iterator[Start]:
    """Where the run starts, with its seed set; afterwards the processes part.

    Raises UserError if that would mix two runs in one directory: one is there and is not to be resumed, or it was
    started with another configuration.
    """
    accelerator = Accelerator(
        mixed_precision=resolve_precision(config.mixed_precision),
        cpu=not torch.cuda.is_available(),
        # a batch in which nothing counts uses no output layer
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    try:
        checkpoint = starting_point(config, run_dir, resume)
        accelerator.wait_for_everyone()  # before the first process writes there
        set_seed(config.seed)
        yield Start(run_dir, resume, accelerator, checkpoint)
        # The wrapper of data parallelism first, the group of processes after it: the other way round the wrapper's
        # destructor, which holds the interpreter, waits for a thread of the group that waits for the interpreter (seen
        # with torch 2.13 and gloo, one run in four).
        accelerator.free_memory()
        accelerator.end_training()
    finally:
        AcceleratorState._reset_state()  # so that the next run of this process may have another precision


def starting_point(config: Any, run_dir: Path, resume: bool) -> Path | None:
    """The checkpoint to continue from, None to start anew."""
    exists = (run_dir / "run.json").exists()
    if exists and not resume:
        raise UserError(
            f"a run in {run_dir}", "an empty directory", "add --resume to continue it, or choose another --out"
        )
    if not exists:
        return None
    check_same(read_run(run_dir).facts.config or {}, config)
    saved = checkpoints(run_dir)
    return saved[-1] if saved else None


def check_same(stored: Mapping[str, Any], config: Any) -> None:
    """Raises UserError if a run would be continued with another configuration than it was started with."""
    changed = differences(stored, asdict(config))
    if changed:
        raise UserError(
            f"another configuration than the run was started with ({'; '.join(changed)})",
            "the same configuration, so that the curve continues as if never interrupted",
            "drop these options, or start a new run with --out",
        )


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two configurations differ, as ``name: stored -> wanted``."""
    different = list[str]()
    for name in sorted(stored.keys() | wanted.keys()):
        before, after = stored.get(name), wanted.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            different += differences(before, after, f"{prefix}{name}.")
        elif _as_json(before) != _as_json(after):
            different.append(f"{prefix}{name}: {before} -> {after}")
    return different


def _as_json(value: Any) -> Any:
    return [*value] if isinstance(value, tuple) else value


def run(training: Training[Any], start: Start, on_progress: OnProgress) -> None:
    """Begin, or continue bit-identically from the checkpoint; step until the last step or the first Ctrl-C, and show
    what is due after each."""
    training.guard = Guard()
    training.begin()
    if start.checkpoint:
        state = load_training_state(start.checkpoint)
        training.load(state)
        torch.set_rng_state(state["torch_rng"])
        del state  # as large as the model, or larger
    index, stopped = start.step, False
    with interruptible() as interrupted:
        for step in training.steps() if index < training.last_step else ():
            index = step.index
            stopped = any(gather_object([interrupted()]))
            last = stopped or index >= training.last_step
            training.report(step, due(index, last, training.every))
            on_progress("train", index, training.last_step, f"loss {step.signals[key('loss')]:.3f}")
            if last:
                break
        if training.reporter:
            training.reporter.end(index, "interrupted" if stopped else "finished")


def due(step: int, last: bool, every: Mapping[str, int]) -> set[str]:
    """What a run makes after this step: after its last one everything, and "end".

    A checkpoint comes with a row of signals, so that a resumed run averages over the same steps. The monitors' probes
    come with an evaluation, and once early.
    """
    made = {name for name, steps in every.items() if last or (steps and step % steps == 0)}
    made |= {"row"} if "checkpoint" in made else set()
    made |= {"probes"} if "evaluation" in made or step == REACHED_STEPS else set()
    return made | ({"end", "probes"} if last else set())


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C ask for an end after the step under way; a second one ends at once."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)

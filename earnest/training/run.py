"""A run from its start to its end, the same for language models and codecs: where it starts, its seed, the loop, what
is due after a step, how it is interrupted, how it ends."""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed

from earnest import checkpoints, stops
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.loops.processes import largest
from earnest.models.precision import fast_float32, resolve_precision
from earnest.monitors import Monitor
from earnest.monitors.gradients import REACHED_STEPS
from earnest.monitors.guard import Guard, Guarded
from earnest.owner import owned
from earnest.run import RunWriter, Step, read_run
from earnest.signals import key
from earnest.training.checkpoint import load_training_state
from earnest.training.config import Config
from earnest.training.reporter import Reporter
from earnest.training.tracking import Tracking, chosen

log = logging.getLogger(__name__)
# How long a process waits for the others: torch's ten minutes are less than one of them may take to evaluate, play and
# save a large model, or to encode the last clips of its share. torchrun ends all of them at once if one dies.
PATIENCE = timedelta(hours=12)

OnProgress = Callable[[str, int, int, str], None]  # stage, done, total, note
BESIDE = ("tracker", "keep_checkpoints")  # fields of a configuration that change nothing of what is learnt
MAY_CHANGE = ("steps", "epochs", *BESIDE)  # a run may be continued with other values of these


def silent(stage: str, done: int, total: int, note: str) -> None:
    """An `OnProgress` that shows nothing."""


@dataclass(frozen=True)
class Start:
    """Where a run starts: anew, or from a checkpoint with the state that its training was in. `recipe`: its name."""

    run_dir: Path
    resumed: bool
    accelerator: Accelerator
    checkpoint: Path | None = None
    recipe: str = ""
    tracking: Tracking | None = None

    @property
    def step(self) -> int:
        """Steps that are behind it."""
        return checkpoints.described(self.checkpoint).step if self.checkpoint else 0


class Outcome(NamedTuple):
    """How far training came, and by which signal it was stopped if it was. `before`: it had finished before."""

    step: int
    last_step: int
    signum: int | None = None
    before: bool = False


AnyReporter = TypeVar("AnyReporter", bound=Reporter[Any])


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

    def at_end(self, step: int) -> None:
        """What is made once, after the checkpoint of the last step. All processes call it together."""

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
def started(config: Config, run_dir: Path, resume: bool, recipe: str = "") -> Generator[Start, None, None]:
    """Seed and open a run, and say where it starts: from then on the directory has an owner and holds the
    configuration. At the end of the block the group of processes that train together is taken apart.

    Raises UserError if that would mix two runs in one directory: one is there and is not to be resumed, it was started
    with another configuration, or another process is at work in it; and if there is none to resume.
    """
    trackers = chosen(config.tracker)
    fast_float32()
    accelerator = Accelerator(
        mixed_precision=resolve_precision(config.mixed_precision),
        cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        # a batch in which nothing counts uses no output layer
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    is_first = accelerator.is_main_process
    if resume:
        must_be_run(run_dir)
    try:
        with owned(run_dir, "earnest train") if is_first else nullcontext():
            checkpoint = starting_point(config, run_dir, resume)
            accelerator.wait_for_everyone()  # before the first process writes there
            if is_first:
                checkpoints.tidy(run_dir)
                if not resume:
                    _announce(run_dir, config, recipe)
                elif checkpoint:
                    _tell_ranks(checkpoint, accelerator.num_processes)
            tracking = Tracking(run_dir) if is_first and trackers else None
            try:
                if tracking:
                    tracking.begin(trackers, config, resume)
                set_seed(config.seed)
                yield Start(run_dir, resume, accelerator, checkpoint, recipe, tracking)
            finally:
                if tracking:
                    tracking.finish()
                if is_first and not resume:
                    _withdraw(run_dir)
        # The wrapper of data parallelism first, the group of processes after it: the other way round the wrapper's
        # destructor, which holds the interpreter, waits for a thread of the group that waits for the interpreter (seen
        # with torch 2.13 and gloo, one run in four).
        accelerator.free_memory()
        accelerator.end_training()
    finally:
        AcceleratorState._reset_state()  # so that the next run of this process may have another precision


def must_be_run(run_dir: Path) -> None:
    """Raises UserError if a directory holds no run that could be resumed."""
    if not (run_dir / "run.json").is_file():
        beside = [path.parent.name for path in run_dir.parent.glob("*/run.json")] if run_dir.parent.is_dir() else []
        near = get_close_matches(run_dir.name, beside, 1)
        raise UserError(
            f"no run in {run_dir} to resume",
            "the directory of a run, as `earnest runs` lists them",
            f"did you mean {run_dir.parent / near[0]}?" if near else "leave --resume out to start a new run",
        )


PREPARING = "preparing"  # the event of a run whose clips are read and encoded


def _announce(run_dir: Path, config: Config, recipe: str) -> None:
    """Say what the directory is to hold before hours of encoding, so that a run killed there can be resumed."""
    writer = RunWriter(run_dir)
    writer.facts(Facts().updated({"config": asdict(config), "recipe": recipe or None}))
    writer.event(0, PREPARING)
    writer.close()


def _withdraw(run_dir: Path) -> None:
    """Take the announcement of a run back that did not begin: the user mends a mistake, and calls the same command."""
    with suppress(UserError, OSError):  # what the run ended with is told, not this
        past = read_run(run_dir).history
        if not past or [event.name for event in past.events] != [PREPARING]:
            return
        for name in ("run.json", "steps.jsonl", "artifacts.jsonl"):
            (run_dir / name).unlink(missing_ok=True)


def _tell_ranks(checkpoint: Path, ranks: int) -> None:
    before = checkpoints.described(checkpoint).ranks
    if before != ranks:
        log.warning(
            "%d processes go on with what %d began: other clips make a batch from here on, and the curve is not the "
            "one that %d would have given",
            *(ranks, before, before),
        )


def finished(config: Config, run_dir: Path) -> Outcome | None:
    """How a run ended that is finished in this configuration, None if there is something left to train."""
    if not (run_dir / "run.json").is_file():
        return None
    run = read_run(run_dir)
    if run.history is None or run.history.ended != "finished" or _differences(run.facts.config or {}, config, BESIDE):
        return None
    saved = checkpoints.newest(run_dir)
    step = checkpoints.described(saved).step if saved else 0
    return Outcome(step, step, before=True) if saved and step == run.last_step else None


def starting_point(config: Config, run_dir: Path, resume: bool) -> Path | None:
    """The checkpoint to continue from, None to start anew."""
    exists = (run_dir / "run.json").exists()
    if exists and not resume:
        raise UserError(
            f"a run in {run_dir}", "an empty directory", "add --resume to continue it, or choose another --out"
        )
    if not exists:
        return None
    stored = read_run(run_dir).facts.config or {}
    check_same(stored, config)
    saved = checkpoints.newest(run_dir)
    if saved:
        checkpoints.check_same(saved, _differences(checkpoints.described(saved).config, stored))
    return saved


def check_same(stored: Mapping[str, Any], config: Config) -> None:
    """Raises UserError if a run would continue with another configuration than it was started with; only its length may
    change."""
    changed = _differences(stored, config)
    if changed:
        raise UserError(
            f"another configuration than the run was started with ({'; '.join(changed)})",
            "the same configuration, so that the curve continues as if never interrupted",
            "drop these options (--resume takes the run's own), or start a new run with --out"
            + ("; data that moved: a link at the old path" if any(c.startswith("data.path:") for c in changed) else ""),
        )


def _differences(stored: Mapping[str, Any], wanted: Any, besides: Sequence[str] = MAY_CHANGE) -> list[str]:
    """The fields in which a stored configuration differs from another one, except those that may differ."""
    values = cast(Mapping[str, Any], wanted) if isinstance(wanted, Mapping) else asdict(wanted)
    before, after = ({name: each[name] for name in each if name not in besides} for each in (stored, values))
    return differences(before, after)


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


def run(training: Training[Any], start: Start, on_progress: OnProgress) -> Outcome:
    """Begin, or continue bit-identically from the checkpoint; step until the last step, or until a signal asks for an
    end; show what is due after each step. A step that is the last for a signal is followed by its checkpoint alone."""
    if start.step > training.last_step:
        raise UserError(
            f"a run of {training.last_step} steps that has made {start.step}",
            f"at least the {start.step} steps that are made",
            f"--steps {start.step} keeps them; a larger number continues the run",
        )
    training.guard = start.tracking.guard if start.tracking else Guard()
    if training.reporter and start.tracking:
        training.reporter.writer.listeners.append(start.tracking.row)
    training.begin()
    if start.checkpoint:
        state = load_training_state(start.checkpoint)
        training.load(state)
        torch.set_rng_state(state["torch_rng"])
        del state  # as large as the model, or larger
    index, signum = start.step, None
    with stops.asked(_say if training.reporter else lambda name: None) as asked_by:
        for step in training.steps() if index < training.last_step else ():
            index = step.index
            is_last = index >= training.last_step
            asked = int(largest(asked_by() or 0, start.accelerator.device))
            signum = asked if asked and not is_last else None
            made = {"row", "checkpoint"} if signum else due(index, is_last, training.every)
            training.report(step, made)
            if start.tracking and "evaluation" in made:
                start.tracking.look(index)
            on_progress("train", index, training.last_step, f"loss {step.signals[key('loss')]:.3f}")
            if is_last or signum:
                break
        if not signum:
            training.at_end(index)
            if start.tracking:
                start.tracking.look(index, ended=True)
        if training.reporter:
            training.reporter.end(index, "interrupted" if signum else "finished")
    return Outcome(index, training.last_step, signum)


def _say(name: str) -> None:
    print(
        f"\n{name}: stopping after the step under way, with a checkpoint; once more stops at once",
        file=sys.stderr,
        flush=True,
    )


def due(step: int, last: bool, every: Mapping[str, int]) -> set[str]:
    """What a run makes after this step: after its last one everything, and "end".

    A checkpoint comes with a row of signals, so that a resumed run averages over the same steps. The monitors' probes
    come with an evaluation, and once early.
    """
    made = {name for name, steps in every.items() if last or (steps and step % steps == 0)}
    made |= {"row"} if "checkpoint" in made else set()
    made |= {"probes"} if "evaluation" in made or step == REACHED_STEPS else set()
    return made | ({"end", "probes"} if last else set())

"""What every run shows beside its steps: rows of signals, evaluations, demos, checkpoints."""

import math
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import PartialState
from torch import nn

from earnest.checkpoints import About
from earnest.facts import Facts
from earnest.models.precision import resolve_precision
from earnest.run import RunWriter, Step
from earnest.signals import key
from earnest.streams import Stream
from earnest.threads import machine
from earnest.training.checkpoint import save_checkpoint
from earnest.training.config import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)


class Reporter(ABC, Generic[AnyConfig]):
    """Looks at a model in training, and writes what it sees into the run."""

    def __init__(self, config: AnyConfig, run_dir: Path):
        self.config, self.run_dir = config, run_dir
        self.writer = RunWriter(run_dir)
        self.scores = dict[str, float]()  # of the held-out clips at the step under way
        self.writer.listeners.append(self._remember)

    def _remember(self, step: int, signals: Mapping[str, float]) -> None:
        self.scores |= {name: value for name, value in signals.items() if name.startswith("eval/")}

    @abstractmethod
    def row(self, step: Step) -> None:
        """Write a row of signals."""

    @abstractmethod
    def evaluate(self, step: int) -> None:
        """Score the held-out clips."""

    @abstractmethod
    def weights(self) -> Mapping[Stream, float]:
        """Weight of every stream in the loss."""

    @abstractmethod
    def demos(self, step: int) -> None:
        """Write audio to listen to."""

    @abstractmethod
    def save_model(self, directory: Path) -> None:
        """Write the model that is evaluated, as `earnest generate` or `earnest encode` reads it."""

    def begin(self, facts: Facts, step: int, resumed: bool) -> None:
        self.writer.event(step, "resumed" if resumed else "started")
        self.writer.facts(facts)

    def report(self, step: Step, due: Collection[str], state: Mapping[str, Any]) -> None:
        """Make what is due after a step. The checkpoint comes last: its random numbers are those that the next step
        begins with. One that comes with an evaluation knows its held-out loss."""
        self.scores.clear()
        if "row" in due:
            self.row(step)
        if "evaluation" in due:
            self.evaluate(step.index)
        if "demos" in due:
            self.demos(step.index)
        if "checkpoint" in due:
            about = About(asdict(self.config), PartialState().num_processes, held_out_loss(self.scores, self.weights()))
            save_checkpoint(self.run_dir, step.index, self.save_model, state, about, self.config.keep_checkpoints)

    def end(self, step: int, how: str) -> None:
        self.writer.event(step, how)
        self.writer.close()


def held_out_loss(scores: Mapping[str, float], weights: Mapping[Stream, float]) -> float | None:
    """The loss on held-out clips: that of each stream (a cross-entropy in nats, or a codec's), by its weight in
    training. None if there is none, or it is not finite."""
    known = {stream: [key(name, stream, "eval") for name in ("ce_nats", "loss")] for stream in weights}
    losses = [weights[stream] * scores[name] for stream, names in known.items() for name in names if name in scores]
    return sum(losses) if losses and math.isfinite(sum(losses)) else None


def facts_of_run(config: Config, model: nn.Module, packages: Collection[str]) -> dict[str, Any]:
    """The facts that language models and codecs have in common: configuration, size, what the run was made with."""
    return {
        "config": asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "max_grad_norm": config.optimizer.max_grad_norm,
        "warmup_steps": config.optimizer.warmup_steps,
        "mixed_precision": resolve_precision(config.mixed_precision),
        "versions": {package: version(package) for package in packages},
        **started_by(),
        "machine": machine(torch.get_num_threads()),
    }


def started_by() -> dict[str, str | None]:
    """How this process was started, from which commit of the folder it stands in, and on which accelerator."""
    program = "earnest" if Path(sys.argv[0]).name in ("earnest", "cli.py") else Path(sys.argv[0]).name
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    device = ", ".join(f"{count} × {name}" for name, count in Counter(names).items())
    return {"command": shlex.join([program, *sys.argv[1:]]), "commit": _commit(), "device": device or None}


def _commit() -> str | None:
    """None outside a git repository; the commit has a + behind it if tracked files were changed."""
    try:
        asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
        done = [subprocess.run(["git", *words], capture_output=True, text=True, timeout=5) for words in asked]
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit, changed = (one.stdout.strip() if one.returncode == 0 else "" for one in done)
    return f"{commit[:12]}{'+' if changed else ''}" if commit else None

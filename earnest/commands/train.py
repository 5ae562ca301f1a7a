"""`earnest train`: start a run, go on with one, and say what a stop has kept."""

import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from earnest import checkpoints, stops, threads
from earnest.commands import arguments
from earnest.errors import UserError, clean, of_disk
from earnest.records import read

if TYPE_CHECKING:
    from earnest.rules.finding import Diagnosis
    from earnest.run import Run

OUT = Annotated[Path | None, tyro.conf.arg(help="Directory of the run; a new one under runs/ if not given.")]
Positional = tyro.conf.Positional
RESUME = Annotated[bool, tyro.conf.arg(help="Continue the run in --out; without one, the latest under runs/.")]


def train(recipe: str, args: list[str]) -> int:
    """Train a recipe, then diagnose the run: earnest train RECIPE [--out DIR] [--resume] [--any.field VALUE ...]."""
    if recipe.startswith("-") and recipe not in ("-h", "--help"):  # --resume knows the recipe
        recipe, args = "", [recipe, *args]
    out, resume = arguments.before_recipe(args)
    if "RANK" in os.environ and out is None:
        raise UserError("several processes, and no --out", "one directory that all of them know", "name it with --out")
    stored = None
    if resume:
        if out is None and not recipe:
            raise UserError("--resume without a run", "the directory of a run", "name it with --out, or the recipe")
        recipe, stored = resumed(out or _default_run_dir(recipe, resume), recipe)
    options = [("out", OUT, None), ("resume", RESUME, False)]
    chosen, call = arguments.configured(recipe, args, "train", options, stored)
    import torch

    from earnest.commands.progress import bars
    from earnest.training.run import silent

    run_dir: Path = call.out or _default_run_dir(recipe, call.resume)
    is_first = not int(os.environ.get("RANK", 0))  # of several processes: it reports
    if is_first:
        computes_with = threads.machine(torch.get_num_threads())
        print(f"{computes_with} ({threads.THREADS} and {threads.WAIT} choose others)")
    try:
        with bars() if is_first else nullcontext(silent) as on_progress:
            outcome = chosen.train(call.config, run_dir, call.resume, on_progress)
    except KeyboardInterrupt:
        print(f"\nstopped at once: {kept(run_dir)}", file=sys.stderr)
        raise
    except OSError as error:
        raise of_disk(error, kept(run_dir)) from error
    if not is_first:
        return 128 + outcome.signum if outcome.signum else 0
    if outcome.before:
        print(f"{clean(run_dir)} is finished at step {outcome.step}: nothing is trained, and nothing was changed.")
        print(f"To go on: earnest train --resume --out {clean(run_dir)} --steps MORE")
        return 0
    if outcome.signum:
        return _stopped(run_dir, outcome.step, outcome.last_step, outcome.signum)
    return report(run_dir)


def _stopped(run_dir: Path, step: int, last_step: int, signum: int) -> int:
    """Say what was kept and how to go on, before the report is written: a scheduler may wait no longer."""
    name = stops.CALLED[signal.Signals(signum)]
    print(f"\nstopped by {name} after step {step} of {last_step}: {kept(run_dir)}", file=sys.stderr, flush=True)
    with suppress(Exception):  # the exit code says that it was stopped, whatever becomes of the report
        written_report(run_dir)
    return 128 + signum


def report(run: Positional[Path]) -> int:
    """Diagnose a run directory of ours, and write report.html, report.md and report.json into it."""
    from rich.console import Console

    from earnest.report import terminal

    terminal(*written_report(run), Console())
    print(f"\nreport with plots and demos: {clean(run / 'report.html')}")
    return 0


class Resumed(NamedTuple):
    """A run that is there: the name of its recipe, and the configuration that it was started with."""

    recipe: str
    config: Any


def resumed(run_dir: Path, recipe: str) -> Resumed:
    """The run in a directory. recipe: the one that was asked for, or empty. Raises UserError if there is no run, it is
    another recipe's, or does not say its configuration."""
    from earnest.recipes import RECIPES
    from earnest.run import read_run
    from earnest.training.run import must_be_run

    must_be_run(run_dir)
    facts = read_run(run_dir).facts
    name = facts.recipe or recipe
    fix = "restore its run.json, or train again with --out"
    if name not in RECIPES:
        raise UserError(f"{run_dir}, whose recipe is {name!r}", f"one of {', '.join(RECIPES)}", fix)
    if recipe and recipe != name:
        command = f"earnest train {name} --resume --out {run_dir}"
        raise UserError(f"recipe {recipe}, but this run is {name}", "the recipe that the run was started with", command)
    if not facts.config:
        raise UserError(f"{run_dir} does not say its configuration", "the configuration in its run.json", fix)
    kind = type(RECIPES[name].configure())
    return Resumed(name, read(kind, facts.config, f"the configuration of {run_dir}", fix))


def kept(run_dir: Path) -> str:
    """What a stop or a mistake has kept of a run, and the command that goes on."""
    saved = checkpoints.checkpoints(run_dir)
    if saved:
        what = f"kept up to {saved[-1]}"
    elif (run_dir / "run.json").exists():
        what = "no checkpoint yet: it starts anew"
    else:
        return "nothing was trained yet; clips that were encoded stay so"
    return f"{what}; to go on: earnest train --resume --out {run_dir}"


def written_report(run_dir: Path) -> "tuple[Run, Diagnosis]":
    """Diagnose a run directory, and write the report into it."""
    from earnest.overview import remember
    from earnest.report import write
    from earnest.rules import diagnose as judge
    from earnest.run import read_run

    run = read_run(run_dir)
    diagnosis = judge(run)
    write(run, diagnosis, run_dir)
    remember(run_dir, run, diagnosis)
    return run, diagnosis


def _default_run_dir(recipe: str, resume: bool) -> Path:
    """runs/RECIPE, or the first free runs/RECIPE-2, -3, ...; to resume, the last one that exists."""
    number, here = 1, Path("runs") / recipe
    while (following := Path("runs") / (recipe if number == 1 else f"{recipe}-{number}")).exists():
        number, here = number + 1, following
    return here if resume else following

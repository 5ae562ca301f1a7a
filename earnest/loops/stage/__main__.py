"""One script on the stage: ``python -m earnest.loops.stage PLAN`` runs it, and writes what was found beside the
plan."""

import json
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "WANDB_MODE": "disabled",
    "ACCELERATE_USE_CPU": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HYDRA_FULL_ERROR": "1",  # else it ends the script with 1, whatever happened
}
ROOT_HAS = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "README.md", "LICENSE")
READ_ARGUMENTS = ("absl", "argbind", "click", "fire", "hydra", "jsonargparse", "simple_parsing", "typer", "tyro")
NOBODYS = re.compile("/earnest/|^<frozen")  # frames that are no place in a script
os.environ |= ENVIRONMENT  # before torch is imported

import torch  # noqa: E402

from earnest import records  # noqa: E402
from earnest.errors import UserError  # noqa: E402
from earnest.loops.judge import judged, told  # noqa: E402
from earnest.loops.keep import fill_zeros  # noqa: E402
from earnest.loops.stage import (  # noqa: E402
    devices,
    evaluation,
    forks,
    guard,
    hub,
    imports,
    models,
    packages,
    replaced,
    settings,
    weights,
)
from earnest.monitors.modes import in_evaluation_mode  # noqa: E402
from earnest.probes.trace.tracing import trace  # noqa: E402


def main(plan_path: Path) -> None:
    """Run the script that a plan (JSON) names to its first optimizer step, and write result.json beside the plan."""
    plan: dict[str, Any] = json.loads(plan_path.read_text(encoding="utf-8"))
    result = plan_path.with_name("result.json")

    configs = [Path(path) for path in plan["configs"]]
    checkpoints = models.Checkpoints(configs, Path(plan["folder"]), plan["widths"])

    def write(**found: Any) -> None:
        aside = result.with_suffix(".tmp")
        aside.write_text(
            json.dumps({"replaced": replaced.told(), "narrowed": checkpoints.narrowed, **found}), encoding="utf-8"
        )
        os.replace(aside, result)
        os._exit(0)

    def begin() -> None:
        try:
            write(**_traced(plan))
        except UserError as error:
            write(refused=[error.seen, error.expected, error.fix])
        except Exception:
            write(fault=traceback.format_exc())

    torch.set_num_threads(1)
    packages.install(_own_folders(Path(plan["script"]), Path(plan["cwd"])))
    weights.install()
    changes = {"accelerate": settings.of_accelerate, "datasets": settings.of_datasets, **settings.LIGHTNING}
    changes |= {"evaluate": settings.of_evaluate}
    changes |= {"transformers.pipelines": settings.of_pipelines, "tiktoken": settings.of_tiktoken}
    changes |= hub.Hub(Path(plan["scratch"]) / "hub", checkpoints).changes() | hub.torchtune_builders(checkpoints)
    imports.install({**changes, "transformers.training_args": settings.of_training_args, **checkpoints.changes()})
    settings.install()
    evaluation.Evaluation().install()
    guard.install(Path(plan["scratch"]))
    with devices.install(), forks.Forking(_weights_ready, begin):
        error = _run(plan)
    for end in forks.ending:
        end(error)
    write(refused=[error.seen, error.expected, error.fix])


def _weights_ready() -> None:
    """Weights that a class only allocated, and no checkpoint filled, are drawn."""
    weights.draw_garbage(forks.weights())


def _run(plan: dict[str, Any]) -> UserError:
    """Run the script to its end; how it ended."""
    os.chdir(plan["cwd"])
    sys.argv = [plan["script"], *plan["args"]]
    sys.path[0] = plan["root"]
    try:
        if plan["module"]:
            runpy.run_module(plan["module"], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(plan["script"], run_name="__main__")
        ended, fix = "ended", _advice(None)
    except SystemExit as error:
        if error.code == 2:  # as argparse and its kind end
            return UserError(
                "the script ended with 2: its arguments are missing or wrong",
                "the arguments that it is trained with",
                f"pass them behind its name: earnest check {Path(plan['script']).name} ARGS; what it printed is above",
            )
        ended, fix = f"ended with {error.code!r}", _advice(None)
    except UserError as error:
        return error
    except BaseException as error:
        if isinstance(error, forks.GoOn):
            raise
        traceback.print_exc()
        ended, fix = _in_words(error), _advice(error)
    return UserError(f"the script {ended}", "a forward and backward pass, and an optimizer step", fix)


def _own_folders(script: Path, cwd: Path) -> list[Path]:
    """Where packages of the script's own repository may lie: the working folder, and those above the script up to the
    root of the repository, or its src."""
    above = list(script.parents)[:5]
    root = next((n for n, folder in enumerate(above) if any((folder / name).exists() for name in ROOT_HAS)), 0)
    return [each for folder in (cwd, *above[: root + 1]) for each in (folder, folder / "src")]


def _advice(error: BaseException | None) -> str:
    """What to do about a script that ended without a step, or with this error."""
    lacking = _lacking(error)
    missing, by_hand = replaced.packages(), "run it by hand with these arguments; what it printed is above"
    if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionError):
        return (
            "put a few clips of its data where the script looks for them, or pass their path; what it printed is above"
        )
    if lacking:
        return f"install or build {lacking} in this environment; what it printed is above"
    if starts := [name for name in missing if name in READ_ARGUMENTS]:
        return f"install {', '.join(starts)}, which read{'s' * (len(starts) == 1)} the script's arguments"
    return f"install {', '.join(missing)}, in whose place nothing is done here; or {by_hand}" if missing else by_hand


def _lacking(error: BaseException | None) -> str | None:
    """The module that an error, or the one behind it, did not find."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name or "what is missing"
        error = error.__cause__
    return None


def _in_words(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"has a {type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not NOBODYS.search(frame.filename)]
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    place = next(reversed(own or frames), None)
    at = f" at {place.filename}:{place.lineno}" if place else ""
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{at}"
    cause = error.__cause__
    return f"stopped with {words}" + (f", because of {type(cause).__name__}: {str(cause)[:200]}" if cause else "")


def _traced(plan: dict[str, Any]) -> dict[str, Any]:
    fill_zeros(forks.weights())
    replay = forks.ForkedReplay(plan["seconds"])
    traced = trace(replay, _time_left(plan["seconds"]))
    assert replay.step is not None
    model = forks.model_of(forks.with_id(replay.step.weight))
    results = judged(model, traced, plan["end_id"])
    found = {**results.known(), "gradients": replay.step.gradients, "optimizer": replay.step.optimizer}
    found["micro_batches"] = replay.step.micro_batches
    found["evaluation_mode"] = in_evaluation_mode(model)
    count = replay.step.micro_batches.count
    told_ = {"model": type(model).__name__, "first step": f"after {count} micro-batches", **told(traced)}
    return {"probes": {name: records.plain(value) for name, value in found.items()}, "told": told_}


def _time_left(seconds: float) -> Callable[[], bool]:
    def left() -> bool:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system < 0.8 * seconds

    return left


if __name__ == "__main__":
    main(Path(sys.argv[1]))

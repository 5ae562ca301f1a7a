"""``earnest check SCRIPT [ARGS]``: a stranger's training script, unmodified, until its first optimizer step."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.loops.answer import diagnosis
from earnest.probes.results import Results
from earnest.report import terminal
from earnest.rules.finding import Diagnosis
from earnest.run import Run

COPIED_BYTES = 2**20  # larger files of the script's folder are linked
MOST_FILES = 20_000
PASSED_OVER = (".git", "__pycache__", "node_modules", ".venv", "venv", "wandb", "outputs", "runs", ".mypy_cache")
SHAPES = re.compile(r"size|shape|dimension|mat1|expected \d+", re.IGNORECASE)  # in what a wrong width raises
WRONG_SHAPE = re.compile(r"Error: .*(?:\bmat1\b|\bshapes?\b|\bsizes?\b)")
TAIL_LINES = 8  # of what the script printed, if it cannot be checked


@dataclass(frozen=True)
class Options:
    """What is asked of a script's check."""

    config: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """config.json of a checkpoint that is not here; its folder may bear the checkpoint's name. Repeatable."""
    seconds: float = 60.0
    """CPU time that the script may take."""
    end_id: int | None = None
    """The id that ends a clip, if the model's configuration does not name it."""


@dataclass(frozen=True)
class Checked:
    """What was found; the run's notes say what stood in for what."""

    run: Run
    diagnosis: Diagnosis


def check_script(script: Path, args: Sequence[str] = (), options: Options = Options()) -> Checked:
    """Run a script in a process of its own, from a scratch folder in which its files are copies and links.

    Raises UserError, after printing what the script printed last, if it comes to no loss within `options.seconds`.
    """
    if not script.is_file():
        raise UserError(f"no file {script}", "a training script, or the name of a recipe", "earnest check train.py")
    if not hasattr(os, "fork"):
        raise UserError(
            f"{sys.platform}, which has no fork()", "Linux or macOS", "check the part that trains: earnest.check(...)"
        )
    for widths in (True, False):  # some scripts count on the width of a checkpoint
        with tempfile.TemporaryDirectory(prefix="earnest-check-") as name:
            scratch, before = Path(name), _children_s()
            staged = _staged(scratch, script.resolve(), args, options, widths)
            if not staged.wants_widths:
                return _told(staged, scratch, script, options.seconds)
            options = replace(options, seconds=max(1.0, options.seconds - (_children_s() - before)))
    raise AssertionError("the second time nothing is made narrow")


@dataclass(frozen=True)
class Staged:
    """One run of the stage: the result that it wrote, if it did, what the script printed, and the exit code."""

    found: dict[str, Any] | None
    printed: str
    code: int

    @property
    def wants_widths(self) -> bool:
        """Whether the script stopped over a shape that was made small, or caught such an error and came to no loss."""
        found = self.found or {}
        if "refused" not in found or not found["narrowed"]:
            return False
        return bool(SHAPES.search(found["refused"][0]) or WRONG_SHAPE.search(self.printed))


def _staged(scratch: Path, script: Path, args: Sequence[str], options: Options, widths: bool) -> Staged:
    stage, seconds = _set(scratch, script, args, options, widths), int(options.seconds)
    printed, temporary = scratch / "printed.txt", scratch / "tmp"
    temporary.mkdir()
    paths = os.pathsep.join(filter(None, [_home(), os.environ.get("PYTHONPATH")]))
    with open(printed, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "earnest.loops.stage", str(stage)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": paths},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5)),
            start_new_session=True,
        )
        found = _wait(process, scratch / "result.json", options.seconds)
    return Staged(found, printed.read_text(encoding="utf-8", errors="replace"), process.returncode)


def _children_s() -> float:
    """CPU seconds of the processes that were waited for."""
    times = os.times()
    return times.children_user + times.children_system


def report_script(script: Path, args: Sequence[str], options: Options) -> bool:
    """Check a script and print what was found; whether that is critical."""
    checked = check_script(script, args, options)
    terminal(checked.run, checked.diagnosis, Console())
    return any(finding.severity == "critical" for finding in checked.diagnosis.findings)


def _home() -> str:
    """The folder that earnest is imported from."""
    return str(Path(__file__).resolve().parents[2])


def _set(scratch: Path, script: Path, args: Sequence[str], options: Options, widths: bool) -> Path:
    """Fill the scratch folder; the path of the plan."""
    here = Path.cwd().resolve()
    root = script.parent
    while (root / "__init__.py").exists():
        root = root.parent
    trees = [here] if root.is_relative_to(here) else [here, root]
    budget = [MOST_FILES]
    for tree in trees:
        _mirror(tree, _copied(scratch, tree), budget)
    for tree in trees:
        _link_around(tree, scratch)
    module = ".".join(script.relative_to(root).with_suffix("").parts) if root != script.parent else None
    plan = {
        "script": str(_copied(scratch, script)),
        "root": str(_copied(scratch, root)),
        "module": module,
        "args": list(args),
        "cwd": str(_copied(scratch, here)),
        "folder": str(root),
        "scratch": str(scratch),
        "configs": [str(path.resolve()) for path in options.config],
        "seconds": options.seconds,
        "end_id": options.end_id,
        "widths": widths,
    }
    path = scratch / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def _copied(scratch: Path, path: Path) -> Path:
    return scratch / "tree" / path.relative_to(path.anchor)


def _mirror(source: Path, target: Path, budget: list[int]) -> None:
    """Folders are made, small files copied, large ones linked; with the budget spent, whole folders are linked."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.is_dir()):
        budget[0] -= 1
        place = target / entry.name
        if entry.name in PASSED_OVER or place.exists() or place.is_symlink():
            continue
        try:
            if entry.is_dir(follow_symlinks=False) and budget[0] > 0:
                _mirror(Path(entry.path), place, budget)
            elif entry.is_file() and budget[0] > 0 and entry.stat().st_size <= COPIED_BYTES:
                shutil.copyfile(entry.path, place)
                os.utime(place, ns=(entry.stat().st_atime_ns, entry.stat().st_mtime_ns))  # caches go by it
            else:
                place.symlink_to(os.path.realpath(entry.path))
        except OSError:  # what cannot be read here cannot be read by the script either
            continue


def _link_around(tree: Path, scratch: Path) -> None:
    """What stands beside the folders above a tree is linked: scripts read ../data."""
    for folder in tree.parents[:-1]:  # not what stands in the root
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries[:MOST_FILES]:
            place = _copied(scratch, Path(entry.path))
            if not (place.exists() or place.is_symlink() or scratch.is_relative_to(entry.path)):
                place.symlink_to(entry.path)


def _wait(process: subprocess.Popen[bytes], result: Path, seconds: float) -> dict[str, Any] | None:
    """The result as the stage wrote it; None if it wrote none."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3 * seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the children that it forked
        process.wait()
    found: dict[str, Any] | None = json.loads(result.read_text(encoding="utf-8")) if result.exists() else None
    return found


def _told(staged: Staged, scratch: Path, script: Path, seconds: float) -> Checked:
    tree, found = str(scratch / "tree"), staged.found
    tail = "\n".join(staged.printed.replace(tree, "").splitlines()[-TAIL_LINES:])
    if found is None:
        ended = (
            f"no loss within {seconds:.0f} s of CPU"
            if -staged.code in (signal.SIGXCPU, signal.SIGKILL)
            else f"exit code {staged.code}"
        )
        fix = "pass arguments that make the first step early: a small model, small batches, short clips"
        found = {"refused": [f"{script}: {ended}", "a forward and backward pass, and an optimizer step", fix]}
    plain: dict[str, Any] = json.loads(json.dumps(found).replace(tree, ""))
    if "fault" in plain:
        raise RuntimeError(plain["fault"])
    if "refused" in plain:
        if tail:
            print(tail, file=sys.stderr)
        raise UserError(*plain["refused"])
    results, told = Results.read(plain["probes"]), dict(plain["told"])
    run = Run(Facts(system=told.pop("model")), probes=results, notes=plain["replaced"], path=script)
    return Checked(run, diagnosis(results, told))

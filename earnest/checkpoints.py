"""The checkpoints of a run: known by what is in them, whole or told as damaged.

``checkpoints/step_N`` is one of ours if its checkpoint.json says step N. It names the digest of every file beside it,
the configuration and the number of processes. Whatever else lies there is the user's: it is neither read nor removed.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from earnest.errors import UserError, clean
from earnest.files import open_regular, read_small, whole_directory

NAME = "checkpoint.json"
PATTERN = "step_" + "[0-9]" * 7
LARGEST_BYTES = 4 << 20  # of checkpoint.json
NOT_SCORED = "no checkpoint was scored: make --save-every-steps a multiple of --evaluate-every-steps"


class About(NamedTuple):
    """What checkpoint.json records of a checkpoint. ranks: processes that trained · held_out_loss: the loss on the
    held-out clips, None if they were not scored at its step."""

    config: Mapping[str, Any]
    ranks: int = 1
    held_out_loss: float | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """What checkpoint.json says: the step, what `About` holds, and the sha256 of each file by its name."""

    step: int
    config: dict[str, Any]
    ranks: int = 1
    held_out_loss: float | None = None
    files: dict[str, str] = {}


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """The directory of a run's checkpoint after `step` optimizer steps."""
    return run_dir / "checkpoints" / f"step_{step:07d}"


def described(path: Path) -> Checkpoint:
    """What a checkpoint says of itself. Raises ValueError or OSError if it says nothing that can be read."""
    try:
        return msgspec.json.decode(read_small(path / NAME, LARGEST_BYTES), type=Checkpoint)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{NAME} is not as it was written: {error}") from error


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints that the run has written, oldest first."""
    return [path for path in _candidates(run_dir) if _is_ours(path)]


def _candidates(run_dir: Path) -> list[Path]:
    return sorted(path for path in (run_dir / "checkpoints").glob(PATTERN) if path.is_dir() and not path.is_symlink())


def _is_ours(path: Path) -> bool:
    try:
        return checkpoint_path(path.parent.parent, described(path).step) == path
    except (OSError, ValueError):
        return False


def best(run_dir: Path) -> Path | None:
    """The checkpoint of the lowest held-out loss, of equals the newest; None if none was scored."""
    scores = {path: loss for path in checkpoints(run_dir) if (loss := described(path).held_out_loss) is not None}
    return min(reversed(scores), key=scores.__getitem__, default=None)


def chosen(run_dir: Path, wanted: str | None) -> Path:
    """The checkpoint that a word means: the newest (None), "best", a step, or a directory. Raises UserError if there is
    none, or it is damaged."""
    if wanted is None:
        return latest_checkpoint(run_dir)
    saved = checkpoints(run_dir)
    named = [Path(wanted), run_dir / wanted, run_dir / "checkpoints" / wanted]
    path = (
        best(run_dir) if wanted == "best" else next((path for path in named if (path / "config.json").is_file()), None)
    )
    if wanted.isdecimal() and (at := checkpoint_path(run_dir, int(wanted))) in saved:
        path = at
    if path is None:
        steps = ", ".join(str(described(each).step) for each in saved) or "none is there"
        scored = "best, " if best(run_dir) else ""
        fix = "leave it out for the newest" if scored or wanted != "best" else NOT_SCORED
        raise UserError(f"--checkpoint {wanted}", f"a step ({steps}), {scored}or the directory of a checkpoint", fix)
    if (path / NAME).is_file() and (wrong := damage(path)):
        raise UserError(f"checkpoint {path} is damaged: {wrong}", "a whole checkpoint", "choose another --checkpoint")
    return path


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None if every file is as it was written."""
    try:
        for name, digest in described(path).files.items():
            if _digest(path / name) != digest:
                return f"{name} is not as it was written"
    except OSError as error:
        return f"{Path(error.filename or NAME).name}: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None


def latest_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint. Raises UserError if there is none, or it is damaged."""
    saved = newest(run_dir)
    if saved is None and not (run_dir / "run.json").is_file():
        raise UserError(
            f"no run.json in {run_dir}", "a run directory", "pass the directory that `earnest train` printed"
        )
    if saved is None:
        raise UserError(
            f"no checkpoint in {run_dir}",
            "a run that has saved at least one",
            "train for longer, or save more often (--save-every-steps)",
        )
    return saved


def newest(run_dir: Path) -> Path | None:
    """The newest checkpoint, None if there is none. Raises UserError if it is damaged, and says which older one is
    whole."""
    saved = [path for path in _candidates(run_dir) if _is_ours(path) or (_is_broken(path) and any(path.iterdir()))]
    if not saved or (wrong := damage(saved[-1])) is None:
        return saved[-1] if saved else None
    older = next((path for path in reversed(saved[:-1]) if damage(path) is None), None)
    aside = f"mv {saved[-1]} {run_dir / f'damaged_{saved[-1].name}'}"
    raise UserError(
        f"checkpoint {saved[-1]} is damaged: {wrong}",
        "a whole checkpoint" + (f", as {older.name} is" if older else "; no older one is whole"),
        f"{aside} && earnest train --resume --out {run_dir}" + ("" if older else "  (starts anew)"),
    )


def _is_broken(path: Path) -> bool:
    try:
        described(path)
    except FileNotFoundError:
        return not (path / NAME).exists() and (path / "training_state.pt").exists()
    except (OSError, ValueError):
        return True
    return False


def save(run_dir: Path, step: int, fill: Callable[[Path], None], about: About, keep: int = 2) -> None:
    """Write ``checkpoints/step_N`` whole or not at all, with what `fill` puts into it; then delete all of this run's
    checkpoints except the newest `keep` and the best. Raises UserError if something else has its name."""
    path = checkpoint_path(run_dir, step)
    if path.exists() and not _is_ours(path):
        raise UserError(f"{path}, which this run did not write", "a free name for its checkpoint", "rename it")
    with whole_directory(path, replace=True) as aside:
        fill(aside)
        files = {file.relative_to(aside).as_posix(): _digest(file) for file in aside.rglob("*") if file.is_file()}
        record = {"step": step, **about._asdict(), "files": files}
        (aside / NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
    stays = best(run_dir)
    for old in [path for path in checkpoints(run_dir)[:-keep] if path != stays]:
        hidden = old.with_name(f".{old.name}.old.tmp")  # out of sight first: a kill here leaves no half of one
        old.rename(hidden)
        shutil.rmtree(hidden)


def tidy(run_dir: Path) -> None:
    """Remove what a killed owner left half-written."""
    for left in [*run_dir.glob(".*.tmp"), *(run_dir / "checkpoints").glob(".*.tmp")]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    import hashlib

    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check_same(path: Path, differences: list[str]) -> None:
    """Raises UserError if a checkpoint is of another configuration than its run."""
    if differences:
        raise UserError(
            f"checkpoint {path} of another configuration than its run ({clean('; '.join(differences))})",
            "a checkpoint that this run wrote",
            "put the run's own checkpoint back, or move this one away",
        )

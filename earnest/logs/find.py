"""Which file of a path is the log, and which of several runs is meant."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from earnest.errors import UserError
from earnest.logs import tensorboard
from earnest.logs.log import Format
from earnest.logs.source import EXPECTED, FIX, Source

DEEPEST = 6
MOST = 5000
# Within one run's folder the richer log first: an own run, a trainer's state, W&B, a tree of events, tables, then what
# was printed.
RICHNESS = ["earnest", "json", "wandb", "mlflow", "trackio", "tensorboard", "jsonl", "csv", "parquet", "text"]
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".wandb", ".log", ".txt", ".out", ".ndjson", ".db", ".gz")
NO_LOGS = re.compile(
    r"^(?:config|.*tokenizer.*|generation_config|args|hparams|params|training_args|requirements.*|readme.*|license.*|wandb-metadata|wandb-summary|"
    r"vocab|merges|special_tokens_map|preprocessor_config|all_results|.*_results|.*\.index|environment|package.*|run|debug(?:-\w+)?)\.(?:json|txt|yaml|md|log)$",
    re.IGNORECASE,
)


def choose(path: Path, formats: Sequence[Format], run: str | None) -> tuple[Source, Format | None, str | None]:
    """(source, its format or None, run within the file or None) of a file, or of the one run in a directory, or of the
    one named `run`."""
    try:
        exists = path.exists()
    except PermissionError as error:
        raise UserError(
            f"no permission to read {path}", "a readable file", "run as its owner, or change its permissions"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)[:200]!r} is no path ({error})", EXPECTED, FIX) from error
    if not exists:
        near = sorted(other.name for other in path.parent.iterdir())[:10] if path.parent.is_dir() else []
        raise UserError(
            f"no such file: {path}",
            "a log file or a directory of logs",
            f"{path.parent} holds {', '.join(near)}" if near else "check the path",
        )
    source = Source(path)
    if not source.is_dir:
        if not path.is_file():
            raise UserError(f"{path} is neither file nor directory", EXPECTED, FIX)
        return source, _format(source, formats), run
    runs = discover(path, formats)
    if not runs:
        raise UserError(f"{path} holds no log", EXPECTED, FIX)
    if len(runs) == 1:
        found, format = next(iter(runs.values()))
        return found, format, run if run not in runs else None
    if run not in runs:
        listed = ", ".join(list(runs)[:20]) + (f" and {len(runs) - 20} more" if len(runs) > 20 else "")
        raise UserError(
            f"{path} holds {len(runs)} runs" + (f", and none called {run!r}" if run else ""),
            f"one run: {listed}",
            f"choose one, e.g. --run {next(iter(runs))}, or pass its path",
        )
    found, format = runs[run]
    return found, format, None


def discover(path: Path, formats: Sequence[Format]) -> dict[str, tuple[Source, Format]]:
    """The runs below a directory: name -> its log and that log's format. One run's several logs count once, as the
    richest."""
    found: dict[Path, list[tuple[int, Path, Source, Format]]] = {}
    for place in _places(path):
        source = Source(place)
        try:
            format = _format(source, formats)
        except UserError:
            continue
        if format is not None:
            found.setdefault(_run_folder(place, path), []).append((RICHNESS.index(format.NAME), place, source, format))
    kept = [folder for folder, logs in found.items() if min(rank for rank, *_ in logs) < RICHNESS.index("text")]
    for folder in [
        folder for folder in found if folder not in kept
    ]:  # what was printed counts only where no log was kept below
        if any(folder in other.parents for other in kept):
            del found[folder]
    runs: dict[str, tuple[Source, Format]] = {}
    for folder, logs in sorted(found.items(), key=lambda item: str(item[0])):
        best = min(rank for rank, *_ in logs)
        richest = sorted((log for log in logs if log[0] == best), key=lambda log: (len(log[1].parts), str(log[1])))
        if len(richest) > 1 and richest[0][3].NAME == "json":  # checkpoints of one run: the last state tells all
            states = [log for log in richest if log[1].name == "trainer_state.json"]
            richest = (
                [max(states, key=lambda log: (-len(log[1].parts), _number_in(log[1].parent.name)))]
                if states
                else richest
            )
        others = sorted({log[1].name for log in logs if log[0] != best})
        for _, place, source, format in richest:
            if others and len(richest) == 1:
                source.notes.append(f"{place.name} is read; the folder also holds {', '.join(others[:5])}")
            name = folder.relative_to(path) if len(richest) == 1 else place.relative_to(path)
            runs[str(name) if str(name) != "." else place.name] = (source, format)
    return runs


def _format(source: Source, formats: Sequence[Format]) -> Format | None:
    return next((format for format in formats if format.claims(source)), None)


def _places(path: Path) -> Iterator[Path]:
    """Files that may be logs, and directories that are one (a run of our own, a tree of events)."""
    count = 0
    for folder, below, files in os.walk(path):
        here = Path(folder)
        below.sort()
        if len(here.relative_to(path).parts) >= DEEPEST:
            below.clear()
        if "run.json" in files and "steps.jsonl" in files:
            below.clear()
            yield here
            continue
        if {"meta.yaml"} <= set(files) and "metrics" in below:  # MLflow's run
            below.clear()
            yield here
            continue
        events = any("tfevents" in name for name in files)
        splits = [
            name
            for name in below
            if tensorboard.belongs(here, here / name)
            and any("tfevents" in file.name for file in (here / name).iterdir())
        ]
        if events or splits:
            below[:] = [name for name in below if name not in splits]
            yield here
        for name in sorted(files):
            if name.endswith(ENDINGS) and not NO_LOGS.match(name) and "tfevents" not in name:
                count += 1
                if count > MOST:
                    return
                yield here / name


def _run_folder(place: Path, top: Path) -> Path:
    """The folder that stands for a run: transformers' checkpoints and runs/, W&B's files/ and logs/ belong to the one
    above."""
    folder = place if place.is_dir() else place.parent
    while folder != top:
        if (
            re.fullmatch(r"checkpoint-\d+|files|logs|runs|tensorboard|tb|\.hydra", folder.name)
            and folder.parent != folder
        ):
            folder = folder.parent
        elif folder.parent.name == "runs" and folder.parent != top and _is_trainer_output(folder.parent.parent):
            folder = folder.parent.parent
        else:
            break
    return folder


def _is_trainer_output(folder: Path) -> bool:
    return any(
        next(folder.glob(pattern), None) for pattern in ("trainer_state.json", "checkpoint-*/trainer_state.json")
    )


def _number_in(text: str) -> int:
    return int(re.sub(r"\D", "", text) or 0)

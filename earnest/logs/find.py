"""Which file of a path is the log, and which of several runs is meant. Formats say what is theirs."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from earnest.errors import UserError
from earnest.logs.format import PRINTED, Format
from earnest.logs.log import Log
from earnest.logs.mapping import to_run
from earnest.logs.messages import messages_of
from earnest.logs.names import guess
from earnest.logs.source import FIX, Beginning, Joined, Source
from earnest.run import Run

ADDRESSES = {  # whose pages are taken for logs, and how the log behind one is got
    "wandb.ai": "pass the folder wandb/ that the run wrote, or a CSV that its page exports",
    "huggingface.co": "hf download OWNER/NAME FILE, and pass the file",
    "tensorboard.dev": "pass the folder of event files that was uploaded",
}

DEEPEST = 6
MOST = 5000
MOST_PARTS = 20
NO_LOGS = re.compile(
    r"^(?:config|.*tokenizer.*|generation_config|args|hparams|params|training_args|requirements.*|readme.*|license.*|"
    r"changelog|contributing|model_?card|"
    r"wandb-metadata|wandb-summary|vocab|merges|special_tokens_map|preprocessor_config|all_results|.*_results|"
    r".*\.index|environment|package.*|debug(?:-\w+)?)\.(?:json|txt|yaml|md|log)$|^run\.json$",
    re.IGNORECASE,
)
INNER = re.compile(r"checkpoint-\d+|files|logs|runs|tensorboard|tb|\.hydra")  # folders of the run above them


ENDING = re.compile(r"(?:\.gz|\.[oe]?\d+)+$")  # train.log.gz, solver.log.0, job.o123


class Found(NamedTuple):
    """A log that was found below a path; printed: what was printed in the folder of the same run."""

    path: Path
    source: Source
    format: Format
    printed: tuple[Path, ...] = ()


class SeveralRuns(UserError):
    """A directory holds several runs, and none was chosen. paths: of each by its name."""

    def __init__(self, seen: str, expected: str, fix: str, paths: dict[str, Path]):
        super().__init__(seen, expected, fix)
        self.paths = paths


def choose(path: Path, formats: Sequence[Format], run: str | None) -> tuple[Source, Format, str | None]:
    """(source, its format, run within the file or None) of a file, or of the one run in a directory, or of the one
    named `run`."""
    expected = f"a training log: {', '.join(format.title for format in formats)}"
    _must_exist(path, expected)
    source = Source(path)
    if not source.is_dir:
        format = _format(source, formats)
        if format is None:
            words = [message.told for message in messages_of(source)] if source.is_text else []
            seen = f"{source.path.name} is {source.kind or 'text without a number that has a name'}"
            raise UserError("; ".join([seen, *words]), expected, FIX)
        return source, format, run
    runs = _with_signals(discover(path, formats))
    if not runs:
        raise UserError("; ".join([f"{path} holds no log", *_words_in(path, formats)]), expected, FIX)
    if len(runs) > 1 and run is None and (parts := _parts_of_one(list(runs.values()))):
        return parts, next(iter(runs.values())).format, None
    if len(runs) == 1 or run in runs:
        found = runs[run] if run in runs else next(iter(runs.values()))
        for printed in found.printed:
            found.source.messages += messages_of(Source(printed), printed.name)
        return found.source, found.format, None if run in runs else run
    listed = ", ".join(list(runs)[:20]) + (f" and {len(runs) - 20} more" if len(runs) > 20 else "")
    seen = f"{path} holds {len(runs)} runs" + (f", and none called {run!r}" if run else "")
    expected, fix = f"one run: {listed}", f"choose one, e.g. --run {next(iter(runs))}, or pass its path"
    if run is not None:
        raise UserError(seen, expected, fix)
    raise SeveralRuns(seen, expected, fix, {name: found.path for name, found in runs.items()})


def _must_exist(path: Path, expected: str) -> None:
    """Raises UserError if the path is no file and no directory."""
    if address := re.match(r"([a-z][a-z0-9+.-]+):/+([^/]+)(.*)", str(path)):  # a path has lost one of its slashes
        fix = ADDRESSES.get(address[2].removeprefix("www."), "download the file, and pass its path")
        raise UserError(f"the address {address[1]}://{address[2]}{address[3]}", "a log on this machine", fix)
    try:
        exists = path.exists()
    except PermissionError as error:
        fix = "run as its owner, or change its permissions"
        raise UserError(f"no permission to read {path}", "a readable file", fix) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)[:200]!r} is no path ({error})", expected, FIX) from error
    if not exists:
        near = sorted(other.name for other in path.parent.iterdir())[:10] if path.parent.is_dir() else []
        fix = f"{path.parent} holds {', '.join(near)}" if near else "check the path"
        raise UserError(f"no such file: {path}", "a log file or a directory of logs", fix)
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{path} is neither file nor directory", expected, FIX)


def discover(path: Path, formats: Sequence[Format]) -> dict[str, Found]:
    """The runs below a directory by name. Of one run's several logs the richest counts."""
    folders = _by_run(path, formats)
    logged = {folder for folder, logs in folders.items() if _richness(logs) > PRINTED}
    above = {parent for folder in logged for parent in folder.parents}
    runs: dict[str, Found] = {}
    for folder, logs in sorted(folders.items(), key=lambda item: str(item[0])):
        if folder not in logged and folder in above:
            continue  # what was printed counts only if no log was kept below
        format = max(logs, key=lambda log: log.format.richness).format
        richest = sorted((log.path for log in logs if log.format is format), key=lambda at: (len(at.parts), str(at)))
        current = format.current(richest)
        others = sorted({log.path.name for log in logs if log.format is not format})
        printed = tuple(log.path for log in logs if log.format is not format and log.format.richness == PRINTED)
        for log in sorted((log for log in logs if log.path in current), key=lambda log: current.index(log.path)):
            if others and len(current) == 1:
                log.source.notes.append(f"{log.path.name} is read; the folder also holds {', '.join(others[:5])}")
            name = (folder if len(current) == 1 else log.path).relative_to(path)
            runs[str(name) if name.parts else log.path.name] = log._replace(printed=printed)
    return runs


def _with_signals(runs: dict[str, Found]) -> dict[str, Found]:
    """The runs that hold a signal, by the names at the beginning of each log; all runs if none does, or if there is
    only one."""
    if len(runs) < 2:
        return runs
    kept = {name: found for name, found in runs.items() if found.source.is_dir or _has_signal(found)}
    return kept or runs


def _has_signal(found: Found) -> bool:
    try:
        log = found.format.read(Beginning(found.path))
    except UserError:
        return False
    return isinstance(log, Run) or any(guess(name) for name in log.columns)


def _parts_of_one(logs: Sequence[Found]) -> Joined | None:
    """Printed logs of one folder as one, if they hold the same signals and each begins after the last step of the one
    before."""
    if len({log.path.parent for log in logs}) > 1 or _richness(logs) > PRINTED or len(logs) > MOST_PARTS:
        return None
    runs = [to_run(log, {}, None) for found in logs if isinstance(log := found.format.read(Source(found.path)), Log)]
    goes_on = all(
        before.series.keys() == after.series.keys()
        and before.last_step < min((int(series.step[0]) for series in after.series.values()), default=0)
        for before, after in pairwise(runs)
    )
    if not goes_on:
        return None
    parts = Joined(*(log.path for log in logs))
    parts.notes.append(f"read as one log, as the steps go on: {', '.join(log.path.name for log in logs)}")
    return parts


def _words_in(path: Path, formats: Sequence[Format]) -> list[str]:
    """What the texts of a folder without a log say."""
    suffixes = {suffix for format in formats if format.richness == PRINTED for suffix in format.suffixes}
    texts = [file for file in sorted(path.iterdir()) if file.is_file() and _plain(file.name).suffix in suffixes]
    return [
        message.told
        for file in texts[:MOST_PARTS]
        if Source(file).is_text
        for message in messages_of(Source(file), file.name)
    ]


def _plain(name: str) -> Path:
    """The name of a file that is packed, rotated or numbered by a queue, without that."""
    return Path(ENDING.sub("", name))


def _by_run(path: Path, formats: Sequence[Format]) -> dict[Path, list[Found]]:
    """The folder of each run -> its logs."""
    folders: dict[Path, list[Found]] = {}
    for log in _logs(path, formats):
        folders.setdefault(_run_folder(log.path if log.source.is_dir else log.path.parent, path), []).append(log)
    for folder in [folder for folder in folders if folder.parent.name == "runs" and folder.parent != path]:
        above = _run_folder(folder.parent.parent, path)
        if above in folders and _richness(folders[above]) > _richness(folders[folder]):
            folders[above] += folders.pop(folder)  # transformers' events: runs/DATE_HOST beside the trainer's state
    return folders


def _richness(logs: Sequence[Found]) -> int:
    return max(log.format.richness for log in logs)


def _format(source: Source, formats: Sequence[Format]) -> Format | None:
    return next((format for format in formats if format.claims(source)), None)


def _logs(path: Path, formats: Sequence[Format]) -> Iterator[Found]:
    """The logs below a directory: directories that a format claims, and files with a format's suffix."""
    count, suffixes = 0, {suffix for format in formats for suffix in format.suffixes}
    for name, below, files in os.walk(path):
        folder = Path(name)
        parts: set[str] = set()
        claimed = _claimed(folder, formats)
        if claimed:
            parts = {part.name for part in claimed.format.parts(folder)}
            yield claimed
        below[:] = [name for name in sorted(below) if name not in parts]
        if len(folder.relative_to(path).parts) >= DEEPEST:
            below.clear()
        for name in sorted(files):
            plain = _plain(name)
            if name in parts or name.startswith(".") or plain.suffix not in suffixes or NO_LOGS.match(plain.name):
                continue
            count += 1
            if count > MOST:
                return
            if claimed := _claimed(folder / name, formats):
                yield claimed


def _claimed(path: Path, formats: Sequence[Format]) -> Found | None:
    source = Source(path)
    try:
        format = _format(source, formats)
    except UserError:
        return None
    return Found(path, source, format) if format else None


def _run_folder(folder: Path, top: Path) -> Path:
    """The folder of the run: transformers' checkpoints and runs/, W&B's files/ and logs/ belong to the one above."""
    while folder != top and INNER.fullmatch(folder.name):
        folder = folder.parent
    return folder

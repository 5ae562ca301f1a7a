"""A run directory of our own (`earnest.run`)."""

from earnest.logs.source import Source
from earnest.run import Run, read_run

NAME = "earnest"


def claims(source: Source) -> bool:
    return source.is_dir and (source.path / "run.json").is_file() and (source.path / "steps.jsonl").is_file()


def read(source: Source) -> Run:
    return read_run(source.path)

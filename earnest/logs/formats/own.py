"""A run directory of our own (`earnest.run`)."""

from earnest.errors import UserError
from earnest.logs.format import Format
from earnest.logs.source import EXPECTED, Source
from earnest.run import Run, read_run

NAME = "earnest"


def claims(source: Source) -> bool:
    return source.is_dir and (source.path / "run.json").is_file() and (source.path / "steps.jsonl").is_file()


def read(source: Source) -> Run:
    try:
        return read_run(source.path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        seen = f"{source.path.name} is a run directory that cannot be read ({error!r})"
        raise UserError(seen, EXPECTED, "restore its files or train again") from error


FORMAT = Format(NAME, "an earnest run", 100, claims, read)

"""Configurations as files: ``--config FILE`` reads YAML or JSON, ``--print-config`` writes YAML that it reads.

A file's values become words of the command line before those that were typed, so that one parser checks both, and what
is typed wins.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from earnest.errors import UserError
from earnest.files import read_small
from earnest.records import plain

MOST_BYTES = 4 << 20  # of a configuration
RECIPE = "recipe"  # the name under which a file says whose configuration it is


class Asked(NamedTuple):
    """What the words of a command say about files: the recipe and values of one, whether to print, the other words."""

    recipe: str
    values: Mapping[str, Any]
    prints: bool
    words: list[str]


def asked(words: Sequence[str]) -> Asked:
    """Take --config FILE and --print-config out of the words of a command. Raises UserError for a file that cannot be
    read, or that holds no configuration."""
    rest, values, prints = list[str](), dict[str, Any](), False
    pending = iter(words)
    for word in pending:
        name, equals, file = word.partition("=")
        if word == "--print-config":
            prints = True
        elif name == "--config":
            file = file if equals else next(pending, "")
            if not file:
                raise UserError("--config without a value", "a YAML or JSON file", "--config FILE")
            values = _read(Path(file))
        else:
            rest.append(word)
    return Asked(str(values.pop(RECIPE, "")), values, prints, rest)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    expected = "a configuration as `earnest train RECIPE --print-config` writes it (YAML or JSON)"
    try:
        stored = yaml.safe_load(read_small(path, MOST_BYTES).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"--config {path}: {reason}", expected, "check the path and the file") from error
    if not isinstance(stored, dict):
        raise UserError(f"--config {path} holds a {type(stored).__name__}", expected, "mend the file")
    return cast(dict[str, Any], stored)


def as_words(values: Mapping[str, Any], config: Any, prefix: str = "") -> Iterator[str]:
    """The values of a file as words of the command line. Raises UserError for a name that the configuration lacks."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, 1)
            raise UserError(
                f"{prefix}{name} in the configuration",
                f"one of {', '.join(fields)}",
                f"did you mean {near[0]}?" if near else "take it out",
            )
        option = f"--{prefix}{name}".replace("_", "-")
        if dataclasses.is_dataclass(fields[name]):
            if not isinstance(value, Mapping):
                known = ", ".join(field.name for field in dataclasses.fields(fields[name]))
                raise UserError(f"{prefix}{name}: {value}", f"its settings: {known}", f"indent them below {name}:")
            yield from as_words(cast(Mapping[str, Any], value), fields[name], f"{prefix}{name}.")
        elif isinstance(fields[name], bool):
            if not isinstance(value, bool):
                raise UserError(
                    f"{prefix}{name}: {value}", "true or false", f"write {name}: {str(fields[name]).lower()}"
                )
            if value != fields[name]:  # a flag has one word, for what is not its default
                yield option if value else f"--{prefix}no-{name}".replace("_", "-")
        elif isinstance(value, list | dict) and not isinstance(fields[name], tuple):
            raise UserError(f"{prefix}{name}: {value}", "one value, no list", f"write {name}: {fields[name]}")
        elif isinstance(value, list):
            if value or fields[name]:  # an option without a value is a mistake, unless it empties a list
                yield from (option, *map(str, cast(list[Any], value)))
        else:
            yield f"{option}={value}"


def as_yaml(recipe: str, config: Any) -> str:
    """A whole configuration as the YAML that --config reads: what --print-config prints."""
    import yaml

    return yaml.safe_dump({RECIPE: recipe, **_whole(config)}, sort_keys=False, allow_unicode=True, width=100)


def _whole(config: Any) -> dict[str, Any]:
    """Every field, those that are None too: a file shows what can be set."""
    return {
        field.name: _whole(value) if dataclasses.is_dataclass(value) else plain(value)
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }

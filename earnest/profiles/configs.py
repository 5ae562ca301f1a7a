"""Configurations of known models and trainers: where in them the facts stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from earnest import records
from earnest.columns import Json
from earnest.profiles.compiled import table

THERE = "*"


@dataclass(frozen=True)
class Config:
    """One kind of configuration. when: what it is known by, path -> value (``*`` is any) · facts: fact -> its path,
    perhaps with a number to add · wrong: facts that other names in it would give, wrongly."""

    name: str
    when: Mapping[str, str | int]
    facts: Mapping[str, str]
    wrong: tuple[str, ...] = field(default=())

    def is_of(self, config: Mapping[str, Json]) -> bool:
        found = {path: value_at(config, path) for path in self.when}
        return all(
            found[path] not in (None, {}) and wanted in (THERE, found[path]) for path, wanted in self.when.items()
        )

    def values(self, config: Mapping[str, Json]) -> dict[str, float]:
        """The facts that stand where they should."""
        found: dict[str, float] = {}
        for fact, where in self.facts.items():
            path, _, more = where.partition(" + ")
            value = value_at(config, path)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[fact] = value + int(more or 0)
        return found


def value_at(config: Mapping[str, Json], path: str) -> Json:
    """The value at a path, ``decoder.vocab_size``; None if there is none."""
    value: Json = dict(config)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@cache
def configs() -> tuple[Config, ...]:
    """Every known kind; one that asks for more goes first."""
    read = [
        records.read(Config, {**entry, "name": name, "wrong": entry.get("not", [])}, f"configuration {name}", "mend it")
        for name, entry in table("configs").items()
    ]
    return tuple(sorted(read, key=lambda one: -len(one.when)))


def config_of(config: Mapping[str, Json]) -> Config | None:
    """The kind of a configuration, if it is known."""
    return next((one for one in configs() if one.is_of(config)), None)

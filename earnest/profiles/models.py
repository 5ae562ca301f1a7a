"""Known models: what ``--model NAME`` stands for, in place of facts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from earnest import records
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.profiles.compiled import table


@dataclass(frozen=True)
class Model:
    """A public model. hub: its names on the Hugging Face Hub · source: where its facts stand."""

    name: str
    title: str
    hub: tuple[str, ...]
    source: str
    facts: Facts


@cache
def models() -> Mapping[str, Model]:
    """Every known model by its name."""
    return {
        name: records.read(Model, entry | {"name": name}, f"model {name}", "mend the file")
        for name, entry in table("models").items()
    }


# What names of checkpoints are continued with, that changes no vocabulary
VARIANTS = re.compile(
    r"(?:[-_](?:instruct|base|chat|it|hf|sft|ft|bnb|gguf|awq|gptq|unsloth|bf16|fp16|fp8|int[48]|[48]bit|\d{4}|1m|v?\d\.\d))+"
)


def known_as(name: str) -> Model | None:
    """The model that a checkpoint's name or path means, or None: its name on the Hub, whoever owns it there, perhaps
    continued by what changes no vocabulary."""
    last = name.strip("/").rpartition("/")[2].lower()
    for known in models().values():
        for hub in (known.name, *known.hub):
            stem = hub.rpartition("/")[2].lower()
            if last == stem or (last.startswith(stem) and VARIANTS.fullmatch(last[len(stem) :])):
                return known
    return None


def model(name: str) -> Model:
    """A model by its name, or as `known_as`; raises UserError if it is not known."""
    found = known_as(name)
    if found is None:
        named = [*models(), *(hub.split("/")[1].lower() for one in models().values() for hub in one.hub)]
        close = get_close_matches(name.lower().rpartition("/")[2], named, 3)
        meant = f"did you mean {' or '.join(close)}? Else " if close else ""
        fix = f"{meant}pass the config.json of the model with --config PATH"
        raise UserError(f"model {name!r}", f"one of {', '.join(models())}", fix)
    return found

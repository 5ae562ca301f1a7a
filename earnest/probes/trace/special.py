"""Ids with a meaning (end, begin, padding), and delays, as the model's configuration names them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import nn

from earnest.probes.trace.streams import AUDIO_WORDS

Kind = Literal["end", "begin", "padding"]
KINDS: Mapping[Kind, re.Pattern[str]] = {
    "end": re.compile(r"eos|(^|_)end(_|$)|stop", re.IGNORECASE),
    "begin": re.compile(r"bos|(^|_)(begin|start)(_|$)", re.IGNORECASE),
    "padding": re.compile(r"pad", re.IGNORECASE),
}
IDS = re.compile(r"(id|ids|token|value|eos|bos|pad)$", re.IGNORECASE)
DEPTH = 5  # of configurations in configurations


def special_ids(model: nn.Module, kind: Kind, audio: bool | None, classes: int) -> dict[int, str]:
    """id -> the setting that names it. audio: whether of an audio stream (if any setting names audio, only those that
    do are meant), or of text; None if the model has one stream only."""
    every = {name: value for name, value in _settings(model, classes) if IDS.search(name)}
    of_audio = {name for name in every if any(word in name.lower() for word in AUDIO_WORDS)}
    of_text = {name for name in every if "text" in name.lower() or "encoder" in name.lower().replace("decoder", "")}
    if audio is not None:
        meant = (of_audio or set(every) - of_text) if audio else set(every) - of_audio
        every = {name: value for name, value in every.items() if name in meant}
    found: dict[int, str] = {}
    for name, value in every.items():
        if [one for one, pattern in KINDS.items() if pattern.search(name.rpartition(".")[2])] == [kind]:
            for one in value if isinstance(value, list | tuple) else [value]:
                if _is_id(one, classes):
                    found.setdefault(one, name)
    return found


def delays(model: nn.Module, codebooks: int) -> list[int] | None:
    """The delay of each codebook, if the configuration has them."""
    for name, value in _settings(model):
        if "delay" in name.rpartition(".")[2] and isinstance(value, list | tuple) and len(value) == codebooks:
            return [int(one) for one in value]
    return None


def _is_id(value: Any, classes: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < classes


def _settings(model: nn.Module, classes: int = 0) -> Iterator[tuple[str, Any]]:
    """Every named number of the model's configuration, and of the configurations of parts that look ids of this
    vocabulary up: a backbone that is handed embeddings has ids in its configuration that mean nothing."""
    seen: set[int] = set()
    for module in model.modules():
        for name in ("config", "generation_config", "cfg", "hp", "hparams", "args"):
            config = getattr(module, name, None)
            if config is None or id(config) in seen:
                continue
            seen.add(id(config))
            looks_up = any(isinstance(part, nn.Embedding) for part in module.modules())
            if module is model or (looks_up and getattr(config, "vocab_size", None) == classes):
                yield from _walk(config, "config", DEPTH)
    yield from (
        (name, value) for name, value in vars(model).items() if isinstance(value, int) and not name.startswith("_")
    )


def _walk(config: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == 0:
        return
    entries = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    for name, value in list(entries.items()):
        if str(name).startswith("_"):
            continue
        if isinstance(value, int | list | tuple):
            yield f"{path}.{name}", value
        elif isinstance(value, Mapping) or hasattr(value, "__dict__"):
            yield from _walk(value, f"{path}.{name}", depth - 1)

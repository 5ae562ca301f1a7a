"""The files beside a checkpoint's weights that others need to use it: processor, tokenizer, chat template."""

from pathlib import Path

from transformers.utils.hub import cached_file

NAMES = (
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)

Companions = dict[str, bytes]


def read_companions(path: str | Path) -> Companions:
    """Those that a directory or a checkpoint on the Hub has, by name."""
    files = {name: optional_file(path, name) for name in NAMES}
    return {name: file.read_bytes() for name, file in files.items() if file is not None}


def optional_file(path: str | Path, name: str) -> Path | None:
    """A file of a directory or of a checkpoint on the Hub; None if it has none, or cannot be asked."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    file = cached_file(path, name, **quiet)
    return None if file is None else Path(file)


def write_companions(companions: Companions, directory: str | Path) -> None:
    """Beside weights that were written there; what is there already is newer, and stays."""
    for name, content in companions.items():
        if not (file := Path(directory) / name).exists():
            file.write_bytes(content)

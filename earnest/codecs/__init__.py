"""Codecs: audio to codes and back."""

from importlib import import_module
from pathlib import Path
from typing import cast

import torch

from earnest.codecs.codec import Codec
from earnest.errors import UserError
from earnest.records import read_object

__all__ = ["CLASSES", "Codec", "load_codec"]

WEIGHTS = Path(__file__).parent / "weights"

# config.json's model_type -> module and class of a codec of our own, with `from_pretrained(directory)`; it is imported
# when it is needed.
CLASSES = {"amy": ("earnest.codecs.amy", "Amy")}


def load_codec(name_or_path: str, device: torch.device | str = "cpu") -> Codec:
    """An embedded codec by name, a directory that `earnest train` or transformers wrote, or a checkpoint on the Hub;
    with "stereo:" before it, for both channels.

    Returned in evaluation mode on `device`. Raises UserError if it is none of these.
    """
    codec = _loaded(name_or_path)
    return cast(Codec, cast(torch.nn.Module, codec).to(device))


def _loaded(name_or_path: str) -> Codec:
    if name_or_path.startswith("stereo:"):
        from earnest.codecs.stereo import Stereo

        return Stereo(load_codec(name_or_path.removeprefix("stereo:")))
    embedded = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))
    directory = WEIGHTS / name_or_path if name_or_path in embedded else Path(name_or_path)
    if (directory / "config.json").is_file():
        model_type = read_object(directory / "config.json").get("model_type")
        if model_type in CLASSES:
            module, name = CLASSES[model_type]
            return getattr(import_module(module), name).from_pretrained(directory)
    elif directory.exists() or name_or_path.count("/") != 1:
        raise UserError(
            f"codec {name_or_path!r}",
            f"an embedded codec ({', '.join(embedded) or 'none in this installation'}), a directory with config.json "
            "and weights, or a checkpoint on the Hub (owner/name) of DAC, EnCodec, Mimi or the Higgs tokenizer",
            "check the name or the path",
        )
    from earnest.codecs.pretrained import load_pretrained

    return load_pretrained(name_or_path)

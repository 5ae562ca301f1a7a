"""Codecs: audio to codes and back. Every codec of this package, ours or pretrained, is a `Codec`."""

import json
from pathlib import Path
from typing import Protocol

from torch import Tensor

from earnest.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"


class Codec(Protocol):
    """What data and language models need of a codec; audio is mono, float32, in [-1, 1].

    One with an attribute `channels` = 2 takes and gives wave_B2N instead.
    """

    @property
    def name(self) -> str: ...
    @property
    def sample_rate_hz(self) -> int: ...
    @property
    def hop_samples(self) -> int:
        """Audio samples per frame."""
        ...

    @property
    def codebooks(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def context_frames(self) -> tuple[float, float]:
        """How many frames before and behind a frame its audio depends on; inf: on all."""
        ...

    def encode(self, wave_BN: Tensor) -> Tensor:
        """wave_BN, zero-padded at the end -> codes_BCT int64, T = ceil(N / hop_samples); not differentiable."""
        ...

    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> wave_BN, N = T * hop_samples; not differentiable."""
        ...


def load_codec(name_or_path: str) -> Codec:
    """An embedded codec by name, a directory that `earnest train` or transformers wrote, or a checkpoint on the Hub;
    with "stereo:" before it, for both channels.

    Returned in evaluation mode on the CPU. Raises UserError for what is none of these.
    """
    if name_or_path.startswith("stereo:"):
        from earnest.codecs.stereo import Stereo

        return Stereo(load_codec(name_or_path.removeprefix("stereo:")))
    embedded = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))
    directory = WEIGHTS / name_or_path if name_or_path in embedded else Path(name_or_path)
    if (directory / "config.json").is_file():
        if json.loads((directory / "config.json").read_text()).get("model_type") == "amy":
            from earnest.codecs.amy import Amy

            return Amy.from_pretrained(directory)
    elif directory.exists() or name_or_path.count("/") != 1:
        raise UserError(
            f"codec {name_or_path!r}",
            f"an embedded codec ({', '.join(embedded) or 'none in this installation'}), a directory with config.json and weights, "
            "or a checkpoint on the Hub (owner/name) of DAC, EnCodec, Mimi or the Higgs tokenizer",
            "check the name or the path",
        )
    from earnest.codecs.pretrained import load_pretrained

    return load_pretrained(name_or_path)

"""The file of codes that ``earnest encode`` writes and ``earnest decode`` reads."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from earnest.codecs.codec import Codec
from earnest.errors import UserError
from earnest.files import open_regular, whole_file

EXPECTED = "a safetensors file with codes_CT, and metadata that name the codec and count the samples"
FIX = "make one with `earnest encode`"


class Stored(NamedTuple):
    """codes_CT, the name of their codec, and how many samples the audio had."""

    codes_CT: Tensor
    codec: str
    samples: int

    def write(self, path: Path) -> None:
        """The file appears whole or not at all."""
        written = save({"codes_CT": self.codes_CT}, {"codec": self.codec, "samples": str(self.samples)})
        with whole_file(path) as aside:
            aside.write_bytes(written)

    def check(self, path: Path, codec: Codec) -> None:
        """Raises UserError if these are no codes of the codec."""
        codes_CT, size = self.codes_CT, codec.codebook_size
        kind = str(codes_CT.dtype).removeprefix("torch.")
        if codes_CT.is_floating_point() or codes_CT.dim() != 2 or codes_CT.shape[0] != codec.codebooks:
            seen = f"codes_CT of {kind}, {' × '.join(map(str, codes_CT.shape))}"
        elif not codes_CT.numel() or not 0 <= int(codes_CT.min()) <= int(codes_CT.max()) < size:
            seen = f"codes from {codes_CT.min()} to {codes_CT.max()}" if codes_CT.numel() else "no frame"
        else:
            return
        raise UserError(f"{path}: {seen}", f"whole numbers below {size} of {codec.codebooks} codebooks", FIX)


def read_codes(path: Path) -> Stored:
    """Raises UserError for any other file."""
    try:
        open_regular(path).close()  # a pipe would be waited for
        with safe_open(path, "pt") as file:
            stored = cast(Any, file)  # it states no types
            metadata: dict[str, str] = stored.metadata() or {}
            codes_CT: torch.Tensor = stored.get_tensor("codes_CT")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {error}", EXPECTED, FIX) from error
    codec, samples = metadata.get("codec", ""), metadata.get("samples", "")
    if not codec or not samples.isdecimal():
        raise UserError(f"{path}: codec {codec!r}, samples {samples!r}", EXPECTED, FIX)
    return Stored(codes_CT, codec, int(samples))

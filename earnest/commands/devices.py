"""The device that a command runs on."""

import torch

from earnest.errors import UserError


def device(name: str = "auto") -> torch.device:
    """A device by its name; "auto" is a GPU of NVIDIA or Apple if there is one, else the CPU. Raises UserError if it is
    not there."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.append("mps")
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    chosen = available[1] if name == "auto" and len(available) > 1 else "cpu" if name == "auto" else name
    if "cuda" in available and name == "auto":
        chosen = "cuda"
    if chosen not in available:
        raise UserError(f"device {name!r}", f"one of auto, {', '.join(available)}", "leave --device out")
    return torch.device(chosen)

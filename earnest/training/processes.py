"""What happens if one of several processes that train together is lost."""

import re
from pathlib import Path

from torch import distributed

from earnest import checkpoints

# What collectives raise if another process has ended: gloo's own words, torch's classes for NCCL and for the store
LOST = re.compile(r"gloo/transport|Connection (closed|reset) by peer|NCCL|Broken pipe", re.IGNORECASE)


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process did not answer."""
    return isinstance(error, distributed.DistError) or bool(LOST.search(str(error)))


def lost(run_dir: Path, ranks: int, error: RuntimeError) -> tuple[str, str, str]:
    """The three lines that a process prints if another one of the training is lost."""
    saved = checkpoints.checkpoints(run_dir)
    kept = f"kept up to {saved[-1]}" if saved else "no checkpoint was written yet"
    return (
        f"another of the {ranks} processes is gone ({' '.join(str(error).split())[:120]})",
        f"all {ranks} of them; what that one died of stands in its own lines; {kept}",
        f"the same command with --resume --out {run_dir}",
    )

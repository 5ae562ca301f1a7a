"""Checkpoints of anybody's: what is damaged or does not fit in one is told in three lines."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from earnest.errors import UserError

# What transformers, tokenizers and safetensors raise of files that are damaged, or of sizes that do not fit
RAISED = (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


@contextmanager
def checkpoint_of(path: str | Path) -> Generator[None, None, None]:
    """Around the calls of libraries that read a checkpoint. Raises UserError in place of their errors, but for those of
    the disk and of memory."""
    try:
        yield
    except (*RAISED, RecursionError) as error:
        of_disk = isinstance(error, OSError) and error.errno is not None
        if of_disk or isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        told = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: {told or 'nothing is said'} ({type(error).__name__})",
            "a checkpoint whose config.json, weights in safetensors and tokenizer fit each other",
            "copy or download it again",
        ) from error

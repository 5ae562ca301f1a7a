"""Experiments that leave a model as they found it."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Generator[None, None, None]:
    """Evaluation mode inside: no dropout, so no random number is drawn. Afterwards every module's mode is what it
    was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training

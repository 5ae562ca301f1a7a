"""Higgs: text in, speech out."""

from earnest.training.config import LMConfig


def higgs_tiny() -> LMConfig:
    """A Higgs of 8.5 million parameters that learns to say digits and short phrases on two CPU cores in minutes."""
    return LMConfig()

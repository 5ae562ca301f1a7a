"""earnest trains audio-token models and tells the truth about their training."""

__version__ = "0.1.0"

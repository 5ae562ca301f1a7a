"""Amy: the trainable codec."""

from earnest.training.codec import CodecConfig


def amy_tiny() -> CodecConfig:
    """The embedded codec: 16 kHz, 50 frames/s, 8 codebooks of 1024 (4 kbit/s), 2.9 M weights; an hour or so on two CPU cores."""
    return CodecConfig()

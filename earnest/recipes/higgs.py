"""Higgs: text in, speech out."""

from dataclasses import dataclass, field

from earnest.codecs import Codec
from earnest.models.higgs import Higgs, HiggsShape
from earnest.training.config import LMConfig


@dataclass(frozen=True)
class HiggsConfig(LMConfig):
    shape: HiggsShape = field(default_factory=HiggsShape)

    def build(self, codec: Codec) -> Higgs:
        return self.shape.build(codec.codebooks, codec.codebook_size)


def higgs_tiny() -> HiggsConfig:
    """A Higgs of 8.5 million parameters that learns to say digits and short phrases on two CPU cores in minutes."""
    return HiggsConfig()

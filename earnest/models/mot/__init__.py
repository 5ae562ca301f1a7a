"""A mixture of transformers for music: a Llama reads text, MusicGen's feed-forward networks carry the audio.

Each layer has the Llama's norms and attention; a text position goes through the Llama's own MLP, an audio position
through down → MusicGen's FFN → up. Attention is global and causal over both. The layout says which position takes which
way (arXiv:2411.04996 §3), so the positions of a batch are sorted by modality once, and every linear layer works on one
block.

Audio tokens are flattened in time-major order, one position per code; the vocabulary is the Llama's plus the codec's.
"""

from earnest.models.mot.config import MoTDesign, MoTModelConfig, MoTShape
from earnest.models.mot.model import MoT

__all__ = ["MoT", "MoTDesign", "MoTModelConfig", "MoTShape"]

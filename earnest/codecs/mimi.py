"""Amy around Mimi: transformers' encoder and decoder, which train, and our quantiser between them.

MimiModel's own codebooks are buffers without an update, and its `decode(codes)` cuts the graph: only what is between
encoder and decoder is replaced. What is saved is a Mimi checkpoint again, with `num_semantic_quantizers` = 2: codebook
0 (semantic) and codebook 1 (prosody, of what codebook 0 left over), beside the acoustic ones. Moshi (Défossez et al.
2024, arXiv:2410.00037, section 3.3).
"""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import MimiConfig

from earnest.codecs.pretrained import load_pretrained
from earnest.codecs.rvq import ResidualVQ
from earnest.codecs.trainable import TrainableCodec
from earnest.errors import UserError

# The whole encoder except its last, strided convolution.
ENCODER = ("encoder.encoder_seanet", "encoder.encoder_transformer")


class AmyMimi(TrainableCodec[ResidualVQ]):
    """`mimi`'s encoder and decoder around a quantiser of groups (semantic + prosody, acoustic) whose codebooks hold
    nothing yet."""

    def __init__(self, mimi: Any, groups: tuple[int, int], name: str = "amy"):
        super().__init__()
        self.config: MimiConfig = copy.deepcopy(mimi.config)
        self.config.num_semantic_quantizers, self.config.num_quantizers = groups[0], sum(groups)
        self.name = name
        self.encoder, self.decoder = mimi.encoder, mimi.decoder
        latent_dim = (
            self.config.hidden_size
            if self.config.vector_quantization_hidden_dimension != self.config.hidden_size
            else None
        )
        self.quantiser = ResidualVQ(groups, self.config.codebook_size, self.config.codebook_dim, latent_dim)
        self.quantiser.fixed = tuple(getattr(self.config, "fixed_codebooks", ()))

    @property
    def sample_rate_hz(self) -> int:
        return self.config.sampling_rate

    @property
    def hop_samples(self) -> int:
        return round(self.config.sampling_rate / self.config.frame_rate)

    @property
    def context_frames(self) -> tuple[float, float]:
        return math.inf, 0

    def latent(self, wave_BN: Tensor) -> Tensor:
        if not wave_BN.shape[1]:
            raise ValueError("a wave of 0 samples has no frames")
        padded_BN = F.pad(wave_BN, (0, -wave_BN.shape[1] % self.hop_samples))
        return self.encoder(padded_BN[:, None]).latents[..., : padded_BN.shape[1] // self.hop_samples].float()

    def synthesise(self, latent_BDT: Tensor) -> Tensor:
        return self.decoder(latent_BDT).audio_values[:, 0, : latent_BDT.shape[2] * self.hop_samples].float()

    @classmethod
    def from_mimi(
        cls, mimi: Any, groups: tuple[int, int], frames_per_step: int, name: str = "amy", fixed: bool = False
    ) -> "AmyMimi":
        """Import a Mimi: its projections, and as many of its centroids as `groups` have room for, as k-means would
        place them in steps of `frames_per_step` frames. Codebooks that the Mimi lacks (prosody, for Kyutai's) are left
        to k-means on the data. fixed: the imported ones stay as they are in training (hungphongtrn/Amy-LM:
        rvq_rest.eval()).

        Raises UserError if the Mimi has fewer acoustic codebooks than asked for.
        """
        codec = cls(mimi, groups, name)
        sides = _sides(mimi)
        if len(sides[1].layers) < groups[1]:
            raise UserError(
                f"{groups[1]} acoustic codebooks, of a Mimi with {len(sides[1].layers)}",
                "at most as many as it has",
                f"set --codec.acoustic-codebooks {len(sides[1].layers)}",
            )
        for index, (side, members) in enumerate(zip(sides, codec.quantiser.ranges, strict=True)):
            if side.input_proj is not None:
                codec.quantiser.inwards[index].load_state_dict(side.input_proj.state_dict())
                codec.quantiser.outwards[index].load_state_dict(side.output_proj.state_dict())
            for k, layer in zip(members, side.layers, strict=False):
                stored = layer.codebook
                if stored.initialized:
                    entries_VD = stored.embed_sum / stored.cluster_usage.clamp(min=stored.epsilon)[:, None]
                    codec.quantiser.place(k, entries_VD, 1.0 if fixed else frames_per_step / codec.codebook_size)
                    if fixed:
                        codec.fix(*codec.quantiser.fixed, k)
        return codec

    def fix(self, *codebooks: int) -> None:
        """Keep the entries of these codebooks, and no others, as they are in training; the saved config names them."""
        self.quantiser.fixed = self.config.fixed_codebooks = codebooks  # type: ignore[attr-defined]

    @classmethod
    def from_pretrained(cls, directory: Path) -> "AmyMimi":
        """Read what `save_pretrained` wrote, statistics of the codebooks included; in evaluation mode."""
        mimi = load_pretrained(str(directory)).model
        codec = cls.from_mimi(mimi, (mimi.config.num_semantic_quantizers, mimi.quantizer.num_acoustic_quantizers), 1)
        for side, members in zip(_sides(mimi), codec.quantiser.ranges, strict=True):
            for k, layer in zip(members, side.layers, strict=True):
                codec.quantiser.total_CVD[k] = layer.codebook.embed_sum
                codec.quantiser.count_CV[k] = layer.codebook.cluster_usage
        codec.quantiser.codebook_CVD.copy_(
            codec.quantiser.total_CVD / codec.quantiser.count_CV.clamp_min(1e-5)[..., None]
        )
        codec.name = str(directory)
        return codec.eval()

    def save_pretrained(self, directory: Path) -> None:
        """Write a checkpoint that transformers' MimiModel loads."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        self.config.architectures = ["MimiModel"]
        self.config.save_pretrained(directory)
        tensors = {
            name: tensor for name, tensor in self.state_dict().items() if name.startswith(("encoder.", "decoder."))
        }
        sides = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer")
        placed = self.quantiser.placed
        for index, (side, members) in enumerate(zip(sides, self.quantiser.ranges, strict=True)):
            for kind, modules in (("input_proj", self.quantiser.inwards), ("output_proj", self.quantiser.outwards)):
                tensors |= {
                    f"quantizer.{side}.{kind}.{name}": tensor for name, tensor in modules[index].state_dict().items()
                }
            for layer, k in enumerate(members):
                codebook = f"quantizer.{side}.layers.{layer}.codebook"
                tensors[f"{codebook}.embed_sum"] = self.quantiser.total_CVD[k]
                tensors[f"{codebook}.cluster_usage"] = self.quantiser.count_CV[k]
                tensors[f"{codebook}.initialized"] = torch.tensor([float(placed[k])])
        file = Path(directory) / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def _sides(mimi: Any) -> tuple[Any, Any]:
    """Mimi's two quantisers: (semantic, acoustic)."""
    return mimi.quantizer.semantic_residual_vector_quantizer, mimi.quantizer.acoustic_residual_vector_quantizer

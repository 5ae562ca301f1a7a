"""The contract of a codec that trains: an encoder, a quantiser of its latent, and a decoder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Signals = dict[str, float | Tensor]
"""Measured values by name: numbers, or scalars that are on their device still."""


def numbers(signals: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The signals as numbers, in one copy from the device: each alone would be waited for."""
    scalars = {name: value.detach() for name, value in signals.items() if isinstance(value, Tensor)}
    if not scalars:
        return {name: float(value) for name, value in signals.items()}
    dtype = torch.float32
    for value in scalars.values():
        dtype = torch.promote_types(dtype, value.dtype)
    stacked: list[float] = torch.stack([value.to(dtype) for value in scalars.values()]).tolist()
    values = dict(zip(scalars, stacked, strict=True))
    return {name: values[name] if name in values else float(value) for name, value in signals.items()}


@dataclass(frozen=True)
class Quantised:
    """What a quantiser makes of a latent.

    codes_BCT int64: the chosen entries · latent_BDT: what the decoder gets; its gradient passes to the encoder ·
    losses: the quantiser's own losses by stream · signals: what it measured of this batch.
    """

    codes_BCT: Tensor
    latent_BDT: Tensor
    losses: Mapping[str, Tensor]
    signals: Mapping[str, float | Tensor]

    def teacher_view(self, codebook: int) -> Tensor:
        """What a teacher sees of codebooks 0 to `codebook`, (B, D, T); of a quantiser that can be taught."""
        raise NotImplementedError


class Quantiser(nn.Module, ABC):
    """A latent to codes and back. `forward` is for training too, `decode` is its inverse."""

    groups: tuple[int, ...]
    """Codebooks per group; each group quantises the whole latent."""
    wants_pitch_and_level: bool = False
    """Whether every training batch shows it the pitch and the level of its frames (`learn`)."""

    @property
    def codebooks(self) -> int:
        return sum(self.groups)

    @property
    @abstractmethod
    def codebook_size(self) -> int: ...

    @property
    def is_ready(self) -> bool:
        """Whether its codes say anything yet: before that, the codec is neither evaluated nor played."""
        return True

    @abstractmethod
    def forward(self, latent_BDT: Tensor) -> Quantised: ...

    @abstractmethod
    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> latent_BDT; fewer codebooks than the quantiser has are taken as the first ones."""

    def unquantised(self, latent_BDT: Tensor) -> Tensor:
        """The latent that the decoder would get of infinitely fine codebooks."""
        return latent_BDT

    def learn(self, latent_BDT: Tensor, pitch_and_level_BT2: Tensor) -> None:
        """Look at a training batch: log2 of its pitch in Hz and its level in dB, NaN where there is none."""

    def training_state(self) -> dict[str, Tensor]:
        """What training needs to go on, beside the weights and buffers that the codec saves."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `training_state`."""


AnyQuantiser = TypeVar("AnyQuantiser", bound=Quantiser)


@dataclass(frozen=True)
class Reconstruction:
    """wave_BN as long as the input was; the encoder's latent_BDT, and what the quantiser made of it."""

    wave_BN: Tensor
    latent_BDT: Tensor
    quantised: Quantised


class TrainableCodec(nn.Module, ABC, Generic[AnyQuantiser]):
    """A `Codec` that trains: `forward` is for training, `encode` and `decode` are the `Codec` protocol."""

    name: str
    quantiser: AnyQuantiser
    channels = 1
    frozen: tuple[str, ...] = ()
    """Submodules that do not train: their parameters require no gradient, and they stay in evaluation mode."""

    @property
    @abstractmethod
    def sample_rate_hz(self) -> int: ...

    @property
    @abstractmethod
    def hop_samples(self) -> int: ...

    @property
    @abstractmethod
    def context_frames(self) -> tuple[float, float]: ...

    @abstractmethod
    def latent(self, wave_BN: Tensor) -> Tensor:
        """wave_BN, zero-padded -> latent_BDT before the quantiser, float32, T = ceil(N / hop_samples).

        Raises ValueError for an empty wave.
        """

    @abstractmethod
    def synthesise(self, latent_BDT: Tensor) -> Tensor:
        """latent_BDT -> wave_BN, float32, N = T * hop_samples."""

    @abstractmethod
    def save_pretrained(self, directory: Path) -> None:
        """Write what `load_codec` and the recipe read, the quantiser's statistics with it, so that training can go
        on."""

    @property
    def codebooks(self) -> int:
        return self.quantiser.codebooks

    @property
    def codebook_size(self) -> int:
        return self.quantiser.codebook_size

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, wave_BN: Tensor) -> Reconstruction:
        latent_BDT = self.latent(wave_BN)
        quantised = self.quantiser(latent_BDT)
        return Reconstruction(self.synthesise(quantised.latent_BDT)[:, : wave_BN.shape[1]], latent_BDT, quantised)

    @torch.no_grad()
    def encode(self, wave_BN: Tensor) -> Tensor:
        """wave_BN, zero-padded -> codes_BCT int64, T = ceil(N / hop_samples).

        A clip's codes do not depend on the other clips of its batch. Raises ValueError for an empty wave.
        """
        return self.quantiser(self.latent(wave_BN)).codes_BCT

    @torch.no_grad()
    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> wave_BN, N = T * hop_samples; fewer codebooks than the codec has are taken as the first ones."""
        return self.synthesise(self.quantiser.decode(codes_BCT))

    def freeze(self, names: tuple[str, ...]) -> None:
        self.frozen = names
        for name in names:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True):
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

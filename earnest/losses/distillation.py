"""Distillation: a linear map of what a teacher sees of the codebooks, against the teacher's features of the same frame;
returns (loss, signals).

Teachers' features are anisotropic: much of their energy is one mean vector, which a constant predicts. A constant
scores 1 - sqrt(r) by 1 - cos, r the energy share of the mean: 0.078 for r = 0.85, without having learnt anything. So
the loss that is optimised sees features standardised per dimension; evaluation logs the raw one and the centred one
beside it, and the best constant's score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earnest.codecs.trainable import Signals
from earnest.signals import key


@dataclass(frozen=True)
class Statistics:
    """Statistics of a teacher's features over the training frames: mean_F, std_F, and the best constant's scores."""

    mean_F: Tensor
    std_F: Tensor
    constant: float
    """1 - cos against standardised features."""
    constant_raw: float
    """1 - cos against the features as they are."""


def statistics(features_NF: Tensor) -> Statistics:
    """Statistics of features_NF, N frames of F features.

    The best constant prediction under 1 - cos is the mean of the unit vectors of all frames; it scores 1 - its length.
    """
    features_NF = features_NF.double()
    mean_F, std_F = features_NF.mean(0), features_NF.std(0).clamp_min(1e-6)
    constant, raw = (
        1 - F.normalize(directions_NF, dim=1).mean(0).norm().item()
        for directions_NF in ((features_NF - mean_F) / std_F, features_NF)
    )
    return Statistics(mean_F.float(), std_F.float(), constant, raw)


class Distillation(nn.Module):
    """1 - cos between a linear map of what codebooks 0 to `codebook` hold and a teacher's standardised features."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, stream: str, codebook: int, latent_dim: int, of_teacher: Statistics):
        super().__init__()
        self.codebook = codebook
        self.stream, self.constant, self.constant_raw = stream, of_teacher.constant, of_teacher.constant_raw
        self.register_buffer("mean_F", of_teacher.mean_F)
        self.register_buffer("std_F", of_teacher.std_F)
        self.head = nn.Linear(latent_dim, len(of_teacher.mean_F))

    def forward(
        self, latent_BDT: Tensor, features_BTF: Tensor, exists_BT: Tensor, split: str = "train"
    ) -> tuple[Tensor, Signals]:
        """features_BTF at the codec's frames; only frames that exist count. If none does, the loss is 0 and there is no
        signal.

        Signals: the loss; outside training also against the raw features (`_raw`), against centred ones (`_centred`),
        and against the features of other frames (`_permuted`): the score of predicting plausible features of the wrong
        frame.
        """
        predicted_NF = self.head(latent_BDT.transpose(1, 2)[exists_BT]).float()
        features_NF = features_BTF[exists_BT].float()
        if not len(features_NF):
            return predicted_NF.sum(), {}
        target_NF = (features_NF - self.mean_F) / self.std_F
        loss = distance(predicted_NF, target_NF)
        signals: Signals = {key("loss", self.stream, split): loss.detach()}
        if split != "train":
            with torch.no_grad():
                moved_NF = predicted_NF * self.std_F
                signals |= {
                    key("loss", f"{self.stream}_raw", split): distance(moved_NF + self.mean_F, features_NF),
                    key("loss", f"{self.stream}_centred", split): distance(moved_NF, features_NF - self.mean_F),
                    key("loss", f"{self.stream}_permuted", split): distance(
                        predicted_NF, target_NF.roll(len(target_NF) // 2, 0)
                    ),
                }
        return loss, signals


def distance(predicted_NF: Tensor, target_NF: Tensor) -> Tensor:
    """Mean of 1 - cos."""
    return 1 - F.cosine_similarity(predicted_NF, target_NF, dim=1).mean()

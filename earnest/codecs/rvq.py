"""Residual vector quantisation whose codebooks follow the data (EMA), with a straight-through estimate per codebook.

SoundStream (Zeghidour et al. 2021, arXiv:2107.03312, section III-C): residual codebooks, k-means initialisation, restart of dead
entries, training with a random number of codebooks. VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1): EMA update.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earnest.signals import key


@dataclass(frozen=True)
class Quantised:
    """What the quantiser makes of a latent.

    codes_BCT int64: the chosen entries; those of dropped codebooks are chosen too, but not part of `latent_BDT`.
    latent_BDT: the sum of the kept codebooks' entries; its gradient passes to the encoder once.
    levels_CBDT: each codebook's entry alone, its gradient passing to the encoder on its own, so that a loss may teach one codebook.
    commitment: mean squared distance between what each kept codebook was given and what it chose.
    signals: used_frac, perplexity and residual_frac of each codebook in this batch.
    """

    codes_BCT: Tensor
    latent_BDT: Tensor
    levels_CBDT: Tensor
    commitment: Tensor
    signals: dict[str, float]


class ResidualVQ(nn.Module):
    """`codebooks` codebooks of `codebook_size` entries in `dim` dimensions, each quantising what the ones before it left over.

    In training mode the first calls pass the latent through unquantised (codes are zeros) until `init_frames` frames are
    collected; k-means then places the entries. Outside training nothing changes, and calling before that raises RuntimeError.
    """

    codebook_CVD: Tensor
    count_CV: Tensor
    total_CVD: Tensor
    collected_ND: Tensor
    ready: Tensor

    def __init__(
        self,
        codebooks: int,
        codebook_size: int,
        dim: int,
        decay: float = 0.99,
        dead_share: float = 0.05,
        dropout_frac: float = 0.5,
        init_frames: int = 20_480,
    ):
        """`decay` of the EMA per step. An entry is dead where its EMA count is below `dead_share` of an even share.
        `dropout_frac` of the clips train with a random number of codebooks."""
        super().__init__()
        self.decay, self.dead_share, self.dropout_frac, self.init_frames = decay, dead_share, dropout_frac, init_frames
        self.register_buffer("codebook_CVD", torch.zeros(codebooks, codebook_size, dim))
        self.register_buffer("count_CV", torch.zeros(codebooks, codebook_size))
        self.register_buffer("total_CVD", torch.zeros(codebooks, codebook_size, dim))
        self.register_buffer("collected_ND", torch.zeros(0, dim), persistent=False)
        self.register_buffer("ready", torch.tensor(False))

    @property
    def codebooks(self) -> int:
        return self.codebook_CVD.shape[0]

    def forward(self, latent_BDT: Tensor) -> Quantised:
        if not self.ready:
            if not self.training:
                raise RuntimeError("the codebooks hold nothing yet: train, or load weights")
            self._collect(latent_BDT)
            return self._unquantised(latent_BDT)
        B, D, T = latent_BDT.shape
        keep_CB = self._keep(B, latent_BDT.device)
        residual_BDT, sum_BDT = latent_BDT, torch.zeros_like(latent_BDT)
        energy = latent_BDT.detach().square().mean().clamp_min(1e-12)
        codes, levels, signals, commitment = [], [], {}, latent_BDT.new_zeros(())
        for k, keep_B in enumerate(keep_CB):
            given_ND = residual_BDT.transpose(1, 2).reshape(-1, D)
            code_N = nearest(given_ND.detach(), self.codebook_CVD[k])
            chosen_BDT = self.codebook_CVD[k][code_N].view(B, T, D).transpose(1, 2)
            commitment = commitment + ((residual_BDT - chosen_BDT).square().mean((1, 2)) * keep_B).mean()
            levels.append(residual_BDT + (chosen_BDT - residual_BDT).detach())
            sum_BDT = sum_BDT + chosen_BDT * keep_B[:, None, None]
            residual_BDT = residual_BDT - chosen_BDT
            codes.append(code_N.view(B, T))
            signals |= self._signals(k, code_N, residual_BDT.detach().square().mean() / energy)
            if self.training:
                self._update(k, given_ND.detach(), code_N)
        return Quantised(
            torch.stack(codes, 1), latent_BDT + (sum_BDT - latent_BDT).detach(), torch.stack(levels), commitment / self.codebooks, signals
        )

    def decode(self, codes_BCT: Tensor) -> Tensor:
        """codes_BCT -> latent_BDT; fewer codebooks than the quantiser has are taken as the first ones."""
        picked = [self.codebook_CVD[k][code_BT] for k, code_BT in enumerate(codes_BCT.unbind(1))]
        return torch.stack(picked).sum(0).transpose(1, 2)

    def _keep(self, B: int, device: torch.device) -> Tensor:
        """keep_CB: 1 where a codebook counts for a clip; in training `dropout_frac` of the clips keep only their first n, n uniform."""
        n_B = torch.full((B,), self.codebooks, device=device)
        if self.training:
            dropped_B = torch.rand(B, device=device) < self.dropout_frac
            n_B = torch.where(dropped_B, torch.randint(1, self.codebooks + 1, (B,), device=device), n_B)
        return (torch.arange(self.codebooks, device=device)[:, None] < n_B).float()

    @torch.no_grad()
    def _update(self, k: int, given_ND: Tensor, code_N: Tensor) -> None:
        """Move each entry towards the mean of the vectors that chose it; give dead entries the place of a vector of this batch."""
        V = self.codebook_CVD.shape[1]
        count_V = torch.bincount(code_N, minlength=V).to(given_ND.dtype)
        total_VD = torch.zeros_like(self.total_CVD[k]).index_add_(0, code_N, given_ND)
        self.count_CV[k].lerp_(count_V, 1 - self.decay)
        self.total_CVD[k].lerp_(total_VD, 1 - self.decay)
        even_share = len(given_ND) / V
        dead_V = self.count_CV[k] < self.dead_share * even_share
        n_dead = int(dead_V.sum())
        if n_dead:
            self.count_CV[k, dead_V] = even_share
            self.total_CVD[k, dead_V] = given_ND[torch.randint(len(given_ND), (n_dead,), device=given_ND.device)] * even_share
        self.codebook_CVD[k] = self.total_CVD[k] / self.count_CV[k, :, None]

    @torch.no_grad()
    def _collect(self, latent_BDT: Tensor) -> None:
        vectors_ND = latent_BDT.detach().float().transpose(1, 2).flatten(0, 1)
        self.collected_ND = torch.cat([self.collected_ND, vectors_ND])
        if len(self.collected_ND) < self.init_frames:
            return
        even_share = len(vectors_ND) / self.codebook_CVD.shape[1]
        residual_ND = self.collected_ND
        for k in range(self.codebooks):
            self.codebook_CVD[k] = kmeans(residual_ND, self.codebook_CVD.shape[1])
            self.count_CV[k] = even_share
            self.total_CVD[k] = self.codebook_CVD[k] * even_share
            residual_ND = residual_ND - self.codebook_CVD[k][nearest(residual_ND, self.codebook_CVD[k])]
        self.collected_ND = self.collected_ND[:0]
        self.ready.fill_(True)

    def _unquantised(self, latent_BDT: Tensor) -> Quantised:
        B, _, T = latent_BDT.shape
        codes_BCT = torch.zeros(B, self.codebooks, T, dtype=torch.long, device=latent_BDT.device)
        return Quantised(codes_BCT, latent_BDT, latent_BDT.expand(self.codebooks, -1, -1, -1), latent_BDT.new_zeros(()), {})

    def _signals(self, k: int, code_N: Tensor, residual_frac: Tensor) -> dict[str, float]:
        V = self.codebook_CVD.shape[1]
        share_V = torch.bincount(code_N, minlength=V) / len(code_N)
        split, stream = "train" if self.training else "eval", f"codebook_{k}"
        return {
            key("used_frac", stream, split): (share_V > 0).float().mean().item(),
            key("perplexity", stream, split): math.exp(torch.special.entr(share_V).sum().item()),
            key("residual_frac", stream, split): residual_frac.item(),
        }


def nearest(vectors_ND: Tensor, entries_VD: Tensor) -> Tensor:
    """Index (N,) of the entry nearest to each vector, in Euclidean distance (the vector's own norm cancels)."""
    distance_NV = torch.addmm(entries_VD.square().sum(1), vectors_ND.to(entries_VD.dtype), entries_VD.t(), alpha=-2)
    return distance_NV.argmin(1)


def kmeans(vectors_ND: Tensor, entries: int, rounds: int = 10) -> Tensor:
    """Lloyd's algorithm from random distinct vectors -> entries_VD; an entry that nobody chose keeps its place.

    Raises ValueError where there are fewer vectors than entries: sampling with replacement would make dead entries.
    """
    if len(vectors_ND) < entries:
        raise ValueError(f"{len(vectors_ND)} vectors cannot place {entries} entries")
    entries_VD = vectors_ND[torch.randperm(len(vectors_ND), device=vectors_ND.device)[:entries]].clone()
    for _ in range(rounds):
        code_N = nearest(vectors_ND, entries_VD)
        count_V = torch.bincount(code_N, minlength=entries)
        total_VD = torch.zeros_like(entries_VD).index_add_(0, code_N, vectors_ND)
        entries_VD = torch.where((count_V > 0)[:, None], total_VD / count_V.clamp_min(1)[:, None], entries_VD)
    return entries_VD

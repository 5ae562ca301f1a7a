"""Residual vector quantisation whose codebooks follow the data (EMA), with a straight-through estimate per codebook.

SoundStream (Zeghidour et al. 2021, arXiv:2107.03312, section III-C): residual codebooks, k-means initialisation,
restart of dead entries, training with a random number of codebooks. VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937,
appendix A.1): EMA update. Moshi (Défossez et al. 2024, arXiv:2410.00037, section 3.3.3): a semantic codebook beside the
acoustic ones, clips that stay unquantised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from earnest.codecs.erasure import Erasure
from earnest.codecs.trainable import Quantised, Quantiser, Signals
from earnest.signals import key
from earnest.streams import Codebook


@dataclass(frozen=True)
class ResidualQuantised(Quantised):
    """What a `ResidualVQ` makes of a latent.

    codes_BCT: dropped codebooks choose entries too, but these are not part of `latent_BDT`.
    latent_BDT: its gradient passes to the encoder once.
    losses: commitment, the mean squared distance between what each kept codebook was given and what it chose.
    signals: used_frac, perplexity and residual_frac of each codebook in this batch.
    prefixes_CBDT: the sum of the entries of a codebook and of those before it in its group, whatever was dropped. Each
        passes its gradient to the encoder once, so that a loss may teach codebook 0, or codebooks 0 and 1.
    key_BKT: the key that codebook 0 was chosen by, if it has keys; its gradient passes to the encoder and to the keys'
        projection.
    """

    prefixes_CBDT: Tensor
    key_BKT: Tensor | None

    def teacher_view(self, codebook: int) -> Tensor:
        """What a teacher sees of codebooks 0 to `codebook`."""
        return self.prefixes_CBDT[codebook] if codebook or self.key_BKT is None else self.key_BKT


class _Chosen(NamedTuple):
    """What the entries of codebook `k` follow after a batch: the entry of each frame, the frames, and their keys."""

    k: int
    code_N: Tensor
    given_ND: Tensor
    query_NK: Tensor | None


class ResidualVQ(Quantiser):
    """Groups of codebooks of `codebook_size` entries in `dim` dimensions; in a group each quantises what those before
    it left over.

    groups (8,): one chain of eight. groups (2, 6): a chain of two and a chain of six side by side; both quantise the
    latent, each through a projection of its own from `latent_dim` and back, and the decoder gets their sum.

    With `key_dim` > 0, codebook 0 is looked up in a key space: a linear projection (`key_dim` dimensions) of the latent
    after `erasure` removed pitch and level. Only codebook 0's teacher trains that projection. The entries of codebook 0
    are the means of the latents that chose them, so what the keys do not tell of a frame is left over for codebook 1.

    Codebooks in `fixed` keep their entries in training too, as imported ones should.

    A codebook holds nothing until, in training mode, `init_frames` frames are collected and k-means places its entries.
    Until then it passes on what it is given, and its codes are zeros; a call outside training raises RuntimeError.
    Outside training nothing changes.
    """

    codebook_CVD: Tensor
    count_CV: Tensor
    total_CVD: Tensor
    keys_VK: Tensor
    key_total_VK: Tensor
    collected_ND: Tensor
    unhit_CV: Tensor
    ready: Tensor

    def __init__(
        self,
        groups: tuple[int, ...],
        codebook_size: int,
        dim: int,
        latent_dim: int | None = None,
        decay: float = 0.99,
        dead_hits: float = 256.0,
        dropout_frac: float = 0.5,
        bypass_frac: float = 0.0,
        init_frames: int = 20_480,
        key_dim: int = 0,
    ):
        """`latent_dim` None: the latent has `dim` dimensions and is not projected. `decay` of the EMA per step.
        An entry is dead if nothing chose it while an entry with an even share was chosen `dead_hits` times: an entry
        that the data uses at a twentieth of an even share is taken for dead once in 400,000 times (e^-12.8). A limit on
        the EMA's count would also restart entries that are merely rare, as soon as the EMA forgets their last hit.
        `dropout_frac` of the clips train with a random number of codebooks, `bypass_frac` of them unquantised."""
        super().__init__()
        self.groups, self.latent_dim = groups, latent_dim or dim
        self.decay, self.dead_hits, self.init_frames = decay, dead_hits, init_frames
        self.fixed: tuple[int, ...] = ()
        self.dropout_frac, self.bypass_frac = dropout_frac, bypass_frac
        codebooks = sum(groups)
        self.register_buffer("codebook_CVD", torch.zeros(codebooks, codebook_size, dim))
        self.register_buffer("count_CV", torch.zeros(codebooks, codebook_size))
        self.register_buffer("total_CVD", torch.zeros(codebooks, codebook_size, dim))
        self.register_buffer("unhit_CV", torch.zeros(codebooks, codebook_size), persistent=False)
        self.register_buffer("collected_ND", torch.zeros(0, self.latent_dim), persistent=False)
        self.register_buffer("ready", torch.tensor(False))
        self._was_ready = False  # so that a GPU is not asked again once it has said so
        self.erasure = self.into_keys = None
        if key_dim:
            self.wants_pitch_and_level = True
            self.erasure = Erasure(self.latent_dim, values=2)  # pitch and level
            self.into_keys = nn.Conv1d(self.latent_dim, key_dim, 1, bias=False)
            nn.init.orthogonal_(self.into_keys.weight)
            self.register_buffer("keys_VK", torch.zeros(codebook_size, key_dim))
            self.register_buffer("key_total_VK", torch.zeros(codebook_size, key_dim))
        self.inwards, self.outwards = nn.ModuleList(), nn.ModuleList()
        for _ in groups:
            into = back = nn.Identity()
            if latent_dim:
                # For dim = latent_dim, there and back is the identity: training starts as it does without projections.
                into, back = nn.Conv1d(latent_dim, dim, 1, bias=False), nn.Conv1d(dim, latent_dim, 1, bias=False)
                nn.init.orthogonal_(into.weight)
                back.weight.data = into.weight.detach().transpose(0, 1).contiguous() / len(groups)
            self.inwards.append(into)
            self.outwards.append(back)

    @property
    def codebook_size(self) -> int:
        return self.codebook_CVD.shape[1]

    @property
    def is_ready(self) -> bool:
        self._was_ready = self._was_ready or bool(self.ready)
        return self._was_ready

    def _load_from_state_dict(self, *args: Any, **named: Any) -> None:
        super()._load_from_state_dict(*args, **named)
        self._was_ready = False

    def learn(self, latent_BDT: Tensor, pitch_and_level_BT2: Tensor) -> None:
        if self.erasure is not None:
            self.erasure.learn(latent_BDT, pitch_and_level_BT2)

    def training_state(self) -> dict[str, Tensor]:
        """The frames collected so far, and how many hits an even share has had since each entry's last one."""
        return {"collected_ND": self.collected_ND, "unhit_CV": self.unhit_CV}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        self.collected_ND = state["collected_ND"].to(self.collected_ND)
        self.unhit_CV.copy_(state["unhit_CV"])

    def teacher_view_dim(self, codebook: int) -> int:
        """Dimensions of `ResidualQuantised.teacher_view`."""
        return self.latent_dim if codebook or self.into_keys is None else self.into_keys.out_channels

    @property
    def ranges(self) -> list[range]:
        """The codebooks of each group."""
        ends = list(accumulate(self.groups))
        return [range(end - count, end) for end, count in zip(ends, self.groups, strict=True)]

    @property
    def placed(self) -> list[bool]:
        """Which codebooks hold entries."""
        return [True] * self.codebooks if self.is_ready else self.count_CV.any(1).tolist()

    def forward(self, latent_BDT: Tensor) -> ResidualQuantised:
        if not self.is_ready and not self.training:
            raise RuntimeError("the codebooks hold nothing yet: train, or load weights")
        with torch.autocast(latent_BDT.device.type, enabled=False):
            quantised = self._quantise(latent_BDT.float())
        if not self.is_ready:
            self._collect(latent_BDT)
        return quantised

    def _quantise(self, latent_BDT: Tensor) -> ResidualQuantised:
        B, _, T = latent_BDT.shape
        keep_CB, bypass_B = self._keep(B, latent_BDT.device)
        bypass_B11, placed = bypass_B[:, None, None], self.placed
        latents, codes, prefixes = list[Tensor](), list[Tensor](), list[Tensor]()
        signals, commitment = Signals(), latent_BDT.new_zeros(())
        chosen = list[_Chosen]()
        key_BKT = self._queries(latent_BDT)
        for members, into, back in zip(self.ranges, self.inwards, self.outwards, strict=True):
            given_BDT = residual_BDT = into(latent_BDT)
            prefix_BDT = kept_BDT = torch.zeros_like(given_BDT)
            energy = given_BDT.detach().square().mean().clamp_min(1e-12)
            for k in members:
                vectors_ND = _frames(residual_BDT)
                if placed[k]:
                    query_NK = _frames(key_BKT) if key_BKT is not None and k == 0 else None
                    by_key = query_NK is not None
                    code_N = nearest(query_NK, self.keys_VK) if by_key else nearest(vectors_ND, self.codebook_CVD[k])
                    chosen_BDT = self.codebook_CVD[k][code_N].view(B, T, -1).transpose(1, 2)
                    left_B = (residual_BDT - chosen_BDT).square().mean((1, 2))
                    commitment = commitment + (left_B * keep_CB[k]).mean()
                    signals |= self._signals(k, code_N, left_B.detach().mean() / energy)
                    if key_BKT is not None and query_NK is not None:
                        key_BKT = key_BKT + (self.keys_VK[code_N].view(B, T, -1).transpose(1, 2) - key_BKT).detach()
                    if self.training and k not in self.fixed:
                        chosen.append(_Chosen(k, code_N, vectors_ND, query_NK))
                else:
                    code_N = torch.zeros(B * T, dtype=torch.long, device=latent_BDT.device)
                    chosen_BDT = residual_BDT.detach()
                residual_BDT = residual_BDT - chosen_BDT
                prefix_BDT = prefix_BDT + chosen_BDT
                kept_BDT = kept_BDT + chosen_BDT * keep_CB[k][:, None, None]
                codes.append(code_N.view(B, T))
                prefixes.append(back(given_BDT + (prefix_BDT - given_BDT).detach()))
            latents.append(back(given_BDT + (torch.where(bypass_B11, given_BDT, kept_BDT) - given_BDT).detach()))
        self._update(chosen)
        latent_BDT = torch.stack(latents).sum(0)
        losses = {"commitment": commitment / self.codebooks}
        return ResidualQuantised(
            torch.stack(codes, 1), latent_BDT, losses, signals, prefixes_CBDT=torch.stack(prefixes), key_BKT=key_BKT
        )

    def _queries(self, latent_BDT: Tensor) -> Tensor | None:
        """The vectors (B, K, T) that codebook 0 compares with its keys; None if it has no keys."""
        return None if self.erasure is None or self.into_keys is None else self.into_keys(self.erasure(latent_BDT))

    def unquantised(self, latent_BDT: Tensor) -> Tensor:
        """The latent through the projections: what the decoder would get from infinitely fine codebooks."""
        return torch.stack(
            [back(into(latent_BDT)) for into, back in zip(self.inwards, self.outwards, strict=True)]
        ).sum(0)

    def decode(self, codes_BCT: Tensor) -> Tensor:
        sums = list[Tensor]()
        for members, back in zip(self.ranges, self.outwards, strict=True):
            picked = [self.codebook_CVD[k][codes_BCT[:, k]] for k in members if k < codes_BCT.shape[1]]
            if picked:
                sums.append(back(torch.stack(picked).sum(0).transpose(1, 2)))
        return torch.stack(sums).sum(0)

    def _keep(self, B: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """keep_CB: 1 if a codebook counts for a clip; in training `dropout_frac` of the clips keep only their first n,
        n uniform. bypass_B: which clips stay unquantised."""
        n_B, bypass_B = torch.full((B,), self.codebooks, device=device), torch.zeros(B, dtype=torch.bool, device=device)
        if self.training and self.is_ready:
            dropped_B = torch.rand(B, device=device) < self.dropout_frac
            n_B = torch.where(dropped_B, torch.randint(1, self.codebooks + 1, (B,), device=device), n_B)
            bypass_B = torch.rand(B, device=device) < self.bypass_frac
        return (torch.arange(self.codebooks, device=device)[:, None] < n_B).float(), bypass_B

    @torch.no_grad()
    def _update(self, chosen: Sequence[_Chosen]) -> None:
        """Move each entry, and its key, towards the mean of the vectors that chose it; a dead one takes the place of a
        vector of this batch. A GPU is waited for once, for how many are dead in each codebook."""
        if not chosen:
            return
        V = self.codebook_CVD.shape[1]
        dead = [self._counted(k, code_N, len(code_N) / V) for k, code_N, _, _ in chosen]
        counts: list[int] = torch.stack([dead_V.sum() for dead_V in dead]).tolist()
        for (k, code_N, given_ND, query_NK), dead_V, count in zip(chosen, dead, counts, strict=True):
            reborn_N = torch.randint(len(code_N), (count,), device=code_N.device)
            died_N = dead_V.float().argsort(descending=True, stable=True)[:count]
            follow = [(self.codebook_CVD[k], self.total_CVD[k], given_ND)]
            follow += [] if query_NK is None else [(self.keys_VK, self.key_total_VK, query_NK)]
            for entries_VD, total_VD, vectors_ND in follow:
                total_VD.lerp_(torch.zeros_like(total_VD).index_add_(0, code_N, vectors_ND), 1 - self.decay)
                if count:
                    total_VD[died_N] = vectors_ND[reborn_N] * (len(code_N) / V)
                entries_VD.copy_(total_VD / self.count_CV[k, :, None].clamp_min(1e-30))

    def _counted(self, k: int, code_N: Tensor, even_share: float) -> Tensor:
        """Count the hits of each entry of codebook k. Returns which are dead (V,); their counts begin anew."""
        hits_V = torch.bincount(code_N, minlength=self.codebook_size).to(self.count_CV.dtype)
        self.count_CV[k].lerp_(hits_V, 1 - self.decay)
        self.unhit_CV[k] = torch.where(hits_V > 0, 0, self.unhit_CV[k] + even_share)
        dead_V = self.unhit_CV[k] > self.dead_hits
        self.count_CV[k].masked_fill_(dead_V, even_share)
        self.unhit_CV[k].masked_fill_(dead_V, 0)
        return dead_V

    @torch.no_grad()
    def place(self, k: int, entries_VD: Tensor, even_share: float, keys_VK: Tensor | None = None) -> None:
        """Give codebook k its entries, each with an EMA count of `even_share`: the frames of a step over the number of
        entries."""
        self.codebook_CVD[k] = entries_VD
        self.count_CV[k] = even_share
        self.total_CVD[k] = self.codebook_CVD[k] * even_share
        if keys_VK is not None:
            self.keys_VK.copy_(keys_VK)
            self.key_total_VK.copy_(keys_VK * even_share)
        self.ready.fill_(bool(self.count_CV.any(1).all()))

    @torch.no_grad()
    def _collect(self, latent_BDT: Tensor) -> None:
        """Keep these frames; once there are `init_frames`, place the entries of every codebook by k-means."""
        vectors_ND = _frames(latent_BDT.float())
        self.collected_ND = torch.cat([self.collected_ND, vectors_ND])
        if len(self.collected_ND) < self.init_frames:
            return
        V = self.codebook_CVD.shape[1]
        placed = self.placed
        for members, into in zip(self.ranges, self.inwards, strict=True):
            residual_ND = into(self.collected_ND[:, :, None])[:, :, 0]
            for k in members:
                if k == 0 and (query_ND1 := self._queries(self.collected_ND[:, :, None])) is not None:
                    query_NK = query_ND1[:, :, 0]
                    keys_VK = kmeans(query_NK, V)
                    code_N = nearest(query_NK, keys_VK)
                    total_VD = torch.zeros_like(self.total_CVD[k]).index_add_(0, code_N, residual_ND)
                    self.place(
                        k,
                        total_VD / torch.bincount(code_N, minlength=V).clamp_min(1)[:, None],
                        len(vectors_ND) / V,
                        keys_VK,
                    )
                else:
                    if not placed[k]:
                        self.place(k, kmeans(residual_ND, V), len(vectors_ND) / V)
                    code_N = nearest(residual_ND, self.codebook_CVD[k])
                residual_ND = residual_ND - self.codebook_CVD[k][code_N]
        self.collected_ND = self.collected_ND[:0]

    def _signals(self, k: int, code_N: Tensor, residual_frac: Tensor) -> Signals:
        V = self.codebook_CVD.shape[1]
        share_V = torch.bincount(code_N, minlength=V) / len(code_N)
        split, stream = "train" if self.training else "eval", Codebook(k)
        return {
            key("used_frac", stream, split): (share_V > 0).float().mean(),
            key("perplexity", stream, split): torch.special.entr(share_V).sum().exp(),
            key("residual_frac", stream, split): residual_frac,
        }


def _frames(latent_BDT: Tensor) -> Tensor:
    """The vectors of all frames, (B T, D), without gradient."""
    return latent_BDT.detach().transpose(1, 2).flatten(0, 1)


def nearest(vectors_ND: Tensor, entries_VD: Tensor) -> Tensor:
    """Index (N,) of the entry nearest to each vector, in Euclidean distance (the vector's own norm cancels)."""
    distance_NV = torch.addmm(entries_VD.square().sum(1), vectors_ND.to(entries_VD.dtype), entries_VD.t(), alpha=-2)
    return distance_NV.argmin(1)


def kmeans(vectors_ND: Tensor, entries: int, rounds: int = 10) -> Tensor:
    """Lloyd's algorithm from random distinct vectors -> entries_VD; an entry that no vector chose keeps its place.

    Raises ValueError if there are fewer vectors than entries: sampling with replacement would make dead entries.
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

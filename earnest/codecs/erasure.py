"""Taking out of a latent what a linear map could tell of some values, as far as the values are known while training."""

import torch
from torch import Tensor, nn


class Erasure(nn.Module):
    """The latent, changed by as little as makes its covariance with the values zero (LEACE, Belrose et al. 2023,
    arXiv:2306.03819).

    It follows the moments of both, as `learn` is shown them; before that nothing is taken out.
    """

    mean_D: Tensor
    matrix_DD: Tensor
    covariance_DD: Tensor
    cross_DY: Tensor

    def __init__(self, dim: int, values: int, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("matrix_DD", torch.zeros(dim, dim))
        self.register_buffer("covariance_DD", torch.zeros(dim, dim))
        self.register_buffer("cross_DY", torch.zeros(dim, values))

    def forward(self, latent_BDT: Tensor) -> Tensor:
        return latent_BDT - torch.einsum("ed,bdt->bet", self.matrix_DD, latent_BDT - self.mean_D[:, None])

    @torch.no_grad()
    def learn(self, latent_BDT: Tensor, values_BTY: Tensor) -> None:
        """Follow the moments of a batch; a value counts in frames in which it is finite, if there are two at least."""
        frames_ND = latent_BDT.detach().float().transpose(1, 2).flatten(0, 1)
        follow = 1 - self.decay if self.covariance_DD.any() else 1.0
        centred_ND = frames_ND - frames_ND.mean(0)
        self.mean_D.lerp_(frames_ND.mean(0), follow)
        self.covariance_DD.lerp_(centred_ND.T @ centred_ND / len(frames_ND), follow)
        for y, value_N in enumerate(values_BTY.flatten(0, 1).T):
            exists_N = value_N.isfinite()
            if exists_N.sum() >= 2:
                value_N, of_value_ND = value_N[exists_N], frames_ND[exists_N]
                cross_D = (of_value_ND - of_value_ND.mean(0)).T @ (value_N - value_N.mean()) / len(value_N)
                self.cross_DY[:, y].lerp_(cross_D, follow if self.cross_DY[:, y].any() else 1.0)
        if not self.cross_DY.any():
            return
        # the best linear guess of the values has weights S^-1 C; what goes with it in the latent goes out
        known_DY = self.cross_DY[:, self.cross_DY.any(0)]
        ridge_DD = 1e-4 * self.covariance_DD.diagonal().mean() * torch.eye(len(self.mean_D), device=frames_ND.device)
        guess_DY: Tensor = torch.linalg.solve(self.covariance_DD + ridge_DD, known_DY)
        # not in place: the graph of this step holds the matrix that it was made with
        inverse_YY: Tensor = torch.linalg.pinv(known_DY.T @ guess_DY)
        self.matrix_DD = known_DY @ inverse_YY @ guess_DY.T

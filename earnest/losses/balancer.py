"""The loss balancer of EnCodec (Défossez et al. 2022, arXiv:2210.13438, section 3.4): weights become shares of the
gradient."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from earnest.codecs.trainable import numbers


class Balancer:
    """Scales each loss's gradient at the waveform by its mean norm so far, so that its share of the gradient is its
    weight's share.

    `streams`: the losses that depend on the waveform alone, which it balances. `norms`: stream -> moving average of the
    gradient's norm per clip, kept with the run's state.
    """

    def __init__(self, streams: Collection[str], decay: float = 0.999):
        self.streams, self.decay = frozenset(streams), decay
        self.norms: dict[str, float] = {}
        self.mass: dict[str, float] = {}

    def __call__(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], wave_BN: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of `streams` -> a loss whose gradient at wave_BN is the balanced one, and each loss's share of
        that gradient.

        The balanced gradient has about norm 1 per clip, whatever the weights sum to. A loss of weight 0 has no part.
        """
        losses = {name: loss for name, loss in losses.items() if name in self.streams and weights[name]}
        total, parts = sum(weights[name] for name in losses), dict[str, Tensor]()
        gradients = {name: torch.autograd.grad(loss, wave_BN, retain_graph=True)[0] for name, loss in losses.items()}
        norms = numbers({name: _norm(gradient_BN) for name, gradient_BN in gradients.items()})
        for name, norm in norms.items():
            self.norms[name] = self.decay * self.norms.get(name, 0.0) + (1 - self.decay) * norm
            self.mass[name] = self.decay * self.mass.get(name, 0.0) + 1 - self.decay
            mean = self.norms[name] / self.mass[name]
            parts[name] = gradients[name] * (weights[name] / total / max(mean, 1e-12))
        sizes = {name: _norm(part_BN) for name, part_BN in parts.items()}
        whole = torch.stack(list(sizes.values())).sum().clamp_min(1e-12)
        shares = {name: size / whole for name, size in sizes.items()}
        return (wave_BN * torch.stack(list(parts.values())).sum(0)).sum(), shares

    def state_dict(self) -> dict[str, dict[str, float]]:
        return {"norms": dict(self.norms), "mass": dict(self.mass)}

    def load_state_dict(self, state: Mapping[str, dict[str, float]]) -> None:
        self.norms, self.mass = dict(state["norms"]), dict(state["mass"])


def _norm(gradient_BN: Tensor) -> Tensor:
    """Per clip, in the mean."""
    norm_B: Tensor = torch.linalg.vector_norm(gradient_BN, dim=1)
    return norm_B.mean()

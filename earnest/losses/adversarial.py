"""Hinge adversarial losses and feature matching over the scales of a discriminator; each returns (loss, signals).

Hinge: Lim & Ye 2017, arXiv:1705.02894; as used for codecs: EnCodec, arXiv:2210.13438, section 3.4. Every loss is the
mean over scales, so that a discriminator that sees no difference costs 2 whatever their number.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from earnest.codecs.discriminators import Judgement
from earnest.codecs.trainable import Signals
from earnest.facts import GanLoss
from earnest.signals import key

Judgements = Mapping[str, Judgement]  # by scale of the discriminator
STREAMS = ("adv_g", "feat")  # the losses of a codec that need a discriminator


class Adversary(NamedTuple):
    """A pair of adversarial losses, of the discriminator and of the generator, and the name that rules know it by."""

    kind: GanLoss
    discriminator_loss: Callable[[Judgements, Judgements], tuple[Tensor, Signals]]
    generator_loss: Callable[[Judgements], tuple[Tensor, Signals]]


def hinge_discriminator(real: Judgements, fake: Judgements) -> tuple[Tensor, Signals]:
    """E max(0, 1 - D(real)) + E max(0, 1 + D(fake)): 2 for a discriminator that always says 0, less for one that is
    right."""
    losses, signals = list[Tensor](), Signals()
    for name in real:
        (real_logits, _), (fake_logits, _) = real[name], fake[name]
        loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        losses.append(loss)
        signals |= {
            key("loss", name): loss.detach(),
            key("d_real", name): real_logits.detach().mean(),
            key("d_fake", name): fake_logits.detach().mean(),
            key("d_auc", name): auc(real_logits.detach(), fake_logits.detach()),
            key("d_active_frac", name): ((real_logits < 1).float().mean() + (fake_logits > -1).float().mean()) / 2,
        }
    total = torch.stack(losses).mean()
    return total, signals | {key("loss", "loss_d"): total.detach()}


def auc(real: Tensor, fake: Tensor) -> Tensor:
    """How often a real logit is above a generated one, ties half: 0.5 for a discriminator that sees nothing, 1 for a
    perfect one."""
    real_N, fake_M = real.flatten(), fake.flatten().sort().values
    below_N = torch.searchsorted(fake_M, real_N) + torch.searchsorted(fake_M, real_N, right=True)
    return below_N.double().mean() / (2 * len(fake_M))


def hinge_generator(fake: Judgements) -> tuple[Tensor, Signals]:
    """-E D(fake): unbounded, and below 0 if the generator fools the discriminator."""
    loss = -torch.stack([logits.mean() for logits, _ in fake.values()]).mean()
    return loss, {key("loss", "adv_g"): loss.detach()}


HINGE = Adversary("hinge", hinge_discriminator, hinge_generator)


def feature_matching(real: Judgements, fake: Judgements) -> tuple[Tensor, Signals]:
    """L1 between the maps of real and generated audio, over the mean magnitude of the real ones; mean over maps and
    scales.

    The division makes the value comparable between discriminators; MelGAN (arXiv:1910.06711, section 2.3) has it
    without.
    """
    pairs = [
        (real_map.detach().float(), fake_map.float())
        for name in real
        for real_map, fake_map in zip(real[name][1], fake[name][1], strict=True)
    ]
    loss = torch.stack(
        [(fake_map - real_map).abs().mean() / real_map.abs().mean().clamp_min(1e-3) for real_map, fake_map in pairs]
    ).mean()
    return loss, {key("loss", "feat"): loss.detach()}

"""The training loop of a codec against a discriminator, as a generator."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from earnest.codecs.trainable import Reconstruction, Signals, numbers
from earnest.losses.adversarial import Adversary, feature_matching
from earnest.losses.balancer import Balancer
from earnest.losses.codec import CodecBatch
from earnest.run import Step
from earnest.signals import key

Numbers = dict[str, float]
LOSS, NORM = "the loss that is stepped on", "the norm of its gradient"  # beside signals, whose names are others


@dataclass(frozen=True)
class Side:
    """Codec or discriminator: a model with its optimizer, its schedule and the norm at which its gradient is clipped.

    `model` is called; the optimizer may hold more, such as the heads of a distillation.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    max_grad_norm: float

    def step(self, loss: Tensor, accelerator: Accelerator, signals: Signals | None = None) -> tuple[float, Numbers]:
        """One optimizer step; the gradients stay in place until the next one. Returns their norm before clipping, and
        the signals as numbers: a GPU is waited for once, for all of these and for whether to step.

        If the loss or the norm is not finite, no weight moves, and the norm is NaN.
        """
        self.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = cast(Tensor, accelerator.clip_grad_norm_(parameters, self.max_grad_norm))
        read = numbers({**(signals or {}), LOSS: loss, NORM: norm})
        value, grad_norm = read.pop(LOSS), read.pop(NORM)
        if not math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)  # no gradient of it is of use, nor looked at
        elif math.isfinite(grad_norm):
            self.optimizer.step()
        self.schedule.step()
        return grad_norm if math.isfinite(value) and math.isfinite(grad_norm) else math.nan, read


def gan_steps(
    codec: Side,
    discriminator: Side,
    adversary: Adversary,
    batches: Iterable[CodecBatch],
    codec_losses: Callable[[Reconstruction, CodecBatch], tuple[dict[str, Tensor], Signals]],
    weights: Callable[[int], Mapping[str, float]],
    accelerator: Accelerator,
    discriminator_from_step: int = 1,
    discriminator_samples: int | None = None,
    first_step: int = 1,
    balancer: Balancer | None = None,
    monitor_every_steps: int = 0,
) -> Iterator[Step]:
    """Yield after every optimizer step of the codec, with its gradients still in place.

    codec_losses: the losses that need no discriminator, by stream. weights: step -> stream -> weight, of all of them,
    of the quantiser's losses, and of adv_g and feat, which count from step `discriminator_from_step` on. With that step
    the discriminator starts. It judges `discriminator_samples` of every clip, at a random place: its convolutions cost
    more than the codec. It is stepped first, on the same reconstruction, and frozen in the codec's step, whose backward
    pass would otherwise compute gradients for it and throw them away. A step whose loss is not finite moves nothing;
    `skipped_frac` says so, and the losses of that step say where. With a balancer, the weights of the losses on the
    waveform are shares of the gradient. Every `monitor_every_steps`, the norm of each weighted loss's gradient at the
    encoder's latent is measured.
    """
    for index, batch in enumerate(batches, first_step):
        learning_rate = codec.schedule.get_last_lr()[0]  # the one this step is made with
        with accelerator.autocast():
            reconstruction = codec.model(batch.wave_BN)
        losses, signals = codec_losses(reconstruction, batch)
        losses |= reconstruction.quantised.losses
        signals |= reconstruction.quantised.signals
        signals |= {key("loss", name): loss for name, loss in reconstruction.quantised.losses.items()}

        if index >= discriminator_from_step:
            real_BN, fake_BN = random_stretch([batch.wave_BN, reconstruction.wave_BN], discriminator_samples)
            with accelerator.autocast():
                loss, judged = adversary.discriminator_loss(
                    discriminator.model(real_BN), discriminator.model(fake_BN.detach())
                )
            norm, _ = discriminator.step(loss, accelerator)
            signals |= judged | {
                key("grad_norm", "discriminator"): norm,
                key("skipped_frac", "discriminator"): float(math.isnan(norm)),
            }

            discriminator.model.requires_grad_(False)
            with accelerator.autocast():
                with torch.no_grad():
                    real = discriminator.model(real_BN)
                fake = discriminator.model(fake_BN)
                losses["adv_g"], adversarial_signals = adversary.generator_loss(fake)
                losses["feat"], feature_signals = feature_matching(real, fake)
            discriminator.model.requires_grad_(True)
            signals |= adversarial_signals | feature_signals

        weight = weights(index)
        loss = total = weighted_sum(losses, weight)
        if balancer:
            balanced, shares = balancer(losses, weight, reconstruction.wave_BN)
            others = {name: other for name, other in losses.items() if name not in balancer.streams}
            loss = balanced + weighted_sum(others, weight)
            signals |= {key("gradient_frac", name): share for name, share in shares.items()}
        if monitor_every_steps and index % monitor_every_steps == 0:
            signals |= latent_gradients(losses, weight, reconstruction.latent_BDT)
        grad_norm, read = codec.step(loss, accelerator, signals | {key("loss"): total})
        measured = {
            key("grad_norm"): grad_norm,
            key("clipped_frac"): float(grad_norm > codec.max_grad_norm),
            key("skipped_frac", "codec"): float(math.isnan(grad_norm)),
            key("learning_rate"): learning_rate,
        }
        yield Step(index, read | measured)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss that is stepped on; a loss of weight 0 is left out, so that its NaN would not reach the sum."""
    return torch.stack([weights[name] * loss for name, loss in losses.items() if weights[name]]).sum()


def latent_gradients(losses: Mapping[str, Tensor], weights: Mapping[str, float], latent_BDT: Tensor) -> Signals:
    """The norm of each weighted loss's gradient at the encoder's latent, where all of them meet; 0 if none
    arrives."""
    norms: Signals = {}
    for name, loss in losses.items():
        if weights[name] and loss.requires_grad and latent_BDT.requires_grad:
            [gradient] = torch.autograd.grad(weights[name] * loss, latent_BDT, retain_graph=True, allow_unused=True)
            norm = 0.0 if gradient is None else torch.linalg.vector_norm(gradient)
            norms[key("grad_norm", f"latent_{name}")] = norm
    return norms


def random_stretch(waves: list[Tensor], samples: int | None) -> list[Tensor]:
    """The same `samples` samples of each wave (B, N), from a random place; the whole wave if `samples` is None or N is
    less."""
    N = waves[0].shape[1]
    if samples is None or samples >= N:
        return waves
    start = int(torch.randint(N - samples + 1, ()))
    return [wave_BN[:, start : start + samples] for wave_BN in waves]

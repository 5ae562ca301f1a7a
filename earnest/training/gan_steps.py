"""The training loop of a codec against a discriminator, as a generator."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earnest.losses.adversarial import feature_matching, hinge_discriminator, hinge_generator
from earnest.run import Step
from earnest.signals import key


@dataclass(frozen=True)
class Player:
    """One side of the game: a model with its optimizer, its schedule and the norm at which its gradient is clipped."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    max_grad_norm: float

    def step(self, loss: Tensor, accelerator) -> float:
        """One optimizer step; the gradients stay in place until the next one. Returns their norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        grad_norm = float(accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm))
        self.optimizer.step()
        self.schedule.step()
        return grad_norm


def gan_steps(
    codec: Player,
    discriminator: Player,
    batches: Iterable[Tensor],
    reconstruction_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, float]]],
    weights: Mapping[str, float],
    accelerator,
    discriminator_from_step: int = 1,
    discriminator_samples: int | None = None,
    first_step: int = 1,
) -> Iterator[Step]:
    """Yield after every optimizer step of the codec, with its gradients still in place.

    batches: wave_BN. weights: of mel, commitment, adversarial and features in the loss that is stepped on; the last two
    count from step `discriminator_from_step`, where the discriminator starts. It hears `discriminator_samples` of every
    clip, at a random place: its convolutions cost more than the codec. It is stepped first, on the same reconstruction, and
    frozen in the codec's step, whose backward pass would otherwise compute gradients for it and throw them away.
    """
    for index, wave_BN in enumerate(batches, first_step):
        learning_rate = codec.schedule.get_last_lr()[0]  # the one this step is made with
        with accelerator.autocast():
            reconstruction = codec.model(wave_BN)
        mel, signals = reconstruction_loss(reconstruction.wave_BN, wave_BN)
        commitment = reconstruction.quantised.commitment
        losses = {"mel": mel, "commitment": commitment}
        signals |= reconstruction.quantised.signals | {key("loss", "commitment"): commitment.item()}

        if index >= discriminator_from_step:
            real_BN, fake_BN = random_stretch([wave_BN, reconstruction.wave_BN], discriminator_samples)
            with accelerator.autocast():
                loss, heard = hinge_discriminator(discriminator.model(real_BN), discriminator.model(fake_BN.detach()))
            signals |= heard | {key("grad_norm", "discriminator"): discriminator.step(loss, accelerator)}

            discriminator.model.requires_grad_(False)
            with accelerator.autocast():
                with torch.no_grad():
                    real = discriminator.model(real_BN)
                fake = discriminator.model(fake_BN)
                losses["adversarial"], adversarial_signals = hinge_generator(fake)
                losses["features"], feature_signals = feature_matching(real, fake)
            discriminator.model.requires_grad_(True)
            signals |= adversarial_signals | feature_signals

        loss = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        grad_norm = codec.step(loss, accelerator)
        measured = {
            key("loss"): loss.item(),
            key("grad_norm"): grad_norm,
            key("clipped_frac"): float(grad_norm > codec.max_grad_norm),
            key("learning_rate"): learning_rate,
        }
        yield Step(index, signals | measured, wave_BN, codec.model)


def random_stretch(waves: list[Tensor], samples: int | None) -> list[Tensor]:
    """The same `samples` samples of each wave (B, N), from a random place; all of it where `samples` is None or N is less."""
    N = waves[0].shape[1]
    if samples is None or samples >= N:
        return waves
    start = int(torch.randint(N - samples + 1, ()))
    return [wave_BN[:, start : start + samples] for wave_BN in waves]

"""A training step of a codec with its discriminator, beside the order of most published loops: `python -m
benchmarks.gan_step`.

amy-tiny's codec and discriminator, four clips of a second, fp32. The peer calls the discriminator on real and generated
audio for its own step and again for the codec's, and leaves its weights trainable; ours freezes it in the codec's step
and makes no graph of what it says of real audio there. The losses and the codec's gradients are asserted equal.
"""

import copy
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.side_by_side import Comparison, show
from earnest.codecs.amy import Amy
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.codecs.trainable import Reconstruction, Signals
from earnest.losses.adversarial import HINGE, feature_matching, hinge_discriminator, hinge_generator
from earnest.losses.codec import CodecBatch
from earnest.losses.waveform import MultiScaleMelLoss
from earnest.training.codec.gan_steps import Side, gan_steps

WEIGHTS = {"mel": 100.0, "commitment": 5.0, "adv_g": 1.0, "feat": 15.0}
CLIPS, SAMPLES, RATE_HZ = 4, 16_000, 16_000


class Rounded(Accelerator):
    """Autocast to bfloat16; the states of a process's accelerators are one, and know no second precision."""

    def autocast(self, autocast_handler: object = None) -> torch.autocast:  # type: ignore[override]
        return torch.autocast("cpu", torch.bfloat16)


class Game:
    """A codec and a discriminator that do not move: every step is the same."""

    def __init__(self, codec: Amy, discriminator: MultiScaleSTFTDiscriminator):
        self.codec, self.discriminator, self.mel = codec.train(), discriminator, MultiScaleMelLoss(RATE_HZ)
        self.accelerator = Accelerator(cpu=True, mixed_precision="no")
        self.sides = self.side(codec), self.side(discriminator)

    @staticmethod
    def side(model: nn.Module) -> Side:
        optimizer = torch.optim.AdamW(model.parameters(), 0.0, weight_decay=0.0, fused=True)
        return Side(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), 1e9)

    def ours(self, wave_BN: Tensor) -> float:
        def losses(made: Reconstruction, batch: CodecBatch) -> tuple[dict[str, Tensor], Signals]:
            loss, signals = self.mel(made.wave_BN, batch.wave_BN)
            return {"mel": loss}, {**signals}

        steps = gan_steps(*self.sides, HINGE, [CodecBatch(wave_BN)], losses, lambda step: WEIGHTS, self.accelerator)
        return next(steps).signals["train/loss"]

    def theirs(self, wave_BN: Tensor) -> float:
        codec, discriminator = self.sides
        made = self.codec(wave_BN)
        loss_d, _ = hinge_discriminator(self.discriminator(wave_BN), self.discriminator(made.wave_BN.detach()))
        discriminator.step(loss_d, self.accelerator)
        real, fake = self.discriminator(wave_BN), self.discriminator(made.wave_BN)
        losses = {
            "mel": self.mel(made.wave_BN, wave_BN)[0],
            "commitment": made.quantised.losses["commitment"],
            "adv_g": hinge_generator(fake)[0],
            "feat": feature_matching(real, fake)[0],
        }
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        codec.step(total, self.accelerator)
        return total.item()

    def gradients(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.codec.parameters() if p.grad is not None]


def comparisons() -> Iterator[Comparison]:
    torch.manual_seed(0)
    codec = Amy()
    for k in range(codec.codebooks):
        codec.quantiser.place(k, torch.randn_like(codec.quantiser.codebook_CVD[k]), 1.0)
    game = Game(codec, MultiScaleSTFTDiscriminator((1024, 512, 256), channels=16))
    other = copy.deepcopy(game)
    wave_BN = 0.1 * torch.randn(CLIPS, SAMPLES)
    torch.manual_seed(1)  # of the codebooks that are left out
    ours = game.ours(wave_BN), game.gradients()
    torch.manual_seed(1)
    theirs = other.theirs(wave_BN), other.gradients()
    assert abs(ours[0] - theirs[0]) < 1e-5 * abs(theirs[0])
    furthest = max(float((a - b).norm() / b.norm().clamp(min=1e-9)) for a, b in zip(ours[1], theirs[1], strict=True))
    assert furthest < 1e-4
    yield Comparison(
        f"GAN step of amy-tiny, {CLIPS} x {SAMPLES / RATE_HZ:g} s",
        "the same modules, discriminator trainable throughout",
        lambda: game.ours(wave_BN),
        lambda: other.theirs(wave_BN),
        f"the loss, and the codec's gradients to {furthest:.0e}",
    )
    game.accelerator = Rounded(cpu=True, mixed_precision="no")
    torch.manual_seed(1)
    loss = game.ours(wave_BN)
    yield Comparison(
        f"GAN step of amy-tiny in bfloat16, {CLIPS} x {SAMPLES / RATE_HZ:g} s",
        "the same modules in fp32, discriminator trainable throughout",
        lambda: game.ours(wave_BN),
        lambda: other.theirs(wave_BN),
        f"the loss to {abs(loss / ours[0] - 1):.0e}",
    )


if __name__ == "__main__":
    show(comparisons())

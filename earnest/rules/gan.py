"""The two sides of an adversarial training, as a log shows them: `Gan`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earnest.quantiles import median
from earnest.run import Run, Series
from earnest.signals import Key
from earnest.streams import Part, Stream

DISCRIMINATOR = (Part("loss_d"), Part("discriminator"))
ADVERSARIAL, FEATURES = (Part("adv_g"), Part("adversarial")), (Part("feat"), Part("features"))
CRITIC = re.compile(r"(?:.*_)?(?:discr?|discriminators?|critic)(?:_|$)(?!.*gen)")  # in the name of a part
ADVERSARY = re.compile(r"(?:^|_)(?:adv|adversarial|adversary|gan|fool|critic)(?:_|$)")  # f_adv, adv_mpd
# Rows of two players that are judged, and losses that are next to nothing and far from any tie (assumed)
FEWEST_OF_A_GAME, WON, LOST = 5, 1e-3, 5.0
HINGE_NEEDS = "a hinge discriminator: --fact gan_loss=hinge, lsgan or vanilla says which it is"


def is_of_discriminator(stream: Stream | None) -> bool:
    """Whether a loss is a discriminator's, or one of several': `loss_d`, `discr_scale_1`, `disc_real_0`."""
    return stream in DISCRIMINATOR or (stream is not None and CRITIC.match(str(stream)) is not None)


def is_adversarial(stream: Stream | None) -> bool:
    """Whether a loss is one of two players', by whatever name: it may rise as the other learns."""
    return stream in ADVERSARIAL or is_of_discriminator(stream) or ADVERSARY.search(str(stream or "")) is not None


def beaten_by(critic: Series, generator: Series | None) -> Iterator[tuple[Series, str]]:
    """Where one of two players has nothing to learn, and the other is far from its aim."""
    if generator is None or min(len(critic.finite), len(generator.finite)) < FEWEST_OF_A_GAME:
        return
    of_critic, of_generator = critic.finite.value, generator.finite.value
    if not of_generator.any() and median(of_critic) > LOST:
        yield (
            generator,
            f"the generator's loss is exactly 0 in {len(of_generator)} rows, the discriminator's "
            + (f"{median(of_critic):.3g}: it calls everything real, or the labels are the wrong way round"),
        )
    elif (np.abs(of_critic[-3:]) < WON).all() and (of_generator[-3:] > 2 * LOST).all():
        yield (
            critic,
            f"the discriminator's loss is {of_critic[-1]:.2g}, the generator's {of_generator[-1]:.3g}: "
            + ("it tells all apart, and the generator has no gradient left"),
        )


@dataclass(frozen=True)
class Gan:
    """Losses and scores of discriminator and generator; each is None if it is not logged."""

    run: Run

    @property
    def form(self) -> str | None:
        """The form of the adversarial loss, if it is known."""
        return self.run.facts.gan_loss

    @property
    def is_hinge(self) -> bool:
        """Said to be hinge; or not said, with D(real) and D(fake) to judge by: a loss alone does not show its form."""
        return self.form == "hinge" or (self.form is None and self.has_scores and self.stated is None)

    @property
    def has_scores(self) -> bool:
        """Whether D(real) and D(fake) are logged, which show what a loss cannot: whether it is wrong."""
        return any(key[:2] == ("train", "d_real") for key in self.run.series)

    @property
    def stated(self) -> float | None:
        """The level of a discriminator that sees no difference, as the user or the trainer's page states it."""
        levels = self.run.facts.baselines or {}
        return next((levels[one] for one in DISCRIMINATOR if one in levels), None)

    @property
    def exists(self) -> bool:
        return any(one is not None for one in (self.gap, self.adversarial, self.features))

    @cached_property
    def discriminator(self) -> Series | None:
        return self._first(DISCRIMINATOR)

    @cached_property
    def adversarial(self) -> Series | None:
        return self._first(ADVERSARIAL)

    @cached_property
    def features(self) -> Series | None:
        return self._first(FEATURES)

    @cached_property
    def gap(self) -> Series | None:
        """D(real) - D(fake) over steps: as logged, else from the hinge loss, 2 - loss_d, which holds while |D| < 1."""
        gaps: list[Series] = []
        for real in [series for key, series in self.run.series.items() if key[:2] == ("train", "d_real")]:
            fake = self.run.get("train", "d_fake", real.stream)
            if fake is not None:
                steps, i, j = np.intersect1d(real.step, fake.step, return_indices=True)
                gaps.append(Series(steps, real.value[i] - fake.value[j], Key("train", "d_gap")))
        if gaps and all(len(gap) == len(gaps[0]) for gap in gaps):
            return Series(gaps[0].step, np.mean([gap.value for gap in gaps], axis=0), gaps[0].key)
        losses = [loss for stream in DISCRIMINATOR if (loss := self.run.get("train", "loss", stream))]
        return Series(losses[0].step, 2 - losses[0].value, Key("train", "d_gap")) if losses else None

    def _first(self, streams: tuple[Stream, ...]) -> Series | None:
        logged = (self.run.get("train", "loss", stream) for stream in streams)
        return next((series for series in logged if series is not None and len(series.finite)), None)

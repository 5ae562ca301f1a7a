"""Faults planted in a model that really trains, and what looks odd and is healthy."""

from functools import cache

import numpy as np

from earnest.run import Run, Series
from tests.equipment.simulated import cut, gan_run, series, table_run, wandering

STEPS = np.arange(20, 2001, 20)
SHARE = STEPS / 2000


def noisy(mean, seed=0, size=0.04) -> Series:
    return series(STEPS, mean + np.random.default_rng(seed).normal(0, size, len(STEPS)))


FAULTS = {
    "labels are not shifted": (dict(shift=0), "A201"),
    "labels are not shifted, fresh random codes": (dict(shift=0, noise_data=True), "A201"),
    "every label is masked": (dict(mask_after=1), "A101"),
    "every label is masked from step 200 on": (dict(mask_after=200), "A101"),
    "frozen": (dict(train=False), "C101"),
    "learning rate 0": (dict(rate=0.0), "D302"),
    "noise for data": (dict(noise_data=True, rate=0.02), "B102"),
    "eight clips": (dict(clips=8, batch=8), "E102"),
    "logits ten times too wide": (dict(width=4.0), "B108"),
}


@cache
def planted(fault: str, seed: int) -> Run:
    """The run of one fault; made once, as making it is what takes the time."""
    return table_run(seed, **FAULTS[fault][0])


COS = 0.5 + 0.5 * np.cos(np.pi * SHARE)
EVERY_200 = STEPS[9::10]
FACTS = {"audio_vocab": 1026}
FALL = 3.8 + 3.1 * np.exp(-4 * SHARE)


def lm(mean=FALL, evaluated=None, **more) -> Run:
    logged = {"train/ce_nats/audio": noisy(mean), **more}
    if evaluated is not None:
        logged["eval/ce_nats/audio"] = series(EVERY_200, evaluated + np.random.default_rng(1).normal(0, 0.01, 10))
    return Run.of(dict(FACTS), logged)


BENIGN = {
    "fine-tune flat near its floor": lambda: lm(np.full(100, 3.4), np.full(10, 3.45)),
    "feature matching and adversarial loss rise alone": lambda: gan_run(0, lambda t: 0.4 + 1.2 * t),
    "codec perplexity and vq loss rise early": lambda: Run.of(
        {},
        {
            "train/perplexity/codebook_0": noisy(5 + 400 * (1 - np.exp(-5 * SHARE)), size=4),
            "train/loss/commitment": noisy(0.1 + 0.5 * (1 - np.exp(-9 * SHARE)), size=0.01),
        },
    ),
    "mel jumps when the discriminator starts": lambda: Run.of(
        {},
        {
            "train/loss/mel": noisy(0.6 + np.exp(-9 * SHARE) + 0.3 * (STEPS > 1000), size=0.01),
            "train/loss/loss_d": Series(STEPS[50:], noisy(1.5 + 0 * SHARE).value[50:]),
            "train/loss/adv_g": Series(STEPS[50:], noisy(0.4 + 0 * SHARE).value[50:]),
        },
    ),
    "deeper codebooks stay higher": lambda: Run.of(
        dict(FACTS),
        {
            f"train/ce_nats/codebook_{i}": noisy(6.95 - (3.4 - 0.4 * i) * (1 - np.exp(-4 * SHARE)), seed=i)
            for i in range(8)
        },
    ),
    "validation below training with dropout": lambda: lm(FALL, FALL[9::10] - 0.5),
    "stair-steps over three epochs while validation falls": lambda: _with_epochs(
        lm(5 - 0.3 * np.floor(2.99 * SHARE), 4.9 - 0.5 * SHARE[9::10])
    ),
    "a wide fresh head starts far above chance": lambda: lm(FALL + 9 * np.exp(-STEPS / 25)),
    "a spike that returns": lambda: lm(FALL + 4.0 * ((STEPS > 1500) & (STEPS < 1560))),
    "delay frames are masked": lambda: Run.of(
        dict(FACTS),
        {
            f"train/counted_frac/codebook_{i}": noisy(np.full(100, 0.93 - 0.002 * i), seed=i, size=0.01)
            for i in range(8)
        },
    ),
    "text of pure speech synthesis near 0": lambda: Run.of(
        {"text_vocab": 128256, "audio_vocab": 1026},
        {"train/ce_nats/text": series(STEPS, 2.5 * np.exp(-60 * SHARE) + 4e-7), "train/ce_nats/audio": noisy(FALL)},
    ),
    "resume after a checkpoint": lambda: lm(FALL, None, **{"train/learning_rate": series(STEPS, 1e-3 * COS)}),
    "constant learning rate": lambda: lm(
        FALL, FALL[9::10] + 0.1, **{"train/learning_rate": series(STEPS, np.full(100, 1e-4))}
    ),
    "logged every hundredth step": lambda: _thinned(lm(FALL), 5),
    "logged every step, noisily": lambda: Run.of(
        dict(FACTS),
        {
            "train/ce_nats/audio": series(
                np.arange(1, 5001),
                4 + 2.9 * np.exp(-np.arange(5000) / 700) + wandering(np.random.default_rng(2), 5000, 0.5, 0.3),
            )
        },
    ),
    "a schedule's late anneal": lambda: lm(
        FALL - 0.6 * np.clip(SHARE - 0.8, 0, 1) / 0.2,
        None,
        **{"train/learning_rate": series(STEPS, 1e-3 * np.minimum(1, (1 - SHARE) / 0.2))},
    ),
    "early in a run": lambda: cut(lm(6.93 - 0.0004 * STEPS), 60),
    "deeper codebooks at the label frequencies for a while": lambda: cut(lm(np.where(STEPS < 200, 6.93, FALL)), 80),
}


def _with_epochs(run):
    run.facts = run.facts.updated({"steps_per_epoch": 667})
    return run


def _thinned(run, every):
    return Run.of(run.facts, {name: Series(one.step[::every], one.value[::every]) for name, one in run.series.items()})

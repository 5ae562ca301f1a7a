"""Healthy adversarial runs in the shape of VITS, DAC and EnCodec, and healthy language models, as tables with the names
that such trainers write.

The scores of the discriminators are drawn, and the losses follow from them by the trainers' formulas: least squares,
summed over sub-discriminators, for VITS and DAC; hinge, averaged, for EnCodec. Length, noise, warm start, interval and
missing columns are drawn by chance.
"""

from collections.abc import Callable

import numpy as np

from tests.equipment.simulated import healthy_run, wandering
from tests.strangers.curves import as_table, of_run

Rng = np.random.Generator
Values = np.ndarray
Table = tuple[str, tuple[tuple[str, str], ...]]  # a table, and facts that are passed with it

VITS = (  # discriminator, generator, feature matching, mel, KL, duration, learning rate, gradient norm
    (
        "loss/d/total",
        "loss/g/total",
        "loss/g/fm",
        "loss/g/mel",
        "loss/g/kl",
        "loss/g/dur",
        "learning_rate",
        "grad_norm_g",
    ),
    ("loss_disc", "loss_gen_all", "loss_fm", "loss_mel", "loss_kl", "loss_dur", "lr", "grad_norm_g"),
    ("loss_disc", "loss_1", "loss_feat", "loss_mel", "loss_kl", "loss_duration", "current_lr_0", "grad_norm_1"),
)


def vits(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    step, share, noise = _axis(rng)
    warm = rng.random() < 0.6  # a fine-tune of a pretrained model
    critics = int(rng.integers(5, 9))
    critic, adversary = _least_squares(rng, share, critics, warm)
    features = noise(rng.uniform(2, 5), 0.1) * (1 + rng.uniform(0.3, 2.5) * (1 - np.exp(-4 * share)))
    start = rng.uniform(20, 30) if warm else rng.uniform(40, 70)
    mel = _fall(rng, share, start, rng.uniform(14, 19)) * noise(1, 0.04)
    kl = _fall(rng, share, rng.uniform(1.5, 3) if warm else rng.uniform(5, 70), rng.uniform(0.7, 1.5)) * noise(1, 0.06)
    duration = _fall(rng, share, rng.uniform(1.5, 2.5), rng.uniform(1.1, 1.5)) * noise(1, 0.03)
    rate = 2e-4 * 0.999875 ** (share * rng.uniform(100, 2000))
    columns = [critic, adversary + features + mel + kl + duration, features, mel, kl, duration, rate, noise(150, 0.3)]
    return _written(rng, "lsgan", step, dict(zip(VITS[rng.integers(len(VITS))], columns, strict=True)), VITS_MAY_LACK)


VITS_MAY_LACK = ("loss/g/dur", "loss_dur", "loss_duration", "grad_norm_g", "grad_norm_1", "learning_rate", "lr")


def dac(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    step, share, noise = _axis(rng)
    critic, adversary = _least_squares(rng, share, int(rng.integers(8, 13)), False)
    features = noise(rng.uniform(2, 4), 0.05) * (1 + rng.uniform(0.2, 1) * (1 - np.exp(-5 * share)))
    mel, stft = (
        _fall(rng, share, rng.uniform(1.8, 3), rng.uniform(0.7, 1.1)) * noise(1, 0.03),
        _fall(rng, share, rng.uniform(2.8, 5), rng.uniform(1.6, 2.2)) * noise(1, 0.03),
    )
    wave = _fall(rng, share, 0.1, 0.04) * noise(1, 0.04)
    vq = noise(1, 0.04) * (1 + rng.uniform(0, 0.6) * (1 - np.exp(-6 * share)))  # rises early, as the encoder spreads
    columns = {
        "adv/gen_loss/train": adversary,
        "adv/feat_loss/train": features,
        "adv/disc_loss/train": critic,
        "mel/loss/train": mel,
        "stft/loss/train": stft,
        "waveform/loss/train": wave,
        "vq/commitment_loss/train": vq,
        "vq/codebook_loss/train": vq * noise(1, 0.01),
        "loss/train": 15 * mel + stft + adversary + 2 * features + 1.25 * vq,
        "other/learning_rate/train": 1e-4 * 0.999996 ** (share * step[-1]),
        "other/grad_norm/train": noise(5, 0.4),
    }
    return _written(rng, "lsgan", step, columns, ("waveform/loss/train", "other/grad_norm/train", "loss/train"))


def encodec(seed: int) -> Table:
    rng = np.random.default_rng(seed)
    step, share, noise = _axis(rng)
    gap = rng.uniform(0.2, 1.2) * (1 - np.exp(-rng.uniform(3, 10) * share)) * noise(1, 0.05)
    centre = wandering(rng, len(step), 0.9, 0.1)
    spread = rng.normal(0, 0.6, (len(step), 64))
    real, fake = (centre + gap / 2)[:, None] + spread, (centre - gap / 2)[:, None] + spread[:, ::-1]
    critic = np.maximum(0, 1 - real).mean(1) + np.maximum(0, 1 + fake).mean(1)
    adversary = -fake.mean(1)
    features = (0.2 + 0.3 * np.abs(gap)) * noise(1, 0.06)
    mel = _fall(rng, share, rng.uniform(1.2, 2), rng.uniform(0.6, 0.95)) * noise(1, 0.03)
    spectrum = _fall(rng, share, rng.uniform(1.3, 2), rng.uniform(0.7, 0.95)) * noise(1, 0.03)
    l1 = _fall(rng, share, 0.1, 0.05) * noise(1, 0.03)
    columns = {
        "train/g_loss": mel + spectrum + l1 + np.abs(adversary) + features,
        "train/d_loss": critic,
        "train/adv": adversary,
        "train/feat": features,
        "train/l1": l1,
        "train/mel": mel,
        "train/msspec": spectrum,
        "train/penalty": 0.1 * noise(1, 0.1),
        "train/bandwidth": np.full(len(step), 6.0),
    }
    return _written(rng, "hinge", step, columns, ("train/l1", "train/penalty", "train/bandwidth", "train/adv"))


GANS: dict[str, Callable[[int], Table]] = {"VITS": vits, "DAC": dac, "EnCodec": encodec}

NAMES = {  # of transformers' Trainer, for half of the language models
    "train/loss": "loss",
    "train/ce_nats/audio": "loss",
    "train/loss/audio": "loss",
    "eval/loss": "eval_loss",
    "eval/ce_nats/audio": "eval_loss",
    "eval/loss/audio": "eval_loss",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "train/step_s": "step_time",
}


def language_model(seed: int) -> Table:
    table, facts = of_run(healthy_run(1000 + seed))
    head, rows = table.split("\n", 1)
    if seed % 2:
        head = ",".join(NAMES.get(name, name) for name in head.split(","))
    return f"{head}\n{rows}", facts


def _axis(rng: Rng) -> tuple[Values, Values, Callable[[float, float], Values]]:
    """Steps, the share of training done, and a function (level, share of it) that draws noise about a level."""
    points = int(10 ** rng.uniform(1.5, 2.9))
    step = np.arange(1, points + 1) * int(rng.choice([1, 10, 100, 200, 1000]))
    loudness, memory = rng.uniform(0.2, 1.5), rng.choice([0, 0.3, 0.8])  # means of an epoch, or single batches

    def noise(level: float, size: float) -> Values:
        return level * np.exp(wandering(rng, points, memory, loudness * size))

    return step, step / step[-1], noise


def _fall(rng: Rng, share: Values, start: float, end: float) -> Values:
    return end + (start - end) * np.exp(-rng.uniform(4, 20) * share)


def _least_squares(rng: Rng, share: Values, critics: int, warm: bool) -> tuple[Values, Values]:
    """Losses of discriminators and generator, summed; a blind discriminator scores 0.5 and its generator 0.25."""
    gap = rng.uniform(0.1, 0.45) * (np.ones_like(share) if warm else 1 - np.exp(-8 * share))
    gap = np.clip(gap[:, None] + 0.05 * rng.standard_normal((len(share), critics)), -0.2, 0.9)
    scatter = rng.uniform(0.03, 0.1)
    real, fake = 0.5 + gap / 2, 0.5 - gap / 2
    return ((1 - real) ** 2 + fake**2 + 2 * scatter).sum(1), ((1 - fake) ** 2 + scatter).sum(1)


def _written(rng: Rng, gan_loss: str, step: Values, columns: dict[str, Values], may_lack: tuple[str, ...]) -> Table:
    kept = {name: (step, values) for name, values in columns.items() if name not in may_lack or rng.random() < 0.7}
    facts = (("gan_loss", gan_loss),) if rng.random() < 0.4 else ()
    return as_table(kept), facts

"""Small runs made by their mechanism, for the tests of the rules: a table trained in numpy, losses with real noise, a
two-player game.

`table_run` really trains: a bigram table (logits of the next code given this one) by Adam on a Markov chain of codes.
Faults are planted in its pipeline (shift, mask, rate, data), never painted into the curve.
"""

import math

import numpy as np
from scipy.signal import lfilter

from earnest.run import Run, Series

CODES = 64


def series(step, value) -> Series:
    return Series(np.asarray(step, dtype=np.int64), np.asarray(value, dtype=float))


def markov_clips(rng, clips, frames, codes=CODES, sharp=3.0):
    """Clips of a random Markov chain; about half of ln `codes` is left open by the chain."""
    chain = np.exp(np.random.default_rng(17).normal(size=(codes, codes)) * sharp / 2)
    cumulative = (chain / chain.sum(1, keepdims=True)).cumsum(1)
    out = np.zeros((clips, frames), dtype=int)
    out[:, 0] = rng.integers(codes, size=clips)
    for frame in range(1, frames):
        out[:, frame] = (cumulative[out[:, frame - 1]] < rng.random((clips, 1))).sum(1).clip(max=codes - 1)
    return out


def table_run(
    seed=0,
    *,
    steps=240,
    rate=0.05,
    shift=1,
    clips=2500,
    noise_data=False,
    mask_after=None,
    train=True,
    width=0.02,
    batch=12,
    frames=24,
    facts=None,
    every=1,
) -> Run:
    """Train the table and log what a training loop would; `shift` 0 scores the token that is given, 1 the next, 2 the
    one after."""
    rng = np.random.default_rng(seed)
    draw = (lambda n: rng.integers(CODES, size=(n, frames))) if noise_data else (lambda n: markov_clips(rng, n, frames))
    data, held_out = draw(clips), draw(60)
    # a second order that only memory can use: a clip's own bias, so that few clips can be learnt by heart
    table, bias = rng.normal(size=(CODES, CODES)) * width, np.zeros((clips, frames, CODES)) if clips <= 16 else None
    moments = [np.zeros_like(table), np.zeros_like(table)]
    rows, evaluated = [], []
    for step in range(1, steps + 1):
        chosen = rng.integers(clips, size=batch)
        given, target = data[chosen][:, : frames - shift], data[chosen][:, shift:]
        logits = table[given] + (bias[chosen][:, : frames - shift] if bias is not None else 0)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        counted = (
            np.ones(target.shape, bool) if mask_after is None or step < mask_after else np.zeros(target.shape, bool)
        )
        picked = np.take_along_axis(p, target[..., None], -1)[..., 0]
        loss = -np.log(picked + 1e-30)[counted].mean() if counted.any() else math.nan
        error = (p - np.eye(CODES)[target]) * counted[..., None] / max(counted.sum(), 1)
        gradient = np.zeros_like(table)
        np.add.at(gradient, given.ravel(), error.reshape(-1, CODES))
        if not train:
            gradient[:] = 0
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.99 * moments[1] + 0.01 * gradient**2
        table = table - rate * (moments[0] / (1 - 0.9**step)) / (np.sqrt(moments[1] / (1 - 0.99**step)) + 1e-8)
        if bias is not None and train:
            np.subtract.at(bias[:, : frames - shift], chosen, 40 * rate * error * batch)
        rows.append((step, loss, (p.argmax(-1) == given).mean(), counted.mean(), math.sqrt((gradient**2).sum())))
        if step % max(1, steps // 8) == 0:
            scores = table[held_out[:, : frames - shift]]
            scores = (
                scores
                - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
                - scores.max(-1, keepdims=True)
            )
            evaluated.append((step, -np.take_along_axis(scores, held_out[:, shift:, None], -1).mean()))
    table_rows = np.array(rows)[::every]
    step = table_rows[:, 0]
    names = ("train/ce_nats/audio", "train/copy_frac/audio", "train/counted_frac/audio", "train/grad_norm")
    logged = {name: series(step, table_rows[:, column]) for column, name in enumerate(names, 1)}
    # Adam on a table takes 50 times a network's rate
    logged["train/learning_rate"] = series(step, np.full(len(step), rate * min(1, 0.02)))
    logged["eval/ce_nats/audio"] = series(*zip(*evaluated, strict=True))
    counts = np.bincount(data.ravel(), minlength=CODES)
    known = {
        "audio_vocab": CODES,
        "label_counts": {"audio": {str(code): int(count) for code, count in enumerate(counts)}},
        "held_out_clips": 60,
    }
    return Run.of(known | (facts or {}), logged)


def wandering(rng, points, memory, size):
    """Autocorrelated noise: the batch-to-batch scatter of a loss, `memory` the share kept from one logged point to the
    next."""
    return lfilter([math.sqrt(1 - memory**2)], [1, -memory], rng.normal(0, size, points))


def healthy_run(seed) -> Run:
    """A healthy run of any shape that people log: length, scale, noise, sparsity, schedule and missing columns are
    drawn by chance."""
    rng = np.random.default_rng(seed)
    points = int(10 ** rng.uniform(1.3, 3.7))
    every = int(rng.choice([1, 1, 5, 10, 50, 500]))
    step = np.arange(1, points + 1) * every
    share = step / step[-1]
    codes = int(rng.choice([1024, 1026, 1028, 2048]))
    chance, floor = math.log(codes), math.log(codes) * rng.uniform(0.3, 0.68)
    kind = rng.choice(["exponential", "power", "fine-tune", "stairs", "wide head", "anneal"])
    mean = floor + (chance - floor) * (
        (1 + share * rng.uniform(10, 200)) ** -rng.uniform(0.3, 1)
        if kind == "power"
        else np.exp(-share * rng.uniform(3, 30))
    )
    if kind == "fine-tune":
        mean = floor + rng.uniform(0, 0.05) * np.exp(-share * 5)
    if kind == "stairs":
        mean -= 0.1 * np.floor(share * 3)
    if kind == "wide head":
        mean += rng.uniform(1, 8) * np.exp(-step / (0.01 * step[-1] + 3))
    if kind == "anneal":
        mean -= 0.4 * np.clip(share - 0.8, 0, None) / 0.2
    loss = mean + wandering(rng, points, rng.choice([0, 0.3, 0.8, 0.95]), rng.uniform(0.01, 0.15))
    if rng.random() < 0.3 and points > 50:  # a spike that returns
        at = rng.integers(points // 4, points - 5)
        loss[at : at + 2] += rng.uniform(0.5, 5)
    name = rng.choice(["ce_nats/audio", "loss", "loss/audio"])
    logged = {f"train/{name}": series(step, loss)}
    if rng.random() < 0.7:
        at = np.unique(np.linspace(0, points - 1, int(rng.integers(3, 40))).astype(int))
        offset = rng.uniform(-0.4, 0.4)  # below training with dropout
        logged[f"eval/{name}"] = series(
            step[at], mean[at] + offset + wandering(rng, len(at), rng.choice([0, 0.5]), rng.uniform(0.002, 0.05))
        )
    if rng.random() < 0.7:
        logged["train/grad_norm"] = series(
            step, np.exp(rng.normal(0, 0.4, points)) * rng.uniform(0.1, 3) * (1 + 5 * np.exp(-share * 50))
        )
    warm = np.minimum(1, step / (rng.uniform(0.01, 0.2) * step[-1]))
    schedules = [
        warm,
        warm * (0.5 + 0.5 * np.cos(np.pi * share)),
        warm * (1 - share),
        warm * np.minimum(1, (1.001 - share) / 0.2),
        share**0,
    ]
    if rng.random() < 0.7:
        logged["train/learning_rate"] = series(
            step, schedules[rng.integers(len(schedules))] * 10 ** rng.uniform(-5.5, -3)
        )
    if rng.random() < 0.5:
        logged["train/step_s"] = series(step, np.exp(rng.normal(-1, 0.3, points)))
    facts = {"audio_vocab": codes, "max_grad_norm": 5.0, "steps_per_epoch": max(1, int(step[-1]) // 3), "codebooks": 8}
    return Run.of({fact: value for fact, value in facts.items() if rng.random() < 0.6}, logged)


def cut(run: Run, step: int) -> Run:
    """The run as it stood at a step."""
    kept = {name: Series(one.step[one.step <= step], one.value[one.step <= step]) for name, one in run.series.items()}
    return Run.of(run.facts, {name: one for name, one in kept.items() if len(one)}, run.probes, run.artifacts)


def gan_run(seed, strength, points=150) -> Run:
    """Hinge scores of a discriminator whose gap is `strength` of the share of training done, and the losses that follow
    from them."""
    rng = np.random.default_rng(seed)
    step = np.arange(1, points + 1) * 20
    gap, centre = strength(step / step[-1]), wandering(rng, points, 0.9, 0.2)
    audio = rng.normal(0, 0.6, (points, 64))
    real, fake = (
        centre[:, None] + gap[:, None] / 2 + audio,
        centre[:, None] - gap[:, None] / 2 + rng.normal(0, 0.6, (points, 64)),
    )
    return Run.of(
        {},
        {
            "train/d_real": series(step, real.mean(1)),
            "train/d_fake": series(step, fake.mean(1)),
            "train/loss/loss_d": series(step, np.maximum(0, 1 - real).mean(1) + np.maximum(0, 1 + fake).mean(1)),
            "train/loss/adv_g": series(step, -fake.mean(1)),
            "train/loss/feat": series(step, (0.02 + 0.05 * np.abs(gap)) * np.exp(rng.normal(0, 0.05, points))),
            "train/loss/mel": series(step, 0.4 + 1.6 * np.exp(-step / 400) + rng.normal(0, 0.01, points)),
        },
    )

"""One log for each kind of fault that was seen on strangers' logs; the curves are made up."""

import json
import math

import numpy as np

from tests.strangers.curves import Files, Logs, about, csv, fall, flat, join, ramp, rows

LOGS = Logs()


@LOGS.add
def s01_short_jump(rng: np.random.Generator) -> Files:
    scale = about(rng, 1)
    losses = (2.41, 2.39, 2.44, 6.93, 6.88, 6.71)
    norms = (0.8, 0.9, 19.0, 44.0, 30.0, 28.0)
    lines = [
        f"step {900 + i} | loss {scale * loss:.3f} | grad_norm {norm:.2f} | lr 1e-04\n"
        for i, (loss, norm) in enumerate(rows(losses, norms))
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s02_slow_rise(rng: np.random.Generator) -> Files:
    bottom = about(rng, 5)
    loss = join(fall(rng, 60, 9, bottom, 0.5), ramp(rng, 180, bottom, 1.5 * bottom, 0.5))
    rate = [4e-4 * (1 - i / 240) for i in range(240)]
    return {"log.csv": csv("step,loss,lr", range(0, 12000, 50), loss, rate)}


@LOGS.add
def s03_part_off_in_this_phase(rng: np.random.Generator) -> Files:
    total = fall(rng, 60, 4, about(rng, 1.5), 0.05)
    return {
        "log.csv": csv("step,loss_total,mel,vq_loss,lr", range(0, 6000, 100), total, total / 2, [0.0] * 60, [1e-4] * 60)
    }


@LOGS.add
def s04_least_squares_gan(rng: np.random.Generator) -> Files:
    columns = [flat(rng, 80, about(rng, 4.1), 0.05), flat(rng, 80, 3.3, 0.1), flat(rng, 80, 0.9, 0.05)]
    names = "step,loss_disc,loss_gen,loss_fm,loss_mel"
    return {"log.csv": csv(names, range(0, 3200, 40), *columns, fall(rng, 80, 9, about(rng, 4), 0.1))}


@LOGS.add
def s05_settings_above_the_log(rng: np.random.Generator) -> Files:
    source = (
        "class Args:\n    lr : float = 0.07\n    val_loss_every : int = 50\n    for step in range(args.steps):\n"
        "        if step % args.val_loss_every == 0: pass\n" + "=" * 60 + "\n"
    )
    lines = []
    for i, loss in enumerate(fall(rng, 401, 10.1, about(rng, 4), 0.05)):
        lines.append(f"step:{i}/400 train_loss:{loss:.4f} train_time:{i * 90}ms\n")
        if i % 50 == 0:
            lines.append(f"step:{i}/400 val_loss:{loss + 0.03:.4f}\n")
    return {"log.txt": source + "".join(lines)}


@LOGS.add
def s06_bare_lists(rng: np.random.Generator) -> Files:
    lines = ["{'train': {'learning_rate': 0.0005, 'batch_size': 4}, 'model': {'n_layers': 5}}\n"]
    for i, mel in enumerate(fall(rng, 40, 55, about(rng, 31), 0.5)):
        head = f"2024-01-01 10:{i:02d}:00,000\tx\tINFO\t"
        lines.append(f"{head}Train Epoch: {i // 5} [{i % 5 * 20}%]\n")
        lines.append(f"{head}[{1.5 + 0.1 * rng.standard_normal():.4f}, 3.100, {mel:.4f}, 0.700, {i * 150}, 0.0005]\n")
    return {"log.txt": "".join(lines)}


@LOGS.add
def s07_one_report(rng: np.random.Generator) -> Files:
    head = "2024-01-01 10:00:00,000 (trainer:87) INFO: (Steps: 30000) train/"
    lines = [f"{head}ppl_{k} = {1 + rng.uniform(0.01, 0.08):.4f}.\n" for k in range(6)]
    return {"log.txt": "".join(lines) + f"{head}mel_loss = {about(rng, 38.2):.4f}.\n"}


@LOGS.add
def s08_diverged_and_stayed(rng: np.random.Generator) -> Files:
    bottom = about(rng, 2.2)
    loss = join(fall(rng, 60, 4, bottom, 0.02), flat(rng, 40, 1.6 * bottom, 0.02))
    return {"log.csv": csv("step,loss", range(0, 20000, 200), loss)}


def _a_part_sets_in(rng: np.random.Generator, mel_after: float) -> Files:
    mel = join(fall(rng, 40, 2.2, 1.2, 0.05), flat(rng, 160, mel_after, 0.05))
    quantiser = join(np.zeros(40), np.abs(flat(rng, 160, about(rng, 40), 8)))
    phase = ["A"] * 40 + ["B"] * 160
    columns = [range(0, 60000, 300), phase, mel + quantiser, mel, quantiser]
    return {"log.csv": csv("step,phase,loss_total,mel,vq_loss", *columns)}


@LOGS.add
def s09_a_part_sets_in(rng: np.random.Generator) -> Files:
    return _a_part_sets_in(rng, 1.2)


@LOGS.add
def s30_a_part_swallows_the_total(rng: np.random.Generator) -> Files:
    return _a_part_sets_in(rng, 1.8)


@LOGS.add
def s10_small_regulariser(rng: np.random.Generator) -> Files:
    main, small = fall(rng, 26, 5.2, about(rng, 2.1), 0.02), join(np.array([0.2]), flat(rng, 25, about(rng, 0.5), 4e-3))
    return {"log.csv": csv("step,loss,loss_0,loss_1", range(0, 13000, 500), main + small, main, small)}


@LOGS.add
def s11_blocks_of_evaluation(rng: np.random.Generator) -> Files:
    held_out = join(fall(rng, 15, 1.2, 0.7, 0.03), ramp(rng, 45, 0.7, about(rng, 1.2), 0.1))
    lines = []
    for e, (mel, kl, eval_kl) in enumerate(rows(fall(rng, 60, 40, 28, 0.2), fall(rng, 60, 1.2, 0.6, 0.02), held_out)):
        lines.append(
            f" > EPOCH: {e}/60\n > TRAINING\n   --> STEP: 9/9 -- GLOBAL_STEP: {e * 9 + 9}\n"
            f"     | > loss_mel: {mel:.4f}  ({mel:.4f})\n     | > loss_kl: {kl:.4f}  ({kl:.4f})\n"
            f" --> EVAL PERFORMANCE\n     | > avg_loss_mel: {mel + 0.2:.4f} (+0.01)\n"
            f"     | > avg_loss_kl: {eval_kl:.4f} (+0.01)\n"
        )
    return {"log.txt": "".join(lines)}


@LOGS.add
def s12_rate_of_nothing(rng: np.random.Generator) -> Files:
    values = f"     | > loss_gen: {about(rng, 8.2):.2f}\n     | > current_lr: 6.2e-61\n     | > grad_norm: 3.4\n"
    return {"log.txt": "   --> STEP: 3/50 -- GLOBAL_STEP: 90000\n" + values}


@LOGS.add
def s13_frozen_ramp(rng: np.random.Generator) -> Files:
    losses = about(rng, 1) * np.array([9.1, 7.7, 6.9, 6.3, 5.9, 5.7, 5.69, 5.68, 5.68, 5.67])
    lines = [
        f"1epoch:train:{i * 500 + 1}-{i * 500 + 500}batch: forward_time=0.2, loss={loss:.3f}, "
        f"optim_step_time={'0.031' if i < 6 else 'nan'}, optim0_lr0={min(2e-5 * i + 1e-5, 1.2e-4):.3e}, "
        "train_time=0.7\n"
        for i, loss in enumerate(losses)
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s14_the_log_says_it(rng: np.random.Generator) -> Files:
    return {
        "log.txt": f"step=10 loss={about(rng, 12.3):.1f} acc=0.4 lr=0.002\n"
        + "WARNING: The grad norm is nan. Skipping updating the model.\n" * 6
        + "WARNING: overflow detected, setting loss scale to: 0.125\n"
        + "WARNING: overflow detected, setting loss scale to: 0.0625\n"
        + "RuntimeError: CUDA error: device-side assert triggered\n"
    }


@LOGS.add
def s15_sum_over_frames(rng: np.random.Generator) -> Files:
    lines = [
        f"Epoch 4, batch {i * 100}, train_loss[loss={loss:.1f}, over 900.00 frames. ], "
        f"tot_loss[loss={'nan' if i > 6 else f'{loss:.2f}'}, over 70000.0 frames. ], batch size: 3, lr: 2e-03, "
        f"grad_scale: {2.0 ** (2 - 2 * i)}\n"
        for i, loss in enumerate(fall(rng, 10, 75, about(rng, 48), 1))
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s16_typographic_quotes(rng: np.random.Generator) -> Files:
    start = about(rng, 2.1)
    lines = [
        f"{{‘loss’: {start + 0.03 * i:.3f}, ‘grad_norm’: 0.9, ‘learning_rate’: {2e-4 * (1 - i / 15):.2e}, "
        f"‘epoch’: {0.25 * i:.2f}}}\n"
        for i in range(13)
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s17_long_above_chance(rng: np.random.Generator) -> Files:
    high = about(rng, 15)
    loss = join(flat(rng, 70, high, 0.3), flat(rng, 60, 9, 0.05), ramp(rng, 60, 7.2, 6.8, 0.05))
    rate = [8 if i < 70 else 2 if i < 130 else 0.5 for i in range(190)]
    return {"log.csv": csv("step,loss,lr", range(0, 38000, 200), loss, rate)}


@LOGS.add
def s18_flat_epochs(rng: np.random.Generator) -> Files:
    lines = ["loss,accuracy,val_loss,val_accuracy\n"]
    for _ in range(80):
        loss, accuracy, held_out = 1.9459 + 0.001 * rng.standard_normal(3) * [1, 5, 1]
        lines.append(f"{loss:.4f},{accuracy - 1.9459 + 0.143:.4f},{held_out:.4f},0.14\n")
    return {"log.csv": "".join(lines)}


@LOGS.add
def s19_rounded(rng: np.random.Generator) -> Files:
    lines = [f"step: {i} | total loss: {x:.3f} | recon loss: 0.002\n" for i, x in enumerate(flat(rng, 9, 2.2, 0.2))]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s20_labelled_runs(rng: np.random.Generator) -> Files:
    lines = [
        f"exp_{r:02d},{i * (100 if r % 2 else 120) + r * 3},{loss:.3f}\n"
        for r in range(8)
        for i, loss in enumerate(fall(rng, 12, 4, about(rng, 2), 0.05))
    ]
    return {"runs.csv": "run,step,loss\n" + "".join(lines)}


@LOGS.add
def s21_pretrained_far_above(rng: np.random.Generator) -> Files:
    losses = about(rng, 4.9) + 17 * np.exp(-np.arange(60) / 2.5) + 0.1 * rng.standard_normal(60)
    history = [
        {
            "step": 5 * (i + 1),
            "loss": float(loss),
            "grad_norm": 1.0,
            "learning_rate": 1e-4 * (1 - i / 60),
            "epoch": i / 30,
        }
        for i, loss in enumerate(losses)
    ]
    return {"trainer_state.json": json.dumps({"log_history": history, "max_steps": 300})}


@LOGS.add
def s23_second_file(rng: np.random.Generator) -> Files:
    watch = [f"epoch,{i},[],{i * 0.4:.3f},fine\n" for i in range(0, 40, 5)]
    return {
        "log.csv": csv("epoch,loss", range(40), fall(rng, 40, 2, about(rng, 1), 0.01)),
        "watch.log": "kind,current_epoch,issues,time_usage,text\n" + "".join(watch),
    }


@LOGS.add
def s23_notes_as_log(rng: np.random.Generator) -> Files:
    lines = [
        f"| epoch 1 | {i}/100 batches | loss {loss:.2f} | ppl {math.exp(loss):.2f}\n"
        for i, loss in enumerate(fall(rng, 40, 7, about(rng, 5), 0.01))
    ]
    return {"run.md": "".join(lines)}


@LOGS.add
def s24_bookkeeping_names(rng: np.random.Generator) -> Files:
    losses = fall(rng, 30, 9, about(rng, 4), 0.02)
    best = np.minimum.accumulate(losses)
    lines = [
        f"step {i * 100} | loss {loss:.3f} | best_loss {low:.3f} | loss_weights 0.3\n"
        for i, (loss, low) in enumerate(rows(losses, best))
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s25_one_part_learns(rng: np.random.Generator) -> Files:
    wave, stft = flat(rng, 1500, about(rng, 1.3), 0.01), fall(rng, 1500, 0.9, 0.4, 0.01)
    return {"log.csv": csv("step,loss,loss_l1,loss_stft", range(1500), wave + stft, wave, stft)}


@LOGS.add
def s26_loss_is(rng: np.random.Generator) -> Files:
    lines = [
        f"[Epoch 3 {5000 + i * 64}/50000][Iteration {780 + i}] Trained 64 records in 1.1 seconds. "
        f"Loss is {loss:.5f}. Current learning rate is 0.01.\n"
        for i, loss in enumerate(fall(rng, 40, 4.6, about(rng, 2.2), 0.02))
    ]
    return {"log.txt": "".join(lines)}


@LOGS.add
def s27_abbreviated(rng: np.random.Generator) -> Files:
    losses = fall(rng, 200, 9.7, about(rng, 3.9), 0.02)
    return {"log.txt": "".join(f"s:{i * 10} trl:{loss:.4f} lr:6e-4 norm:0.7\n" for i, loss in enumerate(losses))}


@LOGS.add
def s28_generalisation_gap(rng: np.random.Generator) -> Files:
    pairs = rows(fall(rng, 40, 6.1, about(rng, 2.5), 0.01), fall(rng, 40, 5.6, 4.1, 0.003))
    return {
        "log.txt": "".join(
            f"Epoch {i + 1} | Train Loss: {a:.3f} | Valid Loss: {b:.3f}\n" for i, (a, b) in enumerate(pairs)
        )
    }


@LOGS.add
def s29_number_in_name(rng: np.random.Generator) -> Files:
    lines = [
        f"codec total loss: {loss:.3f}, codec recon loss: 0.5 | critic (band 1) loss: 0.000 | "
        "critic (band 2) loss: 0.000\n"
        for loss in fall(rng, 30, 90, about(rng, 70), 1)
    ]
    return {"log.txt": "".join(lines)}

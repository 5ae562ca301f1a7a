"""Logs with the mechanism of public bug reports, and in the form that they were posted in; every curve is made up.

The number of a log is that of the report (docs/log.md has the list with sources).
"""

import json
import math

import numpy as np

from tests.strangers.curves import Files, Logs, about, csv, every, fall, flat, join, ramp, rows
from tests.strangers.events import event_file

LOGS = Logs()
EPOCH = 115  # steps of one pass in the CosyVoice logs


@LOGS.add
def L01_cosyvoice_tb(rng: np.random.Generator) -> Files:
    """A fine-tune of one voice that memorises it; two earlier starts lie in the same folder, one of them empty."""
    steps = np.arange(10, 5751, 10)
    loss = np.maximum(about(rng, 2.15) * np.exp(-steps / 450) * (1 + 0.04 * rng.standard_normal(len(steps))), 4e-4)
    cv_steps = np.arange(EPOCH, 5751, EPOCH)
    cv = 3.35 + 4.65 * (1 - np.exp(-(cv_steps - EPOCH) / 1500)) + 0.01 * rng.standard_normal(len(cv_steps))
    events: list[tuple[int, dict[str, float]]] = [
        (
            step,
            {"TRAIN/epoch": step // EPOCH, "TRAIN/lr": 1e-5, "TRAIN/grad_norm": 1.5, "TRAIN/loss": x, "TRAIN/acc": a},
        )
        for step, x, a in zip(steps.tolist(), loss, np.exp(-loss / 2), strict=True)
    ]
    accuracy = 0.31 - 0.04 * (cv - 3.35) / 4.65
    events += [(s, {"CV/loss": x, "CV/acc": a}) for s, x, a in zip(cv_steps.tolist(), cv, accuracy, strict=True)]
    early = [(step, {"TRAIN/loss": x}) for step, x in enumerate(fall(rng, 143, 2.1, 1.3, 0.03).tolist(), 1)]
    return {
        "events.out.tfevents.1772371770.host.1.0": event_file([]),
        "events.out.tfevents.1772420540.host.2.0": event_file(early),
        "events.out.tfevents.1772420765.host.3.0": event_file(sorted(events, key=lambda event: event[0])),
    }


@LOGS.add
def L02_cosyvoice176(rng: np.random.Generator) -> Files:
    losses = about(rng, 1) * np.array([2.80, 1.07, 1.13, 1.00, 0.91, 0.77, 1.02])
    accuracies = (0.0, 0.266, 0.242, 0.287, 0.322, 0.409, 0.270)
    rates = (2.7e-6, 8.8e-4, 1.76e-3, 1.74e-3, 1.51e-3, 1.35e-3, 1.23e-3)
    lines = [
        f"2024-07-17 17:{i:02d}:23,040 DEBUG TRAIN Batch {i}/100 loss {loss:.6f} acc {acc:.6f} lr {rate:.8f} "
        "grad_norm 0.000000 rank 0\n"
        for i, (loss, acc, rate) in enumerate(rows(losses, accuracies, rates))
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def L04_audiocraft212(rng: np.random.Generator) -> Files:
    entries = []
    overflowed = {0, 1, 3, 5, 6, 8, 10, 11, 13, 15}
    for i, ce in enumerate(np.linspace(3.52, about(rng, 3.42, 0.01), 16)):
        norm = (math.inf, math.nan)[i % 2] if i in overflowed else about(rng, 1.3)
        train = {
            "lr": 1e-5,
            "grad_norm": norm,
            "grad_scale": about(rng, 6e4, 0.4),
            "ce": ce,
            "ppl": math.exp(ce + 0.285),
        }
        train |= {f"ce_q{k + 1}": ce + offset for k, offset in enumerate((-0.9, -0.1, 0.3, 0.7))}
        valid = {"ce": ce + 0.08, "ppl": math.exp(ce + 0.26), "duration": 133.2}
        entries.append({"train": train | {"duration": 2471.1}, "valid": valid})
    return {"history.json": json.dumps(entries)}


@LOGS.add
def L07b_hifigan107(rng: np.random.Generator) -> Files:
    loss = join(fall(rng, 60, 42, 22, 0.7), ramp(rng, 141, 22, about(rng, 34, 0.03), 0.7))
    train = join(fall(rng, 60, 0.74, 0.24, 0.01), ramp(rng, 141, 0.24, 0.34, 0.01))
    held_out = every(201, 2, ramp(rng, 100, 0.75, 0.365, 0.002).tolist())
    names = "step,training/gen_loss_total,training/mel_spec_error,validation/mel_spec_error"
    return {"scalars.csv": csv(names, range(0, 100500, 500), loss, train, held_out)}


@LOGS.add
def L09_fish171(rng: np.random.Generator) -> Files:
    mel = fall(rng, 201, 2.15, about(rng, 0.54), 0.03)
    names = "epoch,step,train/generator/loss,train/generator/loss_mel,train/generator/loss_vq,train/generator/loss_adv"
    adversary, critic = flat(rng, 201, 1.95, 0.08), flat(rng, 201, 1.85, 0.04)
    columns = [range(0, 50250, 250), mel + 0.1 * adversary, mel, [0.0] * 201, adversary, critic]
    epoch = [i // 10 for i in range(201)]
    return {"metrics.csv": csv(names + ",train/discriminator/loss", epoch, *columns)}


@LOGS.add
def L10_funcodec31(rng: np.random.Generator) -> Files:
    nll, l1, l2 = (
        fall(rng, 106, 6.7, about(rng, 4.3, 0.02), 3e-3),
        fall(rng, 106, 2.3, 1.75, 3e-3),
        fall(rng, 106, 3.7, 2.87, 3e-3),
    )
    lines = []
    for i, (x, a, b) in enumerate(rows(nll, l1, l2)):
        batch = i % 10 * 1000
        lines.append(
            f"[gpu01] 2024-03-20 {i // 60:02d}:{i % 60:02d}:00,000 (trainer:721) INFO: {i // 10 + 1}epoch:train:"
            f"{batch + 1}-{batch + 1000}batch: iter_time=1.1e-04, forward_time=0.091, loss={x + (a + b) / 2:.3f}, "
            f"nll_loss={x:.3f}, reg_loss={(a + b) / 2:.3f}, reg_l1_loss={a:.3f}, reg_l2_loss={b:.3f}, "
            f"out_acc_1={0.167 - 0.05 * (x - 4.3):.3f}, out_acc_2={0.1 - 0.03 * (x - 4.3):.3f}, backward_time=0.12, "
            f"optim_step_time=0.05, optim0_lr0={min(1e-4, 1e-5 * (i + 1)):.3e}, train_time=0.9\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def L12_encodecpytorch26(rng: np.random.Generator) -> Files:
    lines = []
    total, critic = fall(rng, 100, 17, about(rng, 8.5), 0.02, rate=4), ramp(rng, 100, 1.98, 1.87, 0.012)
    for i, (g, d) in enumerate(rows(total, critic)):
        rate = 5e-5 * (0.02 + 0.98 * (1 + math.cos(math.pi * i / 100)) / 2)
        lines.append(
            f"2024-07-13 17:12:10,985: INFO: [train_with_torchrun.py: 146]: Epoch {i + 1} 120/120\tAvg loss_G: "
            f"{g:.4f}\t"
            f"Avg losses_G: l_t: {g / 120:.4f}\tl_f: {g * 0.69:.4f}\tl_g: {0.3 + g / 40:.4f}\tl_feat: "
            f"{0.15 + g / 80:.4f}\t"
            f"Avg loss_W: {g * 0.0155:.4f}\tlr_G: {rate:.6e}\tlr_D: {rate:.6e}\tloss_disc: {d:.4f}\n"
        )
    test = f"| TEST | epoch: 100 | loss_g: {total[-1] * 0.8:.6f} | loss_disc: {critic[-1]:.4f}\n"
    return {"train.log": "".join(lines) + f"2024-07-13 17:12:39,658: INFO: [train_with_torchrun.py: 165]: {test}"}


@LOGS.add
def L14_gptsovits1389(rng: np.random.Generator) -> Files:
    losses, accuracy = fall(rng, 15 * 28, about(rng, 3100), 1400, 80, rate=4), np.linspace(0.185, 0.49, 15 * 28)
    pieces = []
    for i, (loss, acc) in enumerate(rows(losses, accuracy)):
        epoch, at = divmod(i, 28)
        pieces.append(
            f"Epoch {epoch}: {(at + 1) * 100 // 28:3d}%|██████▉   | {at + 1}/28 "
            f"[00:{at + 1:02d}<00:{27 - at:02d},  1.91it/s, "
            f"v_num=1, total_loss_step={loss:.2e}, lr_step=0.010, top_3_acc_step={acc:.3f}, "
            f"total_loss_epoch={loss:.2e}, lr_epoch=0.010, top_3_acc_epoch={acc:.3f}]" + ("\n" if at == 27 else "\r")
        )
    return {"stdout.txt": "".join(pieces)}


@LOGS.add
def L15_llase6(rng: np.random.Generator) -> Files:
    train, held_out = fall(rng, 60, 10.4, 2.05, 0.03, rate=5), fall(rng, 60, 8.18, about(rng, 7.0, 0.02), 0.02, rate=12)
    accuracy = (0.04 * (1 - np.exp(-np.arange(60) / 6))).tolist()
    return {"log.csv": csv("epoch,train_ce_loss,val_ce_loss,val_acc", range(60), train, held_out, accuracy)}


@LOGS.add
def L17_msswift4711(rng: np.random.Generator) -> Files:
    peak = about(rng, 1.5e-5)
    lines = []
    for i in range(1, 31):
        row = {
            "loss": 0.0,
            "grad_norm": 0.0,
            "learning_rate": peak * i,
            "memory(GiB)": 72.64,
            "train_speed(iter/s)": 0.011,
        }
        row |= {"epoch": 0.0071 * i, "global_step/max_steps": f"{i}/420", "percentage": f"{i / 4.2:.2f}%"}
        lines.append(json.dumps(row | {"elapsed_time": f"{i}m 30s", "remaining_time": "10h 30m 51s"}) + "\n")
    return {"logging.jsonl": "".join(lines)}


@LOGS.add
def L18_msswift2280(rng: np.random.Generator) -> Files:
    lines = []
    for i, loss in enumerate(flat(rng, 40, about(rng, 2.09, 0.02), 0.03), 1):
        norm = 6.08 if i == 1 else "nan"
        lines.append(
            f"{{'loss': {loss:.7f}, 'token_acc': {0.52 + 0.01 * rng.standard_normal():.8f}, 'grad_norm': {norm}, "
            f"'learning_rate': 1e-05, 'memory(GiB)': 65.89, 'train_speed(iter/s)': 0.025912, 'epoch': 0.0, "
            f"'global_step/max_steps': '{i}/2046', 'percentage': '{i / 20.46:.2f}%', 'elapsed_time': '{14 * i}s', "
            f"'remaining_time': '8h 17m 1s'}}\nTrain:   0%|          | {i}/2046 [00:14<8:16:53, 14.58s/it]\n"
        )
    minimal = csv("step,loss,grad_norm", range(1, 60), ramp(rng, 59, 2.0899, 2.0841, 0), ["nan"] * 59)
    return {"console.log": "".join(lines), "minimal_all_nan.csv": minimal}


@LOGS.add
def L20_llamafactory7388(rng: np.random.Generator) -> Files:
    lines = []
    for i in range(21):
        step, loss = max(1, 10 * (i + 1)), about(rng, 60.57) if i == 0 else 0.0
        lines.append(
            f"  {step * 100 // 249}%|███      | {step if i else 1}/249 [0{i % 10}:23<1:17:48, 20.48s/it]"
            f"{{'loss': {loss:.4f}, 'grad_norm': nan, 'learning_rate': {8e-6 * (i + 1):.1e}, 'epoch': "
            f"{0.12 * (i + 1):.2f}}}\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def L23_scnet14(rng: np.random.Generator) -> Files:
    head, lines = "2024-08-25 14:12:43,465 - INFO - ", []
    for e, (train, held_out) in enumerate(
        rows((0.27, 0.24, 0.22, *[math.nan] * 4), (0.25, 0.21, 0.2, 0.19, *[math.nan] * 3)), 1
    ):
        scale = about(rng, 1, 0.03)
        lines.append(
            f"{head}Learning rate adjusted to 0.0005\n{head}{'-' * 70}\n{head}Training Epoch {e} ...\n"
            f"{head}Train Summary | Epoch {e} | Loss={scale * train:.4f} | "
            f"Grad={3.1 + 0 * train:.4f}\n{head}Cross validation...\n"
            f"{head}Valid Summary | Epoch {e} | Loss={scale * held_out:.4f} | Nsdr={9 - 10 * held_out:.3f} | "
            f"Nsdr_vocals={9.1 - 10 * held_out:.3f} | Nsdr_other={8.9 - 10 * held_out:.3f}\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def L24_caikit208(rng: np.random.Generator) -> Files:
    lines = []
    for i, loss in enumerate(fall(rng, 300, 5.6, about(rng, 1.8), 0.06), 1):
        data = {"epoch": round(i / 300, 2), "step": i, "value": round(float(loss), 4)}
        when = f"2023-09-26T19:{i // 60:02d}:{i % 60:02d}.000000"
        lines.append(json.dumps({"name": "loss", "data": data | {"timestamp": when}}) + "\n")
    return {"training_logs.jsonl": "".join(lines)}


@LOGS.add
def L25_espnet5090(rng: np.random.Generator) -> Files:
    lines = []
    levels = fall(rng, 60, 1.22, about(rng, 0.5), 0.012)
    for i, loss in enumerate(levels):
        epoch, part = divmod(i, 4)
        accuracy = 0.33 + 0.03 * epoch
        head = "[h1] 2023-04-01 10:01:00,000 (trainer:732) INFO: "
        lines.append(
            f"{head}{epoch + 1}epoch:train:{part * 250 + 1}-{part * 250 + 250}batch: iter_time=1.2e-04, "
            "forward_time=0.101, "
            f"loss={loss:.3f}, acc={accuracy:.3f}, backward_time=0.1, "
            f"grad_norm={2.2 + 0.1 * rng.standard_normal():.3f}, "
            f"clip=0.000e+00, loss_scale=1.000, optim_step_time=0.03, optim0_lr0=1.0e-04, train_time=0.5\n"
        )
        if part == 3:
            mean = levels[i - 1 : i + 1].mean()
            held_out = 4 * mean * (1 + 0.003 * rng.standard_normal())
            lines.append(
                f"{head}{epoch + 1}epoch results: [train] iter_time=1.2e-04, forward_time=0.1, loss={mean:.3f}, "
                f"acc={accuracy:.3f}, train_time=0.5, time=4 minutes and 1.2 seconds, "
                f"total_count={epoch * 1000 + 1000}, "
                f"gpu_max_cached_mem_GB=8.1, [valid] loss={held_out:.3f}, acc={accuracy - 0.01:.3f}, time=11.2 "
                "seconds, "
                f"total_count={epoch * 50 + 50}\n"
            )
    return {"train.log": "".join(lines), "config.yaml": "accum_grad: 4\ngrad_clip: 5.0\nmax_epoch: 15\n"}


@LOGS.add
def L26_emovoice5(rng: np.random.Generator) -> Files:
    config = {"model_name": "tts", "batch_size_training": 4, "num_epochs": 50, "total_steps": 300000, "use_fp16": True}
    pieces = [
        f"Training Epoch: 1/50, step {i}/4302 completed (loss: nan, acc: 0.0, audio_acc: 0.0):   {i // 43}%|      "
        "    | "
        f"{i}/4302 [00:{i % 60:02d}<1:10:11,  1.02it/s]"
        for i in range(0, 200, 2)
    ]
    return {"train.log": f"[2025-06-04 22:34:59][root][INFO] - train_config: {config}\n" + "\r".join(pieces) + "\n"}


@LOGS.add
def L29_transformers38837(rng: np.random.Generator) -> Files:
    lines = []
    for i, loss in enumerate(fall(rng, 36, about(rng, 1.28), 0.55, 0.01, rate=2)):
        epoch, at = divmod(i, 3)
        share = 0.5 if at == 2 else 1
        lines.append(
            f"{{'loss': {share * loss:.4f}, 'grad_norm': {36 * share * loss:.4f}, 'learning_rate': "
            f"{1e-4 * (1 - i / 40):.3e}, "
            f"'epoch': {epoch + (0.4, 0.8, 1.0)[at]:.1f}}}\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def L32_stableaudio144(rng: np.random.Generator) -> Files:
    points, at = 301, 260
    stft, adversary, features = (
        fall(rng, points, 3.8, about(rng, 1.6), 0.02),
        flat(rng, points, 1.05, 0.05),
        flat(rng, points, 4.9, 0.2),
    )
    critic = flat(rng, points, 1.9, 0.03)
    columns = [stft + adversary + 0.04 * features, stft, adversary, features, critic]
    for column in columns:
        column[at:] = math.nan
    names = "step,train/loss,train/mrstft_loss,train/loss_adv,train/feature_matching_distance,train/discriminator_loss"
    return {"metrics.csv": csv(names + ",train/lr", range(0, 6020, 20), *columns, [1.5e-4] * points)}


@LOGS.add
def L33_unsloth1957(rng: np.random.Generator) -> Files:
    return {"pasted.txt": "Step\tTraining Loss\n" + "".join(f"{step}\t0.000000\n" for step in range(10, 310, 10))}


@LOGS.add
def L34_vits14(rng: np.random.Generator) -> Files:
    points = 401
    features = fall(rng, points, 2.1, about(rng, 8), 0.3, rate=4)
    mel, kl = fall(rng, points, 27, about(rng, 18), 0.5), fall(rng, points, 1.44, 1.35, 0.05)
    critic, norms = flat(rng, points, 2.44, 0.09), [flat(rng, points, 12, 1.5), flat(rng, points, 175, 12)]
    duration = fall(rng, points, 1.6, 1.3, 5e-4)
    columns = [critic, features + mel + kl + duration + flat(rng, points, 2.6, 0.2), features, mel, duration, kl]
    names = (
        "step,learning_rate,grad_norm_d,grad_norm_g,loss/d/total,loss/g/total,loss/g/fm,loss/g/mel,loss/g/dur,loss/g/kl"
    )
    rate = (2e-4 * 0.99994 ** np.arange(points)).tolist()
    return {"scalars.csv": csv(names, range(0, 40100, 100), rate, *norms, *columns)}


@LOGS.add
def L35_hifigan17_disc(rng: np.random.Generator) -> Files:
    mel = fall(rng, 100, 0.84, about(rng, 0.28), 0.01)
    critic = fall(rng, 100, 6.2, 4.45, 0.1)
    lines = [
        json.dumps(
            {
                "step": 100 * (i + 1),
                "loss_gen_all": round(25 * m + 1.5, 3),
                "loss_disc_all": round(d, 3),
                "mel_error": round(m, 4),
                "lr": 1e-5,
            }
        )
        + "\n"
        for i, (m, d) in enumerate(rows(mel.tolist(), critic.tolist()))
    ]
    return {"log.jsonl": "".join(lines)}


@LOGS.add
def L37_cosyvoice_epoch_sawtooth(rng: np.random.Generator) -> Files:
    """Batches go from short to long clips within an epoch; the same place of each epoch is lower in the next."""
    loss = join(*(ramp(rng, EPOCH, top, bottom, 0.03) for top, bottom in ((2.1, 1.07), (1.75, 0.61), (1.5, 0.25))))
    loss *= about(rng, 1, 0.03)
    epoch = [i // EPOCH for i in range(3 * EPOCH)]
    return {
        "first_three_epochs.csv": csv("step,epoch,loss,acc", range(1, 3 * EPOCH + 1), epoch, loss, np.exp(-loss / 1.2))
    }

"""Kinds of fault that have no log of their own among the others: one log for each."""

import json

import numpy as np

from tests.strangers.curves import Files, Logs, about, csv, every, fall, flat, join, ramp, rows

LOGS = Logs()


@LOGS.add
def one_zero_norm(rng: np.random.Generator) -> Files:
    return {
        "paste.txt": f"{{'loss': {about(rng, 3.4):.4f}, 'grad_norm': 0.0, 'learning_rate': 2e-05, 'epoch': 0.02}}\n"
    }


@LOGS.add
def scale_halves_each_row(rng: np.random.Generator) -> Files:
    losses = flat(rng, 9, about(rng, 5.2), 0.02)
    lines = [f"step {i + 1} | loss {x:.3f} | loss_scale {65536 / 2**i:g} | lr 1e-05\n" for i, x in enumerate(losses)]
    return {"paste.txt": "".join(lines)}


@LOGS.add
def one_part_is_the_total(rng: np.random.Generator) -> Files:
    lines = []
    for step, adversary in ((1000, 0.77), (1200, 0.81), (1400, about(rng, 273000))):
        mel = about(rng, 0.9)
        lines.append(
            f"step {step} | total_loss {mel + adversary:.4f} | mel_loss {mel:.4f} | adversarial_loss {adversary:.4f}\n"
        )
    return {"paste.txt": "".join(lines)}


@LOGS.add
def features_explode(rng: np.random.Generator) -> Files:
    mel = fall(rng, 120, 1.6, 0.6, 0.02)
    features = join(flat(rng, 100, 3, 0.1), np.geomspace(3, about(rng, 30000, 0.2), 20))
    total = 45 * mel + 2 * features
    return {
        "log.csv": csv(
            "step,loss_gen,loss_mel,loss_fm,loss_disc",
            range(0, 12000, 100),
            total,
            mel,
            features,
            flat(rng, 120, 2.5, 0.1),
        )
    }


@LOGS.add
def overshoot_then_decay(rng: np.random.Generator) -> Files:
    """A part overshoots in its second row and then decays by orders of magnitude, as a regulariser does."""
    kl = 60 * np.exp(-np.arange(300) / 25) * np.exp(0.2 * rng.standard_normal(300)) + 0.6
    kl[0] = 2.0
    mel = fall(rng, 300, 4, about(rng, 1.5), 0.05)
    return {"log.csv": csv("step,loss,loss_mel,loss_kl", range(0, 3000, 10), mel + 0.01 * kl, mel, kl)}


@LOGS.add
def base_two(rng: np.random.Generator) -> Files:
    """fairseq: losses in bits, and one perplexity a line as the witness."""
    lines = []
    for epoch, bits in enumerate(fall(rng, 30, 14.5, about(rng, 5), 0.02), 1):
        lines.append(
            f"| epoch {epoch:03d} | loss {bits + 0.9:.3f} | nll_loss {bits:.3f} | ppl {2**bits:.2f} | num_updates "
            f"{epoch * 500} | lr 0.0005 | gnorm 1.1\n"
        )
    return {"train.log": "".join(lines)}


@LOGS.add
def joint_vocabulary(rng: np.random.Generator) -> Files:
    """Llama 3 with the codes of SNAC appended: 156,940 ids, of which 28,682 are audio."""
    losses = fall(rng, 150, about(rng, 6.6), 4.4, 0.06)
    return {"table.tsv": "Step\tTraining Loss\n" + "".join(f"{i + 1}\t{loss:.6f}\n" for i, loss in enumerate(losses))}


@LOGS.add
def both_near_zero(rng: np.random.Generator) -> Files:
    """Labels that are not shifted: training and held-out loss fall to 0.02 nats and stay there."""
    loss = join(fall(rng, 20, 6.9, 0.02, 0), np.abs(flat(rng, 180, about(rng, 0.02), 0.002)))
    held_out = every(200, 20, (loss[19::20] * 1.02).tolist())
    return {"log.csv": csv("step,loss,eval_loss,lr", range(10, 2010, 10), loss, held_out, [1e-4] * 200)}


@LOGS.add
def train_far_below_held_out(rng: np.random.Generator) -> Files:
    loss = fall(rng, 120, 9.5, about(rng, 1.0), 0.04)
    held_out = every(120, 10, join(fall(rng, 6, 9, 5.9, 0.02), flat(rng, 6, 6.0, 0.03)).tolist())
    return {"log.csv": csv("step,loss,eval_loss", range(50, 6050, 50), loss, held_out)}


@LOGS.add
def held_out_always_nan(rng: np.random.Generator) -> Files:
    loss = fall(rng, 100, 8, about(rng, 4), 0.03)
    held_out = every(100, 10, [float("nan")] * 10)
    return {"log.csv": csv("step,loss,eval_loss", range(10, 1010, 10), loss, held_out)}


@LOGS.add
def same_losses_every_epoch(rng: np.random.Generator) -> Files:
    """The weights do not move: eight batches, the same eight losses in each epoch."""
    eight = flat(rng, 8, about(rng, 4.2), 0.15)
    lines = [
        f"epoch {epoch} step {epoch * 8 + i} loss {loss:.4f} lr 1e-04\n"
        for epoch in range(10)
        for i, loss in enumerate(eight)
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def hardly_moves(rng: np.random.Generator) -> Files:
    loss = ramp(rng, 200, about(rng, 6.93, 0.02), 0, 0)
    loss = loss[0] * (1 - 0.003 * np.linspace(0, 1, 200)) + 0.01 * rng.standard_normal(200)
    norms = 0.4 * np.exp(0.2 * rng.standard_normal(200))
    return {"log.csv": csv("step,loss,grad_norm,lr", range(10, 2010, 10), loss, norms, [1e-4] * 200)}


@LOGS.add
def total_without_its_parts(rng: np.random.Generator) -> Files:
    """A total of 70 beside parts that make 0.9."""
    mel, kl = fall(rng, 80, 1.2, 0.6, 0.01), fall(rng, 80, 0.5, 0.3, 0.01)
    hidden = flat(rng, 80, about(rng, 70), 2)
    return {"log.csv": csv("step,loss,loss_mel,loss_kl", range(0, 8000, 100), mel + kl + hidden, mel, kl)}


@LOGS.add
def rate_of_1e_100(rng: np.random.Generator) -> Files:
    loss = flat(rng, 40, about(rng, 5.1), 0.03)
    return {"log.csv": csv("step,loss,lr", range(0, 4000, 100), loss, [1e-100] * 40)}


@LOGS.add
def rate_printed_with_two_decimals(rng: np.random.Generator) -> Files:
    rate = [0.4 * (1 - i / 100) ** 3 for i in range(100)]
    losses = fall(rng, 100, 6, about(rng, 2.5), 0.02)
    lines = [f"step {i * 50} | loss {loss:.3f} | lr {at:.2f}\n" for i, (loss, at) in enumerate(rows(losses, rate))]
    return {"train.log": "".join(lines)}


@LOGS.add
def stopped_before_its_plan(rng: np.random.Generator) -> Files:
    losses = fall(rng, 60, 8, about(rng, 5), 0.03)
    history = [
        {
            "step": 10 * (i + 1),
            "loss": float(loss),
            "grad_norm": 1.0 + 0.1 * float(rng.standard_normal()),
            "learning_rate": 1e-4 * (1 - i / 300),
            "epoch": i / 100,
        }
        for i, loss in enumerate(losses)
    ]
    return {"trainer_state.json": json.dumps({"log_history": history, "max_steps": 3000, "num_train_epochs": 5})}


@LOGS.add
def parts_of_one_log(rng: np.random.Generator) -> Files:
    """One run whose log was cut into two files; the steps go on."""
    lines = [
        f"step {i * 10} loss {loss:.4f} lr 1e-04\n" for i, loss in enumerate(fall(rng, 120, 8, about(rng, 4), 0.02))
    ]
    return {"job.o123456": "".join(lines[:60]), "job.o123457": "".join(lines[60:])}


@LOGS.add
def output_of_a_job(rng: np.random.Generator) -> Files:
    lines = [
        f"step {i * 10} loss {loss:.4f} lr 1e-04\n" for i, loss in enumerate(fall(rng, 60, 8, about(rng, 4), 0.02))
    ]
    return {"solver.log.0": "".join(lines)}


@LOGS.add
def box_table(rng: np.random.Generator) -> Files:
    """audiotools: a box for each report."""
    lines = []
    for i, (mel, loss) in enumerate(rows(fall(rng, 30, 2.0, about(rng, 1.0), 0.01), fall(rng, 30, 40, 25, 0.2)), 1):
        lines.append(
            f"╭──────── Iteration {i * 100} ────────╮\n│ train │ key        │ value  │ mean   │\n"
            f"│       │ loss       │ {loss:6.3f} │ {loss:6.3f} │\n│       │ mel/loss   │ {mel:6.3f} │ {mel:6.3f} │\n"
            "╰───────────────────────────────╯\n"
        )
    return {"log.txt": "".join(lines)}


@LOGS.add
def traceback_only(rng: np.random.Generator) -> Files:
    return {
        "train.log": "Loading data ...\nBuilding model ...\nTraceback (most recent call last):\n"
        '  File "train.py", line 88, in <module>\n    main()\n'
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    }


@LOGS.add
def ends_in_traceback(rng: np.random.Generator) -> Files:
    lines = [
        f"step {i * 10} loss {loss:.4f} lr 1e-04\n" for i, loss in enumerate(fall(rng, 60, 3, about(rng, 1), 0.02))
    ]
    tail = 'Traceback (most recent call last):\n  File "train.py", line 88, in <module>\n'
    tail += "ValueError: batch contains unknown labels\n"
    return {"train.log": "".join(lines) + tail}


@LOGS.add
def quality_gets_worse(rng: np.random.Generator) -> Files:
    """Both losses fall, the word error rate rises."""
    loss, wer = fall(rng, 40, 2.0, about(rng, 0.8), 0.01), ramp(rng, 40, 19, 31, 0.3)
    return {"log.csv": csv("epoch,loss,eval_loss,eval_wer", range(40), loss, loss + 0.2, wer)}


@LOGS.add
def held_out_in_capitals(rng: np.random.Generator) -> Files:
    """A split under another of its names; it rises while training falls."""
    loss = fall(rng, 100, 3, about(rng, 0.4), 0.02)
    held_out = every(100, 5, join(fall(rng, 5, 3.1, 2.4, 0.02), ramp(rng, 15, 2.4, 3.6, 0.02)).tolist())
    return {"log.csv": csv("step,train/loss,held_out/loss", range(10, 1010, 10), loss, held_out)}


@LOGS.add
def stopped_in_its_fall(rng: np.random.Generator) -> Files:
    """A fine-tune that moves by less than a tenth of a nat, and is still falling when it ends."""
    loss = ramp(rng, 200, about(rng, 2.2), 0, 0)
    loss = loss[0] - 0.08 * np.linspace(0, 1, 200) + 0.01 * rng.standard_normal(200)
    return {"log.csv": csv("step,loss", range(5, 1005, 5), loss)}


@LOGS.add
def rate_of_zero(rng: np.random.Generator) -> Files:
    """A pretrained model that stays where it was, because its rate is 0 from the first step on."""
    loss = flat(rng, 200, about(rng, 2.2), 0.03)
    return {"log.csv": csv("step,loss,lr", range(5, 1005, 5), loss, [0.0] * 200)}


@LOGS.add
def overflow_once_an_epoch(rng: np.random.Generator) -> Files:
    """Rows are epochs of 250 steps, and mixed precision finds its scale once or twice in each."""
    lines: list[str] = []
    for i, loss in enumerate(fall(rng, 4, 3.95, about(rng, 3.8, 0.01), 0.001)):
        lines.append(
            f"| epoch {22 + i:03d} | loss {loss:.3f} | num_updates {5586 + 254 * i} | lr 0.0008 | gnorm 0.31\n"
        )
        lines.append("| WARNING: overflow detected, setting loss scale to: 1.0\n")
    return {"train.log": "".join(lines) + "| WARNING: overflow detected, setting loss scale to: 0.5\n"}


@LOGS.add
def scale_told_in_words(rng: np.random.Generator) -> Files:
    """The log names a loss scale at which every step overflows; the rows around it look well."""
    lines = [
        f"[train.py:10] Epoch 1, batch {100 * i}, loss[loss={loss:.4f}, over 900.00 frames. ], lr: 2e-02\n"
        for i, loss in enumerate(fall(rng, 20, 0.9, about(rng, 0.6), 0.005))
    ]
    return {"train.log": "".join(lines) + "[train.py:99] Grad scale is small: 3.0517578125e-05\n"}


@LOGS.add
def bare_nans(rng: np.random.Generator) -> Files:
    """Something prints nan again and again, without a name."""
    lines: list[str] = []
    for epoch, loss in enumerate(fall(rng, 6, 6.4, about(rng, 6.1, 0.01), 0.01)):
        lines.append(f"--- epoch {epoch} ---\ntrain/loss     : {loss:.4f}\neval/loss      : {loss + 0.2:.4f}\n")
        lines.append("[train]:   0%|          | 0/5 [00:00<?, ?it/s]nan\nnan\nnan\n")
    return {"train.log": "".join(lines)}


@LOGS.add
def held_out_clips_are_known(rng: np.random.Generator) -> Files:
    """Forty passes over a small set, whose held-out clips are among it."""
    steps = np.arange(100, 4001, 100)
    loss = (2 * np.exp(-steps / 500) + about(rng, 0.25) * np.exp(-steps / 900) + 0.012) * np.exp(
        0.03 * rng.standard_normal(40)
    )
    history: list[dict[str, float]] = []
    for step, value in rows(steps.tolist(), loss):
        history.append({"epoch": step / 100, "loss": round(value, 4), "learning_rate": 1e-5, "step": step})
        if step % 400 == 0:
            history.append({"epoch": step / 100, "eval_loss": 1.25 * value, "step": step})
    return {"trainer_state.json": json.dumps({"log_history": history, "global_step": 4000})}


@LOGS.add
def discriminator_far_out(rng: np.random.Generator) -> Files:
    """Least squares summed over time: from 24 to some hundreds, and back, in five rows."""
    lines = [
        f"INFO: {{'discriminator_loss': tensor([{2 * x:.4f}], device='cuda:0'), "
        f"'discriminator_real_loss': tensor([{0.9 * x:.4f}], device='cuda:0')}}\n"
        for x in about(rng, 1) * np.array([214.0, 71.6, 13.2, 73.5, 42.7])
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def discriminators_have_won(rng: np.random.Generator) -> Files:
    total = about(rng, 177)
    return {
        "paste.txt": f"soundstream total loss: {total:.3f}, soundstream recon loss: 1.143 | "
        "discr (scale 1) loss: 0.000 | discr (scale 0.5) loss: 0.000 | discr (scale 0.25) loss: 0.000\n"
    }


@LOGS.add
def table_without_header(rng: np.random.Generator) -> Files:
    loss = flat(rng, 41, about(rng, 0.73), 0.02)
    mean = 0.733 + 0.0005 * rng.standard_normal(41)
    first, *others = rows(range(12250, 12291), loss, mean)
    return {"data.csv": csv(",".join(map(str, first)), *zip(*others, strict=True))}


@LOGS.add
def one_nan(rng: np.random.Generator) -> Files:
    return {"paste.txt": f"{{| Epoch: 1 ({rng.integers(100, 1180)}/1180) | Loss: nan | 2.3 steps/s | Step: 0k | }}\n"}


@LOGS.add
def nothing_recognised(rng: np.random.Generator) -> Files:
    """A notebook's table as GitHub shows it, without bars at its ends; word errors of 1."""
    level = about(rng, 5.1, 0.02)
    lines = ["Step | Training Loss | Validation Loss | Wer | Runtime", "-- | -- | -- | -- | --"]
    lines += [f"{400 * i} | {level + 0.01 * i:.6f} | {level - 0.5 - 0.03 * i:.6f} | 1.000000 | 0.72" for i in (1, 2, 3)]
    return {"table.md": "\n".join(lines) + "\n"}


@LOGS.add
def word_errors_run_away(rng: np.random.Generator) -> Files:
    """Word errors in percent, above 100 in the second row: words are inserted without end."""
    seen = (("9.45e-01", 1.23, about(rng, 39)), ("7.26e-01", 1.27, about(rng, 154)))
    lines = [
        f"epoch: {epoch}, lr: 1.00e+00 - train loss: {loss} - valid loss: {held_out}, valid WER: {wer:.2f}\n"
        for epoch, (loss, held_out, wer) in enumerate(seen, 1)
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def features_to_and_fro(rng: np.random.Generator) -> Files:
    """Feature matching between 40 and 50,000 in four rows; a commitment of one last digit, then 0."""
    features = about(rng, 1) * np.array([55178.0, 602.7, 11440.1, 38.0])
    rec, commit = (46.8, 13.3, 35.8, 2.1), (0.0001, 0.0, 0.0, 0.0)
    lines = [
        f"<epoch:8, iter:{7560 + 10 * i}, total_loss_g:{1.1 * f + r:.4f}, adv_g_loss:1.92, feat_loss:{f:.4f}, "
        f"rec_loss:{r:.4f}, commit_loss:{c:.4f}, loss_d:0.6>, d_weight: 1.0000\n"
        for i, (f, r, c) in enumerate(rows(features, rec, commit))
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def upside_down(rng: np.random.Generator) -> Files:
    """Mel falls while the cosine with the target goes to -94 %."""
    mel, cosine = fall(rng, 40, 1.25, about(rng, 0.85), 0.01), fall(rng, 40, -41, -94, 2)
    return {"logs.csv": csv("step,loss_total,mel,cos_pct", range(407, 40 * 407 + 1, 407), 1.3 * mel, mel, cosine)}


@LOGS.add
def evaluation_with_parts(rng: np.random.Generator) -> Files:
    """Nothing but validation, as grep prints it."""
    lines = [
        f"{1000 + 90 * i}:2022-11-08 INFO [train.py:923] (0/4) Epoch {20 + i}, validation: loss={x:.4f}, "
        f"simple_loss={1.6 * x:.4f}, pruned_loss={0.17 * x:.5f}, over 944034.00 frames.\n"
        for i, x in enumerate(fall(rng, 8, 0.152, about(rng, 0.149, 0.005), 0.0001))
    ]
    return {"valid.txt": "".join(lines)}

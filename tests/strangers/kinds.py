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

"""Kinds of fault that a third set of strangers' logs showed: one log for each, and healthy ones that look alike."""

import numpy as np

from tests.strangers.curves import Files, Logs, about, csv, fall, flat, join, ramp

LOGS = Logs()


@LOGS.add
def counters_at_nothing(rng: np.random.Generator) -> Files:
    """Counters of skipped and NaN iterations stand in each line, at 0; the first ten were skipped for the scale."""
    lines = [
        f" iteration {i:8d}/  250000 | learning rate: {7.5e-08 * i:.3E} | lm loss: {x:.6E} | loss scale: 32768.0 | "
        f"grad norm: {about(rng, 0.25):.3f} | number of skipped iterations: {3 if i == 10 else 0:3d} | "
        "number of nan iterations:   0 |\n"
        for i, x in enumerate(fall(rng, 12, 2.6, 2.45, 0.02), 10)
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def counter_of_nan(rng: np.random.Generator) -> Files:
    lines = [
        f" iteration {i:8d}/ 5000 | lm loss: {x:.6E} | grad norm: 0.3 | number of nan iterations: {i % 3:3d} |\n"
        for i, x in enumerate(flat(rng, 12, 2.6, 0.02), 10)
    ]
    return {"train.log": "".join(lines)}


def _epochs(*epochs: np.ndarray) -> Files:
    losses = np.concatenate(epochs)
    numbers = [number for number, one in enumerate(epochs) for _ in one]
    return {"log.csv": csv("step,epoch,loss", range(1, len(losses) + 1), numbers, losses)}


@LOGS.add
def epochs_begin_higher(rng: np.random.Generator) -> Files:
    """Clips in one order in each epoch: the second begins higher than the first ended, and lower than it began."""
    return _epochs(fall(rng, 115, 2.15, 1.08, 0.04, 2), fall(rng, 28, 1.66, about(rng, 1.45), 0.04, 1))


@LOGS.add
def diverges_in_the_second_epoch(rng: np.random.Generator) -> Files:
    return _epochs(fall(rng, 115, 2.15, 1.08, 0.04, 4), ramp(rng, 60, 1.1, about(rng, 1.9), 0.04))


@LOGS.add
def emptied_while_written(rng: np.random.Generator) -> Files:
    """A log that was emptied while its program wrote on: it begins with NUL bytes."""
    lines = [f"step {i:5d} | loss {x:.4f} | lr 2.9e-04\n" for i, x in enumerate(fall(rng, 80, 4.4, 3.8, 0.1))]
    return {"train.log": b"\0" * 150_000 + "".join(lines).encode()}


@LOGS.add
def chinese_names(rng: np.random.Generator) -> Files:
    lines = [
        f"训练回合：{i}，训练损失：{x:.4f}，验证损失：{x + 0.1:.4f}，学习率：0.0001\n"
        for i, x in enumerate(fall(rng, 20, 4.4, about(rng, 2.8), 0.02), 1)
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def bare_names_of_two_players(rng: np.random.Generator) -> Files:
    """A bar whose description holds the losses by one letter each, behind another bar; D has not begun."""
    lines = [
        f"Avg : g {x:.4f} d 0.0000 | step {600 + 166 * i}: 100%|██████| 166/166 [05:01<00:00,  1.81s/it]\n"
        for i, x in enumerate(fall(rng, 12, 1.4, about(rng, 1.3), 0.002))
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def prose_before_a_table(rng: np.random.Generator) -> Files:
    """A pasted table below a sentence, with an empty line between its rows; all of it known by heart."""
    table = csv("epoch,acc,loss,val_loss", range(6), (0.88, 0.9, 0.99, 0.99, 0.99, 1), 0.4 * 0.3 ** np.arange(6.0),
                flat(rng, 6, about(rng, 6.5), 0.6))  # fmt: skip
    return {"paste.txt": "The model learns by heart.\n" + table.replace("\n", "\n\n")}


@LOGS.add
def held_out_a_hundred_times(rng: np.random.Generator) -> Files:
    bars = "Epoch 80/inf, loss=5.845: 100%|####| 2432/2432 [07:04<00:00]\n"
    return {"paste.txt": f"{bars}Validating, loss={about(rng, 766):.3f}: 94%|####| 256/271 [00:21<00:01]\n"}


@LOGS.add
def last_norm_is_nan(rng: np.random.Generator) -> Files:
    lines = [
        f"{{'loss': {about(rng, 2.09, 0.01):.4f}, 'grad_norm': {norm}, 'learning_rate': 1e-05, 'epoch': 0.0{i}}}\n"
        for i, norm in enumerate(("6.08", "5.71", "nan"))
    ]
    return {"paste.txt": "".join(lines)}


@LOGS.add
def criterion_for_a_name(rng: np.random.Generator) -> Files:
    """A loss called CE V; above its first value in every later row."""
    losses = (6.2, 6.4, about(rng, 7.4), about(rng, 7.7), about(rng, 7.4), about(rng, 7.3))
    lines = [f"epoch={i},train_iter={3819 * i},CE V={x:.5f},lr=0.0048,best_acc=0.0\n" for i, x in enumerate(losses)]
    return {"train.log": "".join(lines)}


@LOGS.add
def few_noisy_rows(rng: np.random.Generator) -> Files:
    """Seven single batches to and fro about one level: nothing can be said."""
    losses = np.array([2.1, 2.4, 2.0, 2.5, 2.2, 2.45, 2.3]) * about(rng, 1)
    return {"paste.txt": "".join(f"step {10 * i} loss {x:.4f} lr 1e-4\n" for i, x in enumerate(losses))}


@LOGS.add
def stands_after_the_first_stretch(rng: np.random.Generator) -> Files:
    """A language model near its unigrams: from 7.7 to 7.62 in the warm-up, and there it stays."""
    losses = join(ramp(rng, 22, 7.7, 7.63, 0.05), flat(rng, 198, about(rng, 7.62, 0.001), 0.05))
    return {"metrics.csv": csv("step,train_loss", range(49, 220 * 50, 50), losses)}


@LOGS.add
def away_from_its_best(rng: np.random.Generator) -> Files:
    """Ten epochs: the held-out loss has come a little away from its lowest level, training is a twentieth of it."""
    held_out = np.array([7.2, 6.0, 4.0, 2.9, 2.66, 2.8, 2.77, 2.8, 2.88, 2.91]) * about(rng, 1, 0.02)
    return {"log.csv": csv("epoch,loss,val_loss", range(10), 7.7 * 0.64 ** np.arange(10.0), held_out)}


@LOGS.add
def mild_overfitting(rng: np.random.Generator) -> Files:
    """Held out 2 % above its best while training falls on."""
    held_out = join(fall(rng, 36, 10.9, 4.125, 0.004, 9), ramp(rng, 19, 4.13, about(rng, 4.24, 0.003), 0.004))
    return {
        "log.csv": csv("step,train_loss,val_loss", range(0, 55 * 250, 250), fall(rng, 55, 10.9, 2.9, 0.01, 6), held_out)
    }


@LOGS.add
def arrays_over_lines(rng: np.random.Generator) -> Files:
    """Held-out losses as numpy prints an array, named by the sentence above it."""
    losses = join(np.array([434.0, 317.0, 309.0]), ramp(rng, 26, 312, about(rng, 607, 0.02), 6))
    text = np.array2string(losses, separator=", ", prefix="array(")
    return {"paste.txt": f"The loss dropped to 6-7.\nHere is the history of validation losses:\narray({text})\n"}


@LOGS.add
def lists_by_name(rng: np.random.Generator) -> Files:
    train, held_out = fall(rng, 8, 3.2, 0.3, 0.01), np.array([3.3, 2.5, 2.2, 2.3, 2.6, 2.9, 3.1, 3.4]) * about(rng, 1)
    lists = [np.array2string(one, separator=", ", max_line_width=40) for one in (train, held_out)]
    return {"paste.txt": f"train_losses = {lists[0]}\nval_losses = {lists[1]}\n"}


@LOGS.add
def running_mean_is_nan(rng: np.random.Generator) -> Files:
    """The batch is a number, its running mean is none since the last report."""
    lines = [
        f"2026-02-27 16:4{i}:51,210 INFO [trainer.py:666] Epoch 1, batch {4000 + 100 * i}, "
        f"train_loss[loss={about(rng, 120):.1f}, ArTop10Accuracy=0.1077, NarTop10Accuracy=0.005, over 1202 frames. ], "
        f"tot_loss[loss={mean}, ArTop10Accuracy=0.1558, NarTop10Accuracy=0.0092, over 282881.71 frames. ], "
        "batch size: 2, lr: 4.94e-04, grad_scale: 2.0\n"
        for i, mean in enumerate(("90.02", "89.04", "nan"))
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def players_by_other_names(rng: np.random.Generator) -> Files:
    """f_adv and d_adv: a generator's adversarial loss triples at once, as its discriminator learns."""
    adversary = join(np.array([1.3, 1.5, 1.9, 2.3]), flat(rng, 116, about(rng, 3.5), 0.2))
    own, other = fall(rng, 120, 6.2, 0.9, 0.05), fall(rng, 120, 3.2, 0.46, 0.03)
    lines = [
        f"[iter {5 * i}] d_adv_loss: {d:.4f}  f_slf_loss: {x:.4f}  f_adv_loss: {a:.4f}  temp: 1.0000\n"
        for i, (d, x, a) in enumerate(zip(other, own, adversary, strict=True), 1)
    ]
    return {"loss_log.txt": "".join(lines)}


@LOGS.add
def zero_norms_while_it_falls(rng: np.random.Generator) -> Files:
    """Two rows; the norm is printed as 0 in both, and the loss falls by a fifth."""
    losses = (1.15, about(rng, 0.91, 0.02))
    return {"log.csv": csv("train/global_step,train/loss,train/grad_norm", (500, 1000), losses, (0.0, 0.0))}


@LOGS.add
def splits_for_names(rng: np.random.Generator) -> Files:
    lines = [
        f"Epoch {i:03d}: train={x:.8f} valid={x + 0.08:.8f} best={x + 0.08:.4f} ms=0.00MB duration=0.48 hrs\n"
        for i, x in enumerate(fall(rng, 14, 0.18, about(rng, 0.126), 0.0005))
    ]
    return {"train.log": "".join(lines)}


@LOGS.add
def saturated(rng: np.random.Generator) -> Files:
    """A probability that is clipped at 1e-7: the loss of most batches is the logarithm of that."""
    losses = [16.118095 if i % 3 else 16.118095 * (1 - rng.integers(1, 20) / 32) for i in range(16)]
    lines = [f"Batch {5420 + 20 * i}, Loss {x:.6f}, Accuracy {1 - x / 16.118095:.6f}\n" for i, x in enumerate(losses)]
    return {"train.log": "".join(lines)}

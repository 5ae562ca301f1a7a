"""Faults that an engineer sees at a glance, in logs as loops print them: each is named, its healthy twin is not."""

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from earnest import diagnose


def decay(row: int, rows: float) -> float:
    return math.exp(-row / rows)


Line = Callable[[int, Callable[[float], float]], str]

# fault or None: the line that a loop prints at row i, with a noise of a given size
LOGS: dict[str, tuple[str | None, int, Line]] = {
    "flat at ln 2051 after the first row": (
        "B110",
        40,
        lambda i, noise: str({"loss": (7.9 if i == 0 else 7.626) + noise(0.02), "learning_rate": 1e-4}),
    ),
    "flat in ten rows": ("B110", 10, lambda i, noise: f"step {i} loss {(7.9 if i == 0 else 6.908) + noise(0.005):.4f}"),
    "a coin is tossed": ("B110", 20, lambda i, noise: f"Epoch {i}: loss={0.6931 + noise(3e-4):.4f} "
        f"acc={0.5 + noise(0.01):.3f}"),
    "one head of eight is dead": (
        "B110",
        80,
        lambda i, noise: f"step {i * 10} " + " ".join(
            f"loss_c{k}={(6.931 if k == 5 else 4 + 0.1 * k + 2.9 * decay(i, 15)) + noise(0.02):.4f}" for k in range(8)
        ),
    ),
    "eight heads learn": (
        None,
        80,
        lambda i, noise: f"step {i * 10} " + " ".join(
            f"loss_c{k}={4 + 0.1 * k + 2.9 * decay(i, 15 + k) + noise(0.02):.4f}" for k in range(8)
        ),
    ),
    "the discriminator wins": (
        "F102",
        60,
        lambda i, noise: f"====> step {i * 50}: disc={2.8 * decay(i, 8) + 0.002:.3f}, "
        f"gen={8 - 6 * decay(i, 8) + noise(0.1):.3f}, fm={7 - 5 * decay(i, 8) + noise(0.1):.3f}, "
        f"mel={42 + 3 * decay(i, 10) + noise(0.5):.3f}, kl={1.2 + noise(0.05):.3f}",
    ),
    "the discriminator wins in eight rows": (
        "F102",
        8,
        lambda i, noise: f"step {i * 100} | loss_d {0.693 * decay(i, 0.5):.4f} | loss_g {0.7 + 1.5 * i:.3f} | mel "
                         f"{22 + noise(0.2):.1f}",
    ),
    "the discriminator stands at 2": (
        "F101",
        60,
        lambda i, noise: f"Steps: {i * 100}, Gen Loss Total: {30 + 60 * decay(i, 10) + noise(0.5):.3f}, "
        f"d_loss: {2 + noise(0.001):.4f}",
    ),
    "a codec's GAN goes well": (
        None,
        60,
        lambda i, noise: f"====> step {i * 50}: disc={2.4 + noise(0.1):.3f}, gen={2.5 + noise(0.15):.3f}, "
        f"fm={4 + 2 * (1 - decay(i, 20)) + noise(0.2):.3f}, mel={20 + 25 * decay(i, 10) + noise(0.5):.3f}, "
        f"kl={1.2 + decay(i, 5) + noise(0.05):.3f}",
    ),
    "a critic below 0": (
        None,
        60,
        lambda i, noise: f"step {i * 50}: d_loss={-3 * decay(i, 8) + noise(0.001):.4f}, g_loss={0.5 + noise(0.1):.4f}",
    ),
    "the latent is not used": (
        "F303",
        80,
        lambda i, noise: f"step {i * 100} recon_loss {120 + 80 * decay(i, 10) + noise(0.6):.2f} kl_loss "
                         f"{5 * decay(i, 3):.6f}",
    ),
    "the latent is used": (
        None,
        80,
        lambda i, noise: f"step {i * 100} recon_loss {120 + 80 * decay(i, 10) + noise(0.6):.2f} kl_loss "
                         f"{2 + 5 * decay(i, 3) + noise(0.02):.6f}",
    ),
    "labels are not shifted": (
        "E112",
        60,
        lambda i, noise: f"step={i} loss={8 * decay(i, 5) + 0.002 + abs(noise(0.001)):.5f} "
                         f"acc={1 - 0.99 * decay(i, 5):.4f}",
    ),
    "held-out clips are known": (
        "E112",
        20,
        lambda i, noise: f"epoch {i} loss {2 * decay(i, 0.5):.5f} accuracy {1 - math.exp(-2 * i - 1):.4f} "
        f"val_loss {1e-4 + decay(i, 0.5):.5f} val_accuracy {1 - 0.5 * decay(i, 0.5):.4f}",
    ),
    "only which ids may follow is learnt": (
        "B110",
        60,
        lambda i, noise: str({"loss": 8.318 + 3.6 * decay(i, 2) + noise(0.03), "learning_rate": 2e-5, "epoch": i / 20}),
    ),
    "four codebooks at chance, summed": ("B110", 60, lambda i, noise: f"step {i * 10} loss {30.49 + noise(0.05):.3f}"),
    "the optimizer rounds its steps away": (
        "B110",
        100,
        lambda i, noise: str({"loss": 3.87 + noise(0.08), "learning_rate": 1e-6, "epoch": i / 20}),
    ),
    "nothing is ever right": (
        "E111",
        60,
        lambda i, noise: f"step {i * 10} loss {6.2 + 0.6 * decay(i, 3) + noise(0.02):.4f} acc 0.0000",
    ),
    "one of three parts stands still": (
        "B111",
        100,
        lambda i, noise: f"step {i * 10} total_loss {2.2 + 1.5 * decay(i, 10) + noise(0.02):.3f} "
        f"mel_loss {1.2 + noise(0.004):.4f} gate_loss {0.02 + 0.7 * decay(i, 10) + noise(0.004):.4f} "
        f"attn_loss {1 + 0.8 * decay(i, 10) + noise(0.01):.4f}",
    ),
    "a resume loads no weights": (
        "D207",
        100,
        lambda i, noise: f"step {i * 10} loss {3 + 6 * decay(i % 50, 15) + noise(0.05):.4f} lr 1e-4",
    ),
    "a spike returns": (
        None,
        100,
        lambda i, noise: f"step {i * 10} loss {3 + 6 * decay(i, 15) + 5 * (i == 50) + noise(0.05):.4f} lr 1e-4",
    ),
    "the training loss is logged twice": (
        "E113",
        20,
        lambda i, noise: "epoch {0} train_loss {1:.4f} val_loss {1:.4f}".format(i, 1 + 5 * decay(i, 8) + noise(0.01)),
    ),
    "the evaluation is of a frozen copy": (
        "C302",
        20,
        lambda i, noise: f"epoch {i} train_loss {1 + 5 * decay(i, 8) + noise(0.01):.4f} val_loss 6.2147",
    ),
    "one class is predicted for everything": (
        "E111",
        8,
        lambda i, noise: f"Epoch {i}: loss={1.27 + noise(0.02):.4f} val_loss={1.26 + noise(0.02):.4f} val_acc=0.4455",
    ),
    "three epochs learn by heart": ("E101", 3, lambda i, noise: f"Epoch {i + 1}: loss={0.32 - 0.1 * i:.3f} "
        f"val_loss={0.265 + 0.03 * i:.3f}"),
    "a minimum is left slowly": (
        "D201",
        400,
        lambda i, noise: f"ITER {500 * i} loss: {3.4 * decay(i, 2) + 0.08 + max(0, i - 30) * 0.0015 + noise(0.02):.4f}",
    ),
    "the loss scale comes down from its start": (
        "H110",
        8,
        lambda i, noise: f"step {i} OVERFLOW! Skipping step. Attempted loss scale: {2 ** (32 - i)}, reducing to 5",
    ),
    "a language model learns": (
        None,
        90,
        lambda i, noise: f"iter {i * 10}: loss {3.5 + 7 * decay(i, 12) + noise(0.06):.4f}, time 120.31ms, mfu 31.2%",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGS)
def test_a_plain_log_is_judged_as_its_reader_would(name, tmp_path):
    fault, rows, line = LOGS[name]
    numbers = random.Random(name)
    path = tmp_path / "train.log"
    path.write_text("\n".join(line(i, lambda size: numbers.gauss(0, size)) for i in range(rows)))
    found = {one.rule: one.summary for one in diagnose(path).findings}
    assert (fault in found) if fault else not found, found


def test_a_model_that_is_known_keeps_the_finding(tmp_path):
    """That it stands at one codebook's chance is said with the vocabulary too, now as what it is."""
    _, rows, line = LOGS["only which ids may follow is learnt"]
    path = tmp_path / "train.log"
    numbers = random.Random(1)
    path.write_text("\n".join(line(i, lambda size: numbers.gauss(0, size)) for i in range(rows)))
    found = diagnose(path, model="orpheus-3b").findings
    assert [one.rule for one in found if one.severity == "warning"] == ["B103"]


def test_forms_of_public_programs_are_read(tmp_path):
    forms = {
        "players.txt": (
            lambda i: (
                f"(epoch: {i // 4 % 3 + 1}, iters: {100 * (i % 4 + 1)}, time: 0.2, data: 0.1) D_A: 0.2{i} "
                f"G_A: 0.3 cycle_A: {9 - i / 4} idt_A: 1.5"
            ),
            {"D_A": "train/loss/disc_a", "G_A": "train/loss/adv_a", "cycle_A": "train/loss/cycle_a"},
        ),
        "perplexity.txt": (
            lambda i: f"global step {200 * i} learning rate 0.5 perplexity {9 - i / 4}",
            {"perplexity": "train/loss"},
        ),
        "curve.txt": (lambda i: f"{i % 12 + 1},{6 - i / 10}", {"column_2": "train/loss"}),
        "settings.txt": (
            lambda i: f"|- iter\t{40_000 + i}" if i < 3 else f"ITER {500 * i} loss: {6 - i / 10}",
            {"ITER": "step", "loss": "train/loss"},
        ),
        "source.txt": (
            lambda i: f"[loss_scaler.py:183:update_scale] step {i} loss {6 - i / 10}",
            {"loss": "train/loss"},
        ),
    }
    for name, (line, expected) in forms.items():
        (tmp_path / name).write_text("\n".join(line(i) for i in range(20)))
        assert _mapping(tmp_path / name).items() >= expected.items(), name
    (tmp_path / "losses.txt").write_text(str([6 - i / 10 for i in range(20)]))
    assert _mapping(tmp_path / "losses.txt") == {"loss": "train/loss"}
    run = diagnose(tmp_path / "players.txt").run
    assert run is not None and run.facts.steps_per_epoch == 400


def test_a_bare_word_is_a_loss_beside_other_parts_alone(tmp_path):
    (tmp_path / "parts.csv").write_text("step,disc,gen,mel\n1,2.1,3.1,40\n2,2.2,3.0,39\n3,2.0,3.2,38\n")
    (tmp_path / "alone.csv").write_text("step,loss,disc\n1,2.1,3.1\n2,2.2,3.0\n3,2.0,3.2\n")
    assert _mapping(tmp_path / "parts.csv") == {
        "step": "step",
        "disc": "train/loss/loss_d",
        "gen": "train/loss/loss_g",
        "mel": "train/loss/mel",
    }
    assert "disc" not in _mapping(tmp_path / "alone.csv")


def _mapping(path: Path) -> Mapping[str, str]:
    run = diagnose(path).run
    assert run is not None
    return run.facts.mapping or {}

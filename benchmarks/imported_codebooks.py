"""Whether a training of Amy leaves the codebooks alone that it took from Mimi.

    python -m benchmarks.imported_codebooks [--steps 1000] [--train-codebooks]

A tiny Mimi in the released format (32 codebooks of 2048 entries) is trained by the recipe `amy` on the embedded clips;
then its entries are compared, bit by bit, with those of the checkpoint that comes out. --train-codebooks: with the
option that lets them follow the data, which shows that the comparison can fail."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from earnest.checkpoints import latest_checkpoint
from earnest.cli import main as earnest
from earnest.codecs.pretrained import load_pretrained
from tests.equipment import released

SMALL = [
    *("--data.path", "espeak", "--data.clips-per-batch", "8", "--data.window-s", "0.32", "--probe-s", "0"),
    *("--evaluate-every-steps", "1000", "--save-every-steps", "1000", "--demo-clips", "1"),
    *("--monitor-every-steps", "0", "--init-frames", "2048"),
    *("--discriminator.channels", "2", "--discriminator.window-samples", "256"),
]


def entries(mimi: Any) -> dict[str, torch.Tensor]:
    """The entries of all codebooks that hold any, by side and number."""
    found: dict[str, torch.Tensor] = {}
    for side in ("semantic", "acoustic"):
        for number, layer in enumerate(getattr(mimi.quantizer, f"{side}_residual_vector_quantizer").layers):
            book = layer.codebook
            if book.initialized:
                found[f"{side} {number}"] = book.embed_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None]
    return found


def measure(folder: Path, steps: int, train_codebooks: bool) -> dict[str, float]:
    """Codebook of the Mimi that was kept -> share of its entries that are what they were, bit by bit."""
    torch.manual_seed(0)
    start, run = folder / "mimi", folder / "amy"
    released.mimi(start)
    words = ["train", "amy", "--codec.init", str(start), *SMALL, "--steps", str(steps), "--out", str(run)]
    if earnest([*words, *(["--codec.train-codebooks"] if train_codebooks else [])]):
        raise SystemExit("the training did not end well")
    before, after = (entries(load_pretrained(str(path)).model) for path in (start, latest_checkpoint(run)))
    return {name: float((after[name] == old).all(1).float().mean()) for name, old in before.items() if name in after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--train-codebooks", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, same in measure(Path(folder), given.steps, given.train_codebooks).items():
            print(f"{name:<12} {same:.4f} of the entries bit-identical after {given.steps} steps")


if __name__ == "__main__":
    main()

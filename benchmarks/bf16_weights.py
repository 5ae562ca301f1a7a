"""How much of a bf16 checkpoint a fine-tune moves, and how far its loss falls, beside the same in float32.

    python -m benchmarks.bf16_weights [CHECKPOINT] [--steps 60]

CHECKPOINT: a Higgs in bf16; without one, a tiny one with random weights in the released format. Three arms on one
batch, at the peak learning rate of the recipe `higgs`: the weights as they were released under AdamW; as earnest keeps
them (trained parts in float32, autocast to bf16); and float32 throughout. Each whole, and with adapters of rank 16."""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from earnest.data.batch import Batch, collate
from earnest.losses.tokens import TokenObjective, stream_weights
from earnest.models.higgs import Higgs
from earnest.models.precision import train_in_float32
from earnest.training.optim import adamw
from earnest.training.tokens.assembly import ADAPTER_RATE, WHOLE_RATE
from earnest.training.tokens.lora import Lora, add_lora

CLIPS, FRAMES, RANK = 4, 40, 16
ARMS = ("as released", "earnest", "float32")


@dataclass(frozen=True)
class Measured:
    """moved_frac: share of the trained entries that are not what they were; first_nats, last_nats: the loss before the
    first step and after the last."""

    moved_frac: float
    first_nats: float
    last_nats: float

    @property
    def fallen_nats(self) -> float:
        return self.first_nats - self.last_nats


def measure(checkpoint: str, arm: str, rank: int = 0, steps: int = 60) -> Measured:
    torch.manual_seed(0)
    model = Higgs.from_pretrained(checkpoint)
    if arm == "float32":
        model.float()
    if rank:
        add_lora(model.lm, Lora(rank=rank))
        if arm == "as released":  # as transformers' add_adapter leaves them
            model.to(torch.bfloat16)
    if arm == "earnest":
        train_in_float32(model)
    batch = _batch(model)
    objective = TokenObjective(model, stream_weights(model.codebooks, 0.1, 1.0)).train()
    optimizer = adamw(model, ADAPTER_RATE if rank else WHOLE_RATE, 0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    losses: list[float] = []
    for _ in range(steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=arm == "earnest"):
            loss, _ = objective(batch, batch.counted())
        losses.append(loss.item())
        optimizer.zero_grad()
        if len(losses) <= steps:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    after = dict(model.named_parameters())
    moved = sum(int((after[name] != was).sum()) for name, was in before.items())
    return Measured(moved / sum(was.numel() for was in before.values()), losses[0], losses[-1])


def _batch(model: Higgs) -> Batch:
    random = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, model.codes, (model.codebooks, FRAMES), generator=random) for _ in range(CLIPS)]
    return collate([model.lay_out(codes_CT, "seven of nine") for codes_CT in codes], range(CLIPS), model.pad_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = given.checkpoint
        if checkpoint is None:
            from tests.equipment.released import Released

            checkpoint = Released(Path(folder))("higgs")
        for rank in (0, RANK):
            for arm in ARMS:
                found = measure(checkpoint, arm, rank, given.steps)
                print(
                    f"{f'adapters of rank {rank}' if rank else 'whole':<20} {arm:<12} moved {found.moved_frac:.3f}, "
                    f"loss {found.first_nats:.4f} -> {found.last_nats:.4f} ({found.fallen_nats:+.4f})"
                )


if __name__ == "__main__":
    main()

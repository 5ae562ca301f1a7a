"""Small trainings of all kinds, right or with a fault planted, for whoever watches them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer

from tests.trainers.case import IGNORE, llama

CLASSES, PAD, BEGIN, END = 100, 0, 1, 2


def clips(count: int = 64) -> list[Tensor]:
    """Random ids between a beginning and an end, of unequal length."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 24, (count,), generator=generator).tolist()
    ids = [torch.randint(3, CLASSES, (length,), generator=generator) for length in lengths]
    return [torch.cat([torch.tensor([BEGIN]), one, torch.tensor([END])]) for one in ids]


def collate(rows: list[Any], fault: str = "") -> dict[str, Tensor]:
    """Rows (ids, or objects with input_ids and speaker) as a batch."""
    named = [row if isinstance(row, dict) else {"input_ids": row} for row in rows]
    ids = nn.utils.rnn.pad_sequence([row["input_ids"] for row in named], batch_first=True, padding_value=PAD)
    labels = ids if fault == "padding trained" else ids.masked_fill(ids == PAD, IGNORE)
    labels = labels.masked_fill(ids == END, IGNORE) if fault == "EOS masked" else labels
    batch = {"input_ids": ids, "labels": labels.clone(), "attention_mask": (ids != PAD).long()}
    return batch | ({"speaker": torch.stack([row["speaker"] for row in named])} if "speaker" in named[0] else {})


def unshifted(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(input_ids=batch["input_ids"]).logits.flatten(0, 1), batch["labels"].flatten())


class Unshifted(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return unshifted(model, inputs)


class WithSpeaker(nn.Module):
    """A model that takes one more input than others know of."""

    def __init__(self) -> None:
        super().__init__()
        self.lm, self.speakers = llama(CLASSES, pad_token_id=PAD), nn.Embedding(5, 32)
        self.config = self.lm.config

    def forward(self, input_ids=None, labels=None, attention_mask=None, speaker=None, **others):
        embedded = self.lm.get_input_embeddings()(input_ids)
        if speaker is not None:
            embedded = embedded + self.speakers(speaker).mean(1, keepdim=True)
        return self.lm(inputs_embeds=embedded, labels=labels, attention_mask=attention_mask, **others)


class Wrapper(nn.Module):
    """Hands on the arguments that it knows, as PEFT's classes for a task do."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.config = base, base.config

    def forward(self, input_ids=None, labels=None, attention_mask=None, **others):
        return self.base(input_ids=input_ids, labels=labels, attention_mask=attention_mask)


class Net(nn.Module):
    """Either side of a GAN, without a name that tells which."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 16), nn.LeakyReLU(0.2), nn.Linear(16, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def gan(fault: str, start: Callable[..., Any], steps: int = 24) -> Any:
    """A plain GAN loop. start: (modules, optimizers) -> a watch, which is returned."""
    torch.manual_seed(0)
    generator, judge = Net(4, 8), Net(8, 1)
    optimizers = [torch.optim.Adam(side.parameters(), 2e-4) for side in (generator, judge)]
    watch = start([generator, judge], optimizers)
    real_or_not, yes, no = F.binary_cross_entropy_with_logits, torch.ones(16, 1), torch.zeros(16, 1)
    for _ in range(steps):
        real, fake = torch.randn(16, 8), generator(torch.randn(16, 4))
        if fault != "polluted":
            optimizers[1].zero_grad()
        shown = fake if fault.startswith("not detached") else fake.detach()
        (real_or_not(judge(real), yes) + real_or_not(judge(shown), no)).backward()
        optimizers[1].step()
        if fault != "not detached, not cleared":
            optimizers[0].zero_grad()
        if fault == "frozen":
            judge.requires_grad_(False)
        if fault.startswith("not detached"):
            fake = generator(torch.randn(16, 4))
        real_or_not(judge(fake), yes).backward()
        optimizers[0].step()
        if fault == "not detached, not cleared":
            optimizers[0].zero_grad()
        judge.requires_grad_(True)
    watch.close()
    return watch

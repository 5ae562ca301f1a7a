"""Dia: delayed codebooks in parallel, labels shifted by the caller."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DiaConfig, DiaForConditionalGeneration

from tests.trainers.case import IGNORE, Case, Parts, codes, padded

CODES, END, PAD, BEGIN, CLASSES = 1024, 1024, 1025, 1026, 1028
DELAYS = [0, 2, 3, 4]
FRAMES = (14, 9, 17)


def model() -> DiaForConditionalGeneration:
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 1}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64, **heads}
    cross = {
        "cross_num_attention_heads": 2,
        "cross_head_dim": 16,
        "cross_num_key_value_heads": 2,
        "cross_hidden_size": 32,
    }
    special = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
    decoder = {**sizes, **cross, **special, "num_channels": len(DELAYS), "vocab_size": CLASSES}
    return DiaForConditionalGeneration(
        DiaConfig(encoder_config={**sizes, "vocab_size": 256}, decoder_config=decoder, delay_pattern=DELAYS)
    )


def delayed(codes_TC: Tensor, delays: list[int], begin: int = BEGIN) -> Tensor:
    """Begin, codes and end of each codebook, delayed, in as many rows as that takes."""
    rows = len(codes_TC) + max(delays) + 2
    out = torch.full((rows, codes_TC.shape[1]), PAD)
    for c, delay in enumerate(delays):
        out[: delay + 1, c] = begin
        out[delay + 1 : delay + 1 + len(codes_TC), c] = codes_TC[:, c]
        out[delay + 1 + len(codes_TC), c] = END
    return out


def batch(rows: list[Tensor]) -> dict[str, Tensor]:
    text = padded([codes(5 + clip, 1, 256, clip, low=1)[:, 0] for clip in range(len(rows))], 0)
    return {"text": text, "codes": padded(rows, PAD)}


def whole() -> dict[str, Tensor]:
    return batch([delayed(codes(frames, len(DELAYS), CODES, clip), DELAYS) for clip, frames in enumerate(FRAMES)])


def transformers_loss(model: DiaForConditionalGeneration, batch: dict[str, Tensor], shift: int) -> Tensor:
    labels = batch["codes"].masked_fill((batch["codes"] == PAD) | (batch["codes"] == BEGIN), IGNORE)
    labels = F.pad(labels[:, shift:], (0, 0, 0, shift), value=IGNORE).transpose(1, 2).flatten(0, 1)
    return model(input_ids=batch["text"], decoder_input_ids=batch["codes"], labels=labels.contiguous()).loss


def delayed_inside(codes_TC: Tensor) -> Tensor:
    """The delay is applied within the clip's own length; the end is in one row on all channels."""
    out = torch.full((len(codes_TC) + 2, codes_TC.shape[1]), END)
    out[0] = BEGIN
    for c, delay in enumerate(DELAYS):
        out[1 : delay + 1, c] = BEGIN
        out[delay + 1 : -1, c] = codes_TC[: len(codes_TC) - delay, c]
    return out


def stlohrey_loss(model: DiaForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["text"], decoder_input_ids=batch["codes"]).logits.unflatten(0, (-1, len(DELAYS)))
    target, weights = batch["codes"][:, 1:], [4.0, 1.0, 1.0, 1.0]
    losses = [
        F.cross_entropy(logits[:, c, :-1].flatten(0, 1), target[..., c].flatten(), ignore_index=PAD)
        for c in range(len(DELAYS))
    ]
    return sum(weight * one for weight, one in zip(weights, losses, strict=True)) / sum(weights)


def stlohrey() -> Parts:
    rows = [delayed_inside(codes(frames, len(DELAYS), CODES, clip)) for clip, frames in enumerate(FRAMES)]
    return model(), batch(rows), stlohrey_loss


def itsitgroup() -> Parts:
    """Raw frames: no delay, no end."""
    rows = [
        F.pad(codes(frames, len(DELAYS), CODES, clip), (0, 0, 1, 0), value=BEGIN) for clip, frames in enumerate(FRAMES)
    ]
    return model(), batch(rows), stlohrey_loss


CASES = [
    Case("stlohrey dia-finetuning", stlohrey, ("A103",)),
    Case("itsitgroup dia-finetune", itsitgroup, ("A206", "A302")),
    Case("transformers Dia, labels pre-shifted", lambda: (model(), whole(), partial(transformers_loss, shift=1))),
    Case(
        "transformers Dia, labels = decoder_input_ids",
        lambda: (model(), whole(), partial(transformers_loss, shift=0)),
        ("A203",),
    ),
]

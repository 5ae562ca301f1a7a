"""MusicGen and its kin: the model shifts its input, labels are delayed and stay where they are; no id ends a clip."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MusicgenForCausalLM
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from tests.trainers.case import IGNORE, Case, Parts, backbone, codes, padded

CODEBOOKS, CODES, WIDTH = 4, 64, 32
SPECIAL = CODES
FRAMES = (14, 9, 17)
DELAYS = range(CODEBOOKS)


def transformers_musicgen() -> Parts:
    torch.manual_seed(0)
    special = {"pad_token_id": SPECIAL, "bos_token_id": SPECIAL, "decoder_start_token_id": SPECIAL}
    sizes = {"vocab_size": CODES, "num_hidden_layers": 2, "ffn_dim": 32, "num_attention_heads": 4, "hidden_size": WIDTH}
    model = MusicgenForCausalLM(
        MusicgenDecoderConfig(**sizes, **special, num_codebooks=CODEBOOKS, max_position_embeddings=64, audio_channels=1)
    )
    labels = padded(
        [delayed(codes(frames, CODEBOOKS, CODES, clip), SPECIAL) for clip, frames in enumerate(FRAMES)], SPECIAL
    )
    return model, {"labels": labels, "encoder_hidden_states": torch.randn(3, 4, WIDTH)}, None


def delayed(codes_TC: Tensor, fill: int) -> Tensor:
    out = torch.full((len(codes_TC) + max(DELAYS), CODEBOOKS), fill)
    for c, delay in enumerate(DELAYS):
        out[delay : delay + len(codes_TC), c] = codes_TC[:, c]
    return out


class Parallel(nn.Module):
    """One table and one head a codebook, codes summed, all codebooks of a row in parallel."""

    def __init__(self, classes: int):
        super().__init__()
        torch.manual_seed(0)
        self.emb = nn.ModuleList(nn.Embedding(classes, WIDTH) for _ in range(CODEBOOKS))
        self.transformer = backbone()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, classes, bias=False) for _ in range(CODEBOOKS))

    def forward(self, codes_BCS: Tensor) -> Tensor:
        embedded = sum(table(codes_BCS[:, c]) for c, table in enumerate(self.emb))
        states = self.transformer(inputs_embeds=embedded).last_hidden_state
        return torch.stack([head(states) for head in self.linears], 1)


def audiocraft_loss(model: Parallel, batch: dict[str, Tensor]) -> Tensor:
    """The pattern begins with one row of the special token; the last k frames of codebook k are not predicted."""
    codes_BCT = batch["codes"]
    clips, _, frames = codes_BCT.shape
    rows = torch.full((clips, CODEBOOKS, frames + 1), SPECIAL)
    for c, delay in enumerate(DELAYS):
        rows[:, c, delay + 1 :] = codes_BCT[:, c, : frames - delay]
    logits = model(rows[..., :-1])
    total = torch.zeros(())
    for c in DELAYS:
        valid = rows[:, c, 1:] != SPECIAL
        total = total + F.cross_entropy(logits[:, c][valid], rows[:, c, 1:][valid])
    return total / CODEBOOKS


def audiocraft() -> Parts:
    windows = torch.stack([codes(20, CODEBOOKS, CODES, clip).T for clip in range(3)])
    return Parallel(CODES + 1), {"codes": windows}, audiocraft_loss


BEGIN, END = CODES + 1, CODES


def parler_loss(model: Parallel, batch: dict[str, Tensor]) -> Tensor:
    """Labels begin, are delayed and end; num_items_in_batch counts every position, as three tests are joined by
    "or"."""
    labels = batch["labels"]
    read = F.pad(labels[:, :-1], (0, 0, 1, 0), value=BEGIN).masked_fill(
        F.pad(labels[:, :-1], (0, 0, 1, 0)) == IGNORE, END
    )
    logits = model(read.transpose(1, 2))
    counted = labels.masked_fill(labels == BEGIN, IGNORE)
    items = (labels.ne(BEGIN) | labels.ne(IGNORE) | labels.ne(END)).sum() / CODEBOOKS
    each = [
        F.cross_entropy(logits[:, c].flatten(0, 1), counted[..., c].flatten(), reduction="sum")
        for c in range(CODEBOOKS)
    ]
    return sum(each) / CODEBOOKS / items


def parler() -> Parts:
    rows = []
    for clip, frames in enumerate(FRAMES):
        out = torch.full((frames + CODEBOOKS, CODEBOOKS), END)
        for c, delay in enumerate(DELAYS):
            out[:delay, c] = BEGIN
            out[delay : delay + frames, c] = codes(frames, CODEBOOKS, CODES, clip)[:, c]
            out[delay + frames + 1 :, c] = IGNORE
        rows.append(out)
    model = Parallel(CODES + 2)
    model.config = SimpleNamespace(pad_token_id=END, bos_token_id=BEGIN)  # type: ignore[assignment]
    return model, {"labels": padded(rows, IGNORE)}, parler_loss


def moss_loss(model: Parallel, batch: dict[str, Tensor]) -> Tensor:
    """The collator shifts; each channel's sum over its count, weighted."""
    logits = model(batch["codes"])
    each = [F.cross_entropy(logits[:, c].flatten(0, 1), batch["labels"][:, c].flatten()) for c in range(CODEBOOKS)]
    weights = [2.0, 1.0, 1.0, 1.0]
    return sum(weight * one for weight, one in zip(weights, each, strict=True)) / sum(weights)


def moss() -> Parts:
    rows = [delayed(codes(frames, CODEBOOKS, CODES, clip), END) for clip, frames in enumerate(FRAMES)]
    rows = [F.pad(F.pad(one, (0, 0, 1, 0), value=BEGIN), (0, 0, 0, 1), value=END) for one in rows]
    labels = [one[1:].clone() for one in rows]
    for clip, frames in enumerate(FRAMES):
        for c, delay in enumerate(DELAYS):
            labels[clip][:delay, c] = labels[clip][delay + frames + 1 :, c] = IGNORE
    batch = {
        "codes": padded([one[:-1] for one in rows], END).transpose(1, 2),
        "labels": padded(labels, IGNORE).transpose(1, 2),
    }
    return Parallel(CODES + 2), batch, moss_loss


def whisperspeech() -> Parts:
    """logits[:, :, :-1] against codes[:, :, 1:]."""

    def loss(model: Parallel, batch: dict[str, Tensor]) -> Tensor:
        read = batch["codes"].masked_fill(batch["codes"] == IGNORE, SPECIAL)
        logits = model(read)
        each = [
            F.cross_entropy(logits[:, c, :-1].flatten(0, 1), batch["codes"][:, c, 1:].flatten())
            for c in range(CODEBOOKS)
        ]
        return (2 * each[0] + sum(each[1:])) / CODEBOOKS

    rows = padded([codes(frames, CODEBOOKS, CODES, clip) for clip, frames in enumerate(FRAMES)], IGNORE)
    return Parallel(CODES + 1), {"codes": rows.transpose(1, 2)}, loss


CASES = [
    Case("transformers MusicGen", transformers_musicgen),
    Case("audiocraft MusicGen solver", audiocraft),
    Case("parler-tts training", parler, ("D403",)),
    Case("MOSS-TTS delay SFT", moss),
    Case("WhisperSpeech S2A", whisperspeech),
]

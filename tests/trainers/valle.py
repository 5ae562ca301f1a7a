"""VALL-E and its kin: text, then the codes of codebook 0, in one causal transformer."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.trainers.case import IGNORE, Case, Parts, backbone, codes, padded

CODES, TEXT, WIDTH = 64, 50, 32
END, BEGIN, CLASSES = CODES, CODES + 1, CODES + 2
FRAMES, TEXTS = (16, 9, 20), (6, 8, 5)


class TextThenCodes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text_embedding, self.speech_embedding = nn.Embedding(TEXT, WIDTH), nn.Embedding(CLASSES, WIDTH)
        self.decoder = backbone()
        self.text_head, self.speech_head = nn.Linear(WIDTH, TEXT, bias=False), nn.Linear(WIDTH, CLASSES, bias=False)

    def forward(self, text: Tensor, speech: Tensor) -> tuple[Tensor, Tensor]:
        embedded = torch.cat([self.text_embedding(text), self.speech_embedding(speech)], 1)
        states = self.decoder(inputs_embeds=embedded).last_hidden_state
        return states[:, : text.shape[1]], states[:, text.shape[1] :]


def batch(begin: bool, end: bool = True) -> dict[str, Tensor]:
    """Padded with the end's id, as they all do."""
    rows = [codes(frames, 1, CODES, clip)[:, 0] for clip, frames in enumerate(FRAMES)]
    rows = [F.pad(F.pad(row, (int(begin), 0), value=BEGIN), (0, int(end)), value=END) for row in rows]
    text = [codes(length, 1, TEXT, 10 + clip, low=2)[:, 0] for clip, length in enumerate(TEXTS)]
    return {"text": padded(text, 0), "speech": padded(rows, END), "lengths": torch.tensor([len(row) for row in rows])}


def padding_taught(model: TextThenCodes, batch: dict[str, Tensor], reduction: str) -> Tensor:
    """Sum or mean over the padded batch, with no ignore_index."""
    _, states = model(batch["text"], batch["speech"][:, :-1])
    return F.cross_entropy(model.speech_head(states).transpose(1, 2), batch["speech"][:, 1:], reduction=reduction)


def both(model: TextThenCodes, batch: dict[str, Tensor]) -> Tensor:
    """UnifiedVoice: text too, and stops at every padded position."""
    text, states = model(batch["text"], batch["speech"][:, :-1])
    speech = F.cross_entropy(model.speech_head(states).transpose(1, 2), batch["speech"][:, 1:])
    return speech + 0.01 * F.cross_entropy(model.text_head(text[:, :-1]).transpose(1, 2), batch["text"][:, 1:])


def masked(batch: dict[str, Tensor]) -> Tensor:
    speech = batch["speech"]
    return speech.masked_fill(torch.arange(speech.shape[1]) >= batch["lengths"][:, None], IGNORE)


def not_transposed(model: TextThenCodes, batch: dict[str, Tensor]) -> Tensor:
    _, states = model(batch["text"], batch["speech"])
    return F.cross_entropy(model.speech_head(states), masked(batch))


def unshifted(model: TextThenCodes, batch: dict[str, Tensor]) -> Tensor:
    text, states = model(batch["text"], batch["speech"])
    speech = F.cross_entropy(model.speech_head(states).transpose(1, 2), masked(batch))
    labels = batch["text"].masked_fill(batch["text"] == 0, IGNORE)
    return speech + F.cross_entropy(model.text_head(text).transpose(1, 2), labels)


def cosyvoice(model: TextThenCodes, batch: dict[str, Tensor]) -> Tensor:
    """Each clip's text and speech are put together before padding; labels begin at the last row of text."""
    embedded, labels = [], []
    for text, speech, length in zip(batch["text"], batch["speech"], batch["lengths"], strict=True):
        text, speech = text[text > 0], speech[: length - 1]
        embedded.append(torch.cat([model.text_embedding(text), model.speech_embedding(speech)]))
        labels.append(F.pad(torch.cat([speech, torch.tensor([END])]), (len(text) - 1, 0), value=IGNORE))
    states = model.decoder(inputs_embeds=nn.utils.rnn.pad_sequence(embedded, batch_first=True)).last_hidden_state
    return F.cross_entropy(model.speech_head(states).flatten(0, 1), padded(labels, IGNORE).flatten())


def build(loss_fn, begin: bool = True) -> Parts:  # type: ignore[no-untyped-def]
    return TextThenCodes(), batch(begin), loss_fn


CASES = [
    Case("lifeiteng vall-e", partial(build, partial(padding_taught, reduction="sum"), False), ("A305",)),
    Case("GPT-SoVITS s1", partial(build, partial(padding_taught, reduction="sum")), ("A305",)),
    Case("chatterbox T3.loss (official)", partial(build, not_transposed), refused="Expected target size"),
    Case("stlohrey chatterbox T3.loss_old", partial(build, unshifted), ("A203",)),
    Case("DL-Art-School tortoise UnifiedVoice2", partial(build, both), ("A305",)),
    Case("NoyeArk cosyvoice-qinche-sft", partial(build, cosyvoice, False)),
]

"""Higgs Audio: text with placeholders for audio frames, delayed codebooks in parallel, one fused head."""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

from tests.trainers.case import IGNORE, Case, backbone, codes, padded

CODEBOOKS, SIZE, WIDTH = 4, 32, 32
BEGIN, END, CLASSES = SIZE, SIZE + 1, SIZE + 2
AUDIO, DELAYED, TEXT_PAD, TEXT_CLASSES = 90, 91, 0, 100
FRAMES, REFERENCES, TEXT = (9, 6, 12), (5, 7, 4), (4, 5, 3)


def stream(codes_TC: Tensor, delay: bool) -> Tensor:
    """Begin, codes, end; each codebook later than the one before if delayed."""
    framed = torch.cat([torch.full((1, CODEBOOKS), BEGIN), codes_TC, torch.full((1, CODEBOOKS), END)])
    if not delay:
        return framed
    out = torch.full((len(framed) + CODEBOOKS - 1, CODEBOOKS), END)
    for c in range(CODEBOOKS):
        out[:c, c] = BEGIN
        out[c : c + len(framed), c] = framed[:, c]
    return out


def batch(delay: bool, references: bool) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {"input_ids": [], "audio": [], "segments": []}
    for clip, (frames, reference, text) in enumerate(zip(FRAMES, REFERENCES, TEXT, strict=True)):
        clips = [codes(reference, CODEBOOKS, SIZE, 10 + clip)] * references + [codes(frames, CODEBOOKS, SIZE, clip)]
        words = [codes(text + n, 1, 80, 20 + clip + n, low=3)[:, 0] for n in range(len(clips) + 1)]
        audios = [stream(one, delay) for one in clips]
        parts = [words[0]]
        for word, audio in zip(words[1:], audios, strict=True):
            parts += [torch.full((len(audio),), AUDIO), word[:2]]
        rows["input_ids"].append(torch.cat(parts))
        rows["audio"].append(torch.cat(audios))
        rows["segments"].append(torch.cat([torch.full((len(audio),), n) for n, audio in enumerate(audios)]))
    made = {"input_ids": padded(rows["input_ids"], TEXT_PAD), "audio": padded(rows["audio"], END)}
    return made | {"segments": padded(rows["segments"], -1)}


def transformers_model() -> HiggsAudioV2ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {
        "audio_token_id": AUDIO,
        "audio_delay_token_id": DELAYED,
        "audio_bos_token_id": 92,
        "pad_token_id": TEXT_PAD,
    }
    special |= {"audio_stream_bos_id": BEGIN, "audio_stream_eos_id": END, "bos_token_id": 1, "eos_token_id": 2}
    shape = {"num_key_value_heads": 2, "head_dim": 8, "num_codebooks": CODEBOOKS, "codebook_size": CLASSES}
    return HiggsAudioV2ForConditionalGeneration(
        HiggsAudioV2Config(**sizes, **shape, **special, vocab_size=TEXT_CLASSES)
    )


def processor_loss(model: HiggsAudioV2ForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    audio = batch["audio"]
    labels = audio.masked_fill((audio == BEGIN) | (audio == END), IGNORE)
    exists = batch["segments"] >= 0
    return model(
        input_ids=batch["input_ids"], audio_input_ids=audio, audio_input_ids_mask=exists, audio_labels=labels
    ).loss


class Boson(nn.Module):
    """boson_multimodal's: audio embeddings are put where the placeholders are, and logits are made for the audio rows
    of the whole batch in one string."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(
            audio_stream_bos_id=BEGIN, audio_stream_eos_id=END, eos_token_id=2, pad_token_id=TEXT_PAD
        )
        self.embed_tokens, self.audio_codebook_embeddings = (
            nn.Embedding(TEXT_CLASSES, WIDTH),
            nn.Embedding(CODEBOOKS * CLASSES, WIDTH),
        )
        self.layers = backbone()
        self.text_lm_head = nn.Linear(WIDTH, TEXT_CLASSES, bias=False)
        self.audio_lm_head = nn.Linear(WIDTH, CODEBOOKS * CLASSES, bias=False)

    def forward(self, ids: Tensor, audio_CN: Tensor) -> tuple[Tensor, Tensor]:
        read = self.audio_codebook_embeddings(audio_CN + CLASSES * torch.arange(CODEBOOKS)[:, None]).sum(0)
        is_audio = ids == AUDIO
        embedded = self.embed_tokens(ids).masked_scatter(is_audio[..., None], read)
        states = self.layers(inputs_embeds=embedded).last_hidden_state
        return self.text_lm_head(states), self.audio_lm_head(states[is_audio]).unflatten(-1, (CODEBOOKS, CLASSES))


def boson_loss(model: Boson, batch: dict[str, Tensor], shift: int) -> Tensor:
    ids = batch["input_ids"]
    audio_CN = batch["audio"][batch["segments"] >= 0].T
    text, audio = model(ids, audio_CN)
    labels = ids.masked_fill((ids == AUDIO) | (ids == TEXT_PAD), IGNORE)
    last_text, last = ids.shape[1] - shift, audio_CN.shape[1] - shift
    total = F.cross_entropy(text[:, :last_text].flatten(0, 1), labels[:, shift:].flatten(), ignore_index=IGNORE)
    return total + sum(F.cross_entropy(audio[:last, c], audio_CN[c, shift:]) for c in range(CODEBOOKS)) / CODEBOOKS


CASES = [
    Case(
        "codeman911 higgs trainer.py", lambda: (Boson(), batch(False, False), partial(boson_loss, shift=0)), ("A203",)
    ),
    Case("JimmyMa99 train-higgs-audio", lambda: (Boson(), batch(False, True), partial(boson_loss, shift=1)), ("A307",)),
    Case(
        "transformers Higgs Audio v2 processor labels",
        lambda: (transformers_model(), batch(True, True), processor_loss),
        ("A302",),
    ),
]

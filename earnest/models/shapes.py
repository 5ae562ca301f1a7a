"""The shapes of released checkpoints, so that their tensors can be counted without a network or a weight."""

from dataclasses import dataclass

import torch
from transformers import (
    DiaConfig,
    DiaForConditionalGeneration,
    HiggsAudioV2Config,
    HiggsAudioV2ForConditionalGeneration,
)

from earnest.data.text import byte_tokenizer
from earnest.errors import UserError
from earnest.models.dia import Dia
from earnest.models.higgs import Higgs
from earnest.models.mot import MoTShape
from earnest.models.system import System

HIGGS, DIA = "bosonai/higgs-audio-v2-generation-3B-base", "nari-labs/Dia-1.6B-0626"
LLAMA, MUSICGEN = "meta-llama/Llama-3.2-1B", "facebook/musicgen-small"
MOT = MoTShape(
    width=2048, layers=16, heads=32, kv_heads=8, ffn=8192, expert_width=1024, expert_ffn=4096, vocabulary=128_256
)
"""Llama-3.2-1B and MusicGen-small, as `mot` joins them."""


@dataclass(frozen=True)
class CodecShape:
    """What a language model's shapes depend on."""

    name: str
    codebooks: int
    codebook_size: int
    frame_rate_hz: float
    channels: int = 1


CODECS = {
    shape.name: shape
    for shape in (
        CodecShape("facebook/encodec_32khz", 4, 2048, 50),
        CodecShape("descript/dac_44khz", 9, 1024, 44_100 / 512),
        CodecShape("bosonai/higgs-audio-v2-tokenizer", 8, 1024, 25),
    )
}


def on_meta() -> bool:
    """Whether tensors that are made now have shapes alone."""
    return torch.get_default_device().type == "meta"


def released(name: str) -> System:
    """A released model by its name, without weights. Raises UserError if its shape is not known here."""
    if name == HIGGS:
        lm = HiggsAudioV2ForConditionalGeneration(HiggsAudioV2Config(codebook_size=1026), use_text_head=True)
        return Higgs(lm, byte_tokenizer())
    if name == DIA:
        return Dia(DiaForConditionalGeneration(DiaConfig()))
    raise UserError(
        f"--counts-only of a model that starts from the checkpoint {name}",
        f"{HIGGS}, {DIA}, a MoT of {LLAMA} and {MUSICGEN}, or a model from scratch",
        "leave out --counts-only, or name one of these",
    )

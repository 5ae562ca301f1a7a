"""A small MoT, and clips of random codes for it."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from earnest.data.batch import Batch, collate
from earnest.data.text import byte_tokenizer
from earnest.models.mot import MoT, MoTDesign, MoTShape

CODEBOOKS, CODES = 3, 16
SHAPE = MoTShape(width=32, layers=3, heads=4, kv_heads=2, ffn=48, expert_width=16, expert_ffn=24)
SMALL = {"text_window": 24, "max_positions": 128}


def tiny_mot(
    seed: int = 0, awake: bool = True, backbone: str = "", experts: str = "", shape: MoTShape = SHAPE, **design
) -> MoT:
    """`awake`: up projections that are not zero, as after some training."""
    torch.manual_seed(seed)
    model = MoT.assemble(CODEBOOKS, CODES, MoTDesign(**{**SMALL, **design}), shape, backbone, experts)
    with torch.no_grad():
        for layer in model.layers:
            layer.expert.up.weight.normal_(std=0.3 if awake else 0)
        model.audio_rows.weight.normal_(std=0.3)
        model.embed_audio.weight.normal_(std=0.3)
    return model


def clips(frames=(5, 9, 7), seed: int = 0) -> list[tuple[torch.Tensor, str]]:
    random = torch.Generator().manual_seed(seed)
    texts = ["slow piano", "a fast drum loop", "violin"]
    return [(torch.randint(0, CODES, (CODEBOOKS, n), generator=random), texts[i % 3]) for i, n in enumerate(frames)]


def batch_of(model: MoT, frames=(5, 9, 7), seed: int = 0) -> Batch:
    return collate(
        [model.lay_out(codes_CT, text) for codes_CT, text in clips(frames, seed)], range(len(frames)), model.pad_id
    )


def save_backbone(path: Path, seed: int = 0, **config) -> str:
    """A small Llama with its tokenizer, as a checkpoint; returns where."""
    torch.manual_seed(seed)
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    sizes = dict(vocab_size=len(byte_tokenizer()), hidden_size=32, intermediate_size=48, num_hidden_layers=3)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)
    scaled = {"rope_parameters": rope | {"original_max_position_embeddings": 16}}
    llama = LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **scaled, **config}))
    llama.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return str(path)

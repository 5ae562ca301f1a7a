"""peft's adapters on a transformers model, restored as they were saved."""

from pathlib import Path

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from earnest.models.companions import optional_file


@torch.no_grad()
def restore_adapters(lm: PreTrainedModel, path: str | Path) -> None:
    """Give the adapters of a loaded checkpoint the values that were saved, in float32: transformers reads them in the
    type of their base. Does nothing if the checkpoint has none."""
    file = optional_file(path, "adapter_model.safetensors")
    if file is not None:
        in_float32(lm)
        set_peft_model_state_dict(lm, load_file(file))


def in_float32(lm: PreTrainedModel) -> None:
    """Keep the adapters in float32, as peft's own `get_peft_model` does."""
    for name, parameter in lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()

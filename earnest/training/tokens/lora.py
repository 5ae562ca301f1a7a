"""LoRA (arXiv:2106.09685) on a Higgs model through peft: adapters on the layers that were named and on no others, and
no input of the model dropped.

The adapters are injected into the model (transformers' `add_adapter`), not wrapped around it: a wrapper has a `forward`
of its own, and what that does not name (labels, audio ids) is lost or refused (peft#514, #1424). What is saved is
peft's own format.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoTokenizer, HiggsAudioV2ForConditionalGeneration, PreTrainedModel

from earnest.errors import UserError
from earnest.models.adapters import in_float32

GROUPS = {  # Higgs' linear layers, by what they do; "all" is every group
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "audio_mlp": ("audio_mlp.gate_proj", "audio_mlp.up_proj", "audio_mlp.down_proj"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}


@dataclass(frozen=True)
class Lora:
    rank: int = 0
    """Rank of the adapters; 0 trains every weight."""
    alpha: int = 32
    """Scale of the adapters: their product counts alpha / rank."""
    dropout: float = 0.0
    """Of the adapters' input."""
    targets: tuple[str, ...] = ("attention", "audio_mlp")
    """attention, audio_mlp, mlp (the text's), all; or a layer's name such as self_attn.q_proj."""


@torch.no_grad()
def add_lora(lm: PreTrainedModel, lora: Lora) -> None:
    """Inject adapters into `lm` and freeze everything else. An adapter starts at zero, so the model's output stays as
    it was.

    Leaves the model in evaluation mode.

    Raises UserError if a target names no layer or layers of different kinds, or if the adapted model answers
    differently or ignores one of its inputs.
    """
    names = target_names(lm, lora.targets)
    inputs = _probe_inputs(lm)
    before = _hidden(lm.eval())(**inputs)
    lm.add_adapter(
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(names))
    )
    in_float32(lm)
    hidden = _hidden(lm.eval())
    lost = dropped_inputs(hidden, inputs, _other_inputs(lm, inputs))
    same = torch.equal(hidden(**inputs), before)
    adapted = sum(name.endswith(".lora_A.default") for name, _ in lm.named_modules())
    expected = sum(len(layers) for layers in names.values())
    if adapted != expected or lost or not same:
        raise UserError(
            f"{adapted} adapted layers; ignored inputs: {', '.join(lost) or 'none'}; "
            f"output {'unchanged' if same else 'changed'}",
            f"{expected} adapted layers ({', '.join(names)}), every input used, and the output unchanged",
            "install a version of peft and transformers that constraints.txt names",
        )


def target_names(lm: nn.Module, targets: Sequence[str]) -> dict[str, list[str]]:
    """Targets -> {suffix that peft matches: names of the linear layers it hits, one in each block}.

    Raises UserError for a target that hits nothing, or layers of more than one kind: ``gate_proj`` is in the text's and
    in the audio's feed-forward network, and ``all-linear`` takes the output layers too.
    """
    linear = [name for name, module in lm.named_modules() if isinstance(module, nn.Linear)]
    suffixes = [suffix for group in GROUPS.values() for suffix in group]
    known = f"attention, audio_mlp, mlp, all, or one of {', '.join(suffixes)}"
    hit: dict[str, list[str]] = {}
    for target in targets:
        for suffix in suffixes if target == "all" else GROUPS.get(target, (target,)):
            hit[suffix] = [name for name in linear if name.endswith(f".{suffix}") or name == suffix]
            kinds = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in hit[suffix]})
            if not kinds:
                raise UserError(f"LoRA target {target!r}, which names no linear layer", known, "check the spelling")
            if len(kinds) > 1 or ".*." not in kinds[0]:
                raise UserError(
                    f"LoRA target {target!r}, which hits {', '.join(kinds)}", known, "name the one that is meant"
                )
    if not hit:
        raise UserError("no LoRA target", known, "name at least one, or set the rank to 0 to train every weight")
    return hit


def dropped_inputs(
    forward: Callable[..., Tensor], inputs: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> list[str]:
    """Names of the inputs that make no difference: with the value of `others` in place of that of `inputs`, the output
    is the same.

    An input that a wrapper filters out is found here, before a step is trained on it.
    """
    before = forward(**inputs)
    return [name for name, other in others.items() if torch.equal(forward(**{**inputs, name: other}), before)]


def train_adapters(lm: nn.Module) -> None:
    """Let the adapters of a loaded model be trained on, and nothing else."""
    for name, parameter in lm.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge(checkpoint: Path, out: Path) -> None:
    """Add the adapters of `checkpoint` into the weights of the model they were trained on, and write that, whole, to
    `out`.

    Raises UserError if the checkpoint has no adapters.
    """
    if not (checkpoint / "adapter_config.json").is_file():
        raise UserError(
            f"no adapter_config.json in {checkpoint}",
            "a checkpoint of adapters",
            "take it as it is: it is whole already",
        )
    base = LoraConfig.from_pretrained(str(checkpoint)).base_model_name_or_path
    whole = HiggsAudioV2ForConditionalGeneration.from_pretrained(base, use_text_head=True)
    PeftModel.from_pretrained(whole, str(checkpoint)).merge_and_unload().save_pretrained(out)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)


def _probe_inputs(lm: PreTrainedModel) -> dict[str, Tensor]:
    """Three positions of text, three of audio."""
    config = lm.config
    text_BS = torch.tensor([[config.bos_token_id, 5, 6, *[config.audio_token_id] * 3]], device=lm.device)
    return {
        "input_ids": text_BS,
        "audio_input_ids": torch.arange(3 * config.num_codebooks, device=lm.device).view(1, 3, -1)
        % config.audio_stream_bos_id,
        "attention_mask": torch.ones_like(text_BS, dtype=torch.bool),
    }


def _other_inputs(lm: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    text_BS, mask_BS = inputs["input_ids"].clone(), inputs["attention_mask"].clone()
    text_BS[0, 1], mask_BS[0, 0] = 7, False
    return {
        "input_ids": text_BS,
        "audio_input_ids": (inputs["audio_input_ids"] + 1) % lm.config.audio_stream_bos_id,
        "attention_mask": mask_BS,
    }


def _hidden(lm: PreTrainedModel) -> Callable[..., Tensor]:
    """Hidden states of the last position."""
    return lambda **inputs: lm.model(**inputs, use_cache=False).last_hidden_state[:, -1]

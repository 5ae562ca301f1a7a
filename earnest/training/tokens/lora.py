"""LoRA (arXiv:2106.09685) on a Higgs or a Dia through peft: adapters on the layers that were named and on no others,
and no input of the model dropped.

The adapters are injected into the model (transformers' `add_adapter`), not wrapped around it: a wrapper has a `forward`
of its own, and what that does not name (labels, audio ids) is lost or refused (peft#514, #1424). What is saved is
peft's own format.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, DiaForConditionalGeneration, HiggsAudioV2ForConditionalGeneration, PreTrainedModel

from earnest.errors import UserError
from earnest.loading import checkpoint_of
from earnest.models.adapters import in_float32
from earnest.models.companions import read_companions, write_companions
from earnest.models.four_bits import in_four_bits

# The linear layers of each model, by what they do; "all" is every group. Dia's encoder and decoder name theirs alike.
GROUPS = {
    "higgs_audio_v2": {
        "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        "audio_mlp": ("audio_mlp.gate_proj", "audio_mlp.up_proj", "audio_mlp.down_proj"),
        "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    },
    "dia": {
        "attention": tuple(f"decoder.layers.*.self_attention.{name}_proj" for name in "qkvo"),
        "cross_attention": tuple(f"decoder.layers.*.cross_attention.{name}_proj" for name in "qkvo"),
        "audio_mlp": ("decoder.layers.*.mlp.gate_up_proj", "decoder.layers.*.mlp.down_proj"),
        "text": (
            *(f"encoder.layers.*.self_attention.{name}_proj" for name in "qkvo"),
            *("encoder.layers.*.mlp.gate_up_proj", "encoder.layers.*.mlp.down_proj"),
        ),
    },
}


WHOLE: dict[str, Callable[[str], PreTrainedModel]] = {  # what adapters are merged into: transformers' own classes
    "higgs_audio_v2": partial(cast(Any, HiggsAudioV2ForConditionalGeneration).from_pretrained, use_text_head=True),
    "dia": cast(Any, DiaForConditionalGeneration).from_pretrained,
}
CARD = "README.md"  # of a checkpoint: what it is, for the Hub


@dataclass(frozen=True)
class Lora:
    rank: int = 0
    """Rank of the adapters; 0 trains every weight."""
    alpha: int = 32
    """Scale of the adapters: their product counts alpha / rank."""
    dropout: float = 0.0
    """Of the adapters' input."""
    base: Literal["released", "nf4"] = "released"
    """In what the frozen layers below and beside the adapters are kept: as released, or in four bits (QLoRA), which
    takes a quarter of bf16 and needs the package bitsandbytes."""
    targets: tuple[str, ...] = ("attention", "audio_mlp")
    """Higgs: attention, audio_mlp, mlp (the text's), all; or a layer's name such as self_attn.q_proj. Dia: attention,
    cross_attention, audio_mlp (the decoder's), text (the encoder), all."""


def refuse_from_scratch(lora: Lora) -> None:
    """Raises UserError if adapters are wanted and there is no model to adapt."""
    if lora.rank:
        raise UserError(
            "LoRA on a model from scratch", "a trained model to adapt", "name it with --model, or set --lora.rank 0"
        )


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
    modules = [suffix for suffix in names if "*" not in suffix]
    modules += [name for suffix, members in names.items() if "*" in suffix for name in members]
    lm.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules))
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
    if lora.base == "nf4":
        in_four_bits(lm)


def target_names(lm: nn.Module, targets: Sequence[str]) -> dict[str, list[str]]:
    """Targets -> {suffix that peft matches: names of the linear layers it hits, one in each block}.

    Raises UserError for a target that hits nothing, or layers of more than one kind: ``gate_proj`` is in the text's and
    in the audio's feed-forward network, and ``all-linear`` takes the output layers too.
    """
    linear = [name for name, module in lm.named_modules() if isinstance(module, nn.Linear)]
    groups = GROUPS[cast(PreTrainedModel, lm).config.model_type]
    suffixes = [suffix for group in groups.values() for suffix in group]
    known = f"{', '.join(groups)}, all, or one of {', '.join(suffixes)}"
    hit: dict[str, list[str]] = {}
    for target in targets:
        for suffix in suffixes if target == "all" else groups.get(target, (target,)):
            hit[suffix] = [name for name in linear if _kind(name).endswith(f".{_kind(suffix)}") or name == suffix]
            kinds = sorted({_kind(name) for name in hit[suffix]})
            if not kinds:
                raise UserError(f"LoRA target {target!r}, which names no linear layer", known, "check the spelling")
            if len(kinds) > 1 or ".*." not in kinds[0]:
                raise UserError(
                    f"LoRA target {target!r}, which hits {', '.join(kinds)}", known, "name the one that is meant"
                )
    if not hit:
        raise UserError("no LoRA target", known, "name at least one, or set the rank to 0 to train every weight")
    return hit


def _kind(name: str) -> str:
    """A layer's name without its number."""
    return re.sub(r"\.\d+\.", ".*.", name)


def dropped_inputs(
    forward: Callable[..., Tensor], inputs: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> list[str]:
    """Names of the inputs that make no difference: with the value of `others` in place of that of `inputs`, the output
    is the same.

    An input that a wrapper filters out is found here, before a step is trained on it.
    """
    before = forward(**inputs)
    return [name for name, other in others.items() if torch.equal(forward(**{**inputs, name: other}), before)]


def train_adapters(lm: nn.Module, lora: Lora) -> None:
    """Let the adapters of a loaded model be trained on, and nothing else."""
    for name, parameter in lm.named_parameters():
        parameter.requires_grad_("lora_" in name)
    if lora.base == "nf4":
        in_four_bits(lm)


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
    with checkpoint_of(checkpoint):
        base = cast(str, cast(Any, LoraConfig).from_pretrained(str(checkpoint)).base_model_name_or_path)
        whole = WHOLE[cast(Any, AutoConfig).from_pretrained(base).model_type](base)
        merged = cast(Any, PeftModel).from_pretrained(whole, str(checkpoint)).merge_and_unload()
    merged.save_pretrained(out)
    write_companions({**read_companions(base), **read_companions(checkpoint)}, out)
    card = checkpoint / CARD
    if card.is_file():
        (Path(out) / CARD).write_text(card.read_text(encoding="utf-8"), encoding="utf-8")


def _probe_inputs(lm: PreTrainedModel) -> dict[str, Tensor]:
    """Three positions of text, three of audio."""
    config: Any = lm.config
    if config.model_type == "dia":
        codebooks = config.decoder_config.num_channels
        return {
            "input_ids": torch.tensor([[5, 6, 8]], device=lm.device),
            "decoder_input_ids": torch.arange(3 * codebooks, device=lm.device).view(1, 3, -1)
            % config.decoder_config.eos_token_id,
            "attention_mask": torch.ones(1, 3, dtype=torch.bool, device=lm.device),
        }
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
    if "decoder_input_ids" in inputs:
        audio = {"decoder_input_ids": inputs["decoder_input_ids"] + 1}
        return {"input_ids": text_BS, "attention_mask": mask_BS, **audio}
    return {
        "input_ids": text_BS,
        "audio_input_ids": (inputs["audio_input_ids"] + 1) % lm.config.audio_stream_bos_id,
        "attention_mask": mask_BS,
    }


def _hidden(lm: PreTrainedModel) -> Callable[..., Tensor]:
    """Hidden states of the last position."""

    def hidden(**inputs: Tensor) -> Tensor:
        return lm.model(**inputs, use_cache=False).last_hidden_state[:, -1]

    return hidden

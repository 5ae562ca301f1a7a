"""Facts from a configuration: the one that a log holds, or a file beside it.

Only names whose meaning is settled become facts (`FACTS_SAID`); everything else in a configuration is left alone. Files
are data: JSON, and of YAML the part that configurations use (nested mappings, scalars, lists of scalars); nothing is
executed.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

from earnest.logs.log import words

FILES = [
    "config.json",
    "args.json",
    "training_args.json",
    "hparams.json",
    "hparams.yaml",
    "hparams.yml",
    "config.yaml",
    "config.yml",
    "args.yaml",
    ".hydra/config.yaml",
    "files/config.yaml",
    "params.json",
]
LARGEST_BYTES = 4 << 20
# fact -> its spellings in configurations: the last part of the name, or its end where a dot stands
FACTS_SAID = {
    "text_vocab": "text_vocab text_vocab_size text_vocabulary_size",
    "audio_vocab": "audio_vocab audio_vocab_size codebook_vocab_size",
    "codebooks": "codebooks num_codebooks n_codebooks audio_num_codebooks n_q num_quantizers n_quantizers num_audio_codebooks",
    "max_grad_norm": "max_grad_norm gradient_clip_val clip_grad_norm grad_clip grad_clip_norm gradient_clipping clip_norm max_norm "
    "clip_grad grad_norm_clip",
    "accumulation_steps": "accumulation_steps gradient_accumulation_steps grad_accum_steps accumulate_grad_batches grad_accum accum_grad "
    "update_freq",
    "schedule_steps": "schedule_steps max_steps max_updates total_steps max_train_steps num_training_steps max_update max_iters "
    "train_iters",
    "warmup_steps": "warmup_steps num_warmup_steps warmup_updates warmup_iters lr_warmup_steps warmup",
    "unconditional_frac": "unconditional_frac cfg_dropout cfg_dropout_prob cfg_dropout_p classifier_free_guidance_dropout cond_drop_prob "
    "uncond_prob unconditional_prob p_uncond classifier_free_guidance_training_dropout training_dropout",
    "guidance": "guidance guidance_scale cfg_scale cfg_coef inference_coef classifier_free_guidance_inference_coef",
    "steps_per_epoch": "steps_per_epoch updates_per_epoch",
    "train_clips": "train_clips num_train_samples train_samples num_train_examples",
    "held_out_clips": "held_out_clips num_eval_samples num_val_samples num_eval_examples",
    "trainable_parameters": "trainable_parameters trainable_params num_trainable_parameters",
    "sample_rate_hz": "sample_rate_hz sample_rate sampling_rate",
}
_FACT = {spelling: fact for fact, spellings in FACTS_SAID.items() for spelling in spellings.split()}
WEIGHT = re.compile(r"(?:alpha|lambda|loss_weight|weight)_(\w+)")
STREAM_NAMES = {
    "adv": "adv_g",
    "adv_g": "adv_g",
    "feat": "feat",
    "msspec": "msspec",
    "wavlm": "wavlm",
    "llm": "llm",
    "mel": "mel",
    "commit": "commitment",
}


def is_setting(name: str) -> bool:
    return "_".join(words(name)) in _FACT


def facts_of(config: dict[str, Any]) -> dict[str, Any]:
    """The facts that a (nested) configuration states; a name said twice with two values is no fact."""
    found: dict[str, set] = {}
    weights: dict[str, float] = {}
    for node in _mappings(config):
        codebooks = any(name in node for name in ("num_codebooks", "n_q", "num_quantizers", "n_codebooks"))
        for name, value in node.items():
            spelled = "_".join(words(str(name)))
            if spelled in ("vocab_size", "card"):
                fact = "audio_vocab" if codebooks else "text_vocab" if spelled == "vocab_size" else None
            elif spelled in ("codebook_size", "audio_codebook_size"):
                fact, value = "audio_vocab", _with_specials(node, value)
            else:
                fact = _FACT.get(spelled)
                if (weight := WEIGHT.fullmatch(spelled)) and weight[1] in STREAM_NAMES and _number(value) is not None:
                    weights[STREAM_NAMES[weight[1]]] = _number(value) or 0.0
            value = _number(value[0] if isinstance(value, list) and len(value) == 1 else value)
            if (
                fact is None
                or value is None
                or (fact != "guidance" and value < 0)
                or (fact == "schedule_steps" and value <= 0)
            ):
                continue
            if 0 < value < 1 and fact not in ("unconditional_frac", "max_grad_norm", "guidance"):
                continue  # a share (warmup: 0.1) where a count is meant
            found.setdefault(fact, set()).add(int(value) if float(value).is_integer() else value)
    facts: dict[str, Any] = {fact: values.pop() for fact, values in found.items() if len(values) == 1}
    if len(weights) > 1:
        facts["loss_weights"] = weights
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        facts["system"] = architectures[0]
    return facts


def facts_beside(path: Path) -> dict[str, tuple[Any, str]]:
    """fact -> (value, file) from the configuration files in the log's folder; the first file that states a fact
    wins."""
    folder = path if path.is_dir() else path.parent
    facts: dict[str, tuple[Any, str]] = {}
    for file in (folder / name for name in FILES):
        try:
            if not file.is_file() or file == path or file.stat().st_size > LARGEST_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            config = json.loads(text) if file.suffix == ".json" else yaml(text)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            for fact, value in facts_of(config).items():
                facts.setdefault(fact, (value, str(file.relative_to(folder))))
    return facts


def _mappings(config: dict[str, Any]):
    """Every mapping of a nested configuration; W&B's {desc, value} are undone, JSON within strings (TensorBoard's text)
    is read."""
    stack: list[Any] = [config]
    while stack:
        node = {
            name: value["value"] if isinstance(value, dict) and "value" in value and len(value) <= 2 else value
            for name, value in stack.pop().items()
        }
        yield node
        for value in node.values():
            if isinstance(value, str) and value.startswith("{") and len(value) < LARGEST_BYTES:
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    continue
            if isinstance(value, dict):
                stack.append(value)


def _with_specials(node: dict[str, Any], size: Any) -> Any:
    """A codebook of 1024 whose stream begins and ends with ids 1024 and 1025 has 1026 that can occur."""
    ids = [
        value
        for name, value in node.items()
        if re.fullmatch(r"audio_(?:stream_)?(?:bos|eos)_(?:token_)?id", str(name)) and isinstance(value, int)
    ]
    return max([size, *(one + 1 for one in ids if size <= one < size + 64)]) if isinstance(size, int) else size


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return (
            float(value)
            if isinstance(value, int | float)
            or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", value))
            else None
        )
    except OverflowError:
        return None


def yaml(text: str) -> dict[str, Any]:
    """Nested mappings of scalars and inline lists; anchors, tags, block scalars and lists of mappings are passed
    over."""
    root: dict[str, Any] = {}
    stack: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for line in text.splitlines():
        match = re.match(r"""^( *)["']?([\w./\-]+)["']?\s*:(?:\s+(.*))?$""", line)
        if not match or line.lstrip().startswith("#"):
            continue
        indent, name, value = len(match[1]), match[2], re.sub(r"\s#.*$", "", match[3] or "").strip()
        while stack[-1][0] >= indent:
            stack.pop()
        if value:
            stack[-1][1][name] = _scalar(value)
        else:
            stack[-1][1][name] = {}
            stack.append((indent, stack[-1][1][name]))
    return root


def _scalar(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text

"""Facts from a configuration: the one that a log holds, or a file beside it.

Only names whose meaning is settled become facts (`SPELLINGS`); everything else in a configuration is left alone. Files
are data, JSON or YAML; nothing in them is executed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earnest.columns import Json
from earnest.errors import UserError
from earnest.facts import checked
from earnest.files import read_small
from earnest.logs.words import words
from earnest.profiles.configs import config_of
from earnest.profiles.models import Model, known_as, model
from earnest.records import loads

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
MOST_NOTES = 10
# fact -> its spellings in configurations: the last part of the name, its words joined by "_"
SPELLINGS = {
    "text_vocab": "text_vocab text_vocab_size text_vocabulary_size",
    "audio_vocab": "audio_vocab audio_vocab_size codebook_vocab_size",
    "codebooks": (
        "codebooks num_codebooks n_codebooks audio_num_codebooks n_q num_quantizers n_quantizers num_audio_codebooks"
    ),
    "max_grad_norm": (
        "max_grad_norm gradient_clip_val clip_grad_norm grad_clip grad_clip_norm gradient_clipping clip_norm "
        "max_norm clip_grad grad_norm_clip"
    ),
    "accumulation_steps": (
        "accumulation_steps gradient_accumulation_steps grad_accum_steps accumulate_grad_batches grad_accum "
        "accum_grad update_freq num_microbatches"
    ),
    "schedule_steps": (
        "schedule_steps max_steps max_updates total_steps max_train_steps num_training_steps max_update max_iters "
        "train_iters"
    ),
    "warmup_steps": "warmup_steps num_warmup_steps warmup_updates warmup_iters lr_warmup_steps warmup",
    "unconditional_frac": (
        "unconditional_frac cfg_dropout cfg_dropout_prob cfg_dropout_p classifier_free_guidance_dropout "
        "cond_drop_prob uncond_prob unconditional_prob p_uncond classifier_free_guidance_training_dropout "
        "training_dropout"
    ),
    "guidance": "guidance guidance_scale cfg_scale cfg_coef inference_coef classifier_free_guidance_inference_coef",
    "steps_per_epoch": "steps_per_epoch updates_per_epoch",
    "train_clips": "train_clips num_train_samples train_samples num_train_examples",
    "held_out_clips": "held_out_clips num_eval_samples num_val_samples num_eval_examples",
    "trainable_parameters": "trainable_parameters trainable_params num_trainable_parameters",
    "sample_rate_hz": "sample_rate_hz sample_rate sampling_rate",
}
_FACT = {spelling: fact for fact, spellings in SPELLINGS.items() for spelling in spellings.split()}
# names under which a configuration says which model was trained
OF_MODEL = [
    "model_name_or_path",
    "name_or_path",
    "base_model_name_or_path",
    "pretrained_model_name_or_path",
    "init_model_path",
    "model_id",
    "base_model",
    "pretrained_model",
    "model_name",
    "model",
    "hf_repo_id",
]
# Vocabularies of text to which audio ids are appended: ids of their own special tokens -> how many ids they have
TEXT_VOCABULARIES = {range(128_000, 128_256): 128_256, range(151_643, 151_669): 151_669}
LEAST_APPENDED = 1024  # ids beyond a vocabulary of text: fewer are its padding and a few special tokens
NOT_SET = (None, "", "auto", -1)  # transformers' max_steps is -1 if nobody set it; DeepSpeed's values are "auto"
NUMERAL = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
WEIGHT = re.compile(r"(?:alpha|lambda|loss_weight|weight)_(\w+)")
WEIGHTED = {"adv": "adv_g", "commit": "commitment"} | {
    name: name for name in ("adv_g", "feat", "msspec", "wavlm", "llm", "mel")
}


@dataclass(frozen=True)
class Settings:
    """What configurations say: facts as plain values, the place of each, and what could not be used and why."""

    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    sources: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])

    def else_of(self, other: "Settings") -> "Settings":
        """These; facts that these do not hold are those of another."""
        return Settings(other.facts | self.facts, other.sources | self.sources, self.notes + other.notes)


def is_setting(name: str) -> bool:
    """Whether a name is that of a setting which states a fact."""
    return "_".join(words(name)) in _FACT


def facts_of(config: Mapping[str, Json], where: str) -> Settings:
    """The facts that a (nested) configuration states. A fact with two values, or of a wrong type or sign, is none."""
    values: dict[str, dict[Any, str]] = {}
    weights: dict[str, Json] = {}
    notes: list[str] = []
    for node in _mappings(config):
        for name, value in node.items():
            spelled, value = "_".join(words(name.rpartition(".")[2])), _plain(value)
            if (weight := WEIGHT.fullmatch(spelled)) and weight[1] in WEIGHTED and value not in NOT_SET:
                weights[WEIGHTED[weight[1]]] = value
            if spelled in ("codebook_size", "audio_codebook_size"):
                value = _with_specials(node, value)
            fact = _fact_of(spelled, node)
            if fact is None or value in NOT_SET or isinstance(value, dict) or _is_reference(value):
                continue
            try:
                values.setdefault(fact, {})[checked(fact, value)] = name
            except UserError as error:
                notes.append(f"{where}: {name} = {str(value)[:40]} is not used as {fact}: it is {error.expected}")
    told, wrong = _of_known_kind(config)
    values = {fact: known for fact, known in values.items() if fact not in wrong and fact not in told}
    facts: dict[str, Any] = {fact: next(iter(known)) for fact, known in values.items() if len(known) == 1} | told
    for fact, known in values.items():
        if len(known) > 1:
            listed = ", ".join(map(str, sorted(known)[:4]))
            notes.append(f"{where} gives {fact} {len(known)} values ({listed}): none is used; say it with --fact")
    if len(weights) > 1:
        try:
            checked("loss_weights", weights)
            facts["loss_weights"] = weights
        except UserError as error:
            notes.append(f"{where}: the loss weights are not used: {error.seen}, not {error.expected}")
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        facts["system"] = architectures[0]
    sources, model = dict.fromkeys(facts, where), _named_model(config)
    if model is not None and {"text_vocab", "audio_vocab"}.isdisjoint(facts):
        given = {name: value for name, value in model.facts.known().items() if name not in facts}
        facts, sources = facts | given, sources | dict.fromkeys(given, f"{where}, which names {model.title}")
    return Settings(facts, sources, list(dict.fromkeys(notes))[:MOST_NOTES])


def _of_known_kind(config: Mapping[str, Json]) -> tuple[dict[str, Any], set[str]]:
    """The facts of a configuration of a known kind, and those that its other names would give wrongly."""
    kind = config_of(config)
    if kind is not None:
        return {name: checked(name, _plain(value)) for name, value in kind.values(config).items()}, set(kind.wrong)
    return _joint(config), set()


def _joint(config: Mapping[str, Json]) -> dict[str, Any]:
    """A vocabulary of text to which audio ids were appended: known by the ids of its own special tokens, far below its
    size."""
    size, ends = config.get("vocab_size"), [config.get("bos_token_id"), config.get("eos_token_id")]
    known = {text for ids, text in TEXT_VOCABULARIES.items() for end in ends if isinstance(end, int) and end in ids}
    if not isinstance(size, int) or len(known) != 1 or size < min(known) + LEAST_APPENDED:
        return {}
    return {"joint_vocab": size, "text_vocab": min(known)}


def _named_model(config: Mapping[str, Json]) -> Model | None:
    """The known model that a configuration names, if it names one."""
    named = [
        found
        for node in _mappings(config)
        for name, value in node.items()
        if isinstance(value, str) and "_".join(words(name)) in OF_MODEL and (found := known_as(value)) is not None
    ]
    return named[0] if named and all(one == named[0] for one in named) else None


def _is_reference(value: Json) -> bool:
    """``${model.dim}`` and ``<sample_rate>`` name another place in the configuration, which is read there."""
    return isinstance(value, str) and value.startswith(("${", "<"))


def _fact_of(spelled: str, node: Mapping[str, Json]) -> str | None:
    """The fact that a name states; a plain vocabulary is that of the codes if its mapping says how many codebooks."""
    if spelled in ("vocab_size", "card"):
        if not node.keys().isdisjoint(("num_codebooks", "n_q", "num_quantizers", "n_codebooks")):
            return "audio_vocab"
        return "text_vocab" if spelled == "vocab_size" else None
    return "audio_vocab" if spelled in ("codebook_size", "audio_codebook_size") else _FACT.get(spelled)


def facts_of_model(name: str) -> Settings:
    """The facts of a known model. Raises UserError if it is not known."""
    known = model(name)
    facts = known.facts.known()
    return Settings(facts, dict.fromkeys(facts, f"the table of models: {known.title}"))


def facts_in(path: Path) -> Settings:
    """The facts of a configuration file that the user names, or of a folder with one. Raises UserError if it cannot be
    read, or states none."""
    file = next((path / name for name in FILES if (path / name).is_file()), path) if path.is_dir() else path
    expected = f"a configuration in JSON, YAML or TOML, as a model's {FILES[0]}"
    try:
        config = _read(file)
    except (OSError, RecursionError, *ODD_SCALARS) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
        raise UserError(f"--config {path}: {reason}", expected, "check the path, or pass --fact NAME=VALUE") from error
    found = facts_of(config, str(path)) if isinstance(config, dict) else Settings()
    if not found.facts:
        raise UserError(
            f"--config {path} states no fact that earnest knows",
            expected,
            "pass what it means with --fact, e.g. --fact text_vocab=32000; `earnest explain facts` lists them",
        )
    return found


def facts_beside(path: Path) -> Settings:
    """The facts of the configuration files in the log's folder; the first file that states a fact wins."""
    folder = path if path.is_dir() else path.parent
    settings = Settings()
    for file in (folder / name for name in FILES):
        try:
            if not file.is_file() or file == path:
                continue
            config = _read(file)
        except (OSError, RecursionError, *ODD_SCALARS) as error:
            reason = " ".join(str(error).split())[:100]
            settings.notes.append(f"{file.name} could not be read, so no facts come from it ({reason})")
            continue
        if isinstance(config, dict):
            settings = settings.else_of(facts_of(config, str(file.relative_to(folder))))
    return settings


# what PyYAML raises for a scalar that is not what its tag says (`!!int ""`, `!!timestamp x`), and json for bad text
ODD_SCALARS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)


def _read(file: Path) -> Json:
    text = read_small(file, LARGEST_BYTES).decode("utf-8", "replace")
    if file.suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if file.suffix == ".json":
        return loads(text)
    from earnest.logs.yaml_text import from_yaml

    return from_yaml(text)


def _mappings(config: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    """Every mapping of a nested configuration, each once, however many aliases name it.

    W&B's {desc, value} are undone, and JSON within texts (TensorBoard's) is read.
    """
    stack = [config]
    seen: dict[int, Json] = {}  # by identity; the values are kept alive so that no identity comes again
    while stack:
        node: dict[str, Json] = {
            str(name): value["value"] if isinstance(value, dict) and "value" in value and len(value) <= 2 else value
            for name, value in stack.pop().items()
        }
        yield node
        for value in node.values():
            if id(value) in seen or not isinstance(value, dict | str):
                continue
            seen[id(value)] = value
            if isinstance(value, str) and value.startswith("{") and len(value) < LARGEST_BYTES:
                try:
                    value = loads(value)
                except ValueError:
                    continue
            if isinstance(value, dict):
                stack.append(value)


def _with_specials(node: Mapping[str, Json], size: Json) -> Json:
    """The vocabulary of a codebook: 1026 if it has 1024 codes and its stream begins and ends with ids 1024 and 1025."""
    if not isinstance(size, int):
        return size
    ids = [
        value
        for name, value in node.items()
        if re.fullmatch(r"audio_(?:stream_)?(?:bos|eos)_(?:token_)?id", name) and isinstance(value, int)
    ]
    return max([size, *(index + 1 for index in ids if size <= index < size + 64)])


def _plain(value: Json) -> Json:
    """A value as its setting means it: the one entry of a list, a number for a numeral, 8 for 8.0."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and NUMERAL.fullmatch(value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value

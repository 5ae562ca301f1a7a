"""Checkpoints, tokenizers and processors that are not there: tiny random ones of the same classes."""

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from earnest.errors import UserError
from earnest.loops.stage import tokenizer
from earnest.loops.stage.replaced import tell
from earnest.loops.stage.shrink import rescale_rope, shrink
from earnest.loops.stage.weights import draw

WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")
LARGEST_LOADED = 64 * 2**20  # bytes of weights that are read as they are
FEWEST_TOKENS = 64  # in a tokenizer's vocabulary; bytes alone are 256
HEARS = ("feature_extractor", "audio_processor")  # names of the part of a processor that takes audio
FAMILIES: Mapping[str, str] = {
    "orpheus": "llama",
    "llasa": "llama",
    "smollm": "llama",
    "vicuna": "llama",
    "neutts": "qwen2",
    "sparktts": "qwen2",
    "outetts": "llama",
    "parler": "musicgen",
}
ROWS: Mapping[str, int] = {  # of vocabularies that differ from their family's default, by the checkpoint's name
    "llama3": 128256,
    "orpheus": 156940,
    "llasa": 193800,
}


class Checkpoints:
    """Answers `from_pretrained` of transformers. configs: files that the user gave with --config · folder: the
    script's · widths: whether widths are made small, or layers only · narrowed: whether any was."""

    def __init__(self, configs: list[Path], folder: Path, widths: bool = True):
        self.configs, self.folder, self.widths = configs, folder, widths
        self.narrowed = False

    def changes(self) -> dict[str, Callable[[Any], None]]:
        """Module of transformers -> the change to it: ours answers if its own `from_pretrained` fails."""
        return {
            "transformers.modeling_utils": lambda m: self._instead(m.PreTrainedModel, self._model),
            "transformers.models.auto.auto_factory": lambda m: self._instead(m._BaseAutoModelClass, self._auto_model),
            "transformers.configuration_utils": lambda m: self._instead(
                getattr(m, "PretrainedConfig", None) or m.PreTrainedConfig, self._config
            ),
            "transformers.models.auto.configuration_auto": lambda m: self._instead(m.AutoConfig, self._config),
            "transformers.tokenization_utils_base": lambda m: self._instead(m.PreTrainedTokenizerBase, self._tokenizer),
            "transformers.models.auto.tokenization_auto": lambda m: self._instead(m.AutoTokenizer, self._tokenizer),
            "transformers.feature_extraction_utils": lambda m: self._instead(m.FeatureExtractionMixin, self._extractor),
            "transformers.models.auto.feature_extraction_auto": lambda m: self._instead(
                m.AutoFeatureExtractor, self._extractor
            ),
            "transformers.models.auto.processing_auto": lambda m: self._instead(m.AutoProcessor, self._auto_processor),
            "transformers.processing_utils": lambda m: self._instead(m.ProcessorMixin, self._processor),
            "transformers.generation.configuration_utils": lambda m: self._instead(
                m.GenerationConfig, self._generation
            ),
        }

    def _instead(self, owner: Any, make: Callable[..., Any]) -> None:
        original = owner.from_pretrained.__func__

        def from_pretrained(cls: Any, name: Any = None, *args: Any, **kwargs: Any) -> Any:
            return make(cls, str(name), lambda: original(cls, name, *args, **kwargs), kwargs)

        owner.from_pretrained = classmethod(from_pretrained)

    def _model(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        if _is_small(name):
            return original()
        config = kwargs.get("config")
        config = self.config(name, cls) if config is None or isinstance(config, str) else self._small(config)
        return self._drawn(cls, config, name)

    def _auto_model(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        if _is_small(name):
            return original()
        config = kwargs.get("config")
        config = self.config(name, None) if config is None or isinstance(config, str) else self._small(config)
        mapping = cls._model_mapping
        if type(config) not in mapping:  # as transformers says it: its pipelines try one class after another
            raise ValueError(f"Unrecognized configuration class {type(config)} for {cls.__name__}")
        model_class = mapping[type(config)]
        return self._drawn(model_class[0] if isinstance(model_class, tuple) else model_class, config, name)

    def _drawn(self, cls: Any, config: Any, name: str) -> nn.Module:
        for attention in ("_attn_implementation", "_attn_implementation_internal"):
            if str(getattr(config, attention, "")).startswith("flash"):
                setattr(config, attention, "sdpa")
        state = torch.get_rng_state()
        torch.manual_seed(0)
        model: nn.Module = cls(config).float()
        draw(model)
        torch.set_rng_state(state)
        if hasattr(config, "_name_or_path"):
            config._name_or_path = name  # by which tokenizers and adapters look for what belongs to the model
        tell(f"weights of {name}: a tiny random {cls.__name__}")
        return model.eval()

    def _config(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        if _is_small(name):
            return original()
        config_class = cls if hasattr(cls, "model_type") and cls.model_type else None
        config = self.config(name, None, config_class)
        config.architectures = config.architectures or _architectures(config)
        return (config, {}) if kwargs.get("return_unused_kwargs") else config

    def config(self, name: str, model_class: Any, config_class: Any = None) -> Any:
        """A small configuration of this checkpoint: its own, one that the user gave, the class's, or a family's."""
        stored = self._stored(name)
        config_class = config_class or getattr(model_class, "config_class", None)
        if stored is not None:
            config_class = config_class or _brought(str(stored.get("model_type")))
        if stored is not None and (config_class or "model_type" in stored):  # others are no models of transformers
            return self._small(
                config_class.from_dict(stored) if config_class else self._auto().AutoConfig.for_model(**stored)
            )
        if config_class is not None and getattr(config_class, "model_type", ""):
            tell(f"{name} is not here: the default configuration of {config_class.__name__}, made small")
            return self._small(config_class())
        if (config_class := _brought()) is not None:
            tell(f"{name} is not here: the default configuration of {config_class.__name__}, made small")
            return self._small(config_class())
        family = _family(name, self._auto().CONFIG_MAPPING)
        tell(f"{name} is not here: a {family} of the default configuration, by its name")
        rows = next((rows for word, rows in ROWS.items() if word in _plain(name)), None)
        return self._small(self._auto().AutoConfig.for_model(family, **({"vocab_size": rows} if rows else {})))

    def _small(self, config: Any) -> Any:
        self.narrowed |= self.widths
        shrink(config, self.widths)
        if self.widths:
            rescale_rope(config)
        return config

    @staticmethod
    def _auto() -> Any:
        return importlib.import_module("transformers.models.auto.configuration_auto")

    def _stored(self, name: str) -> dict[str, Any] | None:
        path = self.stored_path(name)
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path else None
        return found

    def stored_path(self, name: str) -> Path | None:
        """config.json of a checkpoint: in its folder, in the Hub's cache, as the user gave it, or beside the script."""
        given = [path for path in self.configs if path.is_file()]
        named = [path for path in given if Path(name).name in str(path)]
        beside = [path for path in self.folder.rglob("config.json") if Path(name).name in str(path.parent)]
        for path in (Path(name) / "config.json", *_cached(name), *(named or given[:1]), *beside):
            if path.is_file():
                return path
        return None

    def _tokenizer(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        try:
            made = original()
            if len(made) >= FEWEST_TOKENS:  # transformers 5 makes an empty one if there are no files
                return made
            raise ValueError("an empty tokenizer")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError):
            tell(f"tokenizer of {name}: a byte-level stand-in; special tokens get ids when they are asked for")
            return tokenizer_of(_family_of(cls), self._rows(name))

    def _rows(self, name: str) -> int:
        """The size of a checkpoint's vocabulary; 0 if nothing tells."""
        try:
            config: Any = self.config(name, None)
        except (UserError, ImportError, ValueError, KeyError):
            return 0
        rows = getattr(config, "vocab_size", None)
        return rows if isinstance(rows, int) else 0

    def _extractor(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        try:
            return original()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError):
            if not _family_of(cls):
                cls = getattr(
                    importlib.import_module("transformers"), _extractors()[self.config(name, None).model_type]
                )
            tell(f"feature extractor of {name}: {cls.__name__} of its defaults")
            return cls()

    def _auto_processor(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        try:
            return original()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError):
            mapping = importlib.import_module("transformers.models.auto.processing_auto").PROCESSOR_MAPPING
            return made_processor(mapping[type(self.config(name, None))], name)

    def _processor(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        try:
            return original()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError):
            return made_processor(cls, name)

    def _generation(self, cls: Any, name: str, original: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        try:
            return original()
        except (OSError, ValueError):
            return cls()


def made_processor(cls: Any, name: str) -> Any:
    """A processor of this class, each part by its default."""
    transformers = importlib.import_module("transformers")
    family = _family_of(cls)
    parts: dict[str, Any] = {}
    for part in getattr(cls, "attributes", None) or [
        name for name in inspect.signature(cls).parameters if "kwargs" not in name
    ]:
        own = cls.__name__.replace("Processor", part.title().replace("_", ""))  # WhisperFeatureExtractor
        known = getattr(cls, f"{part}_class", None) or own
        known = known[0] if isinstance(known, tuple) else known
        if part in HEARS and (not hasattr(transformers, known) or known.startswith("Auto")):
            known = _extractors().get(family, known)
        if part == "tokenizer":
            parts[part] = tokenizer_of(family)
        elif hasattr(transformers, known) and not known.startswith("Auto"):
            part_class = getattr(transformers, known)
            parts[part] = part_class(*_small_config(part_class))
    tell(f"processor of {name}: a {cls.__name__} of its parts' defaults, with a byte-level tokenizer")
    cls.check_argument_for_proper_class = lambda self, name, part: None
    cls.tokenizer_class = "PreTrainedTokenizerBase"  # before transformers 4.50 nothing else says what is proper
    return cls(**parts)


def _family_of(cls: Any) -> str:
    """FAMILY of a class in transformers.models.FAMILY, "" for those of all families."""
    parts = str(cls.__module__).split(".")
    return parts[-2] if len(parts) > 2 and parts[-3] == "models" and parts[-2] != "auto" else ""


def tokenizer_of(family: str, rows: int = 0) -> Any:
    """A stand-in whose special tokens have the ids of the family's default configuration. rows: of the vocabulary."""
    known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    if family not in known:
        return tokenizer.stand_in(size=rows)
    config: Any = known[family]()
    ids = {name: getattr(config, f"{name}_id", None) for name in tokenizer.SPECIAL}
    given = {name: number for name, number in ids.items() if isinstance(number, int)}
    return tokenizer.stand_in(given, "eos_token" in given and bool(getattr(config, "is_encoder_decoder", False)), rows)


def _architectures(config: Any) -> list[str] | None:
    """The class that a checkpoint of this configuration would name (trl asks): the one that generates text."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for names in (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        if (found := names.get(config.model_type)) is not None:
            return [found]
    return None


def _extractors() -> Mapping[str, str]:
    """Family, as its module is called -> its feature extractor."""
    every = importlib.import_module("transformers.models.auto.feature_extraction_auto")
    return {family.replace("-", "_"): name for family, name in every.FEATURE_EXTRACTOR_MAPPING_NAMES.items()}


def _small_config(part_class: Any) -> list[Any]:
    """What a model that is part of a processor, such as a codec, is made from; nothing for other parts."""
    if not (isinstance(part_class, type) and issubclass(part_class, nn.Module)):
        return []
    config: Any = getattr(part_class, "config_class")()  # noqa: B009  # of transformers' models alone
    shrink(config, True)
    return [config]


def _brought(model_type: str | None = None) -> Any:
    """The configuration class that the script itself brings: of this type, or the only one that there is."""
    base = importlib.import_module("transformers.configuration_utils")
    todo, found = [getattr(base, "PretrainedConfig", None) or base.PreTrainedConfig], list[Any]()
    while todo:
        found += (below := todo.pop().__subclasses__())
        todo += below
    files = {one: str(getattr(sys.modules.get(one.__module__), "__file__", None) or "") for one in found}
    brought = [one for one in found if files[one] and "site-packages" not in files[one]]
    if model_type is not None:
        return next((one for one in brought if one.model_type == model_type), None)
    return brought[0] if len(brought) == 1 else None


def _family(name: str, families: Any) -> str:
    """The model type that a checkpoint's name speaks of."""
    plain = _plain(name)
    known = {_plain(one): one for one in families}
    found = [one for one in known if len(one) > 2 and one in plain] or [one for one in FAMILIES if one in plain]
    if not found:
        raise UserError(*not_here(name))
    longest = max(found, key=len)
    return known.get(longest, FAMILIES.get(longest, longest))


def not_here(name: str) -> tuple[str, str, str]:
    """The three lines on a checkpoint that is not here, and whose configuration its name does not tell."""
    return (
        f"{name}, which is neither here nor of a family that its name tells",
        "the configuration of the model that the script trains",
        "pass its config.json: earnest check --config config.json SCRIPT",
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_small(name: str) -> bool:
    """Whether a checkpoint is here, whole, and small enough to be read."""
    folder = Path(name)
    if not folder.is_dir():
        return False
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    return bool(weights) and sum(path.stat().st_size for path in weights) <= LARGEST_LOADED


def _cached(name: str) -> list[Path]:
    """config.json of a checkpoint in the Hub's cache."""
    home = Path(
        os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    )
    return sorted((home / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json"))

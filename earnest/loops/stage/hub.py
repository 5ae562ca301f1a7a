"""Files that a script fetches from the Hub by itself, and models that are loaded by the Hub's own class."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from earnest.errors import UserError
from earnest.loops.stage.models import Checkpoints, not_here
from earnest.loops.stage.replaced import tell
from earnest.loops.stage.shrink import shrink
from earnest.loops.stage.weights import draw_all, drawn_weights

THEIRS = ("transformers", "huggingface_hub", "peft", "diffusers", "datasets", "tokenizers", "sentence_transformers")


class Hub:
    """folder: holds what was not fetched: paths in it lead nowhere, and `torch.load` of them draws weights."""

    def __init__(self, folder: Path, checkpoints: Checkpoints):
        self.folder, self.checkpoints = folder, checkpoints

    def changes(self) -> dict[str, Callable[[Any], None]]:
        """Module name -> the change that is made to it once it has been imported."""
        return {
            "huggingface_hub": self._downloads,
            "huggingface_hub.hub_mixin": self._mixin,
            "safetensors.torch": self._safetensors,
        }

    def _downloads(self, hub: Any) -> None:
        for name in ("hf_hub_download", "snapshot_download"):
            setattr(hub, name, self._download(getattr(hub, name), name == "hf_hub_download"))

    def _download(self, original: Callable[..., Any], one_file: bool) -> Callable[..., Any]:
        def download(repo_id: str, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(repo_id, *args, **kwargs)
            except (OSError, ValueError):
                if str(sys._getframe(1).f_globals.get("__name__")).partition(".")[0] in THEIRS:
                    raise  # these know what to do without
                tell(f"download of {repo_id}: not made")
                if not one_file:
                    return str(self.folder / repo_id)
                return str(self.folder / repo_id / str(args[0] if args else kwargs["filename"]))

        return download

    def _mixin(self, hub_mixin: Any) -> None:
        """Models of `PyTorchModelHubMixin`: their own arguments, made small where they are numbers; weights drawn."""
        mixin = hub_mixin.ModelHubMixin
        original = mixin.from_pretrained.__func__

        def from_pretrained(cls: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
            if not Path(str(name)).is_dir() and (config := self.checkpoints.stored_path(str(name))) is not None:
                name = self._named(config).parent
            try:
                return original(cls, name, *args, **kwargs)
            except OSError as error:
                raise UserError(*not_here(str(name))) from error

        def _from_pretrained(cls: Any, *, model_id: Any = None, **kwargs: Any) -> Any:
            known = ("revision", "cache_dir", "force_download", "proxies", "resume_download", "local_files_only")
            passed = {key: kwargs[key] for key in kwargs if key not in (*known, "token", "map_location", "strict")}
            model = cls(**passed).float()
            draw_all(model)
            tell(f"weights of {Path(str(model_id)).name}: a random {cls.__name__}")
            return model

        mixin.from_pretrained = classmethod(from_pretrained)
        hub_mixin.PyTorchModelHubMixin._from_pretrained = classmethod(_from_pretrained)

    def _named(self, config: Path) -> Path:
        """The file under the name by which it is looked for."""
        if config.name == "config.json":
            return config
        named = self.folder / config.stem / "config.json"
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_bytes(config.read_bytes())
        return named

    def _safetensors(self, module: Any) -> None:
        for name in ("load_file", "load_model"):
            setattr(module, name, self._loads(getattr(module, name), name == "load_model"))

    @staticmethod
    def _loads(original: Callable[..., Any], into_model: bool) -> Callable[..., Any]:
        def load(first: Any, *args: Any, **kwargs: Any) -> Any:
            path = (args[0] if args else kwargs["filename"]) if into_model else first
            if Path(path).exists():
                return original(first, *args, **kwargs)
            if not into_model:
                return drawn_weights(path)
            draw_all(first)
            return [], []

        return load


def _made_small(builder: Callable[..., Any], checkpoints: Checkpoints, *args: Any, **kwargs: Any) -> Any:
    checkpoints.narrowed |= checkpoints.widths
    return builder(*args, **shrink(dict(kwargs), checkpoints.widths))


def torchtune_builders(checkpoints: Checkpoints) -> dict[str, Callable[[Any], None]]:
    """torchtune makes models by functions of numbers, which are made small."""

    def change(builder: str) -> Callable[[Any], None]:
        def wrap(module: Any) -> None:
            original = getattr(module, builder, None)

            if callable(original):
                setattr(module, builder, partial(_made_small, original, checkpoints))

        return wrap

    names = ("llama2", "llama3", "llama3_1", "llama3_2", "qwen2", "qwen2_5", "mistral", "gemma", "phi3")
    return {f"torchtune.models.{name}": change(name) for name in names}

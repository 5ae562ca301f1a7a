"""Recipes: each two functions, `configure` (a full frozen configuration) and `assemble` (what a run of it is made
of)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from earnest.recipes import amy, dia, higgs, mot
from earnest.training.codec.config import CodecConfig
from earnest.training.codec.train import train_codec
from earnest.training.run import OnProgress, Outcome, silent
from earnest.training.tokens.train import train_tokens


class Recipe(NamedTuple):
    """`assemble` is an `AssembleTokens` for a `TokenConfig`, an `AssembleCodec` for a `CodecConfig`; `name`: what the
    command line calls it."""

    configure: Callable[[], Any]
    assemble: Callable[..., Any]
    name: str = ""

    def train(self, config: Any, run_dir: Path, resume: bool = False, on_progress: OnProgress = silent) -> Outcome:
        train: Callable[..., Outcome] = train_codec if isinstance(config, CodecConfig) else train_tokens
        return train(self.assemble, config, run_dir, resume, on_progress, self.name)


_RECIPES = {
    "higgs-tiny": Recipe(higgs.higgs_tiny, higgs.assemble),
    "higgs": Recipe(higgs.higgs, higgs.assemble),
    "dia-tiny": Recipe(dia.dia_tiny, dia.assemble),
    "dia": Recipe(dia.dia, dia.assemble),
    "mot-tiny": Recipe(mot.mot_tiny, mot.assemble),
    "mot-smol": Recipe(mot.mot_smol, mot.assemble),
    "mot": Recipe(mot.mot, mot.assemble),
    "mot-published": Recipe(mot.mot_published, mot.assemble),
    "amy-tiny": Recipe(amy.amy_tiny, amy.assemble_tiny),
    "amy": Recipe(amy.amy, amy.assemble),
}
RECIPES = {name: recipe._replace(name=name) for name, recipe in _RECIPES.items()}

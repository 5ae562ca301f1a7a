"""Recipes: each a function that returns one full frozen configuration, and the function that trains it."""

from collections.abc import Callable
from typing import NamedTuple

from earnest.recipes.amy import amy, amy_tiny
from earnest.recipes.dia import dia, dia_tiny
from earnest.recipes.higgs import higgs, higgs_tiny
from earnest.recipes.mot import mot, mot_smol, mot_tiny
from earnest.training.codec import train_codec
from earnest.training.language_model import train_lm


class Recipe(NamedTuple):
    configure: Callable
    train: Callable  # train(config, run_dir, resume, on_progress)


RECIPES = {
    "higgs-tiny": Recipe(higgs_tiny, train_lm),
    "higgs": Recipe(higgs, train_lm),
    "dia-tiny": Recipe(dia_tiny, train_lm),
    "dia": Recipe(dia, train_lm),
    "mot-tiny": Recipe(mot_tiny, train_lm),
    "mot-smol": Recipe(mot_smol, train_lm),
    "mot": Recipe(mot, train_lm),
    "amy-tiny": Recipe(amy_tiny, train_codec),
    "amy": Recipe(amy, train_codec),
}

"""The folders of one run's splits (train/ and val/) as one run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from earnest.logs.words import SPLITS
from earnest.run import Run, Series


def splits_of_one(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Split -> its log, if several logs are those of one run: their folders have one parent, and each a split for its
    name."""
    folders = [Path(name) for name in paths]
    if len({folder.parent for folder in folders}) > 1:
        return {}
    splits = [SPLITS.get(folder.name.lower()) for folder in folders]
    if None in splits or "train" not in splits or len(set(splits)) < len(splits):
        return {}
    return {split: path for split, path in zip(splits, paths.values(), strict=True) if split}


def joined_splits(path: Path, runs: Mapping[str, Run]) -> Run:
    """One run of those that were read from the folders of its splits; what a column does not say, its folder does."""
    whole = runs["train"]
    whole.path = path
    for split, run in runs.items():
        if split == "train":
            continue
        for key, series in run.series.items():
            known = key._replace(split=split) if key.split == "train" else key
            whole.series.setdefault(known, Series(series.step, series.value, known))
        read_as = {f"{split}/{column}": signal for column, signal in (run.facts.mapping or {}).items()}
        whole.facts = replace(whole.facts, mapping={**(whole.facts.mapping or {}), **read_as})
        whole.messages += run.messages
        whole.notes += [note for note in run.notes if note not in whole.notes]
    whole.notes.append(f"the folders of {', '.join(runs)} are the splits of one run")
    return whole

"""Faults put into the real training of a tiny model, one run each: which rule names them, at the head of the findings
or at all.

``python -m benchmarks.faults [--steps 20]`` prints a Markdown table. The faults stand in code that training calls
(the shift of the labels, the optimizer, the loss, the split), never in a log.
"""

import argparse
import csv
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch

from earnest.data.layouts.sources import espeak
from earnest.data.masks import shift
from earnest.losses.tokens import TokenObjective
from earnest.models.higgs import Higgs, HiggsShape
from earnest.recipes import RECIPES
from earnest.recipes.higgs import HiggsConfig
from earnest.rules import diagnose
from earnest.run import read_run
from earnest.training.tokens import learner, preparation
from earnest.training.tokens.config import Data, Demos, Optimizer

CLIPS = 60
adamw, sides_of = learner.adamw, preparation.sides_of
score_objective, states = TokenObjective.forward, Higgs.states


@dataclass(frozen=True)
class Fault:
    name: str
    rule: str | None  # that must name it
    put_in: Callable | None = None  # -> a context manager


def without_first(model, *args):
    optimizer = adamw(model, *args)
    del optimizer.param_groups[0]["params"][0]
    return optimizer


def same_clips_on_both_sides(*args):
    train, held_out = sides_of(*args)
    return train, [*held_out, *train[:3]]


def mean_of_means(self, batch, counted):
    loss, signals = score_objective(self, batch, batch.counted())
    return loss, signals


def deaf(self, batch):
    return states(self, replace(batch, text_BS=torch.full_like(batch.text_BS, 65)))


def looks_ahead(self, batch):
    states_PD = states(self, batch)
    return states_PD + torch.roll(states_PD, -1, dims=0)


FAULTS = [
    Fault("none", None),
    Fault(
        "labels shifted twice",
        "A203",
        lambda: patch("earnest.models.higgs.model.shift", lambda labels: shift(shift(labels))),
    ),
    Fault("labels not shifted", "A203", lambda: patch("earnest.models.higgs.model.shift", lambda labels: labels)),
    Fault("logits see the next position", "A203", lambda: patch.object(Higgs, "states", looks_ahead)),
    Fault("text does not reach the model", "C106", lambda: patch.object(Higgs, "states", deaf)),
    Fault("a tensor missing in the optimizer", "C105", lambda: patch.object(learner, "adamw", without_first)),
    Fault("means per micro-batch", "D402", lambda: patch.object(TokenObjective, "forward", mean_of_means)),
    Fault(
        "held-out clips in training", "E203", lambda: patch.object(preparation, "sides_of", same_clips_on_both_sides)
    ),
]


def corpus(folder: Path) -> None:
    """The first clips of the embedded speech."""
    espeak(whole := folder.with_name("whole"))
    with open(whole / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:CLIPS]
    for row in rows:
        (folder / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole / row["file_name"], folder / row["file_name"])
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    logging.disable(logging.WARNING)
    print("| fault | must name it | named | first | others | seconds |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        corpus(folder := Path(directory) / "speech")
        config = HiggsConfig(
            data=Data(path=str(folder), held_out_frac=0.2, positions_per_batch=768),
            shape=HiggsShape(width=32, layers=1, heads=2, ffn=64),
            optimizer=Optimizer(learning_rate=2e-3, warmup_steps=2),
            demos=Demos(every_steps=0),
            steps=steps,
        )
        for number, fault in enumerate(FAULTS):
            started = time.perf_counter()
            run_dir = Path(directory) / str(number)
            with fault.put_in() if fault.put_in else nullcontext():
                RECIPES["higgs-tiny"].train(config, run_dir)
            found = [finding.rule for finding in diagnose(read_run(run_dir)).findings]
            yes = ["no", "yes"]
            named, first = yes[fault.rule in found], yes[found[:1] == [fault.rule]]
            others = ", ".join(rule for rule in found if rule != fault.rule) or "none"
            seconds = time.perf_counter() - started
            print(f"| {fault.name} | {fault.rule or '-'} | {named} | {first} | {others} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

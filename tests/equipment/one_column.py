"""What every rule answers on an empty run and on runs of one column: ``python -m tests.equipment.one_column`` writes
the list that tests/test_silence.py compares."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earnest.rules import catalogue
from earnest.rules.catalogue import SILENT, Evidence, Looked, apply
from earnest.rules.finding import NotChecked
from earnest.rules.needs import Case
from earnest.run import Run
from earnest.signals import SIGNALS, Key
from earnest.streams import TEXT, Codebook, Part

OUT = Path(__file__).parent.parent / "rules" / "one_column.txt"
STREAMS = (None, TEXT, Codebook(0), Part("mel"), Part("loss_d"))
STEPS = np.arange(1, 301)
FALLING = 0.4 + 0.5 * np.exp(-STEPS / 60) + np.random.default_rng(0).normal(0, 0.01, len(STEPS))  # any metric's values


def runs() -> Iterator[tuple[str, Run]]:
    """Name and run: empty, each signal of the vocabulary alone, and those that are never a number."""
    yield "nothing", Run()
    for name in SIGNALS:
        for split in ("train", "eval"):
            for stream in STREAMS if name in ("ce_nats", "loss") else (None, Codebook(0)):
                key = Key(split, name, stream)
                yield str(key), Run.of(series={key: (STEPS, FALLING)})
    for key in (Key("train", "ce_nats", Codebook(0)), Key("train", "loss"), Key("train", "grad_norm")):
        yield f"{key}, never a number", Run.of(series={key: (STEPS, np.full(len(STEPS), np.nan))})
        yield f"{key}, without a value", Run.of(series={key: ([], [])})


def answers(run: Run) -> dict[str, list[Evidence | Looked | NotChecked]]:
    """By rule."""
    case = Case(run)
    return {rule.code: list(apply(rule, case)) for rule in catalogue()}


def silent(run: Run) -> list[str]:
    """Rules that neither looked, nor said what they lack."""
    return [
        code
        for code, said in answers(run).items()
        if not said or any(isinstance(one, NotChecked) and one.needs == SILENT for one in said)
    ]


def table() -> str:
    """One line a run: the rules that looked; all others are not checked, and say what they need."""
    lines = ["# Rules that looked at a run of one column; all others said what they need. Generated: see one_column.py"]
    for name, run in runs():
        looked = [code for code, said in answers(run).items() if any(not isinstance(one, NotChecked) for one in said)]
        lines.append(f"{name}: {' '.join(looked) or '-'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    OUT.write_text(table(), encoding="utf-8")

"""Simulated healthy runs raise no alarm: a small share of benchmarks/false_alarms.py."""

import pytest

from benchmarks.false_alarms import alarms, report_of
from tests.equipment.healthy import GANS, language_model

RUNS = 16


@pytest.mark.parametrize("kind", [*GANS, "language model"])
def test_healthy_runs_raise_no_alarm(kind):
    made = GANS.get(kind, language_model)
    said = [alarm for seed in range(5000, 5000 + RUNS) for alarm in alarms(report_of(made(seed)))]
    assert not [words for level, words in said if level != "warning"]
    assert len(said) <= 1

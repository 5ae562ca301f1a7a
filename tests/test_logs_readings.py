"""The doctor on real logs, against what a human wrote of each before (tests/logs/READINGS.md)."""

from pathlib import Path

import pytest

from earnest.logs import read
from earnest.rules import diagnose

LOGS = Path(__file__).parent / "logs"
HEALTHY = [
    "hf_healthy",
    "hf_resumed",
    "hf_healthy/output.log",
    "lightning_healthy/csv",
    "lightning_healthy/tb",
    "accelerate_healthy",
    "wandb_healthy",
    "trackio_healthy",
    "mlflow_healthy",
    "tqdm_healthy",
    "gan_healthy",
]
SICK = {
    "hf_learning_rate_x100": "nothing-learnt",
    "hf_labels_unshifted": "loss-too-good",
    "hf_labels_all_masked": "loss-exactly-zero",
    "hf_overfit_few_clips": "training-clips-memorised",
    "lightning_loss_detached/csv": "evaluation-never-changes",
    "accelerate_schedule_too_short": "learning-rate-zero",
    "wandb_loss_nan": "loss-not-a-number",
    "trackio_frozen": "learning-rate-zero",
    "mlflow_overfit_few_clips": "training-clips-memorised",
    "tqdm_learning_rate_x100": "diverged",
    "gan_discriminator_lr_x30": "discriminator-wins",
}


def diagnosis(name: str):
    return diagnose(read(LOGS / name, facts={} if name.startswith("gan") else {"text_vocab": 64}))


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_raise_no_alarm(name):
    assert [finding.name for finding in diagnosis(name).findings if finding.severity != "note"] == []


@pytest.mark.parametrize("name", SICK)
def test_the_planted_fault_is_named_first(name):
    assert diagnosis(name).findings[0].name == SICK[name]

"""A run followed in W&B, TensorBoard, Trackio and MLflow, read back as these tools read it; without one it says how to
get it. A tracker that is not installed here is not tested."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from earnest.checkpoints import checkpoints
from earnest.cli import EXIT_MISTAKE, main
from earnest.errors import UserError
from earnest.logs.formats import wandb as wandb_log
from earnest.logs.source import Source
from earnest.run import read_run
from earnest.training import tracking
from tests.equipment.tones import train, write_tones

INSTALLED = [name for name in tracking.TRACKERS if find_spec(name)]
Points = dict[str, dict[int, float]]  # signal -> step -> value


def of_tensorboard(run_dir: Path, run: str) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: Points = {}
    for file in sorted((run_dir / "tensorboard").glob("events.*")):
        read = EventAccumulator(str(file)).Reload()
        for name in read.Tags()["scalars"]:
            points.setdefault(name, {}).update({one.step: one.value for one in read.Scalars(name)})
    return points


def of_wandb(run_dir: Path, run: str) -> Points:
    """By W&B's own messages; their frame is a log of LevelDB, for which its newer versions have no reader in Python."""
    from wandb.proto.wandb_internal_pb2 import Record

    points: Points = {}
    for file in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        assert file.stem == f"run-{run}"
        for data in wandb_log.records(Source(file)):
            record = Record.FromString(data)
            if record.HasField("history"):
                row = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                    points.setdefault(name, {})[int(row["_step"])] = float(row[name])
    return points


def of_trackio(run_dir: Path, run: str) -> Points:
    from trackio.sqlite_storage import SQLiteStorage

    points: Points = {}
    for row in SQLiteStorage.get_logs("earnest", run):
        for name in row.keys() - {"step", "timestamp"}:
            points.setdefault(name, {})[row["step"]] = float(row[name])
    return points


def of_mlflow(run_dir: Path, run: str) -> Points:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("earnest")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run}'")
    assert found.info.status == "FINISHED" and found.data.params["optimizer.warmup_steps"] == "2"
    return {
        name: {one.step: one.value for one in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }


READ = {"tensorboard": of_tensorboard, "wandb": of_wandb, "trackio": of_trackio, "mlflow": of_mlflow}


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def followed(tones, tmp_path_factory):
    """Six steps in every tracker that is installed, the last three of a resumed run; and the same without."""
    here = tmp_path_factory.mktemp("followed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("EARNEST_CACHE", str(here / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("TRACKIO_DIR", str(here / "trackio"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'mlflow.db'}")
        options = ("--evaluate-every-steps", "2", "--save-every-steps", "3")
        assert main(train(tones, here / "plain", *options, "--steps", "6")) == 0
        words = (*options, *(("--tracker", ",".join(INSTALLED)) if INSTALLED else ()))
        assert main(train(tones, here / "run", *words, "--steps", "3")) == 0
        assert main(["train", "--resume", "--out", str(here / "run"), "--steps", "6"]) == 0
        yield here


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_tracker_holds_what_the_run_directory_holds(name, followed):
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    run = read_run(followed / "run")
    points = READ[name](followed / "run", tracking.run_name(followed / "run"))
    assert {"train/loss", "eval/ce_nats/text"} <= points.keys()
    assert points.keys() == {str(key) for key in run.series}
    for key, series in run.series.items():
        kept = points[str(key)]
        assert sorted(kept) == series.step.tolist(), key
        for step, value in zip(series.step.tolist(), series.value.tolist(), strict=True):
            assert math.isclose(kept[step], value, rel_tol=1e-6) or math.isnan(value), key


def test_our_own_reader_reads_the_events_that_were_written(followed, capsys):
    if "tensorboard" not in INSTALLED:
        pytest.skip("tensorboard is not installed")
    from earnest import logs

    (events, *_) = sorted((followed / "run" / "tensorboard").glob("events.*"))
    read, own = logs.read(events), read_run(followed / "run")
    assert read["train/loss"].value == pytest.approx(own["train/loss"].value[:3], rel=1e-6)
    assert main(["diagnose", str(followed / "run")]) in (0, 1)  # the run, not the tracker's copy of it
    assert "several" not in capsys.readouterr().out


def test_the_curve_is_that_of_a_run_without_trackers(followed):
    kept, plain = (
        {key: series.value.tolist() for key, series in read_run(followed / name).series.items()}
        for name in ("run", "plain")
    )
    learnt = [key for key in plain if key.split == "train" and "ce_nats" in key.name] + [("loss",)]
    assert len(learnt) > 3
    assert all(kept[key][:3] == plain[key][:3] for key in learnt if key in plain)


def test_a_finding_becomes_an_alert_once(tones, tmp_path, monkeypatch):
    """A learning rate of a million: what is told at the end is told to the tracker."""
    told: list[str] = []
    monkeypatch.setattr("earnest.loops.looks.alert", lambda finding, step, guard: told.append(finding.rule))
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", lambda *about: tracking.Opened(Silent()))
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    words = ("--tracker", "tensorboard", "--steps", "6", "--optimizer.learning-rate", "1e6")
    assert main(train(tones, tmp_path / "run", *words, "--evaluate-every-steps", "2")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert told and len(told) == len(set(told)) and set(told) == {one["rule"] for one in report["findings"]}


class Silent:
    """A tracker that starts, and then breaks at every row."""

    def __init__(self, starts: bool = True):
        self.starts = starts

    def start(self) -> None:
        if not self.starts:
            raise OSError("no API key")

    def store_init_configuration(self, values: dict[str, object]) -> None: ...
    def finish(self) -> None: ...
    def log(self, values: dict[str, float], step: int) -> None:
        raise ConnectionError("the network is gone")


def test_a_tracker_that_breaks_ends_no_training(tones, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda *about: tracking.Opened(Silent()))
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    assert main(train(tones, tmp_path / "run", "--tracker", "wandb", "--steps", "3")) == 0
    assert capsys.readouterr().err.count("tracker:wandb broke and is left out") == 1
    assert len(checkpoints(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("words", "installed", "seen", "fix"),
    [
        (["wandb,tensorboard"], (), "wandb,tensorboard, which are not installed", "pip install wandb tensorboard"),
        (["mlflow"], ("wandb",), "mlflow, which is not installed", "pip install mlflow"),
        (["wanbd"], ("wandb",), "--tracker wanbd", "did you mean wandb?"),
        (["comet"], ("wandb",), "--tracker comet", "leave --tracker out"),
        (["wandb"], ("wandb",), "wandb did not start: no API key", "wandb login, or WANDB_MODE=offline"),
    ],
)
def test_a_tracker_that_cannot_be_had_ends_in_three_lines_before_any_work(
    words, installed, seen, fix, tones, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tracking, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda *about: tracking.Opened(Silent(starts=False)))
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    assert main(train(tones, tmp_path / "run", "--tracker", *words)) == EXIT_MISTAKE
    told = capsys.readouterr().err.strip().splitlines()[-3:]
    assert seen in told[0] and fix in told[2], told
    assert not (tmp_path / "run" / "run.json").exists() and not (tmp_path / "cache").exists()


def test_names_are_told_apart_however_they_are_written(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    assert tracking.chosen(["wandb,tensorboard", "WandB", "mlflow trackio"]) == [
        *("wandb", "tensorboard", "mlflow", "trackio")
    ]
    assert tracking.chosen(["", ","]) == []
    with pytest.raises(UserError, match="tensorbord"):
        tracking.chosen(["tensorbord"])

"""Findings in real trackers, read back from the files that these wrote. What is not installed is skipped: `pytest -rs
tests/test_alerts.py` says which ran. `tests/test_watch.py` has stand-ins of all of them."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

import earnest
from earnest.logs.formats.wandb import records
from earnest.logs.source import Source
from tests.equipment.loops import CLASSES, PAD, Unshifted, clips, collate, unshifted
from tests.trainers.case import llama

TITLE = "A203 labels-misaligned"


def read_tensorboard(folder: Path) -> list[str]:
    """Names of the texts in every file of events."""
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = list[str]()
    for file in folder.rglob("events.out.*"):
        read = events.EventAccumulator(str(file), size_guidance={"tensors": 0})
        read.Reload()
        for name in read.Tags()["tensors"]:
            text = read.Tensors(name)[0].tensor_proto.string_val[0].decode()
            found.append(f"{name}: {text}")
    return found


def read_wandb(folder: Path) -> list[str]:
    """Titles and texts of the alerts in the files of offline runs."""
    kinds = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found = list[str]()
    for file in folder.rglob("*.wandb"):
        for data in records(Source(file)):
            record = kinds.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "alert":
                found.append(f"{record.alert.title}: {record.alert.text} {record.alert.level}")
    return found


def read_trackio(folder: Path) -> list[str]:
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    return [f"{one['title']}: {one['text']} {one['level']}" for one in storage.get_alerts(folder.name)]


def read_mlflow(folder: Path) -> list[str]:
    client = importlib.import_module("mlflow").MlflowClient()
    runs = [run for one in client.search_experiments() for run in client.search_runs([one.experiment_id])]
    return [f"{name} {value}" for run in runs for name, value in run.data.tags.items() if "earnest" in name]


@contextmanager
def tensorboard_run(folder: Path) -> Iterator[None]:
    with importlib.import_module("torch.utils.tensorboard").SummaryWriter(folder / "events"):
        yield


@contextmanager
def wandb_run(folder: Path) -> Iterator[None]:
    with importlib.import_module("wandb").init(project="mine", dir=folder, mode="offline"):
        yield


@contextmanager
def trackio_run(folder: Path) -> Iterator[None]:
    trackio = importlib.import_module("trackio")
    trackio.init(project=folder.name)
    try:
        yield
    finally:
        trackio.finish()


@contextmanager
def mlflow_run(folder: Path) -> Iterator[None]:
    with importlib.import_module("mlflow").start_run():
        yield


# name -> a run of its own, what reads its files, what stands in them beside the rule's name
TRACKERS: dict[str, tuple[Callable[[Path], contextlib.AbstractContextManager[None]], Callable[..., list[str]], str]] = {
    "tensorboard": (tensorboard_run, read_tensorboard, TITLE),
    "wandb": (wandb_run, read_wandb, TITLE),
    "trackio": (trackio_run, read_trackio, TITLE),
    "mlflow": (mlflow_run, read_mlflow, "critical at step 1"),
}


@pytest.fixture(params=TRACKERS)
def tracker(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.getbasetemp() / "trackio"))  # read when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(request.param)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_PROJECT": "mine",
        "WANDB_SILENT": "true",
        "TENSORBOARD_LOGGING_DIR": str(tmp_path / "events"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return request.param


def test_in_the_trainer(tracker, tmp_path):
    rows = [{"input_ids": ids} for ids in clips()]
    args = TrainingArguments(
        str(tmp_path / "out"), use_cpu=True, report_to=[tracker], per_device_train_batch_size=4, max_steps=6,
        logging_steps=2, save_strategy="no", disable_tqdm=True, project=tmp_path.name, run_name="mine",
    )  # fmt: skip
    callback = earnest.TrainerCallback()
    model = llama(CLASSES, pad_token_id=PAD)
    Unshifted(model, args, collate, train_dataset=rows, callbacks=[callback]).train()
    finish(tracker)
    assert callback.watch and not callback.watch.guard.broken
    assert_told(tracker, tmp_path)


def test_in_a_plain_loop(tracker, tmp_path):
    model = llama(CLASSES, pad_token_id=PAD)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with TRACKERS[tracker][0](tmp_path), earnest.watch(model, optimizer, tmp_path / "run") as watch:
        for _ in range(3):
            unshifted(model, collate(clips()[:4])).backward()
            optimizer.step()
            optimizer.zero_grad()
    finish(tracker)
    assert not watch.guard.broken
    assert_told(tracker, tmp_path)


def finish(tracker: str) -> None:
    """End the run that transformers has left open."""
    if tracker == "wandb":
        importlib.import_module(tracker).finish()
    elif tracker == "mlflow":
        importlib.import_module("mlflow").end_run()


def assert_told(tracker: str, folder: Path) -> None:
    """Once, with what is wrong and what to do."""
    found = [one for one in TRACKERS[tracker][1](folder) if "A203" in one]
    assert len(found) == 1 and TRACKERS[tracker][2] in found[0] and "Fix: " in found[0]

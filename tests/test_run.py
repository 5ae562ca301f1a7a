"""The run directory: what is written is read back, whatever happened in between."""

import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from earnest.errors import UserError
from earnest.facts import Facts
from earnest.probes.results import HeldOut, HeldOutStream, Ranks, Results
from earnest.run import Artifact, RunWriter, read_run
from earnest.streams import TEXT


def test_what_is_written_is_read(tmp_path):
    writer = RunWriter(tmp_path)
    writer.facts(Facts(system="higgs", delays=(0, 1)))
    writer.probes(Results(held_out=HeldOut({TEXT: HeldOutStream(ce_nats=1.5)})))
    writer.probes(Results(ranks=Ranks(("head",), 2)))
    writer.event(0, "started")
    for step in (1, 2, 3):
        writer.step(step, {"train/loss": 1 / step})
    writer.step(2, {"eval/ce_nats/text": 0.25})
    writer.artifact(Artifact("demo", "demos/a.wav", 2, {"text": "سبعة"}))
    writer.close()
    run = read_run(tmp_path)
    assert run.facts == Facts(system="higgs", delays=(0, 1))
    assert run.probes == Results(held_out=HeldOut({TEXT: HeldOutStream(ce_nats=1.5)}), ranks=Ranks(("head",), 2))
    assert run["train/loss"].step.tolist() == [1, 2, 3]
    assert run["train/loss"].value.tolist() == [1, 0.5, 1 / 3]  # bit by bit
    assert run["eval/ce_nats/text"].step.tolist() == [2]
    assert run.artifacts[0].facts["text"] == "سبعة"
    assert run.last_step == 3


def test_nan_and_infinity_are_facts(tmp_path):
    writer = RunWriter(tmp_path)
    writer.facts(Facts())
    writer.step(1, {"train/loss": math.nan, "train/grad_norm": math.inf})
    run = read_run(tmp_path)
    assert math.isnan(run["train/loss"].value[0]) and math.isinf(run["train/grad_norm"].value[0])
    assert len(run["train/loss"].finite) == 0


def test_a_run_can_be_read_while_it_is_written(tmp_path):
    writer = RunWriter(tmp_path)
    writer.facts(Facts())
    for step in range(1, 6):
        writer.step(step, {"train/loss": float(step)})
        assert read_run(tmp_path).last_step == step


def test_a_resumed_step_counts_once_as_last_written(tmp_path):
    first = RunWriter(tmp_path)
    first.facts(Facts())
    for step in (1, 2, 3):
        first.step(step, {"train/loss": 1.0})
    first.close()
    again = RunWriter(tmp_path)
    again.event(1, "resumed")
    for step in (2, 3, 4):
        again.step(step, {"train/loss": 2.0})
    run = read_run(tmp_path)
    assert run["train/loss"].value.tolist() == [1, 2, 2, 2]
    assert any("resumed" in note for note in run.notes)


@pytest.mark.parametrize(
    "line", ["", "{broken\n", '{"step": 5, "train/loss": "x"}\n', '{"step": 9e99, "train/loss": 1}\n']
)
def test_rows_are_read_alike_a_block_at_a_time_and_one_by_one(line, tmp_path, monkeypatch):
    writer = RunWriter(tmp_path)
    writer.facts(Facts())
    for step in [*range(1, 40), *range(30, 60)]:
        values = {"train/loss": math.nan if step == 7 else 1 / step}
        writer.step(step, values | ({"eval/loss": 2.0 + step} if step % 10 == 0 else {}))
        if step == 39:
            writer.event(30, "resumed")
    writer.close()
    with open(tmp_path / "steps.jsonl", "a") as file:
        file.write(line)
    runs = []
    for small in (0, 1 << 16):
        monkeypatch.setattr("earnest.columns.SMALL_BYTES", small)
        runs.append(read_run(tmp_path))
    assert runs[0].notes == runs[1].notes and len(runs[0].notes) == 1 + bool(line)
    assert runs[0].series.keys() == runs[1].series.keys()
    for key, series in runs[0].series.items():
        np.testing.assert_array_equal(series.step, runs[1].series[key].step)
        np.testing.assert_array_equal(series.value, runs[1].series[key].value)
    assert runs[0]["train/loss"].step.tolist() == list(range(1, 60))


def test_a_torn_last_line_is_cut_before_appending_and_noted_when_read(tmp_path):
    writer = RunWriter(tmp_path)
    writer.facts(Facts())
    writer.step(1, {"train/loss": 1.0})
    writer.close()
    with open(tmp_path / "steps.jsonl", "a") as file:
        file.write('{"step": 2, "train/lo')
    run = read_run(tmp_path)
    assert run.last_step == 1 and any("steps.jsonl:2" in note for note in run.notes)
    writer = RunWriter(tmp_path)
    writer.step(2, {"train/loss": 0.5})
    assert read_run(tmp_path)["train/loss"].value.tolist() == [1.0, 0.5]


def test_a_killed_process_keeps_every_step_it_reported(tmp_path):
    code = f"""
from earnest.facts import Facts
from earnest.run import RunWriter
writer = RunWriter({str(tmp_path)!r})
writer.facts(Facts())
step = 0
while True:
    step += 1
    writer.step(step, {{"train/loss": 1.0}})
    print(step, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    reported = 0
    while reported < 200:
        reported = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    reported = int(rest[-1]) if rest else reported
    assert read_run(tmp_path).last_step >= reported


@pytest.mark.parametrize("content", [None, "not json", "[1,2]"])
def test_what_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError):
        read_run(tmp_path)


def test_rows_are_plain_json_lines(tmp_path):
    writer = RunWriter(tmp_path)
    writer.step(7, {"train/loss": 0.5})
    row = json.loads((tmp_path / "steps.jsonl").read_text())
    assert row["step"] == 7 and row["train/loss"] == 0.5 and row["time_s"] > 0


def test_a_text_or_an_event_in_a_later_block_is_seen_as_in_the_first(tmp_path, monkeypatch):
    """Blocks are read as tables of numbers; one with anything else is read row by row, and no line is cut."""
    monkeypatch.setattr("earnest.rows.BLOCK_BYTES", 100_000)
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "facts": {}, "probes": {}}))
    rows: list[dict[str, object]] = [
        {"step": step, "time_s": 1.7e9 + step, "train/loss": 5.0, "train/grad_norm": step / 7}
        for step in range(1, 6001)
    ]
    rows[4000]["train/loss"] = "5"
    rows[5000] |= {"event": "resumed"}
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 6001, "time')
    run = read_run(tmp_path)
    assert len(run["train/loss"].step) == 5999 and len(run["train/grad_norm"].step) == 6000
    np.testing.assert_array_equal(run["train/grad_norm"].value, np.arange(1, 6001) / 7)
    assert run.history is not None and [event.name for event in run.history.events] == ["resumed"]
    told = "\n".join(run.notes)
    assert "train/loss of step 4001 is '5'" in told and "steps.jsonl:6001 is not JSON" in told

"""What broke earlier versions, in small: each ends in three lines or the right result, in bounded time and memory."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import soundfile

from earnest import codecs, columns, logs, report
from earnest.cli import main
from earnest.data.layouts.chatml import load_conversations
from earnest.data.layouts.folder import load_clips
from earnest.data.sides import split_clips
from earnest.errors import UserError
from earnest.facts import FACTS
from earnest.logs.formats import table
from earnest.logs.source import Source
from earnest.models.backbones import load_backbone
from earnest.probes.results import Results
from earnest.report import charts, page
from earnest.rules import diagnose
from earnest.rules.catalogue import RULES
from earnest.run import Run
from tests.equipment.tiny_mot import save_backbone

LOGS = Path(__file__).parent / "logs"
OWN = '{"schema":1,"facts":{},"probes":{}}'


def own_run(path: Path, steps: int = 5) -> Path:
    path.mkdir()
    (path / "run.json").write_text(OWN)
    rows = ({"step": step, "time_s": 1e9 + step, "train/loss": 5 - step / 10} for step in range(1, steps + 1))
    (path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> Run | None:
    """The run, or None if it is refused."""
    try:
        return logs.read(path)
    except UserError:
        return None


# --- readers


@pytest.mark.parametrize("column", ["loss", "grad_norm", "val_loss", "lr", "codebook_0_loss", "accuracy"])
@pytest.mark.parametrize("values", [("1e308", "-1e308", "1e308", "5"), ("1e-320", "2e-320", "5e-324", "1")])
def test_values_at_the_ends_of_what_a_number_holds_are_drawn(column, values, tmp_path):
    (tmp_path / "a.csv").write_text(f"step,{column}\n" + "".join(f"{step},{values[step % 4]}\n" for step in range(60)))
    run = logs.read(tmp_path / "a.csv")
    with warnings.catch_warnings(action="error"):  # numpy's would stand on the user's terminal
        diagnosis = diagnose(run)
    assert "<svg" in page.render(run, diagnosis)
    assert json.loads(report.json(run, diagnosis))["schema"] == 2


def test_a_line_of_more_than_128_kib_is_a_row(tmp_path):
    names = ["step", "loss", *(f"param_{index:060d}" for index in range(2_000))]
    rows = "".join(f"{step},{5 - step / 10}" + ",1" * 2_000 + "\n" for step in range(3))
    (tmp_path / "wide.csv").write_text(",".join(f"{name:>80}" for name in names) + "\n" + rows)
    assert logs.read(tmp_path / "wide.csv")["train/loss"].value.tolist() == [5, 4.9, 4.8]


@pytest.mark.parametrize(
    "text",
    [
        '{"step":1,"loss":"n/a","phase":"train"}\n{"step":2,"loss":"n/a","phase":"eval"}\n',
        "step,phase,loss\n1,train,\n2,eval,\n3,train,\n",
        "step,phase,loss,x\n1,train,n/a,1\n2,eval,n/a,2\n3,train,,3\n",
        '{"step":1,"loss":[]}\n{"step":2,"loss":[]}\n',
        '{"step":1,"loss":null,"phase":"train"}\n{"step":2,"loss":3.0,"phase":"eval"}\n{"step":3,"loss":null}\n',
        '{"step": 1, "train": {}, "x": "1e5"}\n{"step": 2, "train": {"loss": "a/b"}, "x": "abc", "phase": "train"}\n'
        '{"step": 3, "loss": "\\ud800", "phase": "eval"}\n',
    ],
)
def test_a_split_without_a_loss_is_refused(text, tmp_path):
    (tmp_path / "log").write_text(text)
    with pytest.raises(UserError):
        logs.read(tmp_path / "log")


def varint(number: int) -> bytes:
    low = number & 127
    return bytes([low]) if number < 128 else bytes([low | 128]) + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_nested_value_of_wandb_costs_that_value(tmp_path):
    log = b":W&B\xe1\xbe\x00"
    for step in (1, 2, 3):
        cells = {b"loss": b"1.5", b"_step": str(step).encode(), b"x": b'{"a":' * 1500 + b"1" + b"}" * 1500}
        items = b"".join(field(1, field(2, name) + field(16, value)) for name, value in cells.items())
        record = field(2, items)
        log += bytes(4) + len(record).to_bytes(2, "little") + b"\x01" + record
    (tmp_path / "run-a.wandb").write_bytes(log)
    assert logs.read(tmp_path / "run-a.wandb")["train/loss"].step.tolist() == [1, 2, 3]


def test_a_damaged_parquet_is_refused_in_three_lines(tmp_path, capfd):
    pl.DataFrame({"step": [1.0, 2, 3], "loss": [3.0, 2, 1]}).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    outcomes = set()
    for place in range(4, len(whole) - 8, 7):
        (tmp_path / "b.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        outcomes.add(read(tmp_path / "b.parquet") is None)
    assert outcomes == {True, False} and not capfd.readouterr().err


def test_a_parquet_that_expands_is_refused(tmp_path):
    frame = pl.DataFrame({"loss": np.ones(4_000_000)}).with_columns([pl.lit(1.0).alias(f"x{n}") for n in range(8)])
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="4,000,000 rows of 9 columns"):
        logs.read(tmp_path / "a.parquet")


def test_a_step_beyond_all_numbers_costs_that_step(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "params").mkdir()
    (tmp_path / "meta.yaml").write_text("")
    (tmp_path / "metrics" / "loss").write_text("1 3.0 1\n2 2.0 2\n3 1.0 9922337203685477580792233720368547758070\n")
    with open(tmp_path / "params" / "sparse", "wb") as file:
        file.truncate(1 << 33)
    assert logs.read(tmp_path)["train/loss"].step.tolist() == [1, 2]


def trackio(path: Path, rows: list[object]) -> sqlite3.Connection:
    file = sqlite3.connect(path)
    file.execute("pragma journal_mode=wal")
    file.execute("pragma synchronous=off")
    file.execute(
        "create table metrics(id integer primary key, timestamp text, run_name text, step integer, metrics text)"
    )
    file.execute("create table configs(run_name, config)")
    for step, row in enumerate(rows):
        file.execute("insert into metrics(run_name, step, metrics) values('r', ?, ?)", (step, row))
        file.commit()
    return file


@pytest.mark.parametrize("steps", [50, 1000])
def test_the_newest_rows_of_a_trackio_that_is_being_written_are_read(steps, tmp_path):
    rows: list[object] = [json.dumps({"loss": 5 - step / 1000}) for step in range(steps)]
    file = trackio(tmp_path / "a.db", rows)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert logs.read(tmp_path / "a.db").last_step == steps - 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    file.close()


def test_cells_of_a_trackio_that_expand_cost_that_cell(tmp_path):
    bomb = zlib.compress(b'{"loss": 1, "x": "' + bytes(30_000_000) + b'"}')
    trackio(tmp_path / "a.db", ['{"loss": 2}', bomb, '{"loss": 1}']).close()
    assert logs.read(tmp_path / "a.db")["train/loss"].step.tolist() == [0, 2]


def test_a_view_without_end_is_refused(tmp_path):
    file = sqlite3.connect(tmp_path / "a.db")
    file.execute(
        "create view metrics as with recursive c(x) as (select 1 union all select x + 1 from c) "
        "select x as id, 'r' as run_name, x as step, '{}' as metrics from c"
    )
    file.execute("create table configs(run_name, config)")
    file.commit()
    with pytest.raises(UserError, match="no plain table"):
        logs.read(tmp_path / "a.db")


def test_a_hole_ends_an_event_file(tmp_path):
    whole = next((LOGS / "hf_healthy").rglob("*tfevents*")).read_bytes()
    path = tmp_path / "events.out.tfevents.1.a"
    path.write_bytes(whole)
    os.truncate(path, len(whole) + (1 << 32))
    started_s = time.process_time()
    run = logs.read(path)
    assert time.process_time() - started_s < 10
    assert run.last_step == 300 and any("hole" in note for note in run.notes)


def test_a_record_that_claims_gigabytes_is_passed_over(tmp_path):
    whole = next((LOGS / "hf_healthy").rglob("*tfevents*")).read_bytes()
    path = tmp_path / "events.out.tfevents.1.a"
    path.write_bytes(whole + struct.pack("<Q", 400 << 20) + bytes(4) + b"\x09")
    os.truncate(path, len(whole) + 16 + (400 << 20))
    with open(path, "ab") as file:
        file.write(whole)
    started_s = time.process_time()
    run = logs.read(path)
    assert time.process_time() - started_s < 10
    assert run.last_step == 300 and any("2 runs follow" in note for note in run.notes)


def test_rows_with_names_of_their_own_are_read_as_far_as_columns_go(tmp_path):
    rows = "".join(json.dumps({"step": step, "loss": 5.0, f"k{step}": 2.0}) + "\n" for step in range(12_000))
    (tmp_path / "wide.jsonl").write_text(rows)
    run = logs.read(tmp_path / "wide.jsonl")
    assert run.last_step == 11_999 and any("over 10,000 columns" in note for note in run.notes)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_nested_rows_are_read_or_refused(depth, tmp_path):
    row = b'{"step":1,"loss":2,"x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}\n"
    (tmp_path / "deep.jsonl").write_bytes(row + b'{"step":2,"loss":1}\n{"step":3,"loss":1}\n')
    run = logs.read(tmp_path / "deep.jsonl")
    assert run.last_step == 3


def test_a_document_of_millions_of_lists_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"log_history": [' + b"[]," * 3_000_001 + b"[]]}")
    assert read(tmp_path / "a.json") is None


def test_folders_cost_time_in_proportion_to_their_number(tmp_path):
    took_s = []
    for count in (500, 4000):
        top = tmp_path / str(count)
        for index in range(count):
            (top / f"folder_{index}").mkdir(parents=True)
        started_s = time.process_time()
        assert read(top) is None
        took_s.append(time.process_time() - started_s)
    assert took_s[1] < 40 * took_s[0] + 1


# --- our own runs


@pytest.mark.parametrize("name", ["a.wav", "run.json", "steps.jsonl", "artifacts.jsonl", "config.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "device"])
def test_a_pipe_or_device_in_a_run_is_no_wait(name, make, tmp_path):
    run = own_run(tmp_path / "run")
    (run / "artifacts.jsonl").write_text('{"kind":"demo","path":"a.wav","step":1,"facts":{"text":"x"}}\n')
    (run / name).unlink(missing_ok=True)
    make(run / name)
    assert main(["diagnose", str(run), "--format", "html", "--out", str(tmp_path / "page.html")]) in (0, 1, 2)


@pytest.mark.parametrize("name", ["run.json", "steps.jsonl", "artifacts.jsonl", "a.jsonl"])
def test_files_of_a_run_that_are_one_hole_are_refused_or_told(name, tmp_path):
    run = own_run(tmp_path / "run")
    (run / "artifacts.jsonl").write_text('{"kind":"prediction","path":"a.jsonl","step":1,"facts":{}}\n')
    with open(run / name, "wb") as file:
        file.truncate(10 << 30)
    assert main(["diagnose", str(run), "--format", "html", "--out", str(tmp_path / "page.html")]) in (0, 1, 2)


@pytest.mark.parametrize(
    "steps, artifacts",
    [
        (b'{"step":1,"train/loss":5}\n{"step":2,"tr\xffin/loss":4}\n', b""),
        (b'5\n{"step":1,"train/loss":5}\n', b""),
        (b'{"train/loss":5}\n', b""),
        (b'{"step":1,"train/loss":5}\n', b'{"kind":"demo","path":"a","step":1,"facts":{},"new":1}\n'),
        (b'{"step":1,"train/loss":5}\n' + b"[" * 100_000 + b"\n", b"[" * 100_000),
    ],
)
def test_odd_rows_of_a_run_cost_these_rows(steps, artifacts, tmp_path):
    run = own_run(tmp_path / "run")
    (run / "steps.jsonl").write_bytes(steps)
    (run / "artifacts.jsonl").write_bytes(artifacts)
    assert main(["report", str(run)]) == 0


# --- one odd value costs what it belongs to, not the diagnosis

ODD = [
    None,
    True,
    0,
    -1,
    7,
    1e308,
    "abc",
    "",
    [],
    [1, "a", None],
    {},
    {"a": {"b": [1]}},
    [[1, 2], [3]],
    10**400,
    "1e999",
]


@pytest.mark.parametrize("place", ["facts", "probes"])
def test_odd_facts_and_results_cost_themselves(place, tmp_path):
    """Every fact and every probe, with each odd value: all at once, as many times as there are values."""
    names = FACTS if place == "facts" else Results.__struct_fields__
    run = own_run(tmp_path / "run", 60)
    for odd in ODD:
        stored = {"schema": 1, "facts": {}, "probes": {}} | {place: dict.fromkeys(names, odd)}
        (run / "run.json").write_text(json.dumps(stored))
        read_back = logs.read(run)
        diagnosis = diagnose(read_back)
        assert not diagnosis.faults
        assert "<svg" in page.render(read_back, diagnosis)


PREDICTED = [
    *("step", "source", "stream", "counted", "masked", "correct", "written", "target_text", "predicted_text"),
    *("first_target", "first_predicted", "last_target", "last_predicted", "target_codes_frac", "predicted_eos_frac"),
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_rows_of_predictions_and_demos_are_shown_as_far_as_they_go(odd, tmp_path):
    run = own_run(tmp_path / "run", 60)
    rows = [
        {"clip": 0, **dict.fromkeys(PREDICTED, odd)},
        {"clip": 0, "first_target": [1], "first_predicted": [1, 2]},
    ]
    (run / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {name: odd for name in ("text", "temperature", "match_frac", "stopped")}
    listed = [{"kind": kind, "path": "a.jsonl", "step": 1, "facts": facts} for kind in ("prediction", "demo")]
    listed += [{"kind": odd, "path": odd, "step": odd, "facts": odd}]
    (run / "artifacts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    read_back = logs.read(run)
    diagnosis = diagnose(read_back)
    assert not diagnosis.faults and "<svg" in page.render(read_back, diagnosis)


def test_a_rule_and_a_chart_that_raise_cost_themselves(tmp_path, monkeypatch, capsys):
    run = own_run(tmp_path / "run", 60)
    (run / "steps.jsonl").write_text((run / "steps.jsonl").read_text().replace("train/loss", "train/learning_rate"))

    def broken(*values: object, **named: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setitem(RULES, "D302", replace(RULES["D302"], check=broken))
    monkeypatch.setattr(charts, "_chart", broken)
    html = tmp_path / "page.html"
    assert main(["diagnose", str(run), "--format", "html", "--out", str(html)]) == 3
    assert html.read_text().count("could not be checked (ZeroDivisionError: by nothing)") > 1
    found = diagnose(logs.read(run))
    assert found.faults == ["D302"] and len(found.not_checked) > 1


# --- doors


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(words)
    said = capsys.readouterr()
    return said.out + said.err


NASTY = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"


@pytest.mark.parametrize("name", [f"a{NASTY}.csv", f"a{NASTY}\nfix: rm -rf.csv"])
def test_names_of_a_stranger_do_not_steer_the_terminal(name, tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in "12":
        (folder / (number + name)).write_text("step,loss\n1,2\n2,1\n3,1\n")
    (folder / "surrogate\udcff.csv").write_text("step,loss\n1,2\n2,1\n3,1\n")
    for words in (["diagnose", str(folder)], ["diagnose", str(folder / name)], ["runs", str(folder)]):
        said = shown(words, capsys)
        assert not set(said) & set("\x1b\x07\x9b\u202e") and "\nfix: rm" not in said


@pytest.mark.parametrize("name", ["exp[lr=1e-3]", "a[/b]", "a[bold]b"])
def test_a_path_with_brackets_is_printed_as_it_is(name, tmp_path, capsys):
    own_run(tmp_path / name.replace("/", "-"))
    assert f"{name.replace('/', '-')}/report.html" in shown(["report", str(tmp_path / name.replace("/", "-"))], capsys)


def test_a_report_is_not_written_through_a_link(tmp_path):
    run = own_run(tmp_path / "run")
    (tmp_path / "victim").write_text("precious")
    for name in ("report.html", "report.html.tmp", "report.json", "report.md"):
        (run / name).symlink_to(tmp_path / "victim")
    assert main(["report", str(run)]) == 0
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("place", ["../secret.txt", "/etc/hostname", "a/../../secret.txt"])
@pytest.mark.parametrize("field", ["transcript_file", "audio_file", "ref_audio_file", "ref_transcript_file"])
def test_a_conversation_names_files_of_its_own_folder_only(field, place, tmp_path):
    folder = tmp_path / "talks"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"")
    row = {"audio_file": "a.wav", "transcript_file": "a.txt", "ref_audio_file": "b.wav", "ref_transcript_file": "a.txt"}
    (folder / "a.txt").write_text("hello")
    (folder / "metadata.json").write_text(json.dumps({"samples": [row]}))
    assert load_conversations(folder / "metadata.json")
    (folder / "metadata.json").write_text(json.dumps({"samples": [row | {field: place}]}))
    with pytest.raises(UserError):
        load_conversations(folder / "metadata.json")


@pytest.mark.parametrize("field", ["start_index", "misc", "audios", "speaker", "messages"])
@pytest.mark.parametrize("odd", ODD)
def test_odd_values_in_conversations_are_taken_or_refused(field, odd, tmp_path):
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], field: odd}
    (tmp_path / "talks.json").write_text(json.dumps([talk]))
    try:
        assert load_conversations(tmp_path / "talks.json")
    except UserError as error:
        assert "conversation" in error.seen or "holds" in error.seen


def test_rows_that_nest_deep_cost_little_and_brackets_in_texts_nothing():
    """polars made 17 GB of a hundred kilobytes of rows that nest 500 deep: such rows go to the standard library."""
    deep = b'{"step":1,"loss":2,"x":' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"\n"
    assert columns.JsonLines().frame(deep * 50) is None
    flat = b"".join(b'{"step":%d,"loss":2,"note":"{[ }]","x":{"a":{"b":1}}}\n' % step for step in range(2000))
    frame = columns.JsonLines().frame(flat)
    assert frame is not None and frame["x/a/b"].sum() == 2000


def test_a_header_of_many_names_costs_time_in_proportion(tmp_path):
    """Each name was looked up in a list of those before it: 50,000 columns took half a minute."""
    (tmp_path / "a.csv").write_text("step,loss," + ",".join(f"k{n}" for n in range(40_000)) + "\n1,2" + ",3" * 40_000)
    started_s = time.process_time()
    separator, names, _ = table._shape(Source(tmp_path / "a.csv")) or ("", [], 0)
    assert separator == "," and len(names) == 40_002 and time.process_time() - started_s < 5


# --- surroundings, and what lies where a command looks


@pytest.mark.parametrize("time_s", ["NaN", "Infinity", "-1e308", "1e400", "9" * 400, "null", '"x"', "[1]"])
def test_a_time_that_is_no_date_costs_itself(time_s, tmp_path):
    run = own_run(tmp_path / "run")
    rows = [f'{{"step": {step}, "time_s": {time_s}, "train/loss": {5 - step / 10}}}\n' for step in range(1, 9)]
    (run / "steps.jsonl").write_text("".join(rows))
    (run / ".owner").write_text(f'[1, "a", {time_s}, "training"]')
    with warnings.catch_warnings(action="error"):
        assert main(["diagnose", str(run), "--format", "html", "--out", str(tmp_path / "page.html")]) in (0, 1)
        assert main(["runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "> /dev/full 2>&1"])
def test_a_closed_or_full_stream_is_no_fault(closed, tmp_path):
    command = f"{sys.executable} -m earnest.cli diagnose - {closed}"
    assert (
        subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, cwd=Path(__file__).parent.parent).returncode == 2
    )


def test_a_pipe_without_a_reader_ends_a_table_with_its_own_code(tmp_path):
    for number in range(400):
        (tmp_path / f"{number}.csv").write_text("step,loss\n1,2\n2,1\n3,1\n")
    command = [sys.executable, "-m", "earnest.cli", "runs", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141


def test_a_link_to_itself_beside_runs_costs_itself(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("step,loss\n1,2\n2,1\n3,1\n")
    (tmp_path / "b.csv").symlink_to("b.csv")
    assert main(["runs", str(tmp_path)]) == 0 and "a.csv" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run.json", "steps.jsonl"])
def test_a_pipe_in_a_run_is_listed_as_what_cannot_be_read(name, tmp_path):
    run = own_run(tmp_path / "run")
    (run / name).unlink()
    os.mkfifo(run / name)
    assert main(["runs", str(tmp_path)]) in (0, 2)


def test_a_configuration_that_is_a_pipe_is_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.yaml")
    assert main(["train", "higgs-tiny", "--config", str(tmp_path / "a.yaml")]) == 2
    assert "no regular file" in capsys.readouterr().err


CODEC = Path(codecs.__file__).parent / "weights" / "amy-tiny"
SIZES = json.loads((CODEC / "config.json").read_text())


@pytest.mark.parametrize(
    "config, weights",
    [
        ("{", None),
        ("[]", None),
        ("[" * 100_000, None),
        (json.dumps(dict.fromkeys(SIZES) | {"model_type": "amy"}), None),
        (json.dumps({name: -size if isinstance(size, int) else size for name, size in SIZES.items()}), None),
        (json.dumps({name: 10**9 if isinstance(size, int) else size for name, size in SIZES.items()}), None),
        (json.dumps(SIZES | {"encoder_blocks": 10**9}), None),
        (json.dumps(SIZES | {"encoder_dim": "wide"}), None),
        (json.dumps(SIZES), b""),
        (json.dumps(SIZES), struct.pack("<Q", 8 << 60) + b"{}"),
        (json.dumps(SIZES), b"\x80\x04cos\nsystem\n"),
    ],
)
def test_a_codec_of_nonsense_is_refused_before_it_takes_memory(config, weights, tmp_path):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(
        (CODEC / "model.safetensors").read_bytes() if weights is None else weights
    )
    with pytest.raises(UserError):
        codecs.load_codec(str(tmp_path))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.json", "list.txt"])
def test_a_list_of_clips_that_is_a_hole_is_refused(name, tmp_path):
    soundfile.write(tmp_path / "0.wav", np.zeros(800), 16_000)
    rows = {"metadata.csv": "file_name,text\n0.wav,one\n", "list.txt": "0.wav one\n"}
    (tmp_path / name).write_text(rows.get(name, '{"file_name": "0.wav", "text": "one"}\n'))
    os.truncate(tmp_path / name, 10 << 30)
    with pytest.raises(UserError):
        load_clips(tmp_path)


def test_conversations_that_are_a_hole_or_a_pipe_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"messages": [')
    os.truncate(tmp_path / "a.json", 10 << 30)
    os.mkfifo(tmp_path / "b.json")
    for name in ("a.json", "b.json"):
        with pytest.raises(UserError):
            load_conversations(tmp_path / name)


def test_a_page_of_clips_whose_names_are_not_utf8_is_written(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 16_000)
    os.replace(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    page_path = tmp_path / "page.html"
    assert main(["data", "check", str(tmp_path), "--out", str(page_path)]) in (0, 1)
    assert "\\udcff.wav" in page_path.read_text()


HEADER_OF_8_EB = struct.pack("<Q", 8 << 60) + b"{}"


@pytest.mark.parametrize(
    "name, change",
    [
        ("model.safetensors", HEADER_OF_8_EB),
        ("model.safetensors", b"\x80\x04cos\nsystem\n"),
        ("config.json", b"[" * 100_000),
        ("config.json", {"vocab_size": -269}),
        ("config.json", {"hidden_size": 10**9}),
        ("tokenizer.json", b'{"model": {"type": "x"}}'),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer_config.json", b'{"tokenizer_class": 5}'),
    ],
)
def test_a_checkpoint_of_nonsense_is_refused(name, change, tmp_path):
    save_backbone(tmp_path)
    if isinstance(change, dict):
        change = json.dumps(json.loads((tmp_path / name).read_text()) | change).encode()
    (tmp_path / name).write_bytes(change)
    with pytest.raises(UserError):
        load_backbone(str(tmp_path))


CODES = np.zeros((8, 10), np.int64)
NAMED = {"codec": "amy-tiny", "samples": "100"}


@pytest.mark.parametrize(
    "codes, named",
    [
        (CODES - 1, NAMED),
        (CODES + 1024, NAMED),
        (CODES * 1.0, NAMED),
        (CODES[:3], NAMED),
        (CODES[:, :0], NAMED),
        (CODES[None], NAMED),
        (CODES, {"codec": "amy-tiny"}),
        (CODES, NAMED | {"samples": "1e400"}),
        (CODES, NAMED | {"samples": "-5"}),
        (CODES, NAMED | {"codec": "../../etc"}),
        (None, HEADER_OF_8_EB),
    ],
)
def test_codes_of_nonsense_are_refused(codes, named, tmp_path, capsys):
    written = named if codes is None else safetensors.numpy.save({"codes_CT": codes}, named)
    (tmp_path / "a.safetensors").write_bytes(written)
    assert main(["decode", str(tmp_path / "a.safetensors"), str(tmp_path / "a.wav")]) == 2
    assert capsys.readouterr().err.startswith("seen:") and not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("field", ["text", "speaker", "language", "tags", "words"])
def test_half_a_character_in_a_list_of_clips_is_no_fault(field, tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), 16_000)
    rows = [{"file_name": name, "text": "one", field: "\ud800"} for name in ("a.wav", "b.wav")]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        train, held_out = split_clips(load_clips(tmp_path), 0.5, seed=0)
        assert len(train) + len(held_out) == 2
    except UserError as error:
        assert "\\ud800" in str(error)

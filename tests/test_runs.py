"""`earnest runs`: what stands below a directory, how it ended, and that a verdict is never an old one."""

import json
import shutil
import time
from pathlib import Path

import pytest

from earnest.cli import main
from earnest.facts import Facts
from earnest.history import Event, history
from earnest.overview import overview
from earnest.report.runs import reached, shortened, when
from earnest.run import RunWriter, read_run

LOGS = Path(__file__).parent / "logs"
HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path_factory.mktemp("cache")))


def make(path: Path, steps: int = 300, level: float = 5.0, end: str | None = "finished", ago_s: float = HOUR_S) -> Path:
    """A run that began an hour before it was last written."""
    writer = RunWriter(path)
    writer.facts(Facts(system="higgs", audio_vocab=1026, codebooks=2, schedule_steps=300))
    start_s = time.time() - ago_s - HOUR_S
    rows = [{"step": 0, "time_s": start_s, "event": "started"}]
    for step in range(1, steps + 1):
        row = {"step": step, "time_s": start_s + HOUR_S * step / steps}
        row |= {f"train/ce_nats/codebook_{index}": level + 2 * 0.98**step for index in range(2)}
        row |= (
            {f"eval/ce_nats/codebook_{index}": level + 1e-5 + 2 * 0.98**step + 0.1 * index for index in range(2)}
            if step % 50 == 0
            else {}
        )
        rows.append(row)
    rows += [{"step": steps, "time_s": start_s + HOUR_S, "event": end}] if end else []
    (path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    writer.close()
    return path


def test_the_state_of_a_run():
    def state(*events: str, silent_s: float = HOUR_S) -> str:
        marked = [Event(index, 1000.0 + index, name) for index, name in enumerate(events)]
        past = history([1000.0 + index for index in range(5)], marked)
        assert past is not None and past.started_s == 1000
        return past.state(1004 + silent_s)

    assert state("started") == "killed"
    assert state("started", silent_s=60) == "running"
    assert state("started", "", "", "", "finished") == "finished"
    assert state("started", "", "", "", "interrupted", silent_s=0) == "interrupted"
    assert state("started", "", "", "finished") == "killed", "it went on after its end"
    assert history([], []) is None


def test_pauses_before_a_resume_are_no_training():
    past = history([0, 10, 20, 1000, 1010], [Event(0, 0, "started"), Event(2, 1000, "resumed")])
    assert past is not None and (past.trained_s, past.pause_s, past.written_s) == (30, 10, 1010)
    assert past.state(1100) == "running" and past.state(1200) == "killed"


def test_a_run_that_was_reported_has_its_verdict_at_once(tmp_path, capsys):
    path = make(tmp_path / "done")
    assert overview(tmp_path, budget_s=-1)[0].judged is None
    assert main(["report", str(path)]) == 0
    assert overview(tmp_path, budget_s=-1)[0].judged is not None


def test_runs_of_ours(tmp_path, capsys):
    make(tmp_path / "done", ago_s=3 * HOUR_S)
    make(tmp_path / "stopped", 123, end="interrupted", ago_s=2 * HOUR_S)
    make(tmp_path / "gone", 140, end=None)
    make(tmp_path / "now", 150, level=7.5, end=None, ago_s=1)
    assert main(["runs", str(tmp_path), "--judge"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "what", "started", "state", "verdict", "held", "out"]
    told = {line.split()[0]: " ".join(line.split()) for line in lines[:4]}
    assert list(told) == ["now", "gone", "stopped", "done"], "the newest first"
    assert "running 150 of 300 ✗" in told["now"] and told["now"].endswith("7.647")
    assert "killed 140 of 300" in told["gone"] and "interrupted 123 of 300" in told["stopped"]
    assert "finished 300 ✓ 2 learning 5.0" in told["done"]
    assert "held out: the newest evaluation (2 audio streams)" in lines


def test_history_of_a_run_that_is_read_whole_is_that_of_its_ends(tmp_path):
    run = read_run(make(tmp_path / "a", 200))
    (entry,) = overview(tmp_path, 0)
    assert run.history is not None and entry.history is not None
    assert (run.history.started_s, run.history.ended) == (entry.history.started_s, entry.history.ended)
    assert run.history.written_s == entry.history.written_s and entry.step == run.last_step == 200


def test_a_verdict_is_shown_if_it_was_made_of_what_is_there(tmp_path, monkeypatch):
    path = make(tmp_path / "a")
    (first,) = overview(tmp_path)
    (again,) = overview(tmp_path, 0)
    assert first.judged and again.judged == first.judged, "kept"
    with open(path / "steps.jsonl", "a") as file:
        file.write(json.dumps({"step": 301, "time_s": time.time(), "train/ce_nats/codebook_0": 9.0}) + "\n")
    assert overview(tmp_path, 0)[0].judged is None, "the run went on"
    assert overview(tmp_path)[0].judged
    monkeypatch.setattr("earnest.overview._code", lambda: "other rules")
    assert overview(tmp_path, 0)[0].judged is None, "the rules changed"


def test_foreign_logs_are_listed_beside_ours(tmp_path, capsys):
    shutil.copytree(LOGS / "hf_labels_unshifted", tmp_path / "hf")
    shutil.copytree(LOGS / "wandb_healthy", tmp_path / "wandb")
    make(tmp_path / "ours")
    (tmp_path / "broken").mkdir()
    for name, text in (("run.json", "{"), ("steps.jsonl", "")):
        (tmp_path / "broken" / name).write_text(text)
    (tmp_path / "notes.csv").write_text("a,b\nx,y\n")
    assert main(["runs", str(tmp_path), "--judge", "--format", "json"]) == 0
    runs = {run["name"].split("/")[0]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert runs["hf"]["findings"] == {"critical": 1} and runs["hf"]["step"] == 300 and runs["hf"]["state"] is None
    assert runs["wandb"]["held_out"]["of"] == "loss" and runs["ours"]["state"] == "finished"
    assert "run.json" in runs["broken"]["problem"]
    main(["runs", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "? cannot be read" in printed and "broken: run.json cannot be read" in printed


def test_two_hundred_runs_take_two_seconds(tmp_path, capsys):
    made = make(tmp_path / "0", 200)
    counts = {f"codebook_{index}": {str(id): 3 for id in range(1024)} for index in range(8)}
    RunWriter(made).facts(Facts().updated({"label_counts": counts}))
    for index in range(1, 200):
        shutil.copytree(made, tmp_path / str(index))
    start_s = time.process_time()
    assert main(["runs", str(tmp_path)]) == 0
    assert time.process_time() - start_s < 2
    assert capsys.readouterr().out.count("finished") == 200


def test_where_there_is_no_run(tmp_path, capsys):
    for path, seen in ((tmp_path, "holds no run"), (tmp_path / "none", "no directory")):
        assert main(["runs", str(path)]) == 2
        assert seen in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be():
    names = ["a/wandb/run-1", "b/tb", "b/csv", "c", "c/d"]
    assert shortened(names) == ["a", "b/tb", "b/csv", "c", "c/d"]


def test_times_and_steps_in_few_words(tmp_path):
    now = time.time()
    assert len(when(now)) == 5 and len(when(now - 400 * 24 * HOUR_S)) == 10
    make(tmp_path / "a", 200)
    assert reached(overview(tmp_path, 0)[0]) == "200 of 300"

"""`earnest watch LOG`, its live page, `earnest.diagnose`, the small JSON, and what agents get."""

import http.client
import json
import math
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import earnest
from earnest import agents, follow, logs
from earnest.cli import main
from earnest.facts import Facts
from earnest.follow import Follower, OwnRun
from earnest.logs.pieces import Progress
from earnest.report.live import Page, state_of
from earnest.rules import diagnose
from earnest.rules.decision import confidence
from earnest.rules.finding import Diagnosis, Finding
from earnest.rules.polling import Believed
from earnest.run import Run, RunWriter, read_run
from earnest.signals import key
from tests.equipment.browser import modules, skip

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "answer.schema.json").read_text())


def write_steps(writer, steps, value, name=None):
    noise = random.Random(0)
    for step in steps:
        writer.step(step, {name or key("ce_nats", "text"): value(step) + 0.05 * noise.gauss(0, 1)})


def healthy(step):
    return 2.0 + 4.0 / math.sqrt(step)


def run_dir(path, value, steps=300, ended=True):
    writer = RunWriter(path)
    writer.event(0, "started")
    writer.facts(Facts(text_vocab=400))
    write_steps(writer, range(1, steps + 1), value)
    if ended:
        writer.event(steps, "finished")
    writer.close()
    return path


def finding(rule="B101", sure=0.9):
    return Finding(rule, "name", "critical", (), sure, 3, "seen", [], [], "probe", "fix")


def test_a_finding_is_believed_at_once_only_if_no_healthy_run_can_show_it():
    believed, none = Believed(), Diagnosis([], [], [])
    unsure, sure = Diagnosis([], [finding()], []), Diagnosis([], [finding("A203", confidence(2000.0))], [])
    assert [one.rule for one in believed.look(sure, 10)] == ["A203"] and not believed.look(sure, 20)
    assert not believed.look(unsure, 40) and not believed.look(unsure, 49)
    assert not believed.look(none, 50) and not believed.look(unsure, 60)  # it did not stand in between
    assert [one.rule for one in believed.look(unsure, 75)] == ["B101"] and not believed.look(unsure, 100)
    assert [one.rule for one in Believed().look(unsure, 10, ended=True)] == ["B101"]
    assert {one.rule for one in believed.findings} == {"A203", "B101"}


def test_our_own_rows_are_read_once(tmp_path):
    writer = RunWriter(run_dir(tmp_path / "run", healthy, 50, ended=False))
    log = OwnRun(tmp_path / "run")
    first = log.read()
    assert first is not None and first.last_step == 50 and log.read() is None
    offset = log.offset
    write_steps(writer, range(51, 61), healthy)
    with open(tmp_path / "run" / "steps.jsonl", "ab") as file:
        file.write(b'{"step": 61, "train/ce_na')  # half a row
    again = log.read()
    assert again is not None and again.last_step == 60 and log.offset > offset
    whole = read_run(tmp_path / "run")
    assert again["train/ce_nats/text"].value.tolist() == whole["train/ce_nats/text"].value.tolist()
    assert again.facts.text_vocab == 400


def looks_of(path, grow, options=None):
    """Looks at a log that `grow` continues between two of them; it returns False when nothing follows."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds if grow() else 1000.0

    return Follower(path, options or {}, clock=lambda: now[0], sleep=sleep)


@pytest.mark.parametrize("sick", [False, True])
@pytest.mark.parametrize("kind", ["own", "jsonl", "text"])
def test_findings_come_while_a_log_grows(kind, sick, tmp_path):
    value = (lambda step: 9.0 + 0.001 * step) if sick else healthy
    noise, step = random.Random(0), [0]
    path = tmp_path / ("run" if kind == "own" else f"log.{'jsonl' if kind == 'jsonl' else 'txt'}")
    writer = RunWriter(path) if kind == "own" else None
    if writer is not None:
        writer.facts(Facts(text_vocab=400))

    def grow():
        if step[0] >= 400:
            return False
        for _ in range(20):
            step[0] += 1
            loss = round(value(step[0]) + 0.05 * noise.gauss(0, 1), 4)
            if writer is not None:
                writer.step(step[0], {key("ce_nats", "text"): loss})
            else:
                row = (
                    json.dumps({"step": step[0], "text_ce": loss})
                    if kind == "jsonl"
                    else f"step {step[0]} text_ce: {loss}"
                )
                with open(path, "a") as file:
                    file.write(row + "\n")
        if writer is not None and step[0] >= 400:
            writer.event(400, "finished")
        return True

    grow()
    follower = looks_of(path, grow, {} if writer else {"facts": {"text_vocab": 400}})
    looks = list(follower.looks())
    told = [(one.rule, look.run.last_step) for look in looks for one in look.new]
    assert looks[-1].ended == ("the run has finished" if writer else looks[-1].ended) and looks[-1].run.last_step == 400
    assert sum(look.judged is not None for look in looks) < len(looks)
    if sick:
        assert told[0][0] == "B101" and told[0][1] < 200 and len({rule for rule, _ in told}) == len(told)
    else:
        assert not told


def test_until_and_exit_codes(tmp_path, capsys):
    sick, well = run_dir(tmp_path / "sick", lambda step: 9.0), run_dir(tmp_path / "well", healthy)
    assert main(["watch", str(well)]) == 0 and "finding" in capsys.readouterr().out
    assert main(["watch", str(sick), "--until", "critical"]) == 1
    assert "✗ critical B101" in capsys.readouterr().out
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def events_of(page, count):
    connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=10)
    connection.request("GET", "/events")
    response = connection.getresponse()
    found = []
    while len(found) < count:
        line = response.readline().decode()
        if line.startswith('data: {"') or line.startswith("event: end"):
            found.append(line.removeprefix("data: ").strip())
    return found, connection


def test_live_page_shows_what_comes_without_reloading_and_closes(tmp_path):
    sick = read_run(run_dir(tmp_path / "sick", lambda step: 9.0))
    sick.path = Path("<img src=x onerror=alert(1)>")
    diagnosis = diagnose(sick)
    page = Page()
    page.show(sick, None, [], None)
    events: list[str] = []
    reader = threading.Thread(target=lambda: events.extend(events_of(page, 3)[0]))
    reader.start()
    for _ in range(100):
        if page.number == 1 and threading.active_count() > 2:
            break
        time.sleep(0.02)
    time.sleep(0.3)
    page.show(sick, diagnosis, diagnosis.findings, "the run has finished")
    time.sleep(0.3)
    page.close()
    reader.join(10)
    before, after = json.loads(events[0]), json.loads(events[1])
    assert not before["findings"] and after["findings"][0]["rule"].startswith("B101") and events[2] == "event: end"
    assert (
        after["curves"][0]["baselines"][0]["name"] == "uniform" and after["verdicts"][0]["word"] == "worse-than-chance"
    )
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", page.server.server_port), timeout=1)


def test_live_page_serves_itself_to_this_machine_alone():
    page = Page()
    try:
        for path, host, status in (("/", None, 200), ("/etc/passwd", None, 404), ("/", "evil.example:80", 403)):
            connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=10)
            connection.request("GET", path, headers={"Host": host} if host else {})
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == status
            if status == 200:
                assert "innerHTML" not in body and "http://" not in body.replace("http://www.w3.org/2000/svg", "")
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    finally:
        page.close()


def test_numbers_that_are_none_reach_the_page():
    run = Run.of(series={"train/loss": ([1, 2, 3], [1.0, math.nan, math.inf])})
    assert state_of(run, diagnose(run), [], None)["curves"][0]["points"] == [(1, 1.0)]


def test_diagnose_shows_itself(tmp_path):
    answer = earnest.diagnose(run_dir(tmp_path / "<b>sick", lambda step: 9.0))
    assert "B101 worse-than-chance" in str(answer) and repr(answer) == str(answer)
    shown = answer._repr_html_()
    assert "B101" in shown and "<b>" not in shown and "&lt;b&gt;sick" in shown
    assert answer == earnest.diagnose(tmp_path / "<b>sick") and answer.findings[0].rule == "B101"


def valid(value, schema, at="$"):
    """The words of JSON Schema that answer.schema.json uses."""
    if "anyOf" in schema:
        errors = []
        for one in schema["anyOf"]:
            try:
                return valid(value, one, at)
            except AssertionError as error:
                errors.append(error)
        raise AssertionError(f"{at}: {errors}")
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    assert not types or any(isinstance(value, kinds[kind]) for kind in types), (at, value)
    assert "const" not in schema or value == schema["const"], at
    assert "enum" not in schema or value in schema["enum"], (at, value)
    assert len(value) <= schema["maxItems"] if "maxItems" in schema else True, at
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), (at, set(schema["required"]) - set(value))
        for name, own in schema.get("properties", {}).items():
            if name in value:
                valid(value[name], own, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for n, item in enumerate(value):
            valid(item, schema["items"], f"{at}[{n}]")


def test_small_json(tmp_path, capsys):
    sick = run_dir(tmp_path / "sick", lambda step: 9.0)
    assert main(["diagnose", str(sick), "--format", "json"]) == 1
    small = capsys.readouterr().out
    assert main(["diagnose", str(sick), "--format", "json", "--full"]) == 1
    full = capsys.readouterr().out
    said = json.loads(small)
    valid(said, SCHEMA)
    assert len(small) < 0.5 * len(full) and json.loads(full)["schema"] == 2
    assert said["findings"][0]["id"] == "B101-text" and said["findings"][0]["explain"] == "earnest explain B101"
    (tmp_path / "log.csv").write_text("step,loss\n" + "".join(f"{n},{9 - n / 100}\n" for n in range(60)))
    asked = json.loads(earnest.diagnose(tmp_path / "log.csv").json())
    valid(asked, SCHEMA)
    assert {"audio_vocab", "text_vocab"} <= {one["fact"] for one in asked["ask"]} and all(
        one["how"] for one in asked["ask"]
    )


def test_what_agents_get(tmp_path):
    sick = run_dir(tmp_path / "sick", lambda step: 9.0)
    assert json.loads(agents.diagnose(str(sick)))["findings"][0]["id"] == "B101-text"
    points = json.loads(agents.series(str(sick), "train/ce_nats/text", 10))["points"]
    assert len(points) <= 10 and points[-1][0] == 300
    assert "train/ce_nats/text" in agents.series(str(sick), "train/nothing") and "fix:" in agents.diagnose("/nowhere")
    assert "A203" in agents.explain("A203") and len(agents.diagnose(str(sick), full=True)) <= agents.MOST + 100
    assert agents.compare([str(sick), str(run_dir(tmp_path / "well", healthy))]).startswith("{")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert json.loads(agents.check(str(script), ["3", "wrong"]))["findings"][0]["rule"] == "A203"
    assert "fix:" in agents.check("/nowhere.py")


def test_mcp_server_speaks(tmp_path):
    pytest.importorskip("mcp.server")
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    asks = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "explain", "arguments": {"topic": "A203"}}},
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "earnest", "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    answers = {}
    for ask in asks:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **ask}) + "\n")
        process.stdin.flush()
        if "id" in ask:
            answers[ask["id"]] = json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait(20) == 0
    assert {tool["name"] for tool in answers[2]["result"]["tools"]} == {
        "diagnose",
        "series",
        "explain",
        "compare",
        "check",
    }
    assert "labels" in answers[3]["result"]["content"][0]["text"]


def test_skill(tmp_path, capsys):
    assert main(["skill"]) == 0 and "name: earnest" in capsys.readouterr().out
    assert main(["skill", str(tmp_path)]) == 0
    assert (tmp_path / "earnest" / "SKILL.md").read_text().startswith("---\nname: earnest")


SCRIPT = """
import sys, torch, torch.nn.functional as F
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50)
    def forward(self, ids):
        return self.head(self.embed(ids))
if __name__ == "__main__":
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(int(sys.argv[1])):
        ids = torch.randint(0, 50, (4, 20))
        logits = model(ids)
        kept, shift = (20, 0) if "wrong" in sys.argv else (19, 1)
        loss = F.cross_entropy(logits[:, :kept].flatten(0, 1), ids[:, shift:].flatten())
        loss.backward(); optimizer.step(); optimizer.zero_grad()
    if "crash" in sys.argv:
        raise RuntimeError("own fault")
    print("done", step)
"""


@pytest.mark.parametrize("words, code, said", [([], 0, "done 29"), (["wrong"], 1, "A203"), (["crash"], 1, "own fault")])
def test_a_script_under_watch(words, code, said, tmp_path):
    script, out = tmp_path / "train.py", tmp_path / "run"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "earnest",
        "watch",
        "--out",
        str(out),
        "--stop-on",
        "critical",
        str(script),
        "30",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert "a fault of earnest" not in done.stderr
    run = read_run(out)
    assert run.last_step == (1 if words == ["wrong"] else 30) and run.facts.system == "Model"
    assert run.history is not None and run.history.ended == ("interrupted" if words else "finished")


def test_following_reads_a_log_that_begins_late(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n')
    follower = looks_of(tmp_path / "log.jsonl", lambda: False)
    assert [look.ended is not None for look in follower.looks()][-1]


def test_a_browser_shows_a_finding_as_it_comes(tmp_path):
    programs = {name: shutil.which(name) for name in ("node", "npm", "chromium")}
    if missing := [name for name, path in programs.items() if path is None]:
        skip(f"no {', '.join(missing)}")
    sick = read_run(run_dir(tmp_path / "sick", lambda step: 9.0))
    sick.path = Path("<img src=x onerror=alert(1)>")
    diagnosis, page, go = diagnose(sick), Page(), tmp_path / "go"
    page.show(sick, None, [], None)
    job = {"modules": str(modules(tmp_path)), "chromium": programs["chromium"], "url": page.url, "go": str(go)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = Path(__file__).parent / "equipment" / "live.mjs"
    process = subprocess.Popen(["node", script, tmp_path / "job.json"], stdout=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not go.exists():
            time.sleep(0.05)
        page.show(sick, diagnosis, diagnosis.findings, None)
        said = json.loads(process.communicate(timeout=60)[0])
    finally:
        process.kill()
        page.close()
    assert said["before"] == "none so far" and "B101 worse-than-chance" in said["findings"] and said["loads"] == 1
    assert "worse-than-chance" in said["verdicts"] and said["curves"] >= 1 and said["baselines"] >= 1
    assert not said["errors"] and not said["wide"] and not said["images"]


@pytest.mark.parametrize("takes_s, looks", [(0.0, 40), (0.1, 36), (1.0, 4), (30.0, 1)])
def test_looking_takes_a_tenth_of_a_core_at_most(takes_s, looks, tmp_path, monkeypatch):
    now_s, read = [100.0], list[float]()

    def slow(path: Path, **options: object) -> Run:
        read.append(now_s[0])
        now_s[0] += takes_s
        return Run()

    def sleep(seconds: float) -> None:
        now_s[0] += seconds
        with open(tmp_path / "log.csv", "a") as file:
            file.write("1,2\n")

    monkeypatch.setattr(follow.logs, "read", slow)
    (tmp_path / "log.csv").write_text("step,loss\n")
    for look in Follower(tmp_path / "log.csv", clock=lambda: now_s[0], sleep=sleep).looks():
        if now_s[0] > 140.0 or look.ended:
            break
    following_s = now_s[0] - read[1]  # before the first there is one that tells whether anything can be read
    assert looks <= len(read[1:]) <= looks + 2 and takes_s * len(read[1:-1]) <= 0.11 * following_s


def grown(path: Path, lines: list[str], at: list[float]) -> tuple[Run, Progress, Run]:
    """A log that was read after each part of its lines, with half a line behind; the same, read whole."""
    progress, begin = Progress(), 0
    for share in at:
        end = int(share * len(lines))
        half = len(lines[end]) // 2
        with open(path, "a") as file:
            file.write("".join(lines[begin:end]) + lines[end][:half])
        logs.read(path, progress=progress)
        with open(path, "a") as file:
            file.write(lines[end][half:])
        begin = end + 1
    with open(path, "a") as file:
        file.write("".join(lines[begin:]))
    return logs.read(path, progress=progress), progress, logs.read(path)


def values_of(run: Run) -> dict[str, list[tuple[int, str]]]:
    return {str(key): [*zip(one.step.tolist(), map(str, one.value), strict=True)] for key, one in run.series.items()}


@pytest.mark.parametrize("kind", ["csv", "gaps", "jsonl", "nested", "text", "bar", "texts", "odd", "changes", "split"])
def test_what_was_appended_is_read_and_nothing_else(kind, tmp_path):
    header = {"texts": "step,loss,third", "gaps": "step,loss,eval_loss"}.get(kind, "step,loss,lr")
    noise, lines = random.Random(0), list[str]()
    for step in range(1, 5501):
        loss, rate = round(2 + 4 / step + 0.1 * noise.random(), 4), f"{1e-3 * (1 - step / 6000):.3e}"
        evaluated = round(loss + 0.2, 4) if step % 50 == 0 else ""
        split = "eval" if step % 50 == 0 else "train"
        lines.append(
            {
                "csv": f"{step},{loss},{rate}",
                "gaps": f"{step},{loss},{evaluated}",
                "texts": f"{step},{loss},epoch {step // 100}",
                "odd": f"{step},{loss},{step / 9:.0f}%",
                "changes": f"{step},{loss},{rate if step < 5200 else 'off'}",
                "split": f'{{"step": {step}, "loss": {loss}, "split": "{split}"}}',
                "jsonl": f'{{"step": {step}, "loss": {loss if step % 40 else "NaN"}, "lr": {rate}}}',
                "nested": f'{{"step": {step}, "train": {{"loss": {loss}, "lr": {rate}}}, "note": null}}',
                "text": f"[12:00] step {step}/4000 | loss {loss} | lr {rate} | gradient overflow, skipping step",
                "bar": f"epoch 1:  50%|###   | {step}/4000 [00:01<00:01, 20.1it/s, loss={loss}]\r",
            }[kind]
        )
    path = tmp_path / ("a.log" if kind in ("text", "bar") else "a.jsonl" if lines[0][0] == "{" else "a.csv")
    path.write_text(header + "\n" if path.suffix == ".csv" else "")
    followed, progress, whole = grown(path, [f"{line}\n" for line in lines], [0.9, 0.93, 0.95, 0.96, 0.99])
    assert values_of(followed) == values_of(whole) and followed.messages == whole.messages
    assert sorted(followed.notes) == sorted(whole.notes)
    assert str(diagnose(followed).findings) == str(diagnose(whole).findings)  # NaN among the evidence
    size = path.stat().st_size
    assert size > 1 << 16 and bool(progress.kept) == (kind not in ("odd", "changes", "split"))
    if progress.kept:
        assert size <= progress.bytes_read < 1.02 * size


def test_a_log_that_was_written_anew_is_read_anew(tmp_path):
    path, progress = tmp_path / "log.csv", Progress()
    for first in (1, 2):  # the second is longer, so that only its bytes tell
        path.write_text("step,loss\n" + "".join(f"{n},{first + 1 / n:.5f}\n" for n in range(first, 8000 * first)))
        assert values_of(logs.read(path, progress=progress)) == values_of(logs.read(path))
    assert progress.kept

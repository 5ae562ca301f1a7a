"""`earnest check SCRIPT`: unmodified scripts are named by their fault, nothing is written beside them, and what cannot
be done is said."""

import contextlib
import io
from pathlib import Path

import pytest

from earnest.cli import main
from earnest.errors import UserError
from earnest.loops.script import Options, check_script

SCRIPTS = Path(__file__).parent / "trainers" / "scripts"
LINES = (
    "The committee agreed that the bridge\nshould be repaired before the winter, although nobody knew\nwho would pay.\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a script and its data, and in it."""
    (tmp_path / "plain.py").write_text((SCRIPTS / "plain.py").read_text())
    (tmp_path / "lines.txt").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(folder: Path, text: str) -> Path:
    path = folder / "train.py"
    path.write_text(text)
    return path


def test_a_plain_script(folder):
    """Its fault is named at its line; nothing is written beside it."""
    found = check_script(Path("plain.py"), ["--labels", "unshifted"])
    assert [one.rule for one in found.diagnosis.findings] == ["A203"]
    lines = (folder / "plain.py").read_text().splitlines()
    line = 1 + next(n for n, line in enumerate(lines) if "cross_entropy" in line)
    assert found.diagnosis.findings[0].evidence[0]["where"] == f"{folder / 'plain.py'}:{line}"
    assert sorted(path.name for path in folder.iterdir()) == ["lines.txt", "plain.py"]
    assert any("Llama-3.2-1B: a tiny random LlamaForCausalLM" in note for note in found.run.notes)


def test_the_command_on_a_right_script(folder):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["check", "--seconds", "50", "plain.py", "--labels", "shifted"]) == 0
    assert "no findings" in said.getvalue() and "lm_head.weight (32000 classes)" in " ".join(said.getvalue().split())


START = """
import torch
model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16))
ids = torch.arange(12).reshape(1, 12)
"""


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (START + "model(ids).sum().item()", "ended"),
        (START + "import sys; sys.exit(3)", "ended with 3"),
        (START + "input('which GPU? ')", "which GPU?"),
        (START + "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "no network"),
        (START + "open('/etc/earnest-was-here', 'w')", "writes to /etc/earnest-was-here"),
        (START + "model(ids, labels=ids)", "TypeError"),
        ("while True: pass", "no loss within"),
        (START + "import time\nmodel(ids)\nwhile True: time.sleep(1)", "no loss"),
    ],
)
def test_what_a_script_cannot_do_is_said_in_three_lines(folder, text, seen):
    with pytest.raises(UserError, match=seen) as error:
        check_script(script(folder, text), options=Options(seconds=8))
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(("emptied", "severity"), [("", "note"), ("optimizer.zero_grad(); ", "critical")])
def test_micro_batches_without_a_loader(folder, emptied, severity):
    text = START + (
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "for step in range(4):\n"
        f"    {emptied}torch.nn.functional.cross_entropy(model(ids)[0], ids[0]).backward()\n"
        "optimizer.step()\n"
    )
    found = check_script(script(folder, text)).diagnosis
    assert {one.rule: one.severity for one in found.findings} == {"A203": "critical", "D404": severity}
    assert "4 micro-batches" in found.mapping["first step"]

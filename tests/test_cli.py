"""The command line: mistakes end in three lines and exit code 2, faults of our own in 3, and nothing in a traceback."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from earnest import cli
from earnest.cli import main
from earnest.errors import UserError
from earnest.explain import explain
from earnest.facts import FACTS


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,text_loss,lr\n" + "".join(f"{i},{6 - i / 30},{5 - i / 40},0.001\n" for i in range(60)))
    return path


def three_lines(capsys) -> dict[str, str]:
    lines = capsys.readouterr().err.strip().splitlines()
    said = {word: rest.strip() for word, _, rest in (line.partition(":") for line in lines)}
    assert list(said) == ["seen", "expected", "fix"], lines
    return said


REFUSED = [  # words, seen, expected, fix
    (["diagnose", "x.csv", "--formt", "json"], "option --formt", "--format", "--help"),
    (["diagnose", "x.csv", "--fact_", "a=1"], "option --fact_", "--fact", "--help"),
    (["diagnose", "x.csv", "--zzz"], "option --zzz", "--format or --out or --fail-on or --map or --fact", ""),
    (["diagnose", "x.csv", "--format", "jsn"], "--format jsn", "one of text, markdown, json, html", "mean json?"),
    (["diagnose", "x.csv", "--fail-on", "x"], "--fail-on x", "one of critical, warning, note", "--help"),
    (["diagnose", "x.csv", "y.csv"], "'y.csv'", "no further word", "--help"),
    (["diagnose"], "no PATH", "PATH: A log, or a directory with one", "--help"),
    (["diagnose", "x.csv", "--run"], "--run without a value", "a text", "Which one"),
    (["diagnose", "x.csv", "--fail-on"], "--fail-on without a value", "critical", "The mildest severity"),
    (["explain"], "no TOPIC", "TOPIC", "--help"),
    (["generate", "r", "--out", "y"], "no --text", "--text: What is said; of several", "--help"),
    (["generate"], "no RUN and no --text and no --out", "--text: What is said; of several", "--help"),
    (["generate", "r", "--txt", "x", "--out", "y"], "option --txt", "--text", "--help"),
    (["generate", "r", "--text", "x", "--out", "y", "--top-k", "a b"], "--top-k a b", "a whole number", "likeliest"),
    (["generate", "r", "--text", "x", "--out", "y", "--top_k=3.5"], "--top-k 3.5", "a whole number", "likeliest"),
    (["generate", "r", "--text", "x", "--out", "y", "--top-p", "0,9"], "--top-p 0,9", "a number", "probability"),
    (["rules", "all"], "'all'", "no further word", "--help"),
    (["rules", "-v"], "option -v", "an option of this command", "--help"),
    (["diagnos", "x.csv"], "command 'diagnos'", "train, diagnose", "--help"),
    (["diagnose", "x.csv", "--map", "loss"], "--map loss", "COLUMN=SIGNAL", "put = between"),
    (["diagnose", "x.csv", "--fact", "codebooks"], "--fact codebooks", "NAME=VALUE", "put = between"),
    (["diagnose", "x.csv", "--fact", "=8"], "--fact =8", "NAME=VALUE", "put = between"),
    (["diagnose", "x.csv", "--fact", "codebook=8"], "fact 'codebook'", "codebooks", "did you mean codebooks?"),
    (["diagnose", "x.csv", "--fact", "codebooks=eight"], "fact codebooks = 'eight'", "a whole number", "num_codebooks"),
    (["diagnose", "x.csv", "--fact", "codebooks=-8"], "fact codebooks = -8", "a whole number >= 1", "num_codebooks"),
    (["diagnose", "x.csv", "--fact", "delays=3"], "fact delays = 3", "a list", "delay of each codebook"),
    (["diagnose", "x.csv", "--fact", "gan_loss=ls"], "fact gan_loss = 'ls'", "one of hinge, lsgan", "adversarial"),
    (["diagnose", "x.csv", "--fact", "max_grad_norm=NaN"], "fact max_grad_norm = nan", "a number >= 0", "clipping"),
    (["diagnose", "gone.csv"], "no such file: gone.csv", "a log file", "path"),
    (["explain", "Z999"], "no word or topic 'Z999'", "`facts`", "A101"),
]


@pytest.mark.parametrize(
    ("words", "seen", "expected", "fix"), REFUSED, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_what_does_not_fit_ends_in_three_lines(words, seen, expected, fix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(words) == 2
    said = three_lines(capsys)
    assert said["seen"].startswith(seen) and expected in said["expected"] and fix in said["fix"], said


RECIPES = [
    (["train", "higgs-tiny", "--lr", "1"], "option --lr", "--optimizer.learning-rate"),
    (["train", "higgs-tiny", "--learning-rate", "1"], "option --learning-rate", "--optimizer.learning-rate"),
    (["train", "higgs-tiny", "--optimiser.learning-rate", "1"], "option --optimiser", "--optimizer.learning-rate"),
    (["train", "higgs-tiny", "--data", "x"], "option --data", "--data.path"),
    (["train", "higgs-tiny", "--steps", "ten"], "--steps ten", "a whole number or None"),
    (["train", "higgs-tiny", "--data.too-long", "cutt"], "--data.too-long cutt", "one of leave_out, cut, refuse"),
    (["train", "higgs-huge"], "recipe 'higgs-huge'", "higgs-tiny"),
    (["train"], "no recipe", "higgs-tiny"),
]


@pytest.mark.parametrize(("words", "seen", "expected"), RECIPES)
def test_every_field_of_a_recipe_is_an_option(words, seen, expected, capsys):
    assert main(words) == 2
    said = three_lines(capsys)
    assert said["seen"].startswith(seen) and expected in said["expected"], said


def test_help_is_no_mistake(capsys):
    for words in (["diagnose", "--help"], ["explain", "-h"], ["train", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
    assert main(["--help"]) == main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in cli.COMMANDS)


def test_a_fault_of_our_own_is_no_finding_and_leaves_its_traceback_in_a_file(log, monkeypatch, capsys):
    monkeypatch.setattr("earnest.logs.read", lambda *args, **named: {}["missing"])
    assert main(["diagnose", str(log)]) == 3
    said = three_lines(capsys)
    assert "KeyError 'missing'" in said["seen"] and "report it as a bug" in said["fix"]
    with open(said["fix"].split()[-1], encoding="utf-8") as file:
        assert "Traceback" in file.read()


def test_an_output_that_cannot_be_written_is_a_mistake(log, tmp_path, capsys):
    for out in (tmp_path / "nowhere" / "x.txt", tmp_path):
        assert main(["diagnose", str(log), "--out", str(out)]) == 2
        assert str(out.parent if out != tmp_path else out) in three_lines(capsys)["seen"]


def test_a_reader_that_goes_away_is_told_nothing(log):
    command = f"{sys.executable} -m earnest.cli diagnose {log} --format json | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
    assert done.stderr == "" and done.returncode in (0, 1, 141)


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_may_be_piped_in(packed, log):
    text = log.read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "earnest.cli", "diagnose", "-", "--format", "json"],
        input=gzip.compress(text) if packed else text,
        capture_output=True,
    )
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["verdicts"]


def test_an_empty_pipe_is_no_log():
    done = subprocess.run([sys.executable, "-m", "earnest.cli", "diagnose", "-"], input=b"", capture_output=True)
    assert done.returncode == 2 and b"standard input is empty" in done.stderr


def test_a_report_may_go_to_a_file_or_a_device(log, tmp_path, capsys):
    assert main(["diagnose", str(log), "--format", "json", "--out", str(tmp_path / "a.json")]) in (0, 1)
    assert json.loads((tmp_path / "a.json").read_text())["verdicts"]
    assert main(["diagnose", str(log), "--out", os.devnull]) in (0, 1)
    assert not os.path.isfile(os.devnull) and capsys.readouterr().out == ""


# --- facts


def test_every_fact_is_explained():
    text = explain("facts")
    for fact in FACTS.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| {fact.name} |"))
        assert fact.meaning in row and fact.where in row and len(row.split(" | ")) == 5


ODD = [
    "", "0", "-1", "1", "8.5", "1e999", "NaN", "9" * 5000, "true", "null", "text", "[]", "[[1]]", '{"codebook_0": -1}',
    "[" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_odd_values_of_facts_are_taken_or_refused(name, log, capsys):
    for value in ODD:
        code = main(["diagnose", str(log), "--fact", f"{name}={value}"])
        printed = capsys.readouterr()
        assert code in (0, 1, 2) and "Traceback" not in printed.err, (value, printed.err)
        if code == 2:
            assert [line.partition(":")[0] for line in printed.err.strip().splitlines()] == ["seen", "expected", "fix"]


def test_a_fact_whose_value_is_text_is_not_read_as_json(log):
    from earnest.commands.arguments import facts

    assert facts(["system=8", "codebooks=8", "max_grad_norm=1", 'loss_weights={"mel": 45}'])["system"] == "8"
    with pytest.raises(UserError):
        facts(["codebooks=8.5"])

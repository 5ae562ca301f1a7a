"""What the command line says of itself: commands, version, help without torch, completion, all within 80 columns; and
configurations as files."""

import subprocess
import sys

import pytest
import yaml

from earnest import __version__
from earnest.cli import COMMANDS, main
from earnest.commands import front
from earnest.commands.arguments import options
from earnest.explain import recipes
from earnest.recipes import RECIPES


def printed(capsys, *words: str) -> str:
    try:
        assert main(list(words)) == 0
    except SystemExit as end:
        assert not end.code
    return capsys.readouterr().out


def test_the_front_page_has_every_command_once():
    listed = [name for commands in front.COMMANDS.values() for name in commands]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        *([], ["--help"], ["--version"], ["recipes"], ["train", "--help"], ["rules"], ["explain", "A201"]),
        *([name, "--help"] for name in COMMANDS if name not in ("train", "trace", "check")),
        *(["data", "check", "--help"], ["train", "higgs-tiny", "--help"], ["trace", "amy-tiny", "--help"]),
    ],
    ids=" ".join,
)
def test_every_output_keeps_to_80_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = printed(capsys, *words)
    assert told and max(map(len, told.splitlines())) <= 80, max(told.splitlines(), key=len)


@pytest.mark.parametrize(
    "words", [["train", "--help"], ["--version"], ["recipes"], ["--help"], ["data", "check", "-h"]]
)
def test_what_is_said_of_commands_needs_no_torch(words):
    program = f"""
import sys
from earnest.cli import main
try:
    main({words!r})
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout and done.stderr == "False\n", done.stderr


def test_the_version_is_that_of_the_package(capsys):
    assert printed(capsys, "--version").startswith(f"earnest {__version__} (Python ")


def test_help_on_training_names_ten_options_that_are_there(capsys):
    told = printed(capsys, "train", "--help")

    def call(config=RECIPES["higgs-tiny"].configure()):  # noqa: B008
        pass

    known = {*options(call), "--out"}
    assert len(front.FIRST_OPTIONS) == 10 and front.FIRST_OPTIONS.keys() <= known
    assert all(name in told for name in (*front.FIRST_OPTIONS, *recipes()))


@pytest.mark.parametrize("shell", front.SHELLS)
def test_a_shell_is_told_how_to_complete(shell, capsys, tmp_path):
    script = printed(capsys, "--completion", shell)
    assert all(word in script for word in ("higgs-tiny", "diagnose", "--fail-on"))
    if shell == "bash":
        (tmp_path / "completion").write_text(script)
        assert subprocess.run(["bash", "-n", str(tmp_path / "completion")]).returncode == 0


def test_an_unknown_shell_is_refused(capsys):
    assert main(["--completion", "fishy"]) == 2 and "one of bash, zsh" in capsys.readouterr().err


# --- configurations as files


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_printed_configuration_is_read_back_as_it_is(recipe, tmp_path, capsys):
    text = printed(capsys, "train", recipe, "--print-config")
    (tmp_path / "c.yaml").write_text(text)
    assert printed(capsys, "train", "--config", str(tmp_path / "c.yaml"), "--print-config") == text
    assert printed(capsys, "train", recipe, f"--config={tmp_path / 'c.yaml'}", "--print-config") == text


def test_a_configuration_is_edited_and_what_is_typed_wins(tmp_path, capsys):
    stored = yaml.safe_load(printed(capsys, "train", "mot-tiny", "--print-config"))
    stored["steps"], stored["optimizer"]["learning_rate"], stored["demos"]["texts"] = 7, 0.5, ["a b", "c"]
    (tmp_path / "c.json").write_text(yaml.safe_dump(stored, default_flow_style=True))
    words = ["train", "--config", str(tmp_path / "c.json"), "--optimizer.learning-rate", "0.25", "--print-config"]
    edited = yaml.safe_load(printed(capsys, *words))
    assert edited["steps"] == 7 and edited["optimizer"]["learning_rate"] == 0.25
    assert edited["demos"]["texts"] == ["a b", "c"] and edited["recipe"] == "mot-tiny"


def test_a_part_of_a_configuration_leaves_the_rest(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("specials_count: false\nshape:\n  width: 128\n")
    words = ("train", "higgs-tiny", "--config", str(tmp_path / "c.yaml"), "--print-config")
    part = yaml.safe_load(printed(capsys, *words))
    assert part["shape"]["width"] == 128 and part["shape"]["layers"] == 4 and part["specials_count"] is False


@pytest.mark.parametrize(
    ("text", "seen", "expected"),
    [
        ("stepz: 5", "stepz in the configuration", "did you mean steps?"),
        ("optimizer:\n  lr: 1", "optimizer.lr in the configuration", "learning_rate"),
        ("optimizer: 3", "optimizer: 3", "indent them below optimizer"),
        ("steps: ten", "--steps ten", "a whole number"),
        ("steps: 0", "--steps 0", "1 or more"),
        ("- 1", "holds a list", "a configuration as"),
        ("{", "c.yaml: ", "a configuration as"),
        ("recipe: dia-tiny", "higgs-tiny, and a configuration of dia-tiny", "earnest train dia-tiny"),
        (None, "No such file", "a configuration as"),
    ],
)
def test_a_wrong_configuration_ends_in_three_lines(text, seen, expected, tmp_path, capsys):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "higgs-tiny", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert seen in told and expected in told and told.count("\n") == 3

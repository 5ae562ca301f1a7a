"""Every command at 80 columns, as tests/golden/ holds it: `python -m tests.equipment.golden` writes these files."""

import os
import re

import pytest

from earnest.cli import COMMANDS, main
from tests.equipment import golden

LEFT_OUT = ("and", "more", "lines", "in", "the", "other", "formats")  # what a narrow report says of a long list


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, golden.here() as folder:
        patch.setenv("EARNEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "80")
        yield folder


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", os.environ["COLUMNS"])


def test_every_command_is_there():
    assert {words[0] for words in golden.HELP} == set(COMMANDS)
    assert {words[0] for words in golden.WORDS if words} >= set(COMMANDS) - {"train"}
    names = [golden.name_of(words) for words in golden.kept()]
    assert sorted(path.name for path in golden.FOLDER.glob("*.txt")) == sorted(names)


@pytest.mark.parametrize("words", [*golden.WORDS, *golden.HELP], ids=" ".join)
def test_it_prints_what_the_file_holds_within_80_columns_and_breaks_no_word(words):
    told = golden.printed(words)
    if words in golden.kept():
        assert told == (golden.FOLDER / golden.name_of(words)).read_text(encoding="utf-8")
    _, *lines, _ = [line for line in told.splitlines() if not line.startswith(("seen: ", "expected: ", "fix: "))]
    if not set(words) & set(golden.WIDER):
        assert max(map(len, lines), default=0) <= golden.WIDTH, max(lines, key=len)
    whole = {*of_words(golden.printed(words, golden.WIDE)), *LEFT_OUT}
    broken = [word for word in of_words(told) if word not in whole]
    assert not broken, broken


def test_a_mistake_is_three_lines_in_a_pipe_and_broken_between_words_on_a_terminal(capsys, monkeypatch):
    assert main(["nope"]) == 2
    piped = capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["nope"]) == 2
    shown = capsys.readouterr().err
    assert piped.count("\n") == 3 and max(map(len, shown.splitlines())) <= 80 and shown.split() == piped.split()
    assert all(line.startswith(("seen: ", "expected: ", "fix: ", " " * 10)) for line in shown.splitlines())


def of_words(text: str) -> list[str]:
    """Words of letters and digits, with what may stand within them; rules and boxes are none."""
    return [word.strip(".,;:·-/") for word in re.findall(r"[\w./:-]+", text)]

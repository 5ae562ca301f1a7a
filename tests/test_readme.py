"""The README is true: its tree names every part, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from earnest.cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = re.search(r"```text\n(earnest/.*?)```", README, re.DOTALL)[1]


def test_the_tree_names_every_part_of_the_package_and_nothing_else():
    named = re.findall(r"^  (\S+)", TREE, re.MULTILINE)
    there = [path.name + "/" * path.is_dir() for path in (ROOT / "earnest").iterdir()]
    assert sorted(named) == sorted(name for name in there if re.fullmatch(r"[a-z]\w*(\.py|/)", name))


def test_every_line_of_the_tree_says_what_is_there():
    assert all(len(line.split(maxsplit=1)) == 2 for line in TREE.splitlines() if line.startswith("  "))


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^(?:\$ )?earnest (\w+)", README, re.MULTILINE))))
def test_commands_of_the_readme_exist(command):
    assert command in COMMANDS


def test_every_command_stands_in_the_readme():
    assert all(re.search(rf"earnest {name}\b", README) for name in COMMANDS)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

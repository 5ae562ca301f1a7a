"""What README and docs tell users to type: their code blocks, and each call of earnest in them, in words."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STARTS = ("earnest", "earnest.cli")  # as a program, and after python -m or torchrun -m
ENDS = ("&&", "|", "||", "&", ";", "then", "else", "fi")


class Command(NamedTuple):
    """One call of earnest: the page that shows it, and the words after `earnest`."""

    page: str
    words: tuple[str, ...]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, code) of every block in one of these languages."""
    fence = re.compile(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(named(page), code) for page in PAGES for code in fence.findall(page.read_text(encoding="utf-8"))]


def commands() -> list[Command]:
    """Every call of earnest in a block of shell, page by page in the order in which they stand there."""
    return [
        Command(page, tuple(words))
        for page, code in blocks("sh", "bash")
        for line in _filled_in(code).splitlines()
        for words in _calls(shlex.split(line, comments=True))
    ]


def _filled_in(code: str) -> str:
    """A block with its variables (NAME=VALUE on a line of its own) replaced by their values."""
    for name, value in re.findall(r"^(\w+)=(\S+)$", code, re.MULTILINE):
        code = code.replace(f"${name}", value)
    return code


def _calls(line: list[str]) -> Iterator[list[str]]:
    """The words after each `earnest` of a line."""
    part: list[str] | None = None
    for word in [*line, ENDS[0]]:
        if word in ENDS:
            if part:
                yield part
            part = None
        elif part is not None:
            part.append(word)
        elif word in STARTS:
            part = []

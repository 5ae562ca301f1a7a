"""No function's body is longer than a reader's screen, no file longer than what one keeps in mind."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "earnest"
BODY_LINES, FILE_LINES = 60, 400

# What may be longer, and why: "file.py:function" or "file.py" -> the reason. A line that is needed no longer fails too.
LONG_BODIES: dict[str, str] = {}
LONG_FILES: dict[str, str] = {}


def bodies(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of every function's body: from the first statement after the docstring to the last line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements = node.body[ast.get_docstring(node) is not None :]
            if statements:
                yield node.name, (node.end_lineno or 0) - statements[0].lineno + 1


def test_no_body_is_longer_than_a_screen():
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    long = {
        f"{name}:{function}": lines
        for name, path in paths.items()
        for function, lines in bodies(path)
        if lines > BODY_LINES
    }
    assert long.keys() == LONG_BODIES.keys(), long


def test_no_file_is_longer_than_one_keeps_in_mind():
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    long = {name: count for name, count in lines.items() if count > FILE_LINES}
    assert long.keys() == LONG_FILES.keys(), long

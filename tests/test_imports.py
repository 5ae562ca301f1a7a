"""Who may import whom (the tree of docs/layout.md, from bottom to top)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "earnest"

RESULTS = "probes/results"  # rules read what probes found, and import no probe

# A part may import those named for it, and nothing else of the package.
GROUND = {
    "errors",
    "bounds",
    "columns",
    "files",
    "history",
    "lines",
    "quantiles",
    "streams",
    "records",
    "facts",
    "rows",
    "owner",
    "signals",
    "glossary",
    "messages",
    RESULTS,
}
BASE = GROUND | {"run", "sampling", "checkpoints"}
DATA = BASE | {"data"}
MODELS = DATA | {"models", "loading"}
GENERATE = MODELS | {"codecs", "generate", "losses"}
MONITORS = GENERATE | {"monitors", "probes"}
TRAINING = MONITORS | {"losses", "training", "stops", "threads", "loops", "rules"}
ALLOWED = {
    **dict.fromkeys(GROUND, GROUND),
    "run": BASE,
    "checkpoints": BASE | {"checkpoints"},
    "stops": set(),
    "threads": set(),
    "sampling": set(),
    "profiles": GROUND | {"profiles"},
    "rules": BASE | {"profiles", "rules"},
    "logs": BASE | {"profiles", "logs"},
    "overview": BASE | {"logs", "rules", "overview"},
    "explain": BASE | {"profiles", "rules", "explain"},
    "comparison": BASE | {"logs", "rules", "comparison"},
    "report": BASE | {"rules", "overview", "comparison", "report"},
    "follow": BASE | {"logs", "rules", "report"},
    "answers": BASE | {"logs", "rules", "report"},
    "agents": BASE | {"answers", "comparison", "explain", "logs", "loops", "rules", "report"},
    "data": DATA,
    "codecs": BASE | {"codecs", "loading"},
    "loading": {"errors"},
    "models": MODELS,
    "losses": MODELS | {"codecs", "losses"},
    "generate": GENERATE,
    "speech": GENERATE | {"speech"},
    "monitors": MONITORS,
    "training": TRAINING,
    "recipes": TRAINING | {"recipes"},
    "probes": MONITORS,
    "loops": MONITORS | {"logs", "loops", "report", "rules", "threads"},
    "commands": {"*"},
    "cli": {"*"},
    "__main__": {"cli"},
    "__init__": {"answers", "loops", "monitors"},  # when a function of it is asked for
}
NO_TORCH = [
    "earnest.run",
    "earnest.sampling",
    "earnest.signals",
    "earnest.profiles",
    "earnest.rules",
    "earnest.logs",
    "earnest.report",
    "earnest.cli",
]


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE).with_suffix("")
    return RESULTS if str(inside) == RESULTS else inside.parts[0]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if isinstance(node, ast.ImportFrom) and node.module == "earnest":
            names = [f"earnest.{alias.name}" for alias in node.names]
        parts |= {
            RESULTS if name == "earnest.probes.results" else name.split(".")[1]
            for name in names
            if name.startswith("earnest.")
        }
    return parts


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_layout(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part}: a new part of the package needs its place in the layout"
    if "*" not in ALLOWED[part]:
        assert imported_parts(path) <= ALLOWED[part] | {part}


def test_losses_know_models_by_their_contract_alone():
    for path in (PACKAGE / "losses").glob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert {name for name in modules if name and name.startswith("earnest.models")} <= {"earnest.models.system"}


def test_nothing_imports_the_command_line():
    for path in PACKAGE.rglob("*.py"):
        assert path.name == "__main__.py" or "cli" not in imported_parts(path), path
        assert part_of(path) in ("cli", "commands") or "commands" not in imported_parts(path), path


@pytest.mark.parametrize("module", NO_TORCH)
def test_reading_and_judging_needs_no_torch(module):
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


HEAVY = ("torch", "transformers", "scipy", "polars", "pandas", "matplotlib", "typeguard", "numpy.ma")
HEAVY += ("hashlib", "sqlite3", "subprocess", "rich._emoji_codes")


def test_a_diagnosis_of_a_short_table_imports_nothing_heavy(tmp_path):
    """A minute's log is judged in less time than any of these takes to import (benchmarks/whole_commands.py)."""
    table = tmp_path / "log.csv"
    table.write_text("step,loss,lr\n" + "".join(f"{step},{5 - step / 40},1e-4\n" for step in range(60)))
    code = f"import sys; from earnest.cli import main; main(['diagnose', {str(table)!r}])"
    code += f"; sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_test_imports_another():
    """What tests share is in tests/equipment."""
    for path in Path(__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from tests import test_|(from|import) tests\.test_)", path.read_text(), re.M), path

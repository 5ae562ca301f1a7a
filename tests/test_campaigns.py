"""A quick share of the campaigns in benchmarks/campaigns, which run for minutes by `make campaigns`."""

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.campaigns.__main__ import NAMES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name, seconds", [("damage", 2), ("folders", 1), ("fuzz", 3)])
def test_nothing_is_lost_and_nothing_let_in(name, seconds, tmp_path):
    tally = import_module(f"benchmarks.campaigns.{name}").run(tmp_path, seconds, seed=0)
    assert tally.ends and not tally.bad, tally.bad


def test_every_campaign_has_its_command_and_its_figures():
    root = Path(__file__).parent.parent
    told = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    files = {path.stem for path in (root / "benchmarks" / "campaigns").glob("*.py")} - {"__init__", "__main__", "tally"}
    assert files == set(NAMES) and all(f"| {name} |" in told for name in NAMES)
    assert "campaigns:" in (root / "Makefile").read_text()

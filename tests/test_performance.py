"""docs/performance.md is what its measurements say; a comparison tells ratios, not times."""

from benchmarks import bench
from benchmarks.side_by_side import Comparison


def test_the_page_shows_what_was_kept():
    kept = bench.kept()
    assert bench.PAGE.read_text(encoding="utf-8") == bench.page()
    assert {line["group"] for line in kept.values()} <= set(bench.GROUPS)


def test_a_comparison_takes_turns():
    calls = list[str]()
    line = Comparison(
        "summing", "a peer", lambda: calls.append("o") or sum(range(10**5)), lambda: calls.append("p"), "none", 4
    ).measured()
    assert "".join(calls) == "op" + "op" + "po" + "op" + "po"
    assert len(line.ratios) == 4 and line.ratio > 1

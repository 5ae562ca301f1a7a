"""A comparison tells ratios, not times."""

from benchmarks.side_by_side import Comparison


def test_a_comparison_takes_turns():
    calls = list[str]()
    line = Comparison(
        "summing", "a peer", lambda: calls.append("o") or sum(range(10**5)), lambda: calls.append("p"), "none", 4
    ).measured()
    assert "".join(calls) == "op" + "op" + "po" + "op" + "po"
    assert len(line.ratios) == 4 and line.ratio > 1

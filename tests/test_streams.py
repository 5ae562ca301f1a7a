"""Streams: one spelling, which nobody else takes apart or puts together; and a model's contract, which is typed."""

import re
from pathlib import Path

import pytest

from earnest.streams import AUDIO, TEXT, TOTAL, Codebook, Part, codebooks, in_order, parse

PACKAGE = Path(__file__).parent.parent / "earnest"
SPELLING = re.compile(r'\.split\("_"|removeprefix\("codebook|startswith\("codebook|f?"codebook_(\{|"|\d)')
OF_A_MODEL = re.compile(r"getattr\(model|\.system [!=]= ")
BY_CONTRACT = ["generate.py", "losses", "probes", "monitors"]


@pytest.mark.parametrize("stream", [TEXT, AUDIO, TOTAL, Codebook(0), Codebook(12), Part("mel"), Part("codebook_x")])
def test_a_stream_is_read_as_it_is_written(stream):
    assert parse(str(stream)) == stream


def test_order_and_kind():
    assert in_order([Codebook(10), Codebook(2), TEXT]) == [TEXT, Codebook(2), Codebook(10)]
    assert codebooks(2) == [Codebook(0), Codebook(1)]
    assert Codebook(3).is_audio and AUDIO.is_audio and not TEXT.is_audio and not Part("mel").is_audio


def files(parts) -> list[Path]:
    return [path for part in parts for path in ([PACKAGE / part] if "." in part else (PACKAGE / part).rglob("*.py"))]


def test_nobody_else_spells_a_stream():
    """`streams.py` alone knows how a stream is written."""
    spelt = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if SPELLING.search(path.read_text())}
    assert spelt == {Path("streams.py")}


def test_a_model_is_asked_by_its_contract():
    assert not [path for path in files(BY_CONTRACT) if OF_A_MODEL.search(path.read_text())]

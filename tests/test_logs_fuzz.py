"""Whatever bytes come, a reader answers with a Run or a UserError; and what is written in a format is read back.

    python tests/test_logs_fuzz.py SECONDS

mutates the recorded logs for that long and keeps every crasher in tests/logs/crashers, which the tests then read.
"""

import gzip
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earnest.errors import UserError
from earnest.logs import read
from earnest.run import Run

LOGS = Path(__file__).parent / "logs"
CRASHERS = sorted((LOGS / "crashers").glob("*"))
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
WORDS = [b"step", b"loss", b"train/loss", b"epoch", b"valid |", b"nan", b"1e-4", b"-inf", b"1e999", b"9" * 400]
WORDS += [b"{", b"}", b"[", b"]", b"'", b'"', b",", b"\t", b"|", b"=", b": ", b"\r", b"\n", b"\0"]
WORDS += [b"\x1b[31m", b"\xff\xfe", "→".encode()]
WORDS += [b"100%|", b"| 3/10 [00:01<00:02, 3.1it/s, loss=2.5]"]


def answers(path: Path) -> Run | None:
    """The run, whose series keep the promises that a Run makes, or None for a UserError; anything else is a crash."""
    try:
        run = read(path)
    except UserError as error:
        assert error.seen and error.expected and error.fix
        return None
    for series in run.series.values():
        assert (
            series.step.dtype == np.int64 and series.value.dtype == np.float64 and len(series.step) == len(series.value)
        )
        assert (np.diff(series.step) > 0).all()
    assert not set(run.facts.mapping) & set(run.facts.unmapped)
    json.dumps(run.facts.mapping)
    return run


def put(folder: Path, data: bytes, name: str = "log") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@QUICK
@given(data=st.binary(max_size=400))
def test_any_bytes(data, tmp_path):
    answers(put(tmp_path, data))


@QUICK
@given(data=st.lists(st.sampled_from(WORDS) | st.integers(-(10**6), 10**6).map(lambda x: str(x).encode()), max_size=60))
def test_words_of_logs_in_any_order(data, tmp_path):
    answers(put(tmp_path, b" ".join(data)))
    answers(put(tmp_path, b"".join(data)))


MAGICS = [b":W&B\xe1\xbe\x00", b"SQLite format 3\0", b"PAR1", b"\x1f\x8b\x08"]
MAGICS += [b'\x18\0\0\0\0\0\0\0\xa3\x7fK"\t\0\0\xc0\xda\xd4U\xd9A\x1a\rbrain.Event:2']


@QUICK
@given(magic=st.sampled_from(MAGICS), data=st.binary(max_size=300))
def test_known_beginnings(magic, data, tmp_path):
    answers(put(tmp_path, magic + data))


@QUICK
@given(
    value=st.lists(st.floats(width=32), min_size=2, max_size=40),
    start=st.integers(0, 10**9),
    stride=st.integers(1, 1000),
)
def test_what_is_written_is_read(value, start, stride, tmp_path):
    step = [start + stride * index for index in range(len(value))]
    files = {
        "a.csv": "step,train_loss,note\n" + "".join(f"{s},{v},x\n" for s, v in zip(step, value, strict=True)),
        "b.jsonl": "".join(
            json.dumps({"step": s, "train": {"loss": v}}) + "\n" for s, v in zip(step, value, strict=True)
        ),
        "c.log": "".join(f"INFO step {s} | loss {v} | lr 0.001\n" for s, v in zip(step, value, strict=True)),
        "d.log": "".join(f"{{'loss': {v}, 'step': {s}}}\r\n" for s, v in zip(step, value, strict=True)),
    }
    for name, text in files.items():
        for path in (put(tmp_path, text.encode(), name), put(tmp_path, gzip.compress(text.encode()), name + ".gz")):
            series = read(path)["train/loss"]
            assert series.step.tolist() == step
            np.testing.assert_array_equal(series.value, np.array(value, np.float64))


@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: path.name)
def test_crashers(path):
    answers(path)


def test_mutations_of_recorded_logs(tmp_path):
    fuzz(tmp_path, seconds=3.0, seed=0)


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to eight of: flip bits, overwrite, insert words, cut, repeat, splice with another log, swap digits."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        size = len(out) or 1
        at, span = rng.randrange(size), rng.choice([1, 2, 7, 100, 4096])
        kind = rng.randrange(8)
        if kind == 0:
            for _ in range(rng.randint(1, 20)):
                if out:
                    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + span] = rng.randbytes(span)
        elif kind == 2:
            out[at:at] = rng.choice(WORDS) * rng.choice([1, 1, 1, 3, 500])
        elif kind == 3:
            del out[at : at + span]
        elif kind == 4:
            out[at:at] = out[at : at + span] * rng.choice([1, 3, 20])
        elif kind == 5:
            other = rng.choice(others)
            out[at:] = other[rng.randrange(len(other)) :]
        elif kind == 6:
            out = out[:at]
        else:
            digits = [index for index in range(at, min(at + 200, len(out))) if chr(out[index]).isdigit()]
            for index in digits[: rng.randint(0, 9)]:
                out[index] = rng.choice(b"0123456789.-e,")
    return bytes(out)


def fuzz(folder: Path, seconds: float, seed: int, keep: Path | None = None) -> int:
    rng = random.Random(seed)
    paths = [
        path for path in sorted(LOGS.rglob("*")) if path.is_file() and path.suffix != ".md" and path.stat().st_size
    ]
    logs = [(path.name, path.read_bytes()[: 1 << 17]) for path in paths]
    count, slowest, until = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        name, data = rng.choice(logs)
        data = mutate(data, [other for _, other in logs], rng)
        if rng.random() < 0.05:
            data = gzip.compress(data, 1)
        path = put(folder, data, name)
        start = time.process_time()
        try:
            answers(path)
        except Exception as error:
            if keep is None:
                raise
            keep.mkdir(exist_ok=True)
            put(keep, data, f"{type(error).__name__}-{count}-{name}")
            print(f"{type(error).__name__}: {str(error)[:150]} in {name}", flush=True)
        took, count = time.process_time() - start, count + 1
        path.unlink()
        if took > slowest:
            slowest = took
            if keep is not None and took > 3:
                keep.mkdir(exist_ok=True)
                put(keep, data, f"slow-{count}-{name}")
            print(f"slowest {took:.2f} s, {name}", flush=True)
    print(f"{count} inputs", flush=True)
    return count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.nice(15)
        fuzz(Path(place), float(sys.argv[1]), seed=int([*sys.argv, "0"][2]), keep=LOGS / "crashers")

"""Files that are small and claim to be large, or never end: each is read or refused within 10 s of CPU and 1 GB."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.campaigns.tally import Tally

LONGEST_S, MOST_BYTES = 10.0, 1_200_000_000  # the process itself needs 0.2 GB
LONGEST_WAIT_S = 90.0  # then it is killed
LOG = b"step,loss\n1,3\n2,2\n3,1\n"


def _hole(name: str, size: int, head: bytes = b"") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(head)
        os.truncate(path, size)
        return path

    return make


def _text(name: str, data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data())
        return folder / name

    return make


def _view(folder: Path) -> Path:
    with sqlite3.connect(folder / "a.db") as file:
        file.execute(
            "create view metrics as with recursive c(x) as (select 1 union all select x + 1 from c) "
            "select x as id, 'r' as run_name, x as step, '{}' as metrics from c"
        )
        file.execute("create table configs(run_name, config)")
    return folder / "a.db"


def _zlib(folder: Path) -> Path:
    with sqlite3.connect(folder / "a.db") as file:
        file.execute("create table metrics(id integer primary key, run_name text, step integer, metrics blob)")
        file.execute("create table configs(run_name, config)")
        for step in range(5):
            row = zlib.compress(b'{"loss": 1, "x": "' + bytes(300_000_000) + b'"}', 9)
            file.execute("insert into metrics(run_name, step, metrics) values('r', ?, ?)", (step, row))
    return folder / "a.db"


def _parquet(folder: Path) -> Path:
    import polars as pl

    pl.select(pl.repeat(1.0, 300_000_000).alias("loss")).write_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def _own(part: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def run(folder: Path) -> Path:
        (folder / "run.json").write_text('{"schema":1,"facts":{},"probes":{}}')
        rows = (json.dumps({"step": step, "time_s": step, "train/loss": 5.0}) + "\n" for step in range(1, 9))
        (folder / "steps.jsonl").write_text("".join(rows))
        demos = {"a.wav": "demo", "a.jsonl": "prediction"}
        named = [{"kind": kind, "path": path, "step": 1, "facts": {}} for path, kind in demos.items()]
        (folder / "artifacts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
        (folder / part).unlink(missing_ok=True)
        make(folder / part)
        return folder

    return run


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 << 30)


def _beside(name: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def folder_of(folder: Path) -> Path:
        (folder / "a.csv").write_bytes(LOG)
        make(folder / name)
        return folder

    return folder_of


def _mlflow(folder: Path) -> Path:
    for name in ("metrics", "params"):
        (folder / name).mkdir()
    (folder / "meta.yaml").write_text("")
    (folder / "metrics" / "loss").write_text("1 3 1\n2 2 2\n3 1 3\n")
    _sparse(folder / "params" / "a")
    return folder


EVENT = b'\x18\0\0\0\0\0\0\0\xa3\x7fK"\t\0\0\xc0\xda\xd4U\xd9A\x1a\rbrain.Event:2ec\xeb\xd3'
BOMBS: dict[str, Callable[[Path], Path]] = {
    "event file of zeros, 4 GB": _hole("events.out.tfevents.1.a", 4 << 30, EVENT),
    "event that claims 2 GB": _hole("events.out.tfevents.1.a", 2 << 30, EVENT + b"\xff\xff\xff\x7f" + bytes(8) + b"\t"),
    "wandb of zeros, 10 GB": _hole("a.wandb", 10 << 30, b":W&B\xe1\xbe\x00"),
    "csv of zeros, 10 GB": _hole("a.csv", 10 << 30, LOG),
    "one line of 1 GB": _hole("a.jsonl", 1 << 30, b'{"step":1,"loss":2,"x":"'),
    "json nested 10^6": _text("a.json", lambda: b'{"log_history":' + b"[" * 10**6),
    "json of 10^7 lists": _text("a.json", lambda: b'{"log_history":[' + b"[]," * 10**7 + b"[]]}"),
    "jsonl nested 500": _text(
        "a.jsonl", lambda: (b'{"step":1,"x":' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"\n") * 200
    ),
    "jsonl of 30,000 rows with names of their own": _text(
        "a.jsonl", lambda: b"".join(b'{"step":%d,"loss":1.5,"k%d":2}\n' % (n, n) for n in range(30_000))
    ),
    "jsonl of 50,000 columns": _text(
        "a.jsonl", lambda: (b'{"step":1,' + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}\n") * 20
    ),
    "csv of 50,000 columns": _text(
        "a.csv",
        lambda: (
            (b"step,loss," + b",".join(b"k%d" % n for n in range(50_000)) + b"\n")
            + (b"1,2," + b",".join([b"1"] * 50_000) + b"\n") * 20
        ),
    ),
    "endless view": _view,
    "zlib in SQLite, 5 times 300 MB": _zlib,
    "parquet of 3 * 10^8 equal rows": _parquet,
    "mlflow parameter of 10 GB": _mlflow,
    **{f"own {part} of 10 GB": _own(part, _sparse) for part in ("run.json", "steps.jsonl", "artifacts.jsonl")},
    **{f"own {part} of 10 GB": _own(part, _sparse) for part in ("a.wav", "a.jsonl")},
    **{f"own {part} a pipe": _own(part, os.mkfifo) for part in ("run.json", "steps.jsonl", "artifacts.jsonl", "a.wav")},
    "train.log a pipe": _beside("train.log", os.mkfifo),
    "config.json a pipe": _beside("config.json", os.mkfifo),
    "train.log /dev/zero": _beside("train.log", lambda path: path.symlink_to("/dev/zero")),
}


def run(folder: Path, seconds: float, seed: int) -> Tally:
    """All of them, whatever the time; `seconds` under 10 takes those that are cheap to make."""
    tally = Tally("bombs")
    cheap = ("endless", "pipe", "own", "/dev", "nested 10^6", "event", "mlflow")
    for name, make in BOMBS.items():
        if seconds < 10 and not any(word in name for word in cheap):
            continue
        place = folder / name.replace(" ", "_").replace("/", "_")
        place.mkdir()
        _one(name, make(place), folder / "page.html", tally)
    return tally


def _one(name: str, path: Path, page: Path, tally: Tally) -> None:
    command = [sys.executable, "-m", "earnest.cli", "diagnose", str(path), "--format", "html", "--out", str(page)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        timer = threading.Timer(LONGEST_WAIT_S, process.kill)
        timer.start()
        _, status, used = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        tail = said.read()[-300:]
    cpu_s, most = used.ru_utime + used.ru_stime, used.ru_maxrss << 10
    bad = process.returncode not in (0, 1, 2) or cpu_s > LONGEST_S or most > MOST_BYTES
    words = f"{name}: exit {process.returncode}, {cpu_s:.1f} s, {most >> 20} MB"
    print(words, flush=True)
    tally.end(f"exit {process.returncode}", f"{words} {tail}" if bad else "")

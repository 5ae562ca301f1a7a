"""Every reader, and our own run directory through rules and page, on damaged input: an answer or a UserError.

    python -m benchmarks.campaigns.fuzz READER [EXECUTIONS [SEED [SECONDS]]]   # guided by coverage: pip install atheris

Without atheris, and in the campaign, inputs are mutated blindly. A crasher is kept in tests/logs/crashers.
"""

import contextlib
import gc
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from benchmarks.campaigns.tally import Tally
from earnest import logs
from earnest.errors import UserError
from earnest.logs.settings import facts_of
from earnest.logs.yaml_text import from_yaml
from earnest.report.page import render
from earnest.rules import diagnose
from earnest.run import Run

LOGS = Path(__file__).parents[2] / "tests" / "logs"
ENDINGS = {
    "text": (".log", ".txt"), "csv": (".csv", ".tsv"), "jsonl": (".jsonl",), "json": (".json",), "wandb": (".wandb",),
    "sqlite": (".db",), "parquet": (".parquet",), "tfevents": ("tfevents",), "yaml": (".yaml",), "own": (),
    "mlflow": (),
}  # fmt: skip
WORDS = [
    *(b"step", b"loss", b"nan", b"1e999", b"9" * 400),
    *(b"{", b"}", b"[", b"'", b'"', b",", b"\t", b"=", b": ", b"\n", b"\0"),
]


def seeds(reader: str) -> list[bytes]:
    """Beginnings of recorded logs, and one that is written here if none was."""
    found = [
        path.read_bytes()[: 1 << 14]
        for path in sorted(LOGS.rglob("*"))
        if path.is_file() and any(ending in path.name for ending in ENDINGS[reader])
    ]
    if reader == "parquet":
        import polars as pl

        file = io.BytesIO()
        pl.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}).write_parquet(file)
        found.append(file.getvalue())
    if reader == "yaml":
        found.append(b"model:\n  num_codebooks: 8\n  codebook_size: 1024\ntrain: {max_steps: 100, betas: [0.9]}\n")
    if reader == "mlflow":
        found.append(b"1795245806379 4.17 1\n1795245806412 4.16 2\n1795245806440 4.1 3\n")
    if reader == "own":
        facts = {"codebooks": 8, "audio_vocab": 1026, "schedule_steps": 100, "max_grad_norm": 1.0, "text_vocab": 100}
        probes = {"held_out": {"streams": {}, "step": 3}, "frozen": {"names": [], "changed": []}}
        rows = [
            {"step": step, "time_s": step, "train/loss": 5 / step, "train/ce_nats/text": 3.0} for step in range(1, 30)
        ]
        artifact = {
            "kind": "demo",
            "path": "a.wav",
            "step": 1,
            "facts": {"text": "a", "temperature": 0.5, "stopped": True},
        }
        parts = [json.dumps({"schema": 1, "facts": facts, "probes": probes}), "\n".join(map(json.dumps, rows))]
        found.append("\n=====\n".join([*parts, json.dumps(artifact)]).encode())
    return found or [b"step,loss\n1,2\n"]


def target(reader: str, folder: Path) -> Callable[[bytes], None]:
    """reader's test of the bytes of one input: it returns if earnest answers, with a result or a UserError."""
    name = {"tfevents": "events.out.tfevents.1.a", "text": "a.log", "sqlite": "a.db"}.get(reader, f"a.{reader}")

    def settings(data: bytes) -> None:
        import yaml

        with contextlib.suppress(yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
            config = from_yaml(data.decode("utf-8", "replace"))
            if isinstance(config, dict):
                facts_of(config, "here")

    def own(data: bytes) -> None:
        parts = [*data.split(b"\n=====\n"), b"", b"", b""]
        for part, file in zip(parts, ("run.json", "steps.jsonl", "artifacts.jsonl"), strict=False):
            (folder / file).write_bytes(part)
        judged(folder)

    def mlflow(data: bytes) -> None:
        for part in ("metrics", "params"):
            (folder / part).mkdir(exist_ok=True)
        (folder / "meta.yaml").write_bytes(b"")
        (folder / "metrics" / "loss").write_bytes(data)
        (folder / "params" / "a").write_bytes(data[:100])
        read(folder)

    def file(data: bytes) -> None:
        (folder / name).write_bytes(data)
        read(folder / name)

    return {"yaml": settings, "own": own, "mlflow": mlflow}.get(reader, file)


def read(path: Path) -> Run | None:
    try:
        return logs.read(path)
    except UserError:
        return None


def judged(path: Path) -> None:
    run = read(path)
    if run is not None:
        diagnosis = diagnose(run)
        assert not diagnosis.faults, diagnosis.faults
        page = render(run, diagnosis)
        assert "a fault of earnest" not in page, page[page.index("a fault of earnest") - 200 :][:300]


def mutate(data: bytes, other: bytes, random_: random.Random) -> bytes:
    """One to six random edits of an input: bits, bytes, words, cuts, repeats, another input's end, or digits."""
    out = bytearray(data)
    for _ in range(random_.randint(1, 6)):
        at, span = random_.randrange(len(out) or 1), random_.choice([1, 2, 7, 100, 4096])
        match random_.randrange(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << random_.randrange(8)
            case 1:
                out[at : at + span] = random_.randbytes(span)
            case 2:
                out[at:at] = random_.choice(WORDS) * random_.choice([1, 1, 3, 500])
            case 3:
                del out[at : at + span]
            case 4:
                out[at:at] = out[at : at + span] * random_.choice([1, 3, 20])
            case 5 if other:
                out[at:] = other[random_.randrange(len(other)) :]
            case _:
                digits = [place for place in range(at, min(at + 200, len(out))) if 48 <= out[place] <= 57]
                for place in digits[: random_.randint(0, 9)]:
                    out[place] = random_.choice(b'0123456789.-e,[{"')
    return bytes(out[: 1 << 16])


def run(folder: Path, seconds: float, seed: int) -> Tally:
    tally = Tally("fuzz")
    for reader in ENDINGS:
        inputs, place, random_ = seeds(reader), folder / reader, random.Random(f"{seed}/{reader}")
        place.mkdir()
        test, end_s, count = target(reader, place), time.monotonic() + seconds / len(ENDINGS), 0
        while not count or time.monotonic() < end_s:
            data, count = mutate(random_.choice(inputs), random_.choice(inputs), random_), count + 1
            bad = _crash(test, data, f"{reader}-{seed}-{count}")
            tally.end(reader, bad)
    return tally


def _crash(test: Callable[[bytes], None], data: bytes, name: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):
            test(data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        (LOGS / "crashers").mkdir(exist_ok=True)
        (LOGS / "crashers" / f"{type(error).__name__}-{name}").write_bytes(data)
        return f"{name}: {type(error).__name__}: {str(error)[:200]}"
    return ""


def guided(reader: str, executions: int, seed: int, seconds: int) -> None:
    """Coverage-guided, by atheris, which counts the branches of earnest's own functions; ends at the first crash, whose
    input it leaves here as crash-*, or after `seconds`."""
    atheris: Any = import_module("atheris")  # an extra of developers
    import_module("earnest.report.live")
    for function in [one for one in gc.get_objects() if isinstance(one, FunctionType)]:
        if function.__module__ and function.__module__.startswith("earnest."):
            atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(reader)):
            (Path(corpus) / str(number)).write_bytes(data)
        test = target(reader, Path(folder))
        limits = [f"-runs={executions}", f"-max_total_time={seconds}", "-max_len=2048", "-rss_limit_mb=3000"]
        atheris.Setup([sys.argv[0], *limits, f"-seed={seed + 1}", "-timeout=60", "-print_final_stats=1", corpus], test)
        atheris.Fuzz()


if __name__ == "__main__":
    words = [*sys.argv[1:], "", "", "", ""]
    guided(words[0], int(words[1] or 1_000_000), int(words[2] or 0), int(words[3] or 0))

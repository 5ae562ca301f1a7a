"""Speed and memory of the log readers beside their peers.

    python -m benchmarks.logs [ROWS ...] [--peers PYTHON ...]

Every measurement is a process of its own with one thread: CPU seconds and peak memory from before reading to the end,
imports left out; ours includes finding the format, mapping names and stitching steps, a peer's only the table. Ours and
a peer alternate three times and the ratio is of medians. PYTHON: interpreters that have tensorboard, tbparse or wandb
0.19, where this one has not. A missing peer is named and skipped.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

READ = {
    "earnest": "import polars\nfrom earnest.logs import read\n"
    "def go(path): return sum(map(len, read(path).series.values()))",
    "pandas csv": "import pandas\ndef go(path): return pandas.read_csv(path).size",
    "polars csv": "import polars\ndef go(path): return polars.read_csv(path).height",
    "earnest run": "import polars\nfrom pathlib import Path\nfrom earnest.run import read_run\n"
    "def go(path): return sum(map(len, read_run(Path(path).parent).series.values()))",
    "polars jsonl": "import polars\ndef go(path): return polars.read_ndjson(path).height",
    "pandas jsonl": "import pandas\ndef go(path): return pandas.read_json(path, lines=True).size",
    "json loop": "import json\ndef go(path): return len([json.loads(line) for line in open(path)])",
    "EventAccumulator": "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
    "def go(path):\n a = EventAccumulator(path, size_guidance={'scalars': 0}); a.Reload()\n"
    " return sum(len(a.Scalars(tag)) for tag in a.Tags()['scalars'])",
    "tbparse": "from tbparse import SummaryReader\ndef go(path): return len(SummaryReader(path).scalars)",
    "wandb 0.19 DataStore": "import json\nfrom wandb.sdk.internal.datastore import DataStore\n"
    "from wandb.proto import wandb_internal_pb2\n"
    "def go(path):\n store = DataStore(); store.open_for_scan(path); rows = []\n"
    " while (data := store.scan_data()) is not None:\n"
    "  record = wandb_internal_pb2.Record(); record.ParseFromString(data)\n"
    "  rows.append({'/'.join(item.nested_key): json.loads(item.value_json) for item in record.history.item})\n"
    " return len(rows)",
    "regex loop": "import re\nP = re.compile(r'([A-Za-z_/]+)[ :=]+([-+.0-9e]+)')\n"
    "def pairs(line): return [(k, float(v)) for k, v in P.findall(line) if v[-1] not in '.e-+']\n"
    "def go(path): return len([pairs(line) for line in open(path)])",
}
MEASURE = """
import sys, time, resource, json
{code}
import os
path = sys.argv[1]
def rss(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
before, start = rss(), time.process_time()
count = go(path)
print(json.dumps([time.process_time() - start, rss() - before, count]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows:
            for kind, peers in PEERS.items():
                path = Path(folder) / f"{kind}.log"
                GENERATE[kind](path, rows)
                print(f"{kind}, {rows:,} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
                for peer in peers:
                    compare(path, peer, options.peers)
                path.unlink()


def compare(path: Path, peer: str, pythons: list[str]) -> None:
    ours, theirs = [], []
    for _ in range(3):
        ours.append(measure(path, "earnest", sys.executable))
        found = next(filter(None, (measure(path, peer, python) for python in [sys.executable, *pythons])), None)
        if found is None:
            print(f"  SKIPPED {peer}: not installed (pass --peers PYTHON)", flush=True)
            break
        theirs.append(found)
    cpu, memory, count = (statistics.median(column) for column in zip(*(one for one in ours if one), strict=True))
    line = f"  earnest {cpu:.2f} s, +{memory:.0f} MB, {count:,.0f} values"
    if theirs:
        peer_cpu, peer_memory, _ = (statistics.median(column) for column in zip(*theirs, strict=True))
        line += f" | {peer} {peer_cpu:.2f} s, +{peer_memory:.0f} MB | ratio={cpu / peer_cpu:.3f}"
        line += f" memory={memory / max(peer_memory, 1):.2f}"
    print(line, flush=True)


def measure(path: Path, reader: str, python: str) -> list[float] | None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-W", "ignore", "-c", MEASURE.format(code=READ[reader]), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        if "ModuleNotFoundError" in result.stderr or "ImportError" in result.stderr:
            return None
        raise SystemExit(f"{reader} failed on {path.name}:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def _signals(step: int) -> dict[str, float]:
    loss = 7 * 2.0 ** (-step / 200_000) + (step * 7919 % 1000) / 5000
    return {
        "train/loss": loss,
        "train/grad_norm": 1 + loss / 9,
        "train/lr": 1e-4,
        **{f"train/loss_cb{k}": loss + k / 10 for k in range(6)},
    }


def generate_csv(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        file.write("step," + ",".join(_signals(0)) + "\n")
        file.writelines(
            f"{step}," + ",".join(f"{value:.6f}" for value in _signals(step).values()) + "\n" for step in range(rows)
        )


def generate_jsonl(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        file.writelines(json.dumps({"step": step, **_signals(step)}) + "\n" for step in range(rows))


def generate_run(path: Path, rows: int) -> None:
    """The ``steps.jsonl`` of a run of our own with 75 signals, and its run.json beside it."""
    names = ["train/loss", "train/grad_norm", "train/learning_rate"]
    kinds = ("ce_nats", "accuracy_frac", "copy_frac", "entropy_nats", "ce_full_nats", "counted_frac")
    names += [f"train/{kind}/codebook_{k}" for kind in kinds for k in range(12)]
    path.with_name("run.json").write_text(json.dumps({"schema": 1, "facts": {"system": "higgs"}, "probes": {}}))
    with open(path, "w") as file:
        for step in range(1, rows + 1):
            values = {name: 7 * (step * (k + 3) * 7919 % 99991) / 99991 for k, name in enumerate(names)}
            file.write(json.dumps({"step": step, "time_s": 1.7e9 + step, **values}) + "\n")


def generate_jsonl_nan(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        file.writelines(
            json.dumps({"step": step, **_signals(step), "train/loss": float("nan")}) + "\n" for step in range(rows)
        )


def generate_text(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        for step in range(rows):
            cells = " | ".join(f"{name} {value:.4f}" for name, value in _signals(step).items())
            file.write(f"2026-01-01 10:{step // 60 % 60:02}:{step % 60:02} INFO step {step}/{rows} | {cells}\n")


def generate_tqdm(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        for step in range(rows):
            part = step % 1000 * 10 // 1000
            file.write(
                f"\rEpoch {step // 1000}: {step % 1000 // 10:3}%|{'█' * part}{' ' * (10 - part)}| {step % 1000}/1000 "
                f"[00:{step % 60:02}<01:00, 11.9it/s, loss={_signals(step)['train/loss']:.4f}, lr=0.0001]"
            )


def generate_wandb(path: Path, rows: int) -> None:
    """An offline run's records: history items of key (as one nested_key) and value_json, in LevelDB's framing with its
    checksums."""

    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    def framed(out: bytearray, data: bytes) -> None:
        first = True
        while data or first:
            left = 32768 - len(out) % 32768
            if left < 7:
                out += bytes(left)
                left = 32768
            piece, data = data[: left - 7], data[left - 7 :]
            kind = (1 if first else 4) if not data else (2 if first else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece) & 0xFFFFFFFF, len(piece), kind) + piece
            first = False

    out = bytearray(b":W&B\xe1\xbe\x00")
    for step in range(rows):
        cells = {**_signals(step), "_timestamp": 1.7e9 + step / 7, "_runtime": step / 7, "_step": step}
        items = b"".join(
            field(1, field(2, name.encode()) + field(16, json.dumps(value).encode())) for name, value in cells.items()
        )
        framed(out, b"\x08" + _varint(step + 1) + field(2, items + field(2, b"\x08" + _varint(step))))
    path.write_bytes(out)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def generate_events(path: Path, rows: int) -> None:
    """Event files as SummaryWriter writes them, a scalar a record (the checksums are right: TensorBoard's reader checks
    them)."""
    table = [0] * 256
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table[index] = value

    def masked(data: bytes) -> bytes:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
        crc ^= 0xFFFFFFFF
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def record(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + masked(length) + data + masked(data)

    with open(path.with_name(path.name), "wb") as file:
        file.write(record(b"\x09" + struct.pack("<d", 1.7e9) + b"\x1a\x0dbrain.Event:2"))
        names = [name.encode() for name in _signals(0)]
        for step in range(rows // len(names)):
            clock = b"\x09" + struct.pack("<d", 1.7e9 + step)
            at = b"\x10" + _varint(step) if step else b""
            for name, value in zip(names, _signals(step).values(), strict=True):
                inner = b"\x0a" + _varint(len(name)) + name + b"\x15" + struct.pack("<f", value)
                summary = b"\x0a" + _varint(len(inner)) + inner
                file.write(record(clock + at + b"\x2a" + _varint(len(summary)) + summary))


GENERATE = {
    "csv": generate_csv,
    "jsonl": generate_jsonl,
    "jsonl with NaN": generate_jsonl_nan,
    "text": generate_text,
    "tqdm": generate_tqdm,
    "tfevents": generate_events,
    "wandb": generate_wandb,
}
PEERS = {
    "csv": ["pandas csv", "polars csv"],
    "jsonl": ["pandas jsonl", "json loop"],
    "jsonl with NaN": ["pandas jsonl"],
    "text": ["regex loop"],
    "tqdm": ["regex loop"],
    "tfevents": ["EventAccumulator", "tbparse"],
    "wandb": ["wandb 0.19 DataStore"],
}

if __name__ == "__main__":
    start = time.time()
    main()
    print(f"{time.time() - start:.0f} s")

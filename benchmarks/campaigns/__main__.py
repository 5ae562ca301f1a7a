"""The command of the campaigns: see the package's first lines."""

import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

NAMES = ("kills", "disks", "damage", "races", "bombs", "folders", "fuzz", "ranks")


def main(names: Sequence[str], seconds: float, seed: int) -> int:
    bad = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"earnest-{name}-") as folder:
            os.environ.setdefault("EARNEST_CACHE", str(Path(folder) / "cache"))
            tally = import_module(f"benchmarks.campaigns.{name}").run(Path(folder), seconds, seed)
        print(tally.told(), flush=True)
        bad += len(tally.bad)
    return 1 if bad else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = list(NAMES) if not words or words[0] == "all" else [words[0]]
    raise SystemExit(main(chosen, float([*words, "", "120"][1] or 120), int([*words, "", "", "0"][2] or 0)))

"""Are the numbers the same as before? Records what must not change, and compares two records.

    python -m benchmarks.same losses SPEECH OUT.json       # every tiny recipe, 20 steps: each number of each logged row
    python -m benchmarks.same verdicts OUT.json            # every fixture log: verdicts and findings
    python -m benchmarks.same compare BEFORE.json AFTER.json

To record an older version, run it in a checkout of that version (``git worktree add``), with this file copied there.
SPEECH is a folder of speech for the codec (``earnest data asterisk-en SPEECH``). A wall-clock time is no such number.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPES = ("higgs-tiny", "dia-tiny", "mot-tiny", "mot-smol", "amy-tiny")
TIMES = ("time_s", "train/step_s", "train/data_s", "train/memory_bytes")


def losses(speech: str) -> dict[str, Any]:
    """Recipe and step -> the signals of its row, for 20 steps of every tiny recipe."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            out = Path(folder) / recipe
            command = [sys.executable, "-m", "earnest.cli", "train", recipe, "--steps", "20", "--out", str(out)]
            command += ["--data.path", speech, "--log-every-steps", "1"] if recipe.startswith("amy") else []
            subprocess.run(command, check=True)
            for line in (out / "steps.jsonl").read_text().splitlines():
                row = json.loads(line)
                signals = {name: value for name, value in row.items() if name not in TIMES}
                rows.setdefault(f"{recipe} {row['step']}", {}).update(signals)
    return rows


def verdicts() -> dict[str, Any]:
    """Fixture -> what is said of it, as the JSON report says it."""
    said = {}
    for path in sorted(Path("tests/logs").iterdir()):
        if path.is_dir():
            command = [sys.executable, "-m", "earnest.cli", "diagnose", str(path), "--format", "json", "--full"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said[path.name] = told(json.loads(done.stdout)) if done.stdout.startswith("{") else done.stderr
    from earnest.report import as_json
    from earnest.rules import diagnose
    from tests.equipment.cases import CASES, case

    for path in CASES:
        for section in ("Sick", "Healthy"):
            run = case(path, section)
            said[f"{path.stem} {section}"] = told(json.loads(as_json.render(run, diagnose(run))))
    return said


def told(report: dict[str, Any]) -> dict[str, Any]:
    """Verdicts and findings of a JSON report; the streams of a finding were one string in schema 1."""
    for finding in report["findings"]:
        finding.setdefault("streams", (finding.pop("stream", None) or "").split(",") if finding.get("stream") else [])
        finding.pop("stream", None)
    return {"verdicts": report["verdicts"], "findings": report["findings"]}


def compare(before: Any, after: Any, where: str = "") -> int:
    """Print every place where two records differ; returns how many."""
    if isinstance(before, dict) and isinstance(after, dict):
        return sum(compare(before.get(name), after.get(name), f"{where}/{name}") for name in {**before, **after})
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return sum(
            compare(old, new, f"{where}[{index}]") for index, (old, new) in enumerate(zip(before, after, strict=True))
        )
    if before == after or (before != before and after != after):
        return 0
    print(f"{where}\n  before: {json.dumps(before)[:300]}\n  after:  {json.dumps(after)[:300]}")
    return 1


if __name__ == "__main__":
    task, *names = sys.argv[1:]
    if task == "compare":
        old, new = (json.loads(Path(name).read_text()) for name in names)
        number = compare(old, new)
        print(f"{number} differences in {len(old)} entries")
        sys.exit(bool(number))
    Path(names[-1]).write_text(json.dumps(losses(names[0]) if task == "losses" else verdicts(), indent=1))

"""The two logs that every rule brings (tests/rules/CODE.md)."""

import csv
import json
import re
from pathlib import Path

import numpy as np

from earnest import records
from earnest.messages import Message
from earnest.run import Artifact, Run, Series

CASES = sorted((Path(__file__).parent.parent / "rules").glob("*.md"))


def case(path: Path, section: str) -> Run:
    """The log under a heading: a table of series (an empty cell is a step not logged), and JSON with whatever else the
    run knows."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", path.read_text(), re.MULTILINE | re.DOTALL)[1]
    blocks = {language: body for language, body in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)}
    known = json.loads(blocks.get("json", "{}"))
    series = {}
    rows = list(csv.DictReader(blocks.get("csv", "").splitlines()))
    for name in rows[0] if rows else []:
        if name != "step":
            logged = [(int(row["step"]), float(row[name])) for row in rows if row[name] != ""]
            series[name] = Series(np.array([step for step, _ in logged]), np.array([value for _, value in logged]))
    artifacts = [
        Artifact("demo", f"{index}.wav", one.pop("step"), one) for index, one in enumerate(known.get("demos", []))
    ]
    run = Run.of(known.get("facts", {}), series, known.get("probes", {}), artifacts)
    run.messages = [records.read(Message, one, path.name, "see earnest.messages") for one in known.get("messages", [])]
    return run

"""The report as JSON: a versioned contract, described in ``schema.json`` beside this file.

Within schema 1 fields may be added, never renamed, retyped or removed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from earnest.report import view
from earnest.rules.finding import Diagnosis
from earnest.run import Run

SCHEMA = 1


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole report as JSON that any strict parser reads."""
    facts = {
        name: fact for name, fact in run.facts.items() if name != "label_counts"
    }  # megabytes, and in run.json already
    said = {
        "schema": SCHEMA,
        "run": {
            "path": str(run.path) if run.path else None,
            "last_step": run.last_step,
            "signals": sorted(run.series),
            "facts": facts,
            "notes": run.notes,
        },
        **asdict(diagnosis),
    }
    said["findings"] = [asdict(finding) for finding in view.in_order(diagnosis.findings)]
    return json.dumps(plain(said), indent=1, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Anything -> what strict JSON can hold. NaN and the infinities become strings: unlike null they say what was
    seen."""
    if hasattr(value, "tolist"):  # a numpy scalar or array
        value = value.tolist()
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate is no Unicode text

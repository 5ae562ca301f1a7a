"""The report as JSON: a versioned contract, described in ``schema.json`` beside this file.

Within schema 2 fields may be added, never renamed, retyped or removed.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any, cast

from earnest.report import view
from earnest.rules.finding import Diagnosis
from earnest.run import Run
from earnest.streams import Stream

SCHEMA = 2


def render(run: Run, diagnosis: Diagnosis) -> str:
    """The whole report as JSON that any strict parser reads."""
    facts = run.facts.known()
    facts.pop("label_counts", None)  # megabytes, and in run.json already
    said = {
        "schema": SCHEMA,
        "run": {
            "path": str(run.path) if run.path else None,
            "last_step": run.last_step,
            "signals": sorted(map(str, run.series)),
            "facts": facts,
            "notes": run.notes,
        },
        **vars(replace(diagnosis, findings=view.in_order(diagnosis.findings))),
    }
    return json.dumps(plain(said), indent=1, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Anything -> what strict JSON can hold. NaN and the infinities become strings: unlike null they say what was
    seen."""
    if hasattr(value, "tolist"):  # a numpy scalar or array
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, Stream):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(item) for name, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate is no Unicode text

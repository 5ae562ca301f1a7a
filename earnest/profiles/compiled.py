"""The pages of this folder in one file of JSON, as reading 50 of TOML takes longer than importing numpy.

``python -m earnest.profiles.explain`` writes it.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
FILE = HERE / "compiled.json"
Kind = Literal["trainers", "models", "configs"]


def table(kind: Kind) -> Mapping[str, dict[str, Any]]:
    """Name -> page, as plain values."""
    return _tables()[kind]


@cache
def _tables() -> Mapping[str, Mapping[str, dict[str, Any]]]:
    return json.loads(FILE.read_bytes())


def compiled() -> str:
    """The text of `FILE`, made from the pages."""
    import tomllib

    names = sorted(path.stem for path in (HERE / "trainers").glob("*.toml"))
    read = {path: tomllib.loads((HERE / f"{path}.toml").read_text(encoding="utf-8")) for path in ("models", "configs")}
    trainers = {name: tomllib.loads((HERE / "trainers" / f"{name}.toml").read_text("utf-8")) for name in names}
    return json.dumps({"trainers": trainers, **read}, ensure_ascii=False, indent=0) + "\n"

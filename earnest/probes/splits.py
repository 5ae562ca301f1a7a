"""What training and held-out clips have in common."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def duplicates(train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many held-out clips hold exactly the codes of a training clip, and their sources."""
    known = {_digest(row) for row in train}
    shared = [str(row["source"]) for row in held_out if _digest(row) in known]
    return {"shared": len(shared), "held_out": len(held_out), "sources": shared[:6]}


def _digest(row: Mapping[str, Any]) -> bytes:
    codes_CT = np.ascontiguousarray(row["codes_CT"], np.int64)
    return hashlib.sha256(str(codes_CT.shape).encode() + codes_CT.tobytes()).digest()

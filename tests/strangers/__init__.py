"""Strangers' logs: what people really bring, and what the doctor must make of it.

`made`, `cases`, `names`, `kinds` and `posted` draw the logs, each from a seed; `expected/*.yaml` says of every case
what must be said of it and what must not (`expectations`). A case is met if it is met with every seed of `SEEDS`.
What is not met yet is listed in `not_yet.txt`, one case a line with what is said of it today; a test that is listed
there and passes fails, so that a case that was mended cannot stay listed.

``python -m tests.strangers`` prints what is met, by kind of fault; ``--write`` writes `not_yet.txt` anew; ``--show
CASE`` prints the report of one; ``--logs DIR`` judges other logs of the same names.
"""

from pathlib import Path

from tests.strangers import cases, kinds, made, names, posted
from tests.strangers.curves import Draw
from tests.strangers.expectations import Case, read_cases

HERE = Path(__file__).parent
LOGS: dict[str, Draw] = made.LOGS | cases.LOGS | names.LOGS | kinds.LOGS | posted.LOGS
CASES: dict[str, Case] = read_cases(HERE / "expected", LOGS)
NOT_YET = HERE / "not_yet.txt"
SEEDS = (0, 1, 2)


def not_yet(path: Path = NOT_YET) -> dict[str, str]:
    """Case -> what is said of it today."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))

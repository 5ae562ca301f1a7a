"""``python -m tests.strangers``: what is met and what is not, by kind. See the package's first lines."""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from tests.strangers import CASES, LOGS, NOT_YET, SEEDS, not_yet
from tests.strangers.expectations import Case, options
from tests.strangers.reports import diagnosed, write

HEAD = """\
# Cases of expected/*.yaml that are not met yet, and what is said of them today.
# Whoever mends one removes its line; `python -m tests.strangers --write` writes all anew.
"""


def judge(case: Case, folder: Path, logs: Path | None = None) -> tuple[list[str], str]:
    """What is unmet with any seed, and what is said with it (or with the first)."""
    said = ""
    for seed in SEEDS[:1] if logs else SEEDS:
        path = other(logs, case) if logs else folder / f"{case.log}-{seed}"
        if not logs and not path.exists():
            write(LOGS[case.log](np.random.default_rng(seed)), path)
        report = diagnosed(path / case.path, *options(case))
        said = said or report.summary()
        if unmet := case.unmet(report):
            return unmet, report.summary()
    return [], said


def other(logs: Path, case: Case) -> Path:
    """The log of a case in another folder: a file or a folder of its name."""
    return next(logs.glob(f"{case.log}.*"), logs / case.log)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.strangers")
    parser.add_argument("--write", action="store_true", help="write not_yet.txt anew")
    parser.add_argument("--show", metavar="CASE", help="print the report of one case, and what is unmet")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="judge the logs of a folder that have these names")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.show:
            _show(args.show, Path(folder), args.logs)
        else:
            _all(Path(folder), args.logs, args.write)


def _show(name: str, folder: Path, logs: Path | None) -> None:
    case = CASES[name]
    path = other(logs, case) if logs else write(LOGS[case.log](np.random.default_rng(0)), folder / case.log)
    print(diagnosed(path / case.path, *options(case)).text, *judge(case, folder, logs)[0], sep="\n- ")


def _all(folder: Path, logs: Path | None, rewrite: bool) -> None:
    met, all_of, lines, judged = Counter[str](), Counter[str](), [], 0
    listed = not_yet() if NOT_YET.exists() else {}
    for name, case in CASES.items():
        if logs and not other(logs, case).exists():
            continue
        judged += 1
        unmet, said = judge(case, folder, logs)
        for kind in case.kind.split():
            all_of[kind] += 1
            met[kind] += not unmet
        if unmet:
            lines.append(f"{name}: {said}\n")
        if unmet or name in listed:
            mark = "MENDED " if not unmet else "NEW " if name not in listed else ""
            print(f"{mark}{name} ({case.kind}): {'; '.join(unmet)}")
    for kind in sorted(all_of):
        print(f"{kind:<20} {met[kind]:>3} of {all_of[kind]}")
    print(f"{judged - len(lines)} of {judged} cases met")
    if rewrite:
        NOT_YET.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

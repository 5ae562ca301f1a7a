"""A log is judged through the command line's function, in this process; `Report` is what came of it."""

import contextlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from earnest.cli import main
from earnest.report.view import LEVEL


@dataclass(frozen=True)
class Report:
    """What ``earnest diagnose`` said: the terminal's text (mistakes included), and the JSON.

    A finding has its `text` too (everything that it says), a verdict its `level`.
    """

    exit: int
    text: str
    verdicts: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    signals: list[str]
    last_step: int

    def summary(self) -> str:
        """In one line: what a user sees first."""
        if self.exit > 1:
            return f"exit {self.exit}: {self.text.split('expected:')[0].removeprefix('seen:').strip()}"[:150]
        verdicts = ", ".join(f"{one['stream']} {one['verdict']}" for one in self.verdicts) or "no streams"
        findings = ", ".join(f"{one['rule']} {one['severity']}" for one in self.findings) or "no findings"
        return f"exit {self.exit}: {verdicts[:100]}; {findings[:80]}"


def diagnosed(path: Path, *options: str, as_text: bool = True) -> Report:
    """Judge a log as a user does. A path that ends in "-" is the only file beside it, by standard input.

    Without the text of the terminal it takes half the time.
    """
    words = ["diagnose", "-" if path.name == "-" else str(path), *options]
    stdin = next(path.parent.iterdir()).read_bytes() if path.name == "-" else b""
    exit_code, written, mistakes = _called([*words, "--format", "json", "--full"], stdin)
    said: dict[str, Any] = {"verdicts": [], "findings": [], "run": {"signals": [], "last_step": 0}}
    text = ""
    if exit_code < 2:
        said = json.loads(written)
        if "runs" in said:  # of several runs each has a report
            said = _together(list(said["runs"].values()))
        if as_text:
            exit_as_text, text, _ = _called(words, stdin)
            assert exit_as_text == exit_code, "the format of a report changes the exit code"
    return Report(
        exit_code,
        " ".join((text + mistakes).split()),
        [verdict | {"level": LEVEL[verdict["verdict"]]} for verdict in said["verdicts"]],
        [_with_text(finding) for finding in said["findings"]],
        said["run"]["signals"],
        said["run"]["last_step"],
    )


def _together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reports of several runs as one."""
    run = {
        "signals": [name for report in reports for name in report["run"]["signals"]],
        "last_step": max(report["run"]["last_step"] for report in reports),
    }
    return {"run": run} | {
        part: [item for report in reports for item in report[part]] for part in ("verdicts", "findings")
    }


def write(files: dict[str, str | bytes], folder: Path) -> Path:
    """The files of a log, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def _called(words: Sequence[str], stdin: bytes) -> tuple[int, str, str]:
    out, mistakes = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": "1000"}),
        patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(mistakes),
    ):
        exit_code = main(list(words))
    return exit_code, out.getvalue(), mistakes.getvalue()


def _with_text(finding: dict[str, Any]) -> dict[str, Any]:
    said = [finding[part] for part in ("name", "streams", "summary", "evidence", "causes", "next_probe", "fix")]
    return finding | {"text": json.dumps(said, ensure_ascii=False)}

"""What every command prints at 80 columns, as files in tests/golden/.

``python -m tests.equipment.golden`` writes them anew: read the diff. What a machine or a day changes (a version, a
time, a path) is put in a form that stays; commands that train or generate are there by their help and by what they
refuse.
"""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from earnest import __version__
from earnest.cli import COMMANDS, main
from earnest.run import RunWriter
from tests.equipment.report_fixture import STEPS, make_run
from tests.equipment.tones import write_tones

FOLDER = Path(__file__).parent.parent / "golden"
LOGS = Path(__file__).parent.parent / "logs"
WIDTH, WIDE = 80, 1000
HELP = [*((name, "--help") for name in COMMANDS), ("data", "check", "--help"), ("train", "dia-tiny", "--help")]
ENCODE = ("encode", "tones/0.wav", "codes.safetensors")
WORDS = [
    ENCODE,
    *(
        (),
        ("--version",),
        ("--completion", "fish"),
        ("nope",),
        ("train",),
        ("train", "higs"),
        ("recipes",),
        ("rules",),
    ),
    *(("explain", topic) for topic in ("A201", "unigram", "tokens", "facts", "nope")),
    *(("diagnose", name) for name in ("hf_overfit_few_clips", "gan_healthy", "wandb_loss_nan", "run", "nowhere/gone")),
    *(("diagnose", "hf_overfit_few_clips", "--format", name) for name in ("markdown", "md")),
    *(
        ("runs", ".", "--judge"),
        ("report", "run"),
        ("compare", "hf_healthy", "hf_overfit_few_clips"),
        ("check", "mot-tiny"),
    ),
    *(("watch", "nowhere/gone"), ("trace", "higgs-tiny", "--data.path", "tones"), ("data", "nope", "out")),
    *(("data", "check", "tones"), ("data", "check", "tones", "--language", "ru", "--max-duration-s", "0.5")),
    *(("generate", "run", "--text", "hi", "--out", "x.xyz"), ("merge", "run", "out"), ("export", "run", "out")),
    *(("decode", "codes.safetensors", "back.wav"), ("mcp", "x")),
    ("skill",),
]
# By the processor, the age of files, or every new rule: judged by widths and words alone
VARIED = {"trace", "check", "runs", "rules", "markdown"}
WIDER = ("skill", "markdown")  # Markdown has no width
CHANGES = {  # what a machine, a day or a release changes
    re.escape(__version__): "VERSION",
    r"\(Python [^)]*\)": "(Python 3, Linux)",
    r"\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d": "1 Jan 2026 00:00",
    r"\b\d+(\.\d+)? (ms|s|min|h)\b(?= ago)": "1 s",
    r"\b\d+ rules not checked": "75 rules not checked",
    r"\(\d+ rules?\)": "(4 rules)",
    r"\b\d+:\d\d:\d\d\b": "0:00:00",
    r"(?<!:)\b\d\d:\d\d\b(?!:)": "00:00",
    r"/\S*/here/": "",
}


def kept() -> list[tuple[str, ...]]:
    """The commands whose output is kept."""
    return [words for words in (*WORDS, *HELP) if words in HELP or not {*words[:1], *words[-1:]} & VARIED]


def name_of(words: tuple[str, ...]) -> str:
    return re.sub(r"[^\w.]+", "_", "_".join(words) or "front").strip("_") + ".txt"


@contextlib.contextmanager
def here() -> Iterator[Path]:
    """The folder in which the commands run: logs, a run, tones."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "here"
        folder.mkdir()
        for name in ("hf_overfit_few_clips", "hf_healthy", "gan_healthy", "wandb_loss_nan"):
            shutil.copytree(LOGS / name, folder / name)
        make_run(folder / "run")
        RunWriter(folder / "run").event(STEPS, "finished")
        write_tones(folder / "tones")
        os.chdir(folder)
        try:
            printed(ENCODE)  # for `decode`, whichever command is tried first
            yield folder
        finally:
            os.chdir(before)


def printed(words: tuple[str, ...], width: int = WIDTH) -> str:
    """The command, all that it prints, and its exit code."""
    told = io.StringIO()
    os.environ["COLUMNS"] = str(width)
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            code = main(list(words))
        except SystemExit as end:
            code = end.code or 0
    text = told.getvalue()
    for pattern, stays in CHANGES.items():
        text = re.sub(pattern, stays, text)
    lines = [f"$ earnest {' '.join(words)}".rstrip(), *text.splitlines(), f"exit {code}"]
    return "".join(f"{line.rstrip()}\n" for line in lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    with here():
        for each in kept():
            (FOLDER / name_of(each)).write_text(printed(each), encoding="utf-8")
            print(name_of(each), file=sys.stderr)

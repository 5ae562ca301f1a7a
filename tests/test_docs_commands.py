"""Every command of README and docs runs, in a folder that holds what the pages speak of: small clips, a tiny run, logs
of public trainers, a script. Recipes stay theirs but for options that make them tiny.

What starts from a checkpoint on a hub is read and checked as far as its configuration; how many, is counted here.
"""

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from transformers import HiggsAudioV2ForConditionalGeneration

from benchmarks.campaigns.tally import tones
from earnest import checkpoints
from earnest.cli import COMMANDS, main
from earnest.recipes import RECIPES
from earnest.training.tokens.lora import Lora, add_lora
from tests.equipment.documented import ROOT, blocks, commands
from tests.equipment.processes import Earnest
from tests.equipment.tiny import tiny_higgs
from tests.equipment.tiny_recipes import TINY

PAGES = sorted({command.page for command in commands()})
FOLDERS = ("FOLDER", "speech", "voices", "loops", "score", "musiccaps", "aligned")
RUNS = ("mine", "voices", "nightly", "a", "b", "main", "branch", "higgs")
STATES = ("output", "outputs/checkpoint-2000", ".")
FINDS = ("diagnose", "check", "watch", "data")  # their exit code is 1 if they find something
LOOKS = ("check", "trace", "explain")  # they leave nothing behind: run once, however many pages show the same
FROM_A_HUB = 9  # commands that train a recipe from released checkpoints: configured, not trained
BLOCK = r"^## Healthy\n+```\w+\n(.*?)```"
SCRIPT = """\
import sys

import torch

model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for step in range(3):
    ids_BL = torch.randint(0, 16, (2, 9))
    logits_BLV = model(ids_BL[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1), ids_BL[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def log_of(trainer: str) -> str:
    page = (ROOT / "tests" / "profiles" / f"{trainer}.md").read_text(encoding="utf-8")
    return re.findall(BLOCK, page, re.MULTILINE | re.DOTALL)[0]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what the pages speak of, made once: each page gets a copy."""
    place = tmp_path_factory.mktemp("docs")
    clips = tones(place / FOLDERS[0], 12)
    for name in FOLDERS[1:]:
        shutil.copytree(clips, place / name)
    shutil.copytree(clips, place / "LJSpeech-1.1" / "wavs")
    rows = "".join(f"{number}|Tone No. {number}.|tone number {number}\n" for number in range(12))
    put(place / "LJSpeech-1.1" / "metadata.csv", rows)
    (place / "LJSpeech-1.1" / "wavs" / "metadata.csv").unlink()
    for name in ("in.wav", "ref.wav"):
        shutil.copy(clips / "3.wav", place / name)
    put(place / "train.py", SCRIPT)
    put(place / "args.yaml", "learning_rate: 0.01\n")
    table = "step,loss,loss 2\n" + "".join(f"{step},{6 - step / 30},{7 - step / 50}\n" for step in range(60))
    for name in ("path/to/log", "log.txt", "runs/b.csv", "b.csv"):
        put(place / name, table)
    state = next((ROOT / "tests" / "logs" / "hf_healthy").rglob("trainer_state.json"))
    for folder in STATES:
        (place / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(state, place / folder)
    put(place / "outputs/xps/0123abcd/solver.log.0", log_of("audiocraft-musicgen"))
    put(place / "run/training/trainer_0_log.txt", log_of("coqui-xtts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARNEST_CACHE", str(place / "cache"))
        first = ["train", "higgs-tiny", "--data.path", str(clips), "--out", str(place / "runs" / RUNS[0])]
        assert main([*first, *tiny("higgs-tiny")]) == 0
        for name in RUNS[1:]:
            shutil.copytree(place / "runs" / RUNS[0], place / "runs" / name)
        yield place


@pytest.fixture(scope="module")
def looked() -> set[tuple[str, ...]]:
    return set()


def tiny(recipe: str) -> list[str]:
    more = (
        ("--demo-every-steps", "0", "--shape.codebooks", "4") if recipe == "amy-tiny" else ("--demos.every-steps", "0")
    )
    return [*TINY[recipe], "--steps", "2", *more]


@contextmanager
def adapters(run_dir: Path) -> Iterator[None]:
    """While the block runs: a checkpoint of adapters on a small Higgs, in place of what a LoRA of the real one
    writes."""
    base = run_dir.with_name("base_of_higgs")
    tiny_higgs().save_pretrained(base)
    lm = HiggsAudioV2ForConditionalGeneration.from_pretrained(base, use_text_head=True)
    add_lora(lm, Lora(rank=4))

    def fill(aside: Path) -> None:
        lm.save_pretrained(aside)
        tiny_higgs().tokenizer.save_pretrained(aside)

    checkpoints.save(run_dir, 9, fill, checkpoints.About({}))
    yield
    shutil.rmtree(checkpoints.checkpoint_path(run_dir, 9))


def is_whole(words: tuple[str, ...]) -> bool:
    """Whether a command trains from released checkpoints."""
    if words[0] != "train" or "--resume" in words:
        return False
    return words[1] not in TINY or "--llm" in words


def made_tiny(words: tuple[str, ...]) -> list[str]:
    """The words of a command, and those that make it last a second."""
    name, recipe = words[0], words[1] if len(words) > 1 else ""
    if "--help" in words:
        return list(words)
    if is_whole(words):
        return [*words, "--print-config"]
    if name == "train" and "--resume" in words:
        return [*words, *(["--steps", "3"] if "--steps" in words else [])]
    if name in ("train", "trace", "check") and recipe in TINY:
        data = [] if "--data.path" in words else ["--data.path", "FOLDER"]
        return [*words, *data, *tiny(recipe)]
    more = {"generate": ["--max-duration-s", "0.1"], "watch": ["--ended-s", "0.1"]}
    return [*words, *(more.get(name, []) if "train.py" not in words else [])]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page, made, looked, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    shutil.copytree(made, here, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(here)
    monkeypatch.setenv("COLUMNS", "120")
    done = set(looked)
    for words in [command.words for command in commands() if command.page == page]:
        if words in done:
            continue
        done.add(words)
        looked |= {words} if words[0] in LOOKS else set()
        with adapters(here / words[1]) if words[0] == "merge" else nullcontext():
            code, said = ended(made_tiny(words), capsys)
        assert code in ((0, 1) if words[0] in FINDS else (0,)) or is_refused_rightly(words, code, said), (words, said)
        assert said or "--out" in words, words


def ended(words: list[str], capsys) -> tuple[int, str]:
    """(exit code, what was said) of a command; one that stays is stopped by Ctrl-C."""
    if words == ["mcp"]:  # with an input that ends at once
        return Earnest(words).end()
    if "--page" in words:
        process = Earnest(words)
        process.until(lambda: "http://127.0.0.1" in process.output.read_text()).send(signal.SIGINT)
        code, said = process.end()
        return 0 if code == 128 + signal.SIGINT else code, said
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    return code, told.out + told.err


def is_refused_rightly(words: tuple[str, ...], code: int, said: str) -> bool:
    """What needs packages of Debian says which, and does not write into a folder that is taken; an extra, a tracker
    and a program that plays say how they are installed."""
    if code == 2 and ("--tracker" in words or "--play" in words):
        return any(way in said for way in ("fix:      pip install ", "fix:      install one, or open the file"))
    from_debian = words[0] == "data" and words[1] != "check" and "fix:" in said
    return code == 2 and (from_debian or (words == ("mcp",) and 'pip install "earnest[mcp]"' in said))


def test_there_are_commands_of_every_kind_and_few_are_not_run_whole():
    assert {command.words[0] for command in commands()} == set(COMMANDS)
    assert len(set(commands())) > 70 and set(RECIPES) - {"mot-smol", "mot-published"} <= {
        word for command in commands() for word in command.words
    }
    assert sum(is_whole(command.words) for command in set(commands())) == FROM_A_HUB


def test_programs_beside_earnest_are_there():
    """python -m benchmarks.X of a page is a module, make X a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page, code in blocks("sh", "bash"):
        for module in re.findall(r"python -m ((?:benchmarks|tests)\.[\w.]+)", code):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), page
        for target in re.findall(r"^make (\w+)", code, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), page

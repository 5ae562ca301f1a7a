"""Every recipe through every command: five steps, resumed identically, generated or decoded, traced, checked, reported;
a recipe whose checkpoint is not there ends in three lines."""

import ast
import csv
import inspect
import json
import math
import shutil
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import get_type_hints

import numpy as np
import pytest
import soundfile

from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.data.audio import write_wave
from earnest.recipes import RECIPES
from earnest.run import read_run
from earnest.training.codec.config import CodecConfig
from tests.equipment.runs import rows
from tests.equipment.tiny_mot import save_backbone
from tests.equipment.tiny_recipes import TINY

WHOLE = sorted(RECIPES.keys() - TINY)  # they start from checkpoints that no test downloads


@dataclass(frozen=True)
class Trained:
    """Five steps of a recipe: the words of `earnest train`, and where the run is."""

    recipe: str
    options: list[str]
    run_dir: Path

    @property
    def is_codec(self) -> bool:
        return isinstance(RECIPES[self.recipe].configure(), CodecConfig)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Fifteen tones of 0.4 s with text and tags."""
    folder = tmp_path_factory.mktemp("battery") / "clips"
    folder.mkdir()
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text", "tags", "speaker"])
        for index in range(15):
            hz = 110 * 2 ** (index / 6)
            wave_N = 0.3 * np.sin(2 * np.pi * hz * np.arange(6400) / 16000) * np.linspace(1, 0.1, 6400)
            write_wave(folder / f"{index}.wav", wave_N, 16000)
            table.writerow([f"{index}.wav", f"tone {index}", "high, short" if hz > 220 else "low, short", "a"])
    return folder


@pytest.fixture(scope="module", params=sorted(TINY))
def trained(request, clips, tmp_path_factory) -> Trained:
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    options = ["--data.path", str(clips), "--steps", "5", "--save-every-steps", "3", *TINY[request.param]]
    if request.param == "mot-smol":  # with a small language model in place of SmolLM2
        options += ["--backbone", save_backbone(tmp_path_factory.mktemp("llama"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARNEST_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert main(["train", request.param, *options, "--out", str(run_dir)]) == 0
        yield Trained(request.param, options, run_dir)


def three_lines(text: str) -> bool:
    return [line.split(":")[0] for line in text.strip().splitlines()] == ["seen", "expected", "fix"]


def test_it_trains_five_steps_and_evaluates(trained):
    run = read_run(trained.run_dir)  # which refuses what is no fact, no signal or no result of a probe
    assert run.last_step == 5 and not run.notes
    assert run.facts.config and run.facts.system and run.facts.pretrained == (trained.recipe == "mot-smol")
    for step, row in rows(trained.run_dir).items():
        assert step == 0 or math.isfinite(row["train/loss"])
    last = rows(trained.run_dir)[5]
    assert any(name.startswith("eval/loss/" if trained.is_codec else "eval/ce_nats/") for name in last)
    demos = [artifact for artifact in run.artifacts if artifact.kind == "demo"]
    assert demos and all(len(soundfile.read(trained.run_dir / demo.path)[0]) for demo in demos)


def test_it_resumes_to_the_same_numbers(trained, tmp_path):
    resumed = tmp_path / "resumed"
    shutil.copytree(trained.run_dir, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])
    lines = (resumed / "steps.jsonl").read_text().splitlines(keepends=True)
    (resumed / "steps.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 3))
    assert main(["train", trained.recipe, *trained.options, "--out", str(resumed), "--resume"]) == 0
    assert rows(resumed) == rows(trained.run_dir)


def test_its_checkpoint_generates_or_decodes(trained, clips, tmp_path):
    out = tmp_path / "out.wav"
    if trained.is_codec:
        codes, codec = tmp_path / "codes.safetensors", str(checkpoints(trained.run_dir)[-1])
        assert main(["encode", str(clips / "0.wav"), str(codes), "--codec", codec]) == 0
        assert main(["export", str(trained.run_dir), str(tmp_path / "small")]) == 0
        assert main(["encode", str(clips / "0.wav"), str(codes), "--codec", str(tmp_path / "small")]) == 0
        assert main(["decode", str(codes), str(out)]) == 0
    else:
        options = ["--text", "tone 3", "--out", str(out), "--max-duration-s", "0.1"]
        assert main(["generate", str(trained.run_dir), *options]) == 0
    assert soundfile.info(out).samplerate == 16000 and soundfile.info(out).frames


def test_it_is_traced_and_checked(trained, capsys):
    options = [option for option in trained.options if option not in ("--steps", "5")]
    assert main(["trace", trained.recipe, *options]) == 0
    assert "codes_" in capsys.readouterr().out
    assert main(["check", trained.recipe, *options]) == 0
    said = capsys.readouterr().out
    assert "trained: " in said and "yes" in said
    code = main(["check", trained.recipe, *options, "--counts-only"])
    assert code == 0 or (code == 2 and three_lines(capsys.readouterr().err) and trained.recipe == "mot-smol")


def test_it_is_reported_and_diagnosed(trained, capsys):
    assert main(["report", str(trained.run_dir)]) == 0
    assert main(["diagnose", str(trained.run_dir), "--format", "json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out.split("report.html\n")[-1])["verdicts"]


def test_it_is_refused_where_a_run_is_and_with_other_options(trained, capsys):
    train = ["train", trained.recipe, *trained.options, "--out", str(trained.run_dir)]
    assert main(train) == 2 and three_lines(capsys.readouterr().err)
    assert main([*train, "--seed", "7", "--resume"]) == 2
    said = capsys.readouterr().err
    assert three_lines(said) and "seed: 0 -> 7" in said


def test_resuming_a_finished_run_trains_no_step_more(trained, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(trained.run_dir, again)
    assert main(["train", trained.recipe, *trained.options, "--out", str(again), "--resume"]) == 0
    assert rows(again) == rows(trained.run_dir) and checkpoints(again)[-1].name == "step_0000005"


@pytest.mark.parametrize("command", ["train", "trace", "check"])
@pytest.mark.parametrize("recipe", WHOLE)
def test_without_its_checkpoint_it_ends_in_three_lines(recipe, command, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, recipe, "--data.path", str(clips)]) == 2
    said = capsys.readouterr().err
    assert three_lines(said), said


def undocumented(config: type) -> list[str]:
    """Fields of a configuration, and of those inside it, without a docstring of their own."""
    missing = []
    documented = {
        statement.target.id
        for base in config.__mro__
        if is_dataclass(base)
        for statement, following in pairwise(ast.parse(dedent(inspect.getsource(base))).body[0].body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    for field in fields(config):
        kind = get_type_hints(config)[field.name]
        if is_dataclass(kind):
            missing += undocumented(kind)
        elif field.name not in documented:
            missing.append(f"{config.__name__}.{field.name}")
    return missing


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_its_configuration_is_fields_only_and_each_is_documented(recipe):
    config = RECIPES[recipe].configure()
    assert undocumented(type(config)) == []
    own = {name for kind in type(config).__mro__[:-1] for name in vars(kind) if not name.startswith("__")}
    assert own <= {field.name for field in fields(config)}

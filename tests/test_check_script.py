"""`earnest check SCRIPT`: unmodified scripts are named by their fault, nothing is written beside them, and what cannot
be done is said."""

import contextlib
import io
import re
import time
from pathlib import Path

import pytest
import torch
import transformers

from earnest.cli import main
from earnest.errors import UserError
from earnest.loops.script import Options, check_script
from earnest.loops.stage import __main__ as stage
from earnest.loops.stage import guard, landlock, tokenizer
from earnest.loops.stage.models import made_processor
from earnest.loops.stage.weights import draw_all
from tests.equipment.processes import in_a_process

SCRIPTS = Path(__file__).parent / "trainers" / "scripts"
LINES = (
    "The committee agreed that the bridge\nshould be repaired before the winter, although nobody knew\nwho would pay.\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a script and its data, and in it."""
    (tmp_path / "plain.py").write_text((SCRIPTS / "plain.py").read_text())
    (tmp_path / "lines.txt").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(folder: Path, text: str) -> Path:
    path = folder / "train.py"
    path.write_text(text)
    return path


def test_a_plain_script_with_adapters_on_a_frozen_model(folder):
    """Its fault is named at its line; nothing is written beside it."""
    found = check_script(Path("plain.py"), ["--labels", "unshifted", "--lora"])
    assert [one.rule for one in found.diagnosis.findings] == ["A203"]
    lines = (folder / "plain.py").read_text().splitlines()
    line = 1 + next(n for n, line in enumerate(lines) if "cross_entropy" in line)
    assert found.diagnosis.findings[0].evidence[0]["where"] == f"{folder / 'plain.py'}:{line}"
    assert sorted(path.name for path in folder.iterdir()) == ["lines.txt", "plain.py"]
    assert any("Llama-3.2-1B: a tiny random LlamaForCausalLM" in note for note in found.run.notes)


def test_the_command_on_a_right_script(folder):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["check", "--seconds", "50", "plain.py", "--labels", "shifted"]) == 0
    assert "no findings" in said.getvalue() and "lm_head.weight (128256 classes)" in " ".join(said.getvalue().split())


def test_a_configuration_that_is_given_comes_before_the_script(folder, capsys):
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 4000, "num_hidden_layers": 16}')
    assert main(["check", "--config", "config.json", "plain.py", "--labels", "shifted"]) == 0
    assert "lm_head.weight (4000 classes)" in " ".join(capsys.readouterr().out.split())


START = """
import torch
model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16))
ids = torch.arange(12).reshape(1, 12)
"""


def end_of(folder: Path, text: str) -> UserError:
    """How a script ends under guard, in a process of its own (which has imported torch)."""
    (folder / "scratch").mkdir()
    return UserError(*in_a_process(_end_of, script(folder, text), folder / "scratch"))


def _end_of(path: Path, scratch: Path) -> list[str]:
    guard.install(scratch)
    plan = {"script": str(path), "root": str(path.parent), "module": None, "args": [], "cwd": str(scratch)}
    with contextlib.redirect_stderr(io.StringIO()):
        error = stage._run(plan)
    return [error.seen, error.expected, error.fix]


NO_STEP = START + "loss = torch.nn.functional.cross_entropy(model(ids)[0], ids[0])"
ARGUMENTS = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--data', required=True)\n"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (NO_STEP, "the script ended"),
        ("import sys; sys.exit(3)", "ended with 3"),
        ("input('which GPU? ')", "which GPU?"),
        ("import getpass; getpass.getpass('token: ')", "token:"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "no network"),
        ("open('/etc/earnest-was-here', 'w')", "writes to /etc/earnest-was-here"),
        ("import os; os.makedirs(os.path.dirname(__file__) + '/out')", "outside of its scratch folder"),
        pytest.param(
            "import subprocess; subprocess.run(['touch', __file__ + '.x'], check=True)",
            "non-zero exit status",
            marks=pytest.mark.skipif(not landlock.version(), reason="this kernel has no landlock"),
        ),
        (START + "model(ids, labels=ids)", "TypeError"),
        ("x = 1\nfor", "SyntaxError: invalid syntax at .*train.py:2"),
        (ARGUMENTS + "parser.parse_args()", "arguments are missing"),
        ("import torch\nmodel = torch.nn.Linear(2, 2).cuda(7)\nraise RuntimeError('so')", "RuntimeError"),
    ],
)
def test_how_a_script_ends_is_said_in_three_lines(folder, text, seen):
    error = end_of(folder, text)
    assert re.search(seen, str(error)) and len(str(error).splitlines()) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["lines.txt", "plain.py", "scratch", "train.py"]


def test_the_tokenizer_that_stands_in():
    """65536 tokens of codes are added at once, and found in a text; unknown ids and tokens get each other."""
    made, began = tokenizer.stand_in(), time.process_time()
    assert made.add_tokens([f"<|s_{n}|>" for n in range(65536)]) == 65536
    ids = made("wörter <|s_7|><|s_65535|>")["input_ids"]
    assert ids[-2:] == made.convert_tokens_to_ids(["<|s_7|>", "<|s_65535|>"]) and len(made) == 260 + 65536
    assert time.process_time() - began < 10
    assert made.decode(ids).startswith("wörter")
    assert made.convert_tokens_to_ids(made.convert_ids_to_tokens(151656)) == 151656
    assert made.convert_tokens_to_ids("[SPEAKER]") == made.convert_tokens_to_ids("[SPEAKER]") is not None


def test_the_tokenizer_that_stands_in_is_as_long_as_the_vocabulary():
    """Ids of added tokens, which scripts write as numbers, begin behind those of the checkpoint; a token that is asked
    for without being added is one of its own."""
    made = tokenizer.stand_in(size=128256)
    assert len(made) == 128256 and made.convert_tokens_to_ids("<|speech_start|>") == 260
    assert made.add_tokens([f"<custom_token_{n}>" for n in range(10)]) == 10 and len(made) == 128266
    assert made.convert_tokens_to_ids("<custom_token_0>") == 128256


def test_special_tokens_in_a_text_are_in_the_vocabulary_that_stands_in():
    made = tokenizer.stand_in(size=300)
    ids = made("a<|s_7|><|s_9|><code_3>b <i>")["input_ids"]
    assert ids[1:4] == made.convert_tokens_to_ids(["<|s_7|>", "<|s_9|>", "<code_3>"]) and len(ids) == 9
    many = made(["".join(f"<|s_{n}|>" for n in range(100))])["input_ids"][0]
    assert max(many) < 300 and len(many) > 100  # there are no rows for so many


def test_packages_of_the_scripts_own_repository(folder):
    """They are found as with ``python -m`` from above, and as if it were installed; a package that a module lacks which
    is imported by a name in a variable is not taken for an optional one."""
    (folder / "pyproject.toml").write_text("")
    for package, text in (("models", "import no_such_codec\nwidth = 16"), ("src/tools", "ids = [[*range(12)]]")):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(text)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "train.py").write_text(
        "import importlib, tools\ntry:\n    width = importlib.import_module('models').width\n"
        f"except Exception as error:\n    raise ImportError('no models') from error\n{STEP}"
    )
    found = check_script(Path("scripts/train.py"))
    assert [one.rule for one in found.diagnosis.findings] == ["A203"]
    assert sum("put on the path" in note for note in found.run.notes) == 2


STEP = START + (
    "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
    "torch.nn.functional.cross_entropy(model(ids)[0], ids[0]).backward()\n"
    "optimizer.step()\n"
)


def test_a_backward_pass_that_warms_up(folder):
    """What is trained is looked at, not what was thrown away before."""
    warm_up = "model(ids).sum().backward()\nmodel.zero_grad()\n"
    found = check_script(script(folder, STEP.replace("torch.nn.functional", warm_up + "torch.nn.functional")))
    assert [one.rule for one in found.diagnosis.findings] == ["A203"]


def test_a_trained_model_behind_a_frozen_codec(folder):
    """Its parameters are named, not those of the codec, whose table is looked up first."""
    text = STEP.replace("ids = torch", "codec = torch.nn.Embedding(16, 2).requires_grad_(False)\nids = torch")
    text = text.replace("optimizer =", "model[0].forgotten = torch.nn.Linear(2, 2)\ncodec(ids)\noptimizer =")
    found = {one.rule: one.summary for one in check_script(script(folder, text)).diagnosis.findings}
    assert "forgotten.weight" in found["C102"]


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("open('clips.csv')", "put a few clips"),
        ("raise ImportError('x') from ModuleNotFoundError('y', name='own.align')", "install or build own.align"),
        ("import no_such_package\nraise ValueError", "install no_such_package"),
        ("import no_such_package\nopen('clips.csv')", "put a few clips"),
    ],
)
def test_what_to_do_follows_from_the_error(folder, text, fix):
    with pytest.raises(UserError) as error:
        check_script(script(folder, text))
    assert fix in error.value.fix


def test_weights_that_a_checkpoint_would_bring_are_drawn():
    """A codec's codebooks too, which are buffers; not a cache, which no checkpoint has."""
    model = torch.nn.Linear(4, 4)
    model.register_buffer("codebook", torch.zeros(8, 4))
    model.register_buffer("cache", torch.zeros(8, 4), persistent=False)
    draw_all(model)
    assert model.codebook.std() > 0.5 and not model.cache.any()


def test_packages_in_whose_place_nothing_is_done_are_named(folder):
    with pytest.raises(UserError, match="the script ended") as error:
        check_script(script(folder, "from no_such_trainer import main\nmain()"))
    assert "install no_such_trainer" in error.value.fix


EVALUATES = START + (
    "torch.manual_seed(0)\n"
    "ids = torch.randperm(16)[None]\n"
    "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
    "teacher, answers = torch.nn.Linear(4, 4).eval(), set()\n"
    "x = torch.zeros(2, 4).pin_memory().to('cuda', non_blocking=True)\n"
    "model.eval(), model[1].register_forward_hook(lambda *_: calls.append(1))\n"
    "with torch.no_grad():\n"
    "    for n in range(100):\n"
    "        model(ids), answers.add(float(teacher(x + n).sum()))\n"
    "assert len(calls) == 3 and len(answers) == 100\n"
    "model.train()\n"
    "torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()\n"
    "optimizer.step()\n"
)


def test_evaluation_before_the_first_step_is_cut_short(folder):
    """A model that is to be trained answers three times; one that no optimizer holds, always."""
    found = check_script(script(folder, "calls = []\n" + EVALUATES))
    assert not found.diagnosis.findings and any("cut short" in note for note in found.run.notes)


def test_no_loss_within_the_limit(folder):
    with pytest.raises(UserError, match="no loss within 4 s") as error:
        check_script(script(folder, "while True: pass"), options=Options(seconds=4))
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(("emptied", "severity"), [("", "note"), ("optimizer.zero_grad(); ", "critical")])
def test_micro_batches_without_a_loader(folder, emptied, severity):
    text = START + (
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "for step in range(4):\n"
        f"    {emptied}torch.nn.functional.cross_entropy(model(ids)[0], ids[0]).backward()\n"
        "optimizer.step()\n"
    )
    found = check_script(script(folder, text)).diagnosis
    assert {one.rule: one.severity for one in found.findings} == {"A203": "critical", "D404": severity}
    assert "4 micro-batches" in found.mapping["first step"]


def parts_of_processors() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in ("Whisper", "Csm", "Dia", "Musicgen", "Voxtral", "Wav2Vec2Bert", "Qwen3OmniMoe"):
        made = made_processor(getattr(transformers, f"{name}Processor"), "nobody/nothing")
        parts = (getattr(made, part, None) for part in ("feature_extractor", "tokenizer", "audio_tokenizer"))
        found[name] = [type(part).__name__ for part in parts if part is not None]
    return found


def test_processors_are_made_of_the_parts_of_their_family():
    found = in_a_process(parts_of_processors)
    assert found["Csm"] == found["Musicgen"] == ["EncodecFeatureExtractor", "StandIn"]
    assert found["Dia"] == ["DiaFeatureExtractor", "StandIn", "DacModel"]
    assert found["Whisper"] == found["Voxtral"] == found["Qwen3OmniMoe"] == ["WhisperFeatureExtractor", "StandIn"]
    assert found["Wav2Vec2Bert"] == ["Wav2Vec2FeatureExtractor", "StandIn"]

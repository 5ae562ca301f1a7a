"""A run is stopped, continued, extended; it has one owner; its checkpoints are known by what is in them."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from earnest.checkpoints import About, checkpoints, described, newest, save
from earnest.cli import EXIT_FAULT, EXIT_FOUND, EXIT_MISTAKE, main
from earnest.errors import UserError
from earnest.owner import is_held, owned, owner
from earnest.run import read_run
from tests.equipment.processes import Earnest
from tests.equipment.tones import train, write_tones


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["EARNEST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def run_of_six(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps with checkpoints at 3 and 6."""
    run_dir = tmp_path_factory.mktemp("runs") / "six"
    assert main(train(tones, run_dir, "--steps", "6", "--save-every-steps", "3")) == 0
    return run_dir


@pytest.fixture
def run_dir(run_of_six: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_of_six, tmp_path / "run"))


def names(run_dir: Path) -> list[str]:
    return [path.name for path in checkpoints(run_dir)]


def content(folder: Path) -> dict[str, bytes]:
    """Every file, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run_dir)[-1] / "model.safetensors")


def losses(run_dir: Path) -> list[float]:
    return read_run(run_dir)["train/loss"].value.tolist()


def steps(run_dir: Path) -> int:
    file = run_dir / "steps.jsonl"
    return file.read_text().count('"train/loss"') if file.exists() else 0


def begun(words: list[str], at_step: int, run_dir: Path) -> Earnest:
    """A training that has made so many steps."""
    return Earnest(words).until(lambda: steps(run_dir) >= at_step)


# --- stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_with_a_checkpoint_and_the_command_to_go_on(number, tones, tmp_path):
    run_dir = tmp_path / "run"
    process = begun(train(tones, run_dir, "--steps", "100000"), 3, run_dir)
    assert is_held(run_dir) and read_run(run_dir).history.state() == "running"
    code, said = process.send(number).end()
    assert code == 128 + number, said
    assert f"{number.name}: stopping after the step under way" in said
    assert f"to go on: earnest train --resume --out {run_dir}" in said
    assert described(checkpoints(run_dir)[-1]).step == read_run(run_dir).last_step
    assert read_run(run_dir).history.state() == "interrupted" and (run_dir / "report.html").exists()
    assert owner(run_dir) is None and not list(run_dir.rglob("*.tmp"))


def shown(screen: int, until_s: float = 120) -> Iterator[str]:
    """All that has been shown so far, whenever there is more."""
    said, end_s = "", time.monotonic() + until_s
    while time.monotonic() < end_s:
        ready, _, _ = select.select([screen], [], [], 0.2)
        if ready:
            try:
                said += os.read(screen, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                return
        yield re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)


def test_ctrl_c_at_a_terminal_then_resume_without_options_then_extend(tones, tmp_path, capsys):
    run_dir = tmp_path / "run"
    screen, side = pty.openpty()
    process = Earnest(train(tones, run_dir, "--steps", "2000"), terminal=os.ttyname(side))
    pressed, said = False, ""
    for said in shown(screen):  # noqa: B007
        if not pressed and steps(run_dir) >= 3:
            os.write(screen, b"\x03")
            pressed = True
        if not process.process.is_alive():
            break
    assert process.end()[0] == 130, said
    stopped = read_run(run_dir).last_step
    assert said.index("Ctrl-C: stopping after the step under way") < said.index(
        f"stopped by Ctrl-C after step {stopped}"
    )
    go_on = re.search(r"to go on: earnest (train --resume --out \S+)", said)
    assert go_on, said
    assert main([*go_on[1].split(), "--steps", str(stopped + 2)]) == 0
    assert read_run(run_dir).last_step == stopped + 2 and read_run(run_dir).history.state() == "finished"
    assert main([*go_on[1].split(), "--steps", str(stopped + 3)]) == 0
    assert read_run(run_dir)["train/loss"].step.tolist() == list(range(1, stopped + 4))
    capsys.readouterr()


def test_preempted_three_times_the_end_is_bit_identical(tones, run_of_six, tmp_path):
    """As a scheduler does it: SIGTERM, and the same command with --resume; once killed outright."""
    run_dir, words = tmp_path / "run", ["--steps", "6", "--save-every-steps", "3"]
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        resume = ["--resume"] if run_dir.exists() else []
        process = begun(train(tones, run_dir, *words, *resume), steps(run_dir) + 1, run_dir)
        code, said = process.send(number).end()
        assert code in (128 + number, -number, 0), said
        assert is_held(run_dir) is (False if code == -signal.SIGKILL else None)
    assert main(["train", "--resume", "--out", str(run_dir)]) == 0
    assert losses(run_dir) == losses(run_of_six)
    ours, theirs = weights(run_dir), weights(run_of_six)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_second_signal_stops_at_once(tones, tmp_path):
    run_dir = tmp_path / "run"
    process = begun(train(tones, run_dir, "--steps", "100000"), 2, run_dir)
    code, said = process.send(signal.SIGTERM).send(signal.SIGINT).end()
    assert code in (130, 143) and "Traceback" not in said and "to go on" in said, said
    assert is_held(run_dir) is False and read_run(run_dir).history.state() == "killed"
    assert not list(run_dir.rglob("*.tmp"))


# --- resume


def test_a_finished_run_is_left_as_it_is(run_dir, capsys):
    before = content(run_dir)
    for words in (
        ["train", "--resume", "--out", str(run_dir)],
        ["train", "higgs-tiny", "--resume", "--out", str(run_dir)],
    ):
        assert main(words) == 0
        assert "finished at step 6" in capsys.readouterr().out
    assert content(run_dir) == before


def test_a_run_killed_after_its_last_checkpoint_is_finished_without_a_step(run_dir, tmp_path):
    whole = losses(run_dir)
    rows = (run_dir / "steps.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "steps.jsonl").write_text("".join(row for row in rows if '"finished"' not in row))
    before = weights(run_dir)
    assert main(["train", "--resume", "--out", str(run_dir)]) == 0
    assert losses(run_dir) == whole and names(run_dir) == ["step_0000003", "step_0000006"]
    after = weights(run_dir)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_run(run_dir).history.state() == "finished"


def test_steps_extend_a_finished_run(run_dir):
    assert main(["train", "--resume", "--out", str(run_dir), "--steps", "8"]) == 0
    assert read_run(run_dir)["train/loss"].step.tolist() == list(range(1, 9))
    assert read_run(run_dir).facts.config["steps"] == 8 and read_run(run_dir).facts.schedule_steps == 8


@pytest.mark.parametrize(
    "words, seen",
    [
        (["higgs-tiny", "--resume", "--out", "RUNtypo"], "no run in"),
        (["--resume", "--out", "RUNtypo"], "did you mean RUN?"),
        (["dia-tiny", "--resume", "--out", "RUN"], "this run is higgs-tiny"),
        (["--resume"], "--resume without a run"),
        (["--resume", "--out", "RUN", "--seed", "5"], "seed: 0 -> 5"),
        (["--resume", "--out", "RUN", "--steps", "4"], "a run of 4 steps that has made 6"),
        (["higgs-tiny", "--out", "RUN"], "add --resume"),
    ],
)
def test_what_cannot_be_resumed_is_told(words, seen, run_dir, capsys):
    before = content(run_dir)
    words = [word.replace("RUN", str(run_dir)) for word in words]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert seen.replace("RUN", str(run_dir)) in said and len(said.splitlines()) == 3, said
    assert content(run_dir) == before and not Path(f"{run_dir}typo").exists()


def test_a_mistake_before_the_first_step_leaves_no_run_in_the_way(tones, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert main(train(tones, run_dir, "--steps", "1", "--data.max-duration-s", "0.01")) == 2
    assert not run_dir.exists()
    assert main(train(tones, run_dir, "--steps", "1")) == 0
    capsys.readouterr()


# --- checkpoints


def test_copies_of_a_user_are_neither_deleted_nor_taken_for_checkpoints(run_dir, capsys):
    folder = run_dir / "checkpoints"
    for name in ("step_best", "step_final", "step_0000099", "step_0000003.good", "backup"):
        shutil.copytree(folder / "step_0000003", folder / name)
    (folder / "step_notes.txt").write_text("mine")
    (folder / "step_0000098").mkdir()
    (folder / "step_0000097").symlink_to(folder / "step_0000003")
    mine = {
        name: value
        for name, value in content(folder).items()
        if not name.startswith(("step_0000003/", "step_0000006/"))
    }
    assert names(run_dir) == ["step_0000003", "step_0000006"]
    assert main(["train", "--resume", "--out", str(run_dir), "--steps", "9"]) == 0
    assert names(run_dir) == ["step_0000006", "step_0000009"]
    assert mine.items() <= content(folder).items()
    capsys.readouterr()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the weights": lambda path: flip(path / "model.safetensors"),
    "a flipped bit in the optimizer": lambda path: flip(path / "training_state.pt"),
    "cut weights": lambda path: os.truncate(path / "model.safetensors", 1000),
    "no state": lambda path: (path / "training_state.pt").unlink(),
    "an empty state": lambda path: (path / "training_state.pt").write_bytes(b""),
    "a broken description": lambda path: (path / "checkpoint.json").write_text("{"),
    "no description": lambda path: (path / "checkpoint.json").unlink(),
    "a broken configuration": lambda path: (path / "config.json").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_with_the_command_that_goes_on(damage, run_dir, capsys):
    whole = losses(run_dir)
    DAMAGES[damage](run_dir / "checkpoints" / "step_0000006")
    for words in (["train", "--resume"], ["generate", "--text", "a", "--out", str(run_dir / "a.wav")]):
        place = ["--out", str(run_dir)] if words[0] == "train" else [str(run_dir)]
        assert main([*words[:1], *place, *words[1:], *(["--steps", "7"] if words[0] == "train" else [])]) == 2
        said = capsys.readouterr().err
        assert "step_0000006 is damaged" in said and "as step_0000003 is" in said and "Traceback" not in said
    move, _, go_on = said.splitlines()[-1].removeprefix("fix:").strip().partition(" && ")
    subprocess.run(move.split(), check=True)
    assert go_on == f"earnest train --resume --out {run_dir}" and newest(run_dir).name == "step_0000003"
    if damage == "an empty state":  # the others go on in the same way
        assert main(go_on.removeprefix("earnest ").split()) == 0
        assert losses(run_dir) == whole
    capsys.readouterr()


def test_a_checkpoint_of_another_configuration_is_refused(run_dir, capsys):
    path = run_dir / "checkpoints" / "step_0000006"
    stored = json.loads((path / "checkpoint.json").read_text())
    stored["config"]["shape"]["width"] = 64
    (path / "checkpoint.json").write_text(json.dumps(stored))
    assert main(["train", "--resume", "--out", str(run_dir), "--steps", "7"]) == 2
    assert "shape.width: 64 -> 32" in capsys.readouterr().err


def test_another_number_of_processes_is_told(run_dir, caplog):
    path = run_dir / "checkpoints" / "step_0000006" / "checkpoint.json"
    path.write_text(path.read_text().replace('"ranks": 1', '"ranks": 4'))
    assert main(["train", "--resume", "--out", str(run_dir), "--steps", "7"]) == 0
    assert "1 processes go on with what 4 began" in caplog.text


def test_what_has_the_name_of_a_checkpoint_stays(tmp_path):
    (tmp_path / "checkpoints" / "step_0000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_0000001" / "mine").write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        save(tmp_path, 1, lambda aside: None, About({}))
    assert newest(tmp_path) is None and (tmp_path / "checkpoints" / "step_0000001" / "mine").exists()


# --- one owner


def test_a_directory_has_one_owner_and_a_dead_one_is_succeeded(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from earnest.owner import owned\n"
        f"with owned(Path({str(tmp_path)!r}), 'earnest train'): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"belongs to earnest train \(process {process.pid}, since"):
        owned(tmp_path, "another").__enter__()
    assert is_held(tmp_path)
    process.kill()
    process.wait()
    assert is_held(tmp_path) is False
    with owned(tmp_path, "another"):
        assert is_held(tmp_path)
    assert is_held(tmp_path) is None


def test_of_two_trainings_into_one_directory_one_is_told_who_holds_it(tones, tmp_path):
    run_dir = tmp_path / "run"
    both = [Earnest(train(tones, run_dir, "--steps", steps)) for steps in ("40", "41")]
    (first, said), (second, also_said) = (process.end() for process in both)
    assert sorted([first, second]) == [0, 2], said + also_said
    refused = said if first else also_said
    assert "belongs to earnest train (process" in refused or "a run in" in refused
    config = read_run(run_dir).facts.config or {}
    assert len(losses(run_dir)) == config["steps"] == (41 if first else 40)


def test_a_requeued_resume_is_told_that_the_run_still_runs(tones, tmp_path, capsys):
    run_dir = tmp_path / "run"
    process = begun(train(tones, run_dir, "--steps", "100000"), 1, run_dir)
    assert main(["train", "--resume", "--out", str(run_dir)]) == 2
    assert f"belongs to earnest train (process {process.pid}, since" in capsys.readouterr().err
    assert process.send(signal.SIGINT).end()[0] == 130


def test_exit_codes_are_written_down_as_they_are():
    told = (Path(__file__).parent.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", told, re.MULTILINE)]
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
    assert codes == [0, EXIT_FOUND, EXIT_MISTAKE, EXIT_FAULT, *(128 + number for number in signals)]

"""The checkpoint of the lowest held-out loss stays beside the last, is named, and can be generated from."""

import json
import os
import stat
from pathlib import Path

import pytest
import soundfile

from earnest.checkpoints import About, best, checkpoint_path, checkpoints, chosen, described, save
from earnest.cli import EXIT_MISTAKE, main
from earnest.commands import generate as generation
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.system import System
from earnest.run import read_run
from earnest.streams import TEXT, Codebook, Part
from earnest.training.reporter import held_out_loss
from tests.equipment.tones import train, write_tones


def write(run_dir: Path, step: int, loss: float | None, keep: int = 2) -> None:
    save(run_dir, step, lambda aside: (aside / "config.json").write_text("{}") and None, About({}, 1, loss), keep)


def steps(run_dir: Path) -> list[int]:
    return [described(path).step for path in checkpoints(run_dir)]


def test_the_best_stays_beside_the_newest(tmp_path):
    for step, loss in enumerate([3.0, 1.0, 2.0, None, 2.5], 1):
        write(tmp_path, step, loss)
    assert steps(tmp_path) == [2, 4, 5] and best(tmp_path) == checkpoint_path(tmp_path, 2)
    write(tmp_path, 6, 1.0)  # as good, and newer
    assert steps(tmp_path) == [5, 6] and best(tmp_path) == checkpoint_path(tmp_path, 6)
    write(tmp_path, 7, None, keep=1)
    assert steps(tmp_path) == [6, 7]


def test_without_scores_the_newest_stay(tmp_path):
    for step in range(1, 5):
        write(tmp_path, step, None)
    assert steps(tmp_path) == [3, 4] and best(tmp_path) is None


@pytest.mark.parametrize(
    ("wanted", "step"),
    [
        *((None, 4), ("best", 2), ("3", 3), ("step_0000002", 2), ("checkpoints/step_0000004", 4)),
        ("{run}/checkpoints/step_0000003", 3),
    ],
)
def test_a_checkpoint_is_chosen_by_any_name_it_has(wanted, step, tmp_path):
    for number, loss in enumerate([3.0, 1.0, 2.0, 2.0], 1):
        write(tmp_path, number, loss)
    assert steps(tmp_path) == [2, 3, 4]
    assert described(chosen(tmp_path, wanted and wanted.format(run=tmp_path))).step == step


@pytest.mark.parametrize("wanted", ["7", "worst", "checkpoints", "/"])
def test_another_name_lists_what_is_there(wanted, tmp_path):
    write(tmp_path, 3, 1.0)
    with pytest.raises(UserError) as refused:
        chosen(tmp_path, wanted)
    assert refused.value.expected.startswith("a step (3), best, or")


def test_best_of_a_run_that_was_never_scored_says_why(tmp_path):
    write(tmp_path, 3, None)
    with pytest.raises(UserError, match="a multiple of --evaluate-every-steps"):
        chosen(tmp_path, "best")


def test_a_damaged_choice_is_refused(tmp_path):
    write(tmp_path, 3, 1.0)
    (checkpoint_path(tmp_path, 3) / "config.json").write_text("{ }")
    with pytest.raises(UserError, match="damaged"):
        chosen(tmp_path, "3")


def test_the_held_out_loss_is_weighed_as_in_training():
    scores = {"eval/ce_nats/text": 4.0, "eval/ce_nats/codebook_0": 2.0, "eval/null_ce_nats/text": 9.0}
    assert held_out_loss(scores, {TEXT: 0.5, Codebook(0): 2.0, Codebook(1): 1.0}) == 6.0
    assert held_out_loss({"eval/loss/mel": 3.0, "eval/loss/mel_bypass": 1.0}, {Part("mel"): 2.0}) == 6.0
    assert held_out_loss({}, {TEXT: 1.0}) is None
    assert held_out_loss({"eval/ce_nats/text": float("nan")}, {TEXT: 1.0}) is None


@pytest.fixture(scope="module")
def worse(tmp_path_factory):
    """A run whose held-out loss is lowest at step 4, as if it became worse from there on; extended by a resume."""
    here = tmp_path_factory.mktemp("worse")
    tones = write_tones(here / "tones")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARNEST_CACHE", str(here / "cache"))
        penalties = iter([9.0, 0.0, 9.0, 9.0, 9.0, 9.0])
        patch.setattr("earnest.training.reporter.held_out_loss", lambda *about: held_out_loss(*about) + next(penalties))
        every = ("--evaluate-every-steps", "2", "--save-every-steps", "2")
        assert main(train(tones, here / "run", *every, "--steps", "8", "--keep-checkpoints", "1")) in (0, 1)
        before = best(here / "run")
        assert main(["train", "--resume", "--out", str(here / "run"), "--steps", "12"]) in (0, 1)
        yield here / "run", before


def test_a_run_keeps_its_best_over_a_resume_and_names_it(worse, capsys):
    run_dir, before = worse
    run = read_run(run_dir)
    scores = {str(key): series.value[series.step == 4].tolist() for key, series in run.series.items()}
    loss = held_out_loss({name: values[-1] for name, values in scores.items() if values}, run.facts.loss_weights or {})
    assert described(before).held_out_loss == loss and described(before).step == 4
    assert steps(run_dir) == [4, 12] and before == best(run_dir)
    assert main(["report", str(run_dir)]) == 0
    for told in (capsys.readouterr().out, (run_dir / "report.html").read_text(), (run_dir / "report.md").read_text()):
        assert "step 4 (the best, held-out loss" in " ".join(told.replace("\\", "").split())
        assert "step 12 (the last" in told.replace("\\", "")


def test_texts_are_said_from_the_best_each_in_a_file_and_played(worse, tmp_path, monkeypatch, capsys):
    run_dir, before = worse
    player = tmp_path / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/played\n')
    player.chmod(player.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{player.parent}:{os.environ['PATH']}")
    loaded: list[Path] = []

    def load(path: Path, *rest: object) -> System:
        loaded.append(path)
        return load_model(path, *rest)

    monkeypatch.setattr("earnest.speech.load_model", load)
    out = tmp_path / "x.wav"
    words = ["generate", str(run_dir), "--text", "tone one", "--text", "tone two", "--out", str(out), "--play"]
    assert main([*words, "--checkpoint", "best", "--max-duration-s", "0.1"]) == 0
    written = [tmp_path / "x-1.wav", tmp_path / "x-2.wav"]
    assert (tmp_path / "played").read_text().splitlines() == [f"-q {path}" for path in written]
    assert all(soundfile.info(path).frames > 0 for path in written) and loaded == [before]
    told = capsys.readouterr().out
    assert all(f"{path}: " in told for path in written) and not out.exists()


def test_play_without_a_player_is_refused_before_anything_is_loaded(worse, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["generate", str(worse[0]), "--text", "a", "--out", str(tmp_path / "x.wav"), "--play"]
    assert main(words) == EXIT_MISTAKE
    told = capsys.readouterr().err
    assert "no program that plays audio" in told and all(words[0] in told for words in generation.PLAYERS)


def test_several_texts_do_not_fit_standard_output(worse, capsys):
    assert main(["generate", str(worse[0]), "--text", "a", "b", "--out", "-"]) == EXIT_MISTAKE
    assert "2 texts to standard output" in capsys.readouterr().err


def test_an_older_checkpoint_without_a_score_is_read(tmp_path):
    write(tmp_path, 1, 2.0)
    about = checkpoint_path(tmp_path, 1) / "checkpoint.json"
    told = json.loads(about.read_text())
    del told["held_out_loss"]
    about.write_text(json.dumps(told))
    assert steps(tmp_path) == [1] and best(tmp_path) is None

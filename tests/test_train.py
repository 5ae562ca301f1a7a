"""`earnest train` as a user runs it: whole runs, kills, interruptions, mistakes."""

import csv
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.codecs import load_codec
from earnest.errors import UserError
from earnest.models.precision import resolve_precision
from earnest.recipes.higgs import HiggsConfig, assemble
from earnest.run import read_run
from earnest.streams import TEXT, codebooks
from earnest.training.reporter import started_by
from earnest.training.tokens.config import Data
from earnest.training.tokens.preparation import prepare
from tests.equipment.tiny import tiny_higgs

SMALL = [
    *("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "64"),
    *("--data.positions-per-batch", "512", "--demos.max-duration-s", "0.3"),
]
QUICK = [*SMALL, "--demos.every-steps", "0", "--evaluate-every-steps", "100", "--optimizer.warmup-steps", "2"]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Codes of the tests' clips stay out of the user's cache."""
    os.environ["EARNEST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> Path:
    """A folder of thirty spoken numbers, from the embedded corpus."""
    sources = pytest.importorskip("earnest.data.layouts.sources")
    folder = tmp_path_factory.mktemp("data") / "speech"
    whole = folder.with_name("whole")
    sources.espeak(whole)
    folder.mkdir()
    with open(whole / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["text"] in ("zero", "one", "two", "seven")][:30]
    for row in rows:
        (folder / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole / row["file_name"], folder / row["file_name"])
    write_metadata(folder, rows)
    return folder


def write_metadata(folder: Path, rows: list[dict]) -> None:
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def train(*args, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "earnest.cli", "train", *map(str, args)], capture_output=True, text=True, **options
    )


def losses(run_dir: Path) -> dict[str, list[float]]:
    """Every signal that does not measure the machine."""
    series = read_run(run_dir).series
    return {
        str(key): column.value.tolist() for key, column in series.items() if not key.name.endswith(("_s", "_bytes"))
    }


def test_a_whole_run(speech, tmp_path, capsys):
    run_dir = tmp_path / "run"
    options = ["--data.path", str(speech), "--out", str(run_dir), "--steps", "6", "--demos.texts", "zero", *SMALL]
    assert main(["train", "higgs-tiny", *options]) == 0
    run = read_run(run_dir)
    assert run["train/loss"].step.tolist() == [1, 2, 3, 4, 5, 6]
    assert set(run.probes.held_out.streams) == {TEXT, *codebooks(8)}
    demos = [artifact for artifact in run.artifacts if artifact.kind == "demo"]
    assert {demo.facts["temperature"] for demo in demos} == {0.0, 0.5, 1.0}
    for demo in demos:
        wave_N, rate_hz = soundfile.read(run_dir / demo.path)
        assert rate_hz == 16000 and len(wave_N) and np.isfinite(wave_N).all()
    originals = [artifact for artifact in run.artifacts if artifact.kind in ("reference", "reconstruction")]
    assert [(one.kind, one.facts["text"]) for one in originals] == [("reference", "zero"), ("reconstruction", "zero")]
    waves = [soundfile.read(run_dir / one.path)[0] for one in originals]
    samples = min(map(len, waves)) // 320 * 320
    levels = [(wave_N[:samples].reshape(-1, 320) ** 2).mean(1) ** 0.5 for wave_N in waves]
    assert samples >= 320 * 10 and np.corrcoef(*levels)[0, 1] > 0.8, "they are loud at the same times"
    assert run.facts.command
    for name in ("report.html", "report.md", "report.json"):
        assert (run_dir / name).stat().st_size > 500
    said = capsys.readouterr().out
    assert "codebook_7" in said and "text" in said
    out = tmp_path / "seven.wav"
    assert main(["generate", str(run_dir), "--text", "seven", "--out", str(out), "--max-duration-s", "0.2"]) == 0
    assert soundfile.info(out).samplerate == 16000
    said = capsys.readouterr().out
    assert "first sound after" in said and ("ended by the model" in said or "cut at --max-duration-s 0.2" in said)


def test_a_run_says_how_it_was_started_and_from_which_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/earnest", "train", "higgs-tiny", "--data.path", "my clips"])
    assert started_by()["command"] == "earnest train higgs-tiny --data.path 'my clips'"
    assert started_by()["commit"] is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert started_by()["commit"] == head[:12]
    (tmp_path / "file").write_text("2")
    assert started_by()["commit"] == head[:12] + "+"


def test_killed_at_a_random_step_and_resumed_the_curve_is_bit_identical(speech, tmp_path):
    options = ["higgs-tiny", "--data.path", speech, "--steps", 14, "--save-every-steps", 4, *QUICK]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(*options, "--out", whole).returncode == 0
    at_step = random.randint(1, 12)
    command = [sys.executable, "-m", "earnest.cli", "train", *map(str, options), "--out", killed]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    steps = killed / "steps.jsonl"
    while not (steps.exists() and steps.read_text().count('"train/loss"') >= at_step):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = train(*options, "--out", killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(killed) == losses(whole), f"killed at step {at_step}"


def test_ctrl_c_writes_a_checkpoint_and_the_report(speech, tmp_path):
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "earnest.cli",
            "train",
            "higgs-tiny",
            "--data.path",
            speech,
            "--steps",
            "100000",
            *QUICK,
            "--out",
            run_dir,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    steps = run_dir / "steps.jsonl"
    while not (steps.exists() and steps.read_text().count('"train/loss"') >= 3):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert checkpoints(run_dir)[-1].name == f"step_{read_run(run_dir).last_step:07d}"
    assert (run_dir / "report.html").exists()


def test_a_full_disk_loses_nothing_that_was_saved(speech, tmp_path):
    """Writing stops with an error at 1 MB a file (a limit of the process, as a full disk would): the weights do not
    fit."""
    run_dir = tmp_path / "run"
    options = ["higgs-tiny", "--data.path", speech, "--steps", 2, *QUICK, "--out", run_dir]
    ended = train(*options, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    assert ended.returncode == 2 and "fix:" in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert checkpoints(run_dir) == [] and not list((run_dir / "checkpoints").glob("*"))
    assert read_run(run_dir).last_step == 2


def broken_folder(speech: Path, folder: Path, rows_change) -> Path:
    shutil.copytree(speech, folder)
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_metadata(folder, rows_change(rows, folder))
    return folder


def one_bad_clip(rows, folder):
    (folder / rows[0]["file_name"]).write_bytes(b"not audio")
    return rows


def no_clip_short_enough(rows, folder):
    for row in rows:
        soundfile.write(folder / row["file_name"], np.zeros(16 * 16000), 16000)
    return rows


def many_bad_clips(rows, folder):
    for row in rows[:10]:
        soundfile.write(folder / row["file_name"], np.full(1600, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    return rows


def one_long_text(rows, folder):
    rows[0]["text"] = "word " * 1000
    return rows


def test_a_corrupt_clip_is_skipped_counted_and_listed(speech, tmp_path):
    folder = broken_folder(speech, tmp_path / "data", one_bad_clip)
    run_dir = tmp_path / "run"
    assert train("higgs-tiny", "--data.path", folder, "--steps", 2, *QUICK, "--out", run_dir).returncode == 0
    left_out = read_run(run_dir).facts.left_out_clips
    assert len(left_out) == 1 and "unreadable" in left_out[0]


def test_a_clip_whose_text_is_too_long_is_left_out_and_listed(speech, tmp_path):
    folder = broken_folder(speech, tmp_path / "data", one_long_text)
    run_dir = tmp_path / "run"
    assert train("higgs-tiny", "--data.path", folder, "--steps", 2, *QUICK, "--out", run_dir).returncode == 0
    left_out = read_run(run_dir).facts.left_out_clips
    assert len(left_out) == 1 and "tokens" in left_out[0]


@pytest.mark.parametrize("too_long", ["leave_out", "cut", "refuse"])
def test_clips_that_are_too_long_are_left_out_cut_or_refused_as_set(speech, tmp_path, too_long, capsys):
    lengths_s = [soundfile.info(path).duration for path in speech.rglob("*.wav")]
    limit_s = round(float(np.median(lengths_s)) * 50) / 50
    longer = sum(length_s > limit_s for length_s in lengths_s)
    run_dir = tmp_path / "run"
    options = [
        "--data.path",
        str(speech),
        "--data.max-duration-s",
        f"{limit_s:g}",
        "--data.too-long",
        too_long,
        "--steps",
        "2",
        *QUICK,
    ]
    options += ["--data.held-out-frac", "0.3"]
    ended = main(["train", "higgs-tiny", *options, "--out", str(run_dir)])
    if too_long == "refuse":
        said = capsys.readouterr().err.strip().splitlines()
        assert ended == 2 and [line.split(":")[0] for line in said] == ["seen", "expected", "fix"]
        assert f"longer than {limit_s:g} s" in said[0] and ".wav" in said[0] and "data.too_long" in said[2]
        return
    facts = read_run(run_dir).facts
    kept = facts.train_clips + facts.held_out_clips
    assert ended == 0 and 0 < longer < len(lengths_s)
    assert (len(facts.left_out_clips), facts.cut_clips) == ((longer, 0) if too_long == "leave_out" else (0, longer))
    assert kept == len(lengths_s) - len(facts.left_out_clips)
    ends = sum(counts.get(facts.eos_id, 0) for counts in facts.label_counts.values())
    assert 0 < ends <= facts.codebooks * (len(lengths_s) - longer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (many_bad_clips, "NaN"),
        (no_clip_short_enough, "16.0 s, longer"),
        (lambda rows, folder: [{"file_name": "a.wav"}], "no text column"),
    ],
)
def test_broken_data_ends_in_three_lines(speech, tmp_path, change, words, capsys):
    folder = broken_folder(speech, tmp_path / "data", change)
    assert main(["train", "higgs-tiny", "--data.path", str(folder), "--out", str(tmp_path / "run"), *QUICK]) == 2
    said = capsys.readouterr().err
    assert words in said and "expected:" in said and "fix:" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train"], "no recipe"),
        (["train", "higgs-huge"], "higgs-tiny"),
        (["train", "higgs-tiny", "--data.pth", "x"], "--data.path"),
        (["train", "higgs-tiny", "--steps", "ten"], "--steps"),
        (["train", "higgs-tiny", "--data.path", "/nowhere"], "/nowhere"),
        (["train", "higgs-tiny", "--codec", "no-such-codec"], "no-such-codec"),
        (["trian"], "train"),
        (["generate", "/nowhere", "--text", "x", "--out", "x.wav"], "/nowhere"),
        (["report", "/nowhere"], "/nowhere"),
        (["decode", "/nowhere", "x.wav"], "/nowhere"),
        (["encode", "/nowhere.wav", "x.safetensors"], "/nowhere.wav"),
        (["data", "asterisk-xx", "out"], "xx"),
        (["data", "radio", "out"], "radio"),
        (["explain", "Z999"], "Z999"),
    ],
)
def test_mistakes_end_in_three_lines(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["seen", "expected", "fix"]
    assert words in "\n".join(lines)


def test_an_empty_folder_and_a_run_in_the_way(speech, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["train", "higgs-tiny", "--data.path", str(tmp_path / "empty"), "--out", str(tmp_path / "run")]) == 2
    options = ["train", "higgs-tiny", "--data.path", str(speech), "--out", str(tmp_path / "run"), *QUICK]
    assert main([*options, "--steps", "2"]) == 0
    assert main([*options, "--steps", "2"]) == 2  # a run is there already
    assert "--resume" in capsys.readouterr().err
    assert main([*options, "--steps", "2", "--seed", "3", "--resume"]) == 2  # another configuration
    assert "seed: 0 -> 3" in capsys.readouterr().err
    os.symlink(speech, tmp_path / "moved")
    assert main([*options, "--steps", "2", "--data.path", str(tmp_path / "moved"), "--resume"]) == 2
    assert "data that moved: a link at the old path" in capsys.readouterr().err


def test_a_model_of_nine_codebooks_refuses_a_codec_of_eight(speech):
    config, codec = HiggsConfig(data=Data(path=str(speech))), load_codec("amy-tiny")
    assembly = replace(assemble(config, codec), model=tiny_higgs(codebooks=9, codes=1024))
    with pytest.raises(UserError, match="9 codebooks"):
        prepare(config, assembly, codec)


def test_trace_shows_the_labels_of_a_clip(speech, capsys):
    assert main(["trace", "higgs-tiny", "--data.path", str(speech)]) == 0
    said = capsys.readouterr().out
    assert "audio_targets_SC" in said and "1025" in said


def test_help_begins_with_what_the_recipe_is(capsys):
    with pytest.raises(SystemExit):
        main(["train", "higgs-tiny", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("learns to say digits") < said.index("options")
    assert "Train(config" not in said and "Directory of the run" in said


@pytest.mark.parametrize(
    ("wanted", "able", "expected"),
    [
        ("auto", {"avx512_bf16": True}, "bf16"),
        ("auto", {"amx_bf16": True}, "bf16"),
        ("auto", {"avx512_bf16": False, "amx_bf16": False, "avx2": True}, "no"),
        ("auto", {}, "no"),
        ("bf16", {}, "bf16"),
        ("no", {"avx512_bf16": True}, "no"),
    ],
)
def test_bf16_is_chosen_where_the_processor_multiplies_it(monkeypatch, wanted, able, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision(wanted) == expected

"""Training a Dia from a folder of captioned sounds: what is drawn, measured, averaged, and refused."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.codecs import load_codec
from earnest.data.audio import read_wave
from earnest.data.layouts.chatml import Cloning
from earnest.data.row import Row
from earnest.data.vary import Variation
from earnest.errors import UserError
from earnest.models import load_model
from earnest.models.dia import DiaShape
from earnest.monitors.demos import nearest_clip, repeat_frac, silence_frac
from earnest.monitors.draws import Draws
from earnest.recipes import RECIPES
from earnest.recipes.dia import DiaConfig, DiaData
from earnest.rules import diagnose
from earnest.run import Run, read_run
from earnest.streams import Codebook, codebooks
from earnest.training.tokens.config import Demos, Optimizer

SHAPE = DiaShape(
    width=32, layers=1, heads=2, kv_heads=1, ffn=32, encoder_width=16, encoder_layers=1, encoder_heads=1, encoder_ffn=16
)


@pytest.fixture(scope="module")
def loops(tmp_path_factory, request) -> Path:
    """Ten sounds of 1.2 s, two of them held out, described by tags alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARNEST_CACHE", str(tmp_path_factory.mktemp("cache")))
        request.addfinalizer(patch.undo)
    folder = tmp_path_factory.mktemp("loops")
    random = np.random.default_rng(0)
    for side, count in (("train", 8), ("validation", 2)):
        (folder / side).mkdir()
        lines = ["file_name,tags"]
        for index in range(count):
            pitch_hz = 110 * 2 ** random.uniform(0, 3)
            wave_N = 0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(19200) / 16000) * np.linspace(1, 0.2, 19200)
            soundfile.write(folder / side / f"{index}.wav", wave_N + random.normal(0, 0.01, 19200), 16000)
            lines.append(f'{index}.wav,"{"high" if pitch_hz > 311 else "low"}, sine"')
        (folder / side / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def config(folder: Path, **fields) -> DiaConfig:
    data = DiaData(
        path=str(folder), words="tags", window_s=0.5, window_ends=True, unconditional_frac=0.4, positions_per_batch=128
    )
    demos = Demos(texts=("high, sine",), guidance=2.0, max_duration_s=0.4)
    start = DiaConfig(
        data=data,
        shape=SHAPE,
        steps=8,
        optimizer=Optimizer(warmup_steps=2, ema_decay=0.9),
        demos=demos,
        save_every_steps=4,
    )
    return replace(start, **fields)


def train(config: DiaConfig, run_dir: Path, resume: bool = False) -> None:
    RECIPES["dia-tiny"].train(config, run_dir, resume)


@pytest.fixture(scope="module")
def run_dir(loops, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    train(config(loops), path)
    return path


def test_a_run_tells_what_it_drew_and_how_much_the_text_helps(run_dir):
    run = read_run(run_dir)
    streams = codebooks(8)
    assert set(run.probes.held_out.streams) == set(streams)  # no text is scored
    assert "train/counted_frac/text" not in run
    # The rungs know all that training may draw: 8 clips of 60 frames, and the end of each of a clip's three windows.
    assert {sum(counts.values()) for counts in run.facts.label_counts.values()} == {8 * (60 + 3)}
    crops, unconditional = run.probes.crops, run.probes.unconditional
    assert crops.draws >= 2 and crops.distinct > 1 and crops.possible == 60 - 25 + 1
    assert 0 < unconditional.without < unconditional.clips
    assert run.facts.guidance == 2.0 and run.facts.unconditional_frac == 0.4
    for stream in streams:
        null, own = (run[f"eval/{name}/{stream}"].value[-1] for name in ("null_ce_nats", "ce_nats"))
        gap, low, high = run.probes.null_input.gaps[stream]
        assert gap == pytest.approx(null - own, abs=1e-4) and low <= gap <= high
        seen = run[f"train/seen_frac/{stream}"].value
        assert 0 < seen[0] <= seen[-1] <= 1 and (np.diff(seen) >= 0).all()
        assert (run[f"train/entropy_nats/{stream}"].value >= 0).all()
    demos = [artifact.facts for artifact in run.artifacts if artifact.kind == "demo"]
    assert {demo["temperature"] for demo in demos} == {0.0, 0.5, 1.0}
    assert all(
        0 <= demo[name] <= 1
        for demo in demos
        for name in ("silence_frac", "repeat_frac", "match_frac", "clipping_frac")
    )
    assert {finding.rule for finding in diagnose(run).findings}.isdisjoint({"A101", "E104", "E105", "E106"})


def test_guided_generation_from_a_run(run_dir, tmp_path, capsys):
    out = tmp_path / "high.wav"
    say = ["generate", str(run_dir), "--text", "high", "--out", str(out), "--max-duration-s", "0.3"]
    assert main([*say, "--guidance", "3", "--filter-by-guidance", "yes"]) == 0
    assert soundfile.info(out).samplerate == 16000
    assert main(["trace", "dia-tiny", "--data.path", str(run_dir)]) == 2  # no such folder of clips: three lines
    assert "seen:" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_weights_and_their_average(loops, run_dir, tmp_path):
    """The last checkpoint is lost; from the one before, the same weights come out, averaged and not."""
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    last = checkpoints(path)[-1]
    shutil.rmtree(last)
    train(config(loops), path, resume=True)
    before, after = (load_model(folder).state_dict() for folder in (run_dir / "checkpoints" / last.name, last))
    assert all(torch.equal(before[name], after[name]) for name in before)
    states = [torch.load(folder / "training_state.pt") for folder in (run_dir / "checkpoints" / last.name, last)]
    assert all(torch.equal(states[0]["trained"][name], states[1]["trained"][name]) for name in states[0]["trained"])
    # the average is another model
    assert any(not torch.equal(before[name], trained) for name, trained in states[0]["trained"].items())
    torch.save({**states[1], "trained": {}}, last / "training_state.pt")
    with pytest.raises(UserError, match=r"training_state.pt is not as it was written"):
        train(config(loops), path, resume=True)


def test_a_stereo_run_keeps_left_and_right_apart(loops, tmp_path):
    """Left is a tone and right is silence: so it is in the codes, and a demo has two channels."""
    folder = tmp_path / "stereo"
    shutil.copytree(loops, folder)
    for path in folder.rglob("*.wav"):
        wave_N, rate_hz = soundfile.read(path)
        soundfile.write(path, np.stack([wave_N, 0 * wave_N], axis=1), rate_hz)
    once = replace(
        config(folder),
        codec="stereo:amy-tiny",
        steps=1,
        demos=Demos(texts=("low",), temperatures=(0.0,), max_duration_s=0.3),
    )
    train(once, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.facts.delays == (*range(8),) * 2 and "eval/ce_nats/codebook_15" in run
    left, right = (len(run.facts.label_counts[Codebook(c)]) for c in (1, 9))
    assert left > 2 * right
    assert soundfile.info(tmp_path / "run" / run.artifacts[-1].path).channels == 2
    codec = load_codec("stereo:amy-tiny")
    wave_2N = read_wave(folder / "train/0.wav", 16000, channels=2)
    assert wave_2N.shape == (2, 19200) and np.array_equal(wave_2N[0], read_wave(loops / "train/0.wav", 16000))
    wave_12N = torch.from_numpy(wave_2N)[None]
    codes_1CT = codec.encode(wave_12N)
    assert codec.decode(codes_1CT).shape == wave_12N.shape
    assert torch.equal(codes_1CT[:, 8:], load_codec("amy-tiny").encode(wave_12N[:, 1]))


def test_codebook_weights_weigh_the_loss_and_not_what_is_reported(loops, tmp_path):
    run_dir = tmp_path / "run"
    once = replace(config(loops), steps=1, codebook_weights=(4.0, *[0.0] * 7), demos=Demos(every_steps=0))
    train(once, run_dir)
    run = read_run(run_dir)
    first = run["train/ce_nats/codebook_0"].value[0]
    assert run["train/loss"].value[0] == pytest.approx(first, rel=1e-5)
    assert run["train/ce_nats/codebook_7"].value[0] > 5


@pytest.mark.parametrize(
    "change, said",
    [
        ({"data": {"unconditional_frac": 0.0}}, "guidance 2, and no clip trained without its text"),
        ({"data": {"window_s": 3.0}}, "windows of 150 frames, and no clip longer than 60"),
        ({"data": {"words": "text"}}, "no text column"),
        ({"delays": (0, 1)}, r"delays \[0, 1\] for 8 codebooks"),
        ({"codebook_weights": (1.0,) * 9}, "codebook weights"),
    ],
)
def test_mistakes_are_told(loops, tmp_path, change, said):
    wrong = config(loops)
    wrong = replace(wrong, **{**change, "data": replace(wrong.data, **change.get("data", {}))})
    with pytest.raises(UserError, match=said):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_small_held_out_side_is_said(loops, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(replace(config(loops), steps=1, demos=Demos(every_steps=0)), tmp_path / "run")
    assert "2 of 10 clips are held out" in caplog.text


@pytest.mark.parametrize("cloning", [False, True])
@pytest.mark.parametrize("fault", [False, True])
def test_crops_that_are_always_the_same_are_found(fault, cloning):
    """The fault of document 003, injected: every epoch cuts the first frames; also if clips follow a reference."""
    row, other = Row(np.zeros((2, 100), int), "", source="a"), Row(np.zeros((2, 10), int), "", source="b")
    windows = Variation(window_frames=20)
    vary = (lambda row, random: windows(row)) if fault else windows
    draws = Draws(Cloning([row, other], vary, frac=0.5, max_frames=10) if cloning else vary)
    for epoch in range(30):
        draws(row, np.random.default_rng(epoch))
        draws(row)  # evaluation does not count
    assert draws.probes().crops.draws == 30
    found = {finding.rule for finding in diagnose(Run.of(probes=draws.probes())).findings}
    assert ("E104" in found) == fault


def test_what_is_measured_of_a_demo():
    random = np.random.default_rng(0)
    rows = [Row(random.integers(0, 100, (4, 80)), "", source=name) for name in "ab"]
    copy_CT = rows[1].codes_CT[:, 13:43]
    assert nearest_clip(copy_CT, rows) == (1.0, "b")
    assert nearest_clip(np.concatenate([rows[0].codes_CT, copy_CT], axis=1), rows)[0] == pytest.approx(
        80 / 110, abs=0.02
    )
    assert nearest_clip(random.integers(0, 100, (4, 30)), rows)[0] < 0.1
    assert repeat_frac(copy_CT) == 0 and repeat_frac(np.tile(copy_CT[:, :6], 5)) == 24 / 30
    wave_N = np.concatenate([np.zeros(1600), random.normal(0, 0.1, 1600)])
    assert silence_frac(wave_N, 16000) == 0.5 and silence_frac(np.stack([wave_N, wave_N[::-1]]), 16000) == 0

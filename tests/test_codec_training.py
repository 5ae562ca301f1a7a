"""Training a codec: the GAN loop, the driver, its resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from earnest.codecs import load_codec
from earnest.codecs.amy import Amy, AmyShape
from earnest.codecs.discriminators import MultiScaleSTFTDiscriminator
from earnest.codecs.trainable import TrainableCodec
from earnest.data import audio
from earnest.data.audio import ClipError, is_long, read_wave, write_wave
from earnest.data.layouts.folder import load_clips
from earnest.data.waves import Waves, store_waves
from earnest.errors import UserError
from earnest.losses.adversarial import HINGE
from earnest.losses.codec import CodecBatch
from earnest.losses.waveform import MultiScaleMelLoss
from earnest.recipes import RECIPES, Recipe
from earnest.recipes.amy import AmyConfig, Mimi, STFTDiscriminatorConfig, amy, amy_tiny, build, build_tiny
from earnest.records import plain
from earnest.rules import diagnose
from earnest.run import Run, Series, read_run
from earnest.streams import Codebook, Part
from earnest.training.codec.clips import random_windows
from earnest.training.codec.config import CodecData
from earnest.training.codec.gan_steps import Side, gan_steps, random_stretch
from tests.equipment.codecs import tiny_dac, tiny_mimi
from tests.equipment.runs import kill_and_resume, rows
from tests.equipment.teachers import write_llama, write_wavlm

SHAPE = AmyShape(
    encoder_dim=16, encoder_hidden=32, decoder_dim=16, decoder_hidden=32, codebooks=2, codebook_size=16, codebook_dim=8
)


def side(model, learning_rate=1e-3, max_grad_norm=100.0) -> "RecordingSide":
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.8, 0.99))
    return RecordingSide(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), max_grad_norm)


def game(
    steps: int,
    shape: AmyShape = SHAPE,
    init_frames: int = 64,
    learning_rate: float = 1e-3,
    discriminator_from_step: int = 1,
    **options,
):
    torch.manual_seed(0)
    codec = Amy(shape)
    codec.quantiser.init_frames = init_frames
    discriminator = MultiScaleSTFTDiscriminator((128, 64), channels=4)
    time_N = torch.arange(6400) / 16_000
    wave_BN = torch.stack([0.3 * torch.sin(2 * torch.pi * hz * time_N) for hz in (220, 550, 1300, 2900)])
    weights = {"mel": 100.0, "commitment": 5.0, "adv_g": 1.0, "feat": 5.0}
    mel_loss = MultiScaleMelLoss(16_000)

    def codec_losses(reconstruction, batch):
        loss, signals = mel_loss(reconstruction.wave_BN, batch.wave_BN)
        return {"mel": loss}, signals

    accelerator = Accelerator(cpu=True, mixed_precision="no")
    sides = side(codec, learning_rate), side(discriminator)
    batches = [CodecBatch(wave_BN)] * steps
    options = {"discriminator_from_step": discriminator_from_step, "discriminator_samples": 3200} | options
    return sides, gan_steps(*sides, HINGE, batches, codec_losses, lambda step: weights, accelerator, **options)


class RecordingSide(Side):
    """Keeps a copy of the gradients that its own step was made with."""

    def step(self, loss, accelerator, signals=None):
        norm = super().step(loss, accelerator, signals)
        self.model.stepped_on = [p.grad.clone() for p in self.model.parameters()]
        return norm


def test_the_discriminator_is_frozen_in_the_codecs_step():
    """Whatever the codec's step did, the discriminator's gradients are still those of its own loss; the codec's are in
    place too."""
    (codec, discriminator), steps = game(3)
    for _ in steps:
        for parameter, stepped_on in zip(discriminator.model.parameters(), discriminator.model.stepped_on, strict=True):
            assert parameter.requires_grad and torch.equal(parameter.grad, stepped_on)
        assert all(p.grad is not None for p in codec.model.parameters())


def test_the_loop_steps_both_and_reports_them():
    (_, discriminator), steps = game(4, discriminator_from_step=3)
    start = [p.detach().clone() for p in discriminator.model.parameters()]
    for step in steps:
        names = set(step.signals)
        assert {
            "train/loss",
            "train/loss/mel",
            "train/loss/commitment",
            "train/grad_norm",
            "train/learning_rate",
        } <= names
        assert ("train/d_real/stft_128" in names) == (step.index >= 3)
        moved = any(not torch.equal(p, q) for p, q in zip(discriminator.model.parameters(), start, strict=True))
        assert moved == (step.index >= 3)
    assert "train/used_frac/codebook_1" in names and "train/grad_norm/discriminator" in names
    total = sum(
        weight * step.signals[f"train/loss/{name}"]
        for name, weight in {"mel": 100, "commitment": 5, "adv_g": 1, "feat": 5}.items()
    )
    assert step.signals["train/loss"] == pytest.approx(total, rel=1e-4)


def test_it_overfits_one_batch():
    _, steps = game(60, learning_rate=5e-3, discriminator_from_step=1000)
    losses = [step.signals["train/loss/mel"] for step in steps]
    assert np.mean(losses[-10:]) < 0.5 * losses[0]


def test_random_stretch_takes_the_same_place_of_both():
    wave_BN = torch.arange(100.0).expand(2, 100)
    a_BN, b_BN = random_stretch([wave_BN, wave_BN + 1000], 10)
    assert a_BN.shape == (2, 10) and torch.equal(a_BN + 1000, b_BN)
    assert random_stretch([wave_BN], None)[0] is wave_BN


def test_windows_are_a_function_of_seed_and_step():
    waves = [np.arange(1, n + 1, dtype=np.int16) for n in (100, 20_000, 30_000)]
    windows = random_windows(waves, 8000, clips=6, seed=0)
    first_two = [next(windows), next(windows)]
    assert first_two[0][0].shape == (6, 8000)
    again, places = next(random_windows(waves, 8000, clips=6, seed=0, skip=1))
    assert torch.equal(again, first_two[1][0]) and places == first_two[1][1]
    assert not torch.equal(again, first_two[0][0])


def test_windows_for_teachers_begin_with_a_frame():
    waves = [np.arange(1, n + 1, dtype=np.int16) for n in (100, 20_000, 30_000)]
    for _, (wave_BN, places) in zip(range(20), random_windows(waves, 8000, clips=6, seed=0, every=320), strict=False):
        for row_N, (clip, start) in zip(wave_BN, places, strict=True):
            assert (
                start % 320 == 0
                and row_N[0] == pytest.approx((start + 1) / 32767)
                and start <= max(len(waves[clip]) - 8000, 0)
            )


def test_windows_of_waves_on_disk_are_those_of_waves_in_memory(tmp_path, monkeypatch):
    """Clips of another rate and one that is read in pieces among them; with a teacher floats are stored."""
    monkeypatch.setattr(audio, "LONG_S", 0.6)
    monkeypatch.setattr(audio, "LEAST_BYTES_PER_S", 1)
    random = np.random.default_rng(0)
    for name, rate_hz, samples in (("a", 16_000, 4000), ("b", 44_100, 9000), ("c", 16_000, 14_000), ("d", 16_000, 500)):
        write_wave(tmp_path / f"{name}.wav", random.uniform(-0.9, 0.9, samples), rate_hz)
    (tmp_path / "e.wav").write_bytes(b"RIFF")
    clips = load_clips(tmp_path, needed=())
    assert [is_long(clip.path) for clip in clips] == [False, False, True, False, False]
    in_memory = [read_wave(clip.path, 16_000) for clip in clips[:4]]
    for stored in (Waves(), Waves(in_16_bits=True)):
        skipped: list[ClipError] = []
        kept = store_waves(clips, stored, 16_000, skipped, len(clips))
        assert kept == clips[:4] and [error.path.name for error in skipped] == ["e.wav"]
        rounded = [np.rint(wave_N.clip(-1, 1) * 32767).astype(np.int16) for wave_N in in_memory]
        ours, theirs = (random_windows(waves, 1600, clips=5, seed=3) for waves in (stored.in_16_bits(), rounded))
        for _, (wave_BN, places), (expected_BN, expected) in zip(range(20), ours, theirs, strict=False):
            assert torch.equal(wave_BN, expected_BN) and places == expected
        assert stored.samples == sum(map(len, rounded)) and len(stored.cut(700)[2][:]) == 700
    floats = Waves()
    store_waves(clips[:4], floats, 16_000, [], 4)
    assert all(np.array_equal(wave[:], wave_N) for wave, wave_N in zip(floats, in_memory, strict=True))


def test_a_disk_without_room_for_the_waves_is_told_and_a_broken_wave_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="EARNEST_CACHE"):
        Waves()
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    waves = Waves()

    def breaks():
        yield np.ones(5, np.float32)
        raise ClipError("a.wav", "unreadable")

    with pytest.raises(ClipError):
        waves.add(breaks())
    waves.add([np.zeros(2, np.float32), np.full(2, 0.5, np.float32)])
    assert len(waves) == 1 and waves[0][:].tolist() == [0, 0, 0.5, 0.5] and waves[0][1:3].tolist() == [0, 0.5]
    assert not list((tmp_path / "cache").iterdir())


def recipe_of(config) -> Recipe:
    return RECIPES["amy" if isinstance(config, AmyConfig) else "amy-tiny"]


def train(config, run_dir, **options) -> None:
    recipe_of(config).train(config, run_dir, **options)


@pytest.fixture
def folder(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    random = np.random.default_rng(0)
    for index in range(8):
        samples = 1000 if index == 0 else 4000 + 1777 * index
        write_wave(clips / f"clip_{index}.wav", 0.3 * np.sin(np.cumsum(random.normal(0.15, 0.02, samples))), 16_000)
    return clips


def configure(folder, **changes):
    return replace(
        amy_tiny(),
        shape=replace(SHAPE, codebook_size=8),
        data=CodecData(str(folder), held_out_frac=0.2, window_s=0.3, clips_per_batch=4),
        discriminator=STFTDiscriminatorConfig(window_samples=(128,), channels=4, from_step=6, stretch_s=0.1),
        **{"steps": 10, "mixed_precision": "no"}
        | {
            "init_frames": 200,
            "log_every_steps": 2,
            "evaluate_every_steps": 5,
            "save_every_steps": 5,
            "demo_every_steps": 5,
            "mixed_precision": "no",
        }
        | changes,
    )


def test_training_writes_a_run_that_reads_back_and_a_codec_that_loads(folder, tmp_path):
    train(configure(folder), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.last_step == 10 and run.facts.held_out_clips >= 1
    assert run.facts.train_clips + run.facts.held_out_clips == 8
    assert list(run["eval/loss/mel"].step) == [5, 10]
    assert list(run["train/loss/loss_d"].step) == [6, 8, 10]
    assert plain(run.facts.loss_weights) == {"mel": 100.0, "commitment": 5.0, "adv_g": 1.0, "feat": 15.0}
    assert all((tmp_path / "run" / artifact.path).exists() for artifact in run.artifacts) and run.artifacts
    codec = load_codec(str(tmp_path / "run/checkpoints/step_0000010"))
    assert codec.encode(torch.zeros(1, 1000)).shape == (1, 2, 4)


def test_an_interrupted_run_resumes_to_the_same_bits(folder, tmp_path):
    train(configure(folder), tmp_path / "whole")

    kill_and_resume(recipe_of(configure(folder)), configure(folder), tmp_path / "killed", step=8)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_a_run_is_not_continued_with_another_configuration(folder, tmp_path):
    train(configure(folder, steps=5), tmp_path / "run")
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        train(configure(folder, steps=5, seed=1), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="a run in"):
        train(configure(folder, steps=5), tmp_path / "run")


def test_a_discriminators_nan_moves_nothing_and_is_named(folder, tmp_path, monkeypatch):
    """One sub-discriminator answers NaN at step 7: neither side steps, the run says so, and goes on."""
    forward, calls = MultiScaleSTFTDiscriminator.forward, []

    def broken(self, wave_BN):
        verdicts = forward(self, wave_BN)
        calls.append(None)
        if 5 <= len(calls) <= 8:  # step 6 has the first four calls
            logits, maps = verdicts["stft_128"]
            verdicts["stft_128"] = logits * float("nan"), maps
        return verdicts

    monkeypatch.setattr(MultiScaleSTFTDiscriminator, "forward", broken)
    train(configure(folder, log_every_steps=1, evaluate_every_steps=10), tmp_path / "run")
    run = read_run(tmp_path / "run")
    at = {str(name): dict(zip(one.step, one.value, strict=True)) for name, one in run.series.items()}
    skipped = at["train/skipped_frac/discriminator"]
    assert [step for step, value in skipped.items() if value] == [7] and at["train/skipped_frac/codec"][7] == 1
    assert all(np.isfinite(at["train/loss"][step]) for step in (6, 8, 9, 10)) and np.isnan(at["train/loss"][7])
    events = [json.loads(line) for line in (tmp_path / "run/steps.jsonl").read_text().splitlines() if "event" in line]
    [named] = [one["event"] for one in events if "discriminator" in one["event"]]
    assert "skipped" in named and "train/loss/stft_128" in named
    codec = load_codec(str(tmp_path / "run/checkpoints/step_0000010"))
    assert all(tensor.isfinite().all() for tensor in codec.state_dict().values())


def test_the_second_phase_takes_the_spectral_losses_out_of_the_sum(folder, tmp_path):
    weights = replace(amy_tiny().loss_weights, msspec=15.0)
    phases = {
        "adversarial_only_from_step": 8,
        "adversarial_only_spectral_frac": 0.1,
        "log_every_steps": 1,
        "loss_weights": weights,
    }
    train(configure(folder, **phases), tmp_path / "run")
    run = read_run(tmp_path / "run")
    at = {str(name): dict(zip(one.step, one.value, strict=True)) for name, one in run.series.items()}
    for step, left in ((7, 1.0), (8, 0.1), (10, 0.1)):
        parts = {"mel": 100 * left, "msspec": 15 * left, "adv_g": 1, "feat": 15, "commitment": 5}
        total = sum(weight * at[f"train/loss/{name}"][step] for name, weight in parts.items())
        assert at["train/loss"][step] == pytest.approx(total, rel=1e-4)
    assert "adversarial only" in (tmp_path / "run/steps.jsonl").read_text()


def test_a_balanced_run_logs_the_shares_it_realised(folder, tmp_path):
    train(configure(folder, balancer=True, monitor_every_steps=2), tmp_path / "run")
    run = read_run(tmp_path / "run")
    shares = {name: run[f"train/gradient_frac/{name}"].value[-1] for name in ("mel", "adv_g", "feat")}
    assert sum(shares.values()) == pytest.approx(1) and shares["mel"] > 0.5
    assert {f"train/grad_norm/latent_{name}" for name in ("mel", "adv_g", "feat", "commitment")} <= set(
        map(str, run.series)
    )


def test_silent_clips_and_clips_shorter_than_a_frame_are_trained_on(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for index, samples in enumerate((5, 300, 4000, 6000, 9000, 12000)):
        write_wave(clips / f"clip_{index}.wav", np.zeros(samples), 16_000)
    train(configure(clips, steps=12, evaluate_every_steps=6), tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.last_step == 12 and all(np.isfinite(run[name].value).all() for name in run.series)


@pytest.fixture
def taught(tmp_path):
    """Clips with a transcript (one without), word times in one; a tiny Mimi, WavLM and Llama on disk."""
    clips = tmp_path / "taught"
    clips.mkdir()
    random, rows = np.random.default_rng(0), []
    for index in range(8):
        time_N = np.arange(6000 + 800 * index) / 16_000
        write_wave(clips / f"clip_{index}.wav", 0.3 * np.sin(2 * np.pi * random.uniform(80, 300) * time_N), 16_000)
        rows.append({"file_name": f"clip_{index}.wav", "text": "" if index == 3 else "go on", "speaker": "a"})
    rows[0]["words"] = [["go", 0.0, 0.2], ["on", 0.3, 0.35]]
    (clips / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tiny_mimi(frame_rate=100, upsampling_ratios=[8, 5, 2]).save_pretrained(tmp_path / "mimi")
    return {
        "folder": clips,
        "mimi": str(tmp_path / "mimi"),
        "wavlm": write_wavlm(tmp_path / "wavlm"),
        "llm": write_llama(tmp_path / "llm"),
    }


def test_the_recipe_around_mimi_trains_with_both_teachers_and_resumes(taught, tmp_path, monkeypatch):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    config = replace(
        amy(),
        codec=Mimi(taught["mimi"], acoustic_codebooks=3),
        data=CodecData(str(taught["folder"]), held_out_frac=0.2, window_s=0.3, clips_per_batch=4),
        discriminator=STFTDiscriminatorConfig(window_samples=(128,), channels=4, from_step=3, stretch_s=0.1),
        **{name: taught[name] for name in ("llm", "wavlm")},
        **{"steps": 8, "init_frames": 200, "evaluate_every_steps": 4, "save_every_steps": 4, "demo_every_steps": 0},
        **{"log_every_steps": 2, "monitor_every_steps": 2, "mixed_precision": "no"},
    )
    train(config, tmp_path / "whole")

    kill_and_resume(recipe_of(config), config, tmp_path / "killed", step=6)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    whole = read_run(tmp_path / "whole")

    assert whole.facts.codebook_groups == (2, 3) and whole.facts.codebooks == 5
    assert (
        whole.facts.teachers["llm"]["clips_with_words_timed"] == 1
        and "letters" in whole.facts.teachers["llm"]["alignment"]
    )
    assert 0 < whole.facts.teachers["llm"]["frames_taught_frac"] < 1
    assert whole.probes.frozen.tensors > 10 and whole.probes.frozen.changed == ()
    assert set(map(str, whole.probes.baselines)) == {"msspec", "llm", "wavlm"}
    assert set(whole.probes.baselines[Part("msspec")]) == {"silence", "mean frame"}
    for teacher in ("llm", "wavlm"):
        assert min(whole[f"train/grad_norm/latent_{teacher}"].value) > 0
        assert {f"eval/loss/{teacher}{kind}" for kind in ("", "_raw", "_centred", "_permuted")} <= set(
            map(str, whole.series)
        )
    assert {"eval/loss/msspec_bypass", "eval/f0_r2/codebook_1", "eval/energy_r2/codebook_4"} <= set(
        map(str, whole.series)
    )
    codec = load_codec(str(tmp_path / "whole/checkpoints/step_0000008"))
    assert codec.encode(torch.zeros(1, 1000)).shape == (1, 5, 7)
    verdicts = {str(verdict.stream): verdict for verdict in diagnose(whole).verdicts}
    assert verdicts["llm"].baseline.name == "constant mean" and verdicts["msspec"].baseline.name in (
        "silence",
        "mean frame",
    )


@pytest.mark.parametrize("parallel", [False, True])
def test_with_a_language_model_codebook_0_has_keys_that_are_taught_and_resume(taught, tmp_path, monkeypatch, parallel):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    config = replace(
        configure(taught["folder"], llm=taught["llm"]),
        shape=replace(SHAPE, codebooks=3, parallel=parallel, semantic_dim=4),
    )
    train(config, tmp_path / "whole")

    kill_and_resume(recipe_of(config), config, tmp_path / "killed", step=8)
    whole, killed = (
        load_codec(str(tmp_path / name / "checkpoints/step_0000010")).state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
    fresh = build_tiny(config).quantiser.into_keys.weight
    assert (whole["quantiser.into_keys.weight"] - fresh).norm() > 1e-3 and whole["quantiser.erasure.matrix_DD"].any()
    assert build_tiny(replace(config, llm="")).quantiser.into_keys is None  # nobody would teach it
    codec = load_codec(str(tmp_path / "whole/checkpoints/step_0000010"))
    codec.export(tmp_path / "exported")
    wave_BN = 0.1 * torch.randn(1, 8000)
    codes_BCT = load_codec(str(tmp_path / "exported")).encode(wave_BN)
    # fp16 tips a tie here and there
    assert (codes_BCT == codec.encode(wave_BN)).float().mean() > 0.9 and codes_BCT.shape == (1, 3, 25)


def test_settings_that_cannot_be_are_refused(folder, taught, tmp_path, monkeypatch):
    monkeypatch.setenv("EARNEST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="says nothing of any clip"):  # a language model, and no transcript
        train(configure(folder, llm=taught["llm"]), tmp_path / "a")
    one = replace(configure(folder, wavlm=taught["wavlm"]), shape=replace(SHAPE, codebooks=1))
    with pytest.raises(UserError, match="1 codebook and --wavlm"):
        train(one, tmp_path / "b")
    with pytest.raises(UserError, match="codebooks 2 with --shape"):
        build_tiny(replace(amy_tiny(), shape=replace(SHAPE, parallel=True)))
    with pytest.raises(UserError, match="9 semantic dimensions of a latent of 8"):
        build_tiny(replace(amy_tiny(), llm=taught["llm"], shape=replace(SHAPE, semantic_dim=9)))
    # nobody asked for them: no language model is named
    build_tiny(replace(amy_tiny(), shape=replace(SHAPE, semantic_dim=9)))
    tiny_dac().save_pretrained(tmp_path / "dac")
    with pytest.raises(UserError, match=r"a DacModel\nexpected: a Mimi"):
        build(replace(amy(), codec=Mimi(str(tmp_path / "dac"))))


def test_frozen_weights_that_change_are_told(folder, tmp_path, monkeypatch):
    """A part that was to be frozen, and an optimizer that has it nevertheless."""
    monkeypatch.setattr("earnest.recipes.amy.build_tiny", frozen_head)
    monkeypatch.setattr(TrainableCodec, "freeze", lambda codec, names: setattr(codec, "frozen", names))
    train(configure(folder), tmp_path / "run")
    assert "head.weight" in read_run(tmp_path / "run").probes.frozen.changed
    assert any(finding.rule == "C104" for finding in diagnose(read_run(tmp_path / "run")).findings)


def frozen_head(config):
    codec = Amy(config.shape)
    codec.freeze(("head",))
    return codec


def test_a_second_group_of_codebooks_begins_with_all_of_the_latent():
    """Side by side, codebook 2 leaves more than codebook 1 did: of its own group's input. Known, that is no fault."""
    left = {0: 0.5, 1: 0.3, 2: 0.6, 3: 0.4}
    steps = np.arange(10, 110, 10)
    run = Run.of(
        series={f"train/residual_frac/codebook_{k}": Series(steps, np.full(10, value)) for k, value in left.items()}
    )
    assert [finding.streams for finding in diagnose(run).findings if finding.rule == "F302"] == [(Codebook(2),)]
    run.facts = run.facts.updated({"codebook_groups": [2, 2]})
    assert not [finding for finding in diagnose(run).findings if finding.rule == "F302"]

"""A codec recipe is one file: here one with finite scalar quantisation and a least-squares GAN, which shares nothing
with Amy but the contracts."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from earnest import codecs
from earnest.checkpoints import checkpoints
from earnest.cli import main
from earnest.codecs.trainable import Quantised, Quantiser, TrainableCodec
from earnest.data.audio import write_wave
from earnest.losses.adversarial import Adversary
from earnest.losses.codec import CodecObjective
from earnest.losses.waveform import WaveLoss
from earnest.recipes import RECIPES, Recipe
from earnest.run import read_run
from earnest.signals import key
from earnest.training.codec.assembly import CodecAssembly
from earnest.training.codec.config import CodecConfig, CodecData, DiscriminatorConfig
from tests.equipment.runs import kill_and_resume, rows


class FSQ(Quantiser):
    """Finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505): each dimension is bounded and rounded to one
    of so many levels (odd numbers here); a code is all digits together."""

    groups = (1,)
    basis_D: Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels
        self.half_D = [(count - 1) // 2 for count in levels]
        self.register_buffer("basis_D", torch.tensor([1, *levels[:-1]]).cumprod(0), persistent=False)

    @property
    def codebook_size(self) -> int:
        return int(np.prod(self.levels))

    def forward(self, latent_BDT: Tensor) -> Quantised:
        half_D1 = torch.tensor(self.half_D)[:, None]
        bounded_BDT = latent_BDT.tanh() * half_D1
        digits_BDT = bounded_BDT.round()
        code_BT = ((digits_BDT + half_D1).long() * self.basis_D[:, None]).sum(1)
        straight_BDT = bounded_BDT + (digits_BDT - bounded_BDT).detach()
        used_frac = len(code_BT.unique()) / self.codebook_size
        split = "train" if self.training else "eval"
        return Quantised(
            code_BT[:, None], straight_BDT / half_D1, {}, {key("used_frac", "codebook_0", split): used_frac}
        )

    def decode(self, codes_BCT: Tensor) -> Tensor:
        half_D1, levels_D1 = torch.tensor(self.half_D)[:, None], torch.tensor(self.levels)[:, None]
        return (codes_BCT // self.basis_D[:, None] % levels_D1 - half_D1) / half_D1


class FSQCodec(TrainableCodec[FSQ]):
    sample_rate_hz, hop_samples, context_frames = 16_000, 160, (0, 0)

    def __init__(self, levels: tuple[int, ...], name: str = "fsq"):
        super().__init__()
        self.name, self.quantiser = name, FSQ(levels)
        self.encoder = nn.Sequential(nn.Linear(160, 32), nn.GELU(), nn.Linear(32, len(levels)))
        self.decoder = nn.Sequential(nn.Linear(len(levels), 32), nn.GELU(), nn.Linear(32, 160))

    def latent(self, wave_BN: Tensor) -> Tensor:
        return (
            self.encoder(F.pad(wave_BN, (0, -wave_BN.shape[1] % 160)).unflatten(1, (-1, 160))).float().transpose(1, 2)
        )

    def synthesise(self, latent_BDT: Tensor) -> Tensor:
        return self.decoder(latent_BDT.transpose(1, 2)).float().flatten(1)

    def save_pretrained(self, directory: Path) -> None:
        config = {"model_type": "fsq", "name": self.name, "levels": self.quantiser.levels}
        (directory / "config.json").write_text(json.dumps(config))
        save_file(self.state_dict(), directory / "model.safetensors")

    @classmethod
    def from_pretrained(cls, directory: Path) -> "FSQCodec":
        config = json.loads((directory / "config.json").read_text())
        codec = cls(tuple(config["levels"]), config["name"])
        codec.load_state_dict(load_file(directory / "model.safetensors"))
        return codec.eval()


class WaveformLoss(WaveLoss):
    stream = "l1"

    def forward(self, wave_BN: Tensor, target_BN: Tensor, split: str = "train") -> tuple[Tensor, dict[str, float]]:
        loss = (wave_BN - target_BN).abs().mean()
        return loss, {key("loss", self.stream, split): loss.item()}

    def baselines(self, waves: list[Tensor]) -> dict[str, float]:
        return {"silence": torch.cat(waves).abs().mean().item()}


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 4, 9, 4), nn.Conv1d(4, 1, 9, 4)

    def forward(self, wave_BN: Tensor) -> dict[str, tuple[Tensor, list[Tensor]]]:
        map_BCN = F.leaky_relu(self.first(wave_BN[:, None]))
        return {"conv": (self.last(map_BCN), [map_BCN])}


def lsgan_discriminator(real, fake) -> tuple[Tensor, dict[str, float]]:
    loss = ((1 - real["conv"][0]).square().mean() + fake["conv"][0].square().mean()) / 2
    return loss, {key("loss", "loss_d"): loss.item()}


def lsgan_generator(fake) -> tuple[Tensor, dict[str, float]]:
    loss = (1 - fake["conv"][0]).square().mean()
    return loss, {key("loss", "adv_g"): loss.item()}


@dataclass(frozen=True)
class FSQConfig(CodecConfig):
    levels: tuple[int, ...] = (5, 5, 3)
    """Levels of each dimension."""


def configure() -> FSQConfig:
    return FSQConfig(
        data=CodecData("none", held_out_frac=0.2, window_s=0.2, clips_per_batch=4),
        discriminator=DiscriminatorConfig(from_step=3, stretch_s=0.1),
        **{"steps": 8, "log_every_steps": 1, "evaluate_every_steps": 4, "save_every_steps": 4, "demo_every_steps": 8},
    )


def assemble(config: FSQConfig, checkpoint: Path | None = None) -> CodecAssembly:
    return CodecAssembly(
        system="fsq",
        codec=FSQCodec.from_pretrained(checkpoint) if checkpoint else FSQCodec(config.levels),
        pretrained=False,
        discriminator=Discriminator,
        adversary=Adversary("lsgan", lsgan_discriminator, lsgan_generator),
        objective=lambda of_teachers: CodecObjective([WaveformLoss()]),
        weights=lambda step: {"l1": 10.0, "adv_g": 1.0, "feat": 2.0},
    )


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    """What a new recipe adds to earnest: two lines."""
    monkeypatch.setitem(RECIPES, "fsq-tiny", Recipe(configure, assemble))
    monkeypatch.setitem(codecs.CLASSES, "fsq", (__name__, "FSQCodec"))


@pytest.fixture
def tones(tmp_path) -> Path:
    folder = tmp_path / "tones"
    folder.mkdir()
    for index in range(6):
        hz = 110 * 2 ** (index / 3)
        write_wave(folder / f"{index}.wav", 0.3 * np.sin(2 * np.pi * hz * np.arange(6000) / 16000), 16000)
    return folder


def test_it_trains_resumes_and_its_facts_are_true(tones, tmp_path, capsys):
    command = ["train", "fsq-tiny", "--data.path", str(tones), "--mixed-precision", "no"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    run = read_run(tmp_path / "run")
    facts = run.facts
    assert (facts.system, facts.gan_loss, facts.pretrained) == ("fsq", "lsgan", False)
    assert (facts.codebooks, facts.codebook_size, facts.codebook_groups) == (1, 75, (1,))
    assert {str(stream): weight for stream, weight in (facts.loss_weights or {}).items()} == {
        **{"l1": 10.0, "adv_g": 1.0, "feat": 2.0}
    }
    last = rows(tmp_path / "run")[8]
    expected = sum(weight * last[f"train/loss/{name}"] for name, weight in {"l1": 10, "adv_g": 1, "feat": 2}.items())
    assert last["train/loss"] == pytest.approx(expected, rel=1e-4)
    assert {"eval/loss/l1", "eval/loss/l1_bypass", "eval/f0_r2/codebook_0"} <= last.keys()
    config = configure()
    config = FSQConfig(
        **{
            **vars(config),
            "data": CodecData(str(tones), held_out_frac=0.2, window_s=0.2, clips_per_batch=4),
            "mixed_precision": "no",
        }
    )
    kill_and_resume(RECIPES["fsq-tiny"], config, tmp_path / "killed", step=6)
    assert rows(tmp_path / "killed") == rows(tmp_path / "run")


def test_its_codes_are_encoded_and_decoded(tones, tmp_path, capsys):
    assert main(["train", "fsq-tiny", "--data.path", str(tones), "--steps", "2", "--out", str(tmp_path / "run")]) == 0
    codec = str(checkpoints(tmp_path / "run")[-1])
    encode = ["encode", str(tones / "0.wav"), str(tmp_path / "codes.safetensors"), "--codec", codec]
    assert main(encode) == 0 and main(["decode", str(tmp_path / "codes.safetensors"), str(tmp_path / "out.wav")]) == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 6000
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "small")]) == 2
    assert "FSQCodec" in capsys.readouterr().err


def test_a_code_is_decoded_to_what_forward_gave():
    quantiser = FSQ((5, 5, 3))
    quantised = quantiser(torch.randn(2, 3, 7))
    torch.testing.assert_close(quantiser.decode(quantised.codes_BCT), quantised.latent_BDT)
    assert int(quantised.codes_BCT.max()) < 75


def test_trace_and_check_know_it(tones, capsys):
    assert main(["trace", "fsq-tiny", "--data.path", str(tones)]) == 0
    assert "codes_BCT" in capsys.readouterr().out
    assert main(["check", "fsq-tiny"]) == 0
    said = capsys.readouterr().out
    assert "codec.encoder.*.weight" in said and "discriminator.last.weight" in said and "none" not in said

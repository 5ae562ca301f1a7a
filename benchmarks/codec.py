"""How fast Amy trains, encodes and decodes, beside transformers' codecs of the same sizes: `python -m benchmarks.codec
[--full]`.

- amy around Mimi, against MimiModel with the same configuration and weights; a MimiModel cannot train through its
  codebooks, so the training step beside it goes from its encoder straight to its decoder: the difference is what our
  quantiser costs.
- amy-tiny, against a DacModel with the same rate, frames, codebooks and about as many weights.

A training step is forward, log mel loss and commitment (DAC: its own quantiser losses), and backward, without a
discriminator. Every codec hears the same audio. `--full` takes Mimi at its real size.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from transformers import DacConfig, DacModel, MimiConfig, MimiModel

from benchmarks.side_by_side import Comparison, show
from earnest.codecs.amy import Amy
from earnest.codecs.mimi import AmyMimi
from earnest.codecs.rvq import ResidualVQ
from earnest.codecs.trainable import TrainableCodec
from earnest.losses.waveform import MultiScaleMelLoss

Job = Callable[[], object]
Pair = tuple[dict[str, Job], dict[str, Job], tuple[str, str], str]  # ours, theirs, their names, what is equal


def placed(codec: TrainableCodec[ResidualVQ]) -> TrainableCodec[ResidualVQ]:
    """Codebooks of random entries: speed does not depend on what they say."""
    for k in range(codec.codebooks):
        codec.quantiser.place(k, torch.randn_like(codec.quantiser.codebook_CVD[k]), 1.0)
    return codec


def jobs_of_ours(codec: TrainableCodec[ResidualVQ], wave_BN: Tensor) -> dict[str, Job]:
    mel = MultiScaleMelLoss(codec.sample_rate_hz)
    codes_BCT = codec.eval().encode(wave_BN)

    def train() -> None:
        codec.train().zero_grad()
        result = codec(wave_BN)
        (mel(result.wave_BN, wave_BN)[0] + result.quantised.losses["commitment"]).backward()

    return {
        "train": train,
        "encode": lambda: codec.eval().encode(wave_BN),
        "decode": lambda: codec.eval().decode(codes_BCT),
    }


def jobs_of_theirs(
    model: nn.Module, forward: Callable[[Tensor], tuple[Tensor, Tensor]], rate_hz: int, wave_BN: Tensor
) -> dict[str, Job]:
    """forward: wave_B1N -> (reconstruction, the model's own losses)."""
    mel = MultiScaleMelLoss(rate_hz)
    wave_B1N = wave_BN[:, None]

    def train() -> None:
        model.train().zero_grad()
        out, own = forward(wave_B1N)
        (mel(out.flatten(1)[:, : wave_BN.shape[1]], wave_BN[:, : out.shape[-1]])[0] + own).backward()

    @torch.no_grad()
    def encode() -> Tensor:
        return model.eval().encode(wave_B1N).audio_codes  # type: ignore[operator]

    codes_BCT = encode()

    @torch.no_grad()
    def decode() -> object:
        return model.eval().decode(audio_codes=codes_BCT)  # type: ignore[operator]

    return {"train": train, "encode": encode, "decode": decode}


def mimi_pair(full: bool, clips: int, seconds: float) -> Pair:
    small: dict[str, Any] = {
        "hidden_size": 128,
        "num_filters": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    small |= {"intermediate_size": 512, "head_dim": 32, "upsample_groups": 128}
    small |= {"codebook_dim": 64, "vector_quantization_hidden_dimension": 64}
    config = MimiConfig(num_quantizers=9, num_semantic_quantizers=2, **({} if full else small))
    mimi: Any = MimiModel(config)
    ours = placed(AmyMimi(mimi, (2, 7)))
    wave_BN = 0.1 * torch.randn(clips, round(seconds * 24_000 / 1920) * 1920)
    straight = lambda wave_B1N: (mimi.decoder(mimi.encoder(wave_B1N).latents).audio_values, torch.zeros(()))  # noqa: E731
    names = f"amy around Mimi, {sum(p.numel() for p in ours.parameters()) / 1e6:.1f} M weights", "MimiModel"
    return jobs_of_ours(ours, wave_BN), jobs_of_theirs(mimi, straight, 24_000, wave_BN), names, "the same weights"


def dac_pair(clips: int, seconds: float) -> Pair:
    ours = placed(Amy())
    ratios = {"downsampling_ratios": [2, 4, 5, 8], "upsampling_ratios": [8, 5, 4, 2]}
    sizes: dict[str, Any] = {
        "encoder_hidden_size": 12,
        "decoder_hidden_size": 288,
        "n_codebooks": 8,
        "codebook_size": 1024,
        "codebook_dim": 8,
    }
    dac = DacModel(DacConfig(sampling_rate=16_000, **ratios, **sizes))
    wave_BN = 0.1 * torch.randn(clips, round(seconds * 50) * 320)

    def forward(wave_B1N: Tensor) -> tuple[Tensor, Tensor]:
        out = dac(wave_B1N)
        return out.audio_values, out.loss.mean()

    weights = [sum(p.numel() for p in one.parameters()) / 1e6 for one in (ours, dac)]
    return (
        jobs_of_ours(ours, wave_BN),
        jobs_of_theirs(dac, forward, 16_000, wave_BN),
        (f"amy-tiny, {weights[0]:.1f} M weights", f"DacModel, {weights[1]:.1f} M weights"),
        "none: two architectures",
    )


def comparisons(full: bool = False, clips: int = 4, seconds: float = 1.04, rounds: int = 5) -> Iterator[Comparison]:
    """
    Args:
        full: Mimi at its real size, 79 M weights.
        clips: clips in a batch.
        seconds: length of each.
        rounds: how often each is measured, after one that is not.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for ours, theirs, names, parity in (mimi_pair(full, clips, seconds), dac_pair(clips, seconds)):
        for job, call in ours.items():
            what = f"{names[0]}: {job}, {clips} x {seconds:g} s"
            yield Comparison(what, names[1], call, theirs[job], parity, rounds)
            if job != "train":
                rounded = partial(in_bf16, call)
                what = f"{names[0]}: {job} in bfloat16, {clips} x {seconds:g} s"
                yield Comparison(what, names[1], rounded, theirs[job], nearness(call(), rounded()), rounds)


def in_bf16(job: Job) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        made = job()
    assert isinstance(made, Tensor)
    return made


def nearness(exact: object, rounded: Tensor) -> str:
    """How near what was made in bf16 is to what is exact: equal codes, or signal by noise."""
    assert isinstance(exact, Tensor)
    if not exact.is_floating_point():
        return f"{(exact == rounded).double().mean():.1%} of our exact codes equal"
    noise = exact - rounded.float()
    return f"{10 * (exact.square().sum() / noise.square().sum()).log10():.0f} dB above the difference to our exact wave"


if __name__ == "__main__":
    show(tyro.cli(comparisons))

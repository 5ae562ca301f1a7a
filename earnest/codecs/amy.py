"""The trainable codec: a spectral front end, ConvNeXt blocks, a residual quantiser, and an inverse STFT at the end.

All layers work at 100 or 50 Hz: a transform with a fixed basis is the strided convolution that gets down from the
sample rate, and the transposed one that gets back (Vocos, Siuzdak 2023, arXiv:2306.00814; ConvNeXt, Liu et al. 2022,
arXiv:2201.03545). On a CPU that is what lets so small a codec train in an hour.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from earnest.codecs.rvq import ResidualVQ
from earnest.codecs.trainable import TrainableCodec
from earnest.errors import UserError
from earnest.records import read, read_object


@dataclass(frozen=True)
class AmyShape:
    sample_rate_hz: int = 16_000
    """Samples per second of the audio that goes in and comes out."""
    hop_samples: int = 320
    """Samples per codec frame; even, as the layers next to the audio work at twice the frame rate."""
    window_samples: int = 640
    """Length of the STFT's window, in the front end and at the end."""
    phase_bins: int = 128
    """Lowest bins of the spectrum whose phase the encoder sees; of the others it sees the magnitude."""
    encoder_dim: int = 192
    """Width of the encoder."""
    encoder_hidden: int = 512
    """Width inside the encoder's blocks."""
    encoder_blocks: int = 2
    """Blocks of the encoder at twice the frame rate; one more follows at the frame rate."""
    decoder_dim: int = 256
    """Width of the decoder."""
    decoder_hidden: int = 512
    """Width inside the decoder's blocks."""
    decoder_blocks: int = 4
    """Blocks of the decoder at twice the frame rate, after one at the frame rate."""
    codebooks: int = 8
    """Number of codebooks."""
    codebook_size: int = 1024
    """Entries of each codebook."""
    codebook_dim: int = 48
    """Dimensions of an entry."""
    parallel: bool = False
    """Codebooks 0 and 1 quantise the latent by themselves, and the others the same latent beside them, each side
    through a projection of its own (as in Mimi); otherwise every codebook quantises what all before it left over."""
    semantic_dim: int = 0
    """Dimensions of the space in which codebook 0 is chosen: a linear map, taught by the language model, of the latent
    without pitch and level; 0 to choose it by the whole latent, as the others are."""


def _check(shape: AmyShape) -> None:
    """Raises UserError for a frame that cannot be halved, a window that leaves gaps, and phases that are not there."""
    if shape.hop_samples % 2:
        raise UserError(
            f"--shape.hop-samples {shape.hop_samples}", "an even number", f"--shape.hop-samples {shape.hop_samples + 1}"
        )
    if shape.window_samples % 2 or shape.window_samples < shape.hop_samples // 2:
        raise UserError(
            f"--shape.window-samples {shape.window_samples}",
            f"an even number, {shape.hop_samples // 2} (half a frame) or more",
            f"--shape.window-samples {2 * shape.hop_samples}",
        )
    if shape.phase_bins > shape.window_samples // 2 + 1:
        raise UserError(
            f"--shape.phase-bins {shape.phase_bins} of a window of {shape.window_samples}",
            f"at most the {shape.window_samples // 2 + 1} bins that it has",
            "lower it, or lengthen the window",
        )


class Amy(TrainableCodec[ResidualVQ]):
    """The codec of an `AmyShape`.

    Zeros that pad a clip are silence to the encoder, which alone would have met the end of its input: the codes of the
    frames within 7 of the end may differ, all earlier ones are equal up to rounding, which may tip a tie between two
    entries.
    """

    window_W: Tensor

    def __init__(self, shape: AmyShape = AmyShape(), name: str = "amy"):
        super().__init__()
        _check(shape)
        self.shape, self.name = shape, name
        self.register_buffer("window_W", torch.hann_window(shape.window_samples), persistent=False)
        bins = shape.window_samples // 2 + 1
        width, hidden = shape.encoder_dim, shape.encoder_hidden
        self.encoder = nn.Sequential(
            nn.Linear(bins + 2 * shape.phase_bins, width),
            nn.LayerNorm(width),
            *[ConvNeXtBlock(width, hidden, shape.encoder_blocks + 2) for _ in range(shape.encoder_blocks)],
            Halve(width),
            ConvNeXtBlock(width, hidden, shape.encoder_blocks + 2),
            nn.LayerNorm(width),
            nn.Linear(width, shape.codebook_dim),
        )
        groups, projected = (
            ((2, shape.codebooks - 2), shape.codebook_dim) if shape.parallel else ((shape.codebooks,), None)
        )
        self.quantiser = ResidualVQ(
            groups, shape.codebook_size, shape.codebook_dim, projected, key_dim=shape.semantic_dim
        )
        width, hidden = shape.decoder_dim, shape.decoder_hidden
        self.decoder = nn.Sequential(
            TimeConv(shape.codebook_dim, width, kernel=3),
            nn.LayerNorm(width),
            ConvNeXtBlock(width, hidden, shape.decoder_blocks + 1),
            Twice(width),
            *[ConvNeXtBlock(width, hidden, shape.decoder_blocks + 1) for _ in range(shape.decoder_blocks)],
            nn.LayerNorm(width),
        )
        self.head = nn.Linear(width, 2 * bins)

    @property
    def sample_rate_hz(self) -> int:
        return self.shape.sample_rate_hz

    @property
    def hop_samples(self) -> int:
        return self.shape.hop_samples

    @property
    def context_frames(self) -> tuple[float, float]:
        """1 of the first convolution and 3 of a block; at twice the frame rate 3 a block, and what windows overlap."""
        overlap = math.ceil((self.shape.window_samples / self._step - 1) / 2)
        frames = 1 + 3 + math.ceil((3 * self.shape.decoder_blocks + overlap) / 2)
        return frames, frames

    def latent(self, wave_BN: Tensor) -> Tensor:
        return self.encoder(self._spectral_features(wave_BN)).float().transpose(1, 2)

    def synthesise(self, latent_BDT: Tensor) -> Tensor:
        log_magnitude_BTF, angle_BTF = self.head(self.decoder(latent_BDT.transpose(1, 2))).float().chunk(2, -1)
        # 1e2: a bin of a full-scale sine has the window's sum / 2 = 160; the bound keeps the first steps from
        # overflowing
        spectrum_BTF = torch.polar(log_magnitude_BTF.exp().clamp_max(1e2), angle_BTF)
        frames_BTW: Tensor = torch.fft.irfft(spectrum_BTF, self.shape.window_samples)
        return self._overlap_add(frames_BTW * self.window_W)

    @property
    def _step(self) -> int:
        return self.shape.hop_samples // 2

    @torch.no_grad()
    def _spectral_features(self, wave_BN: Tensor) -> Tensor:
        """Log magnitudes, and the lowest bins' phase weighted by a compressed magnitude: (B, 2 T, features).

        Frame i looks at the window centred in its own half hop; beyond the clip there is silence.
        """
        N = wave_BN.shape[1]
        if not N:
            raise ValueError("a wave of 0 samples has no frames")
        edge = (self.shape.window_samples - self._step) // 2
        padded_BN = F.pad(wave_BN.float(), (edge, edge + -N % self.shape.hop_samples))
        frames_BTW: Tensor = padded_BN.unfold(1, self.shape.window_samples, self._step)
        spectrum_BTF: Tensor = torch.fft.rfft(frames_BTW * self.window_W)
        magnitude_BTF = spectrum_BTF.abs().clamp_min(1e-3)  # -104 dB of a full-scale sine
        low_BTF = (spectrum_BTF * magnitude_BTF**-0.7)[..., : self.shape.phase_bins]
        return torch.cat([magnitude_BTF.log() * 0.3 + 0.8, low_BTF.real, low_BTF.imag], -1)

    def _overlap_add(self, frames_BTW: Tensor) -> Tensor:
        """Windowed frames -> wave, divided by the windows' sum of squares, its ends cut as `_spectral_features` padded
        them."""
        edge = (self.shape.window_samples - self._step) // 2

        def fold(frames_BTW: Tensor) -> Tensor:
            length = (frames_BTW.shape[1] - 1) * self._step + self.shape.window_samples
            return F.fold(
                frames_BTW.transpose(1, 2), (1, length), (1, self.shape.window_samples), stride=(1, self._step)
            )[:, 0, 0]

        envelope_BN = fold(self.window_W.square().expand(1, frames_BTW.shape[1], -1))
        return (fold(frames_BTW)[:, edge:-edge] / envelope_BN[:, edge:-edge]).contiguous()

    def save_pretrained(self, directory: Path) -> None:
        """Write config.json and model.safetensors, in fp32."""
        self._write(Path(directory), self.state_dict())

    def export(self, directory: Path) -> None:
        """Write what encoding and decoding need, in fp16: half the size, and too coarse to train on."""
        tensors = self.state_dict()
        kept = {name: tensor for name, tensor in tensors.items() if name not in TRAINING_ONLY}
        self._write(
            Path(directory),
            {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in kept.items()},
        )

    def _write(self, directory: Path, tensors: dict[str, Tensor]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(
            json.dumps({"model_type": "amy", "name": self.name, **asdict(self.shape)}, indent=1) + "\n"
        )
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")

    @classmethod
    def from_pretrained(cls, directory: Path) -> "Amy":
        """Read what `save_pretrained` or `export` wrote; the codec is in evaluation mode, in fp32.

        Raises UserError if the weights are not those of the configuration.
        """
        file = Path(directory) / "config.json"
        config = read_object(file)
        shape = read(AmyShape, config, str(file), "take both files of one codec")
        name = str(config.get("name", file.parent.name))
        try:
            tensors = load_file(file.with_name("model.safetensors"))
            if max(shape.encoder_blocks, shape.decoder_blocks) > len(tensors):
                raise ValueError(f"{len(tensors)} tensors in model.safetensors")
            with torch.device("meta"):  # sizes that do not fit the weights take no memory
                expected = {name: tuple(tensor.shape) for name, tensor in cls(shape, name).state_dict().items()}
        except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
            told = " ".join(str(error).split())[:200]
            raise UserError(
                f"{directory}: {told}", "config.json and model.safetensors of one codec", "copy both again"
            ) from error
        wrong = [
            f"{name} {tuple(tensor.shape)} for {expected.get(name)}"
            for name, tensor in tensors.items()
            if tuple(tensor.shape) != expected.get(name)
        ]
        wrong += [f"{name} is absent" for name in expected.keys() - tensors.keys() - TRAINING_ONLY]
        if wrong:
            raise UserError(
                f"weights of another shape in {directory}: {'; '.join(wrong[:3])}",
                "the weights that config.json describes",
                "take both files of one codec",
            )
        codec = cls(shape, name)
        codec.load_state_dict(tensors, strict=False)
        return codec.eval()


TRAINING_ONLY = {
    f"quantiser.{name}"
    for name in ("count_CV", "total_CVD", "key_total_VK", "erasure.covariance_DD", "erasure.cross_DY")
}


class ConvNeXtBlock(nn.Module):
    """x_BTD + a depthwise convolution over 7 frames, a norm and a two-layer network; `depth` blocks share the initial
    scale."""

    def __init__(self, width: int, hidden: int, depth: int):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.scale_D = nn.Parameter(torch.full((width,), 1 / depth))

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD = self.norm(self.depthwise(x_BTD.transpose(1, 2)).transpose(1, 2))
        return x_BTD + self.scale_D * self.narrow(F.gelu(self.widen(y_BTD), approximate="tanh"))


class TimeConv(nn.Module):
    """A convolution over time of x_BTD -> (B, T, out)."""

    def __init__(self, width: int, out: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(width, out, kernel, padding=kernel // 2)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.conv(x_BTD.transpose(1, 2)).transpose(1, 2)


class Halve(nn.Module):
    """Strided convolution: each pair of frames becomes one; (B, 2 T, D) -> (B, T, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.join = nn.Linear(2 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.join(x_BTD.unflatten(1, (-1, 2)).flatten(2))


class Twice(nn.Module):
    """Transposed convolution: each frame becomes a pair; (B, T, D) -> (B, 2 T, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.split = nn.Linear(width, 2 * width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.split(x_BTD).unflatten(2, (2, -1)).flatten(1, 2)

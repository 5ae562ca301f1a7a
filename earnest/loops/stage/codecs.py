"""Stand-ins for packages of audio that are not installed, where codes, samples or phonemes are wanted from them:
torchaudio's files are read by soundfile, a codec's codes are random, and the letters of a text are its phonemes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HOP = 512  # samples to a frame of a stand-in codec
SNAC_SHARES = (4, 2, 1)  # frames of the last codebook to one of each
MIMI_CLASSES, DAC_CLASSES, SNAC_CLASSES = 2048, 1024, 4096


def load(path: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
    """torchaudio.load: samples (channels, N) and the rate in Hz."""
    import soundfile

    samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    return torch.as_tensor(samples.T.copy()), int(rate_hz)


def resample(waveform: Tensor, orig_freq: int, new_freq: int, *args: Any, **kwargs: Any) -> Tensor:
    """torchaudio.functional.resample, by linear interpolation."""
    size = round(waveform.shape[-1] * new_freq / orig_freq)
    flat = waveform.reshape(1, -1, waveform.shape[-1]).float()
    return nn.functional.interpolate(flat, size=size, mode="linear").reshape(*waveform.shape[:-1], size)


class Resample(nn.Module):
    """torchaudio.transforms.Resample."""

    def __init__(self, orig_freq: int = 16000, new_freq: int = 16000, *args: Any, **kwargs: Any):
        super().__init__()
        self.rates = orig_freq, new_freq

    def forward(self, waveform: Tensor) -> Tensor:
        return resample(waveform, *self.rates)


class Codec(nn.Module):
    """A codec without weights: random codes, one frame to `HOP` samples, the same for the same number of samples."""

    classes, codebooks, sampling_rate, sample_rate, device = DAC_CLASSES, 9, 44100, 44100, torch.device("cpu")

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> "Codec":
        return cls()

    from_pretrained = load

    def preprocess(self, audio: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return audio

    def codes(self, audio: Tensor) -> Tensor:
        """(B, C, T)."""
        frames = max(1, audio.shape[-1] // HOP)
        generator = torch.Generator().manual_seed(frames)
        return torch.randint(0, self.classes, (len(audio), self.codebooks, frames), generator=generator)


class Dac(Codec):
    """Stands in for descript-audio-codec's `DAC`: random codes of the right shape."""

    def encode(self, audio: Tensor, n_quantizers: int | None = None, *args: Any) -> tuple[Tensor, ...]:
        codes, nothing = self.codes(audio)[:, :n_quantizers], torch.zeros(1)
        return codes.float(), codes, nothing, nothing, nothing


class Snac(Codec):
    """Stands in for `snac.SNAC`: random codes, each codebook at its own rate."""

    classes, codebooks, sampling_rate = SNAC_CLASSES, len(SNAC_SHARES), 24000

    def encode(self, audio: Tensor) -> list[Tensor]:
        codes, whole = self.codes(audio), SNAC_SHARES[0]
        frames = max(1, codes.shape[-1] // whole)
        return [codes[:, c].repeat(1, whole)[:, : frames * (whole // share)] for c, share in enumerate(SNAC_SHARES)]


def read_mono(path: Any, *args: Any, sr: int | None = 22050, **kwargs: Any) -> tuple[Any, int]:
    """librosa.load: samples (N,) and the rate in Hz."""
    samples, rate_hz = load(path)
    mono = samples.mean(0)
    return (mono.numpy(), rate_hz) if sr is None else (resample(mono, rate_hz, sr).numpy(), sr)


def normalized(samples: Any, *args: Any, **kwargs: Any) -> Any:
    """librosa.util.normalize."""
    return samples / max(float(abs(samples).max()), 1e-9)


def mel_filters(sr: float, n_fft: int, n_mels: int = 128, *args: Any, **kwargs: Any) -> Any:
    """librosa.filters.mel, with bands of equal width."""
    bins = torch.arange(1 + n_fft // 2)
    return (bins[None] * n_mels // len(bins) == torch.arange(n_mels)[:, None]).float().numpy()


def spelled(text: Any, *args: Any, **kwargs: Any) -> Any:
    """phonemizer.phonemize: the text itself, or the list of texts."""
    return text


class Phonemizer:
    """phonemizer.backend.EspeakBackend."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.phonemize = spelled


KNOWN: Mapping[str, Any] = {
    "phonemizer.phonemize": spelled,
    "phonemizer.backend.EspeakBackend": Phonemizer,
    "torchaudio.load": load,
    "torchaudio.functional.resample": resample,
    "torchaudio.transforms.Resample": Resample,
    "librosa.load": read_mono,
    "librosa.util.normalize": normalized,
    "librosa.filters.mel": mel_filters,
    "dac.DAC": Dac,
    "dac.model.DAC": Dac,
    "dac.utils.download": lambda *args, **kwargs: Path("weights.pth"),
    "snac.SNAC": Snac,
}

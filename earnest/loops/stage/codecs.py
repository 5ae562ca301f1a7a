"""Stand-ins for packages of audio that are not installed, where codes, samples or phonemes are wanted from them:
torchaudio's files are read by soundfile, a codec's codes are random, and the letters of a text are its phonemes."""

from collections.abc import Callable, Mapping
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


class Spectrogram(nn.Module):
    """torchaudio.transforms.Spectrogram: (..., N) -> (..., n_fft / 2 + 1, T), complex if `power` is None."""

    window: Tensor

    def __init__(
        self,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        pad: int = 0,
        window_fn: Callable[..., Tensor] = torch.hann_window,
        power: float | None = 2.0,
        normalized: bool | str = False,
        wkwargs: Mapping[str, Any] | None = None,
        center: bool = True,
        pad_mode: str = "reflect",
        **more: Any,
    ):
        super().__init__()
        self.n_fft, self.win_length = n_fft, win_length or n_fft
        self.hop_length, self.pad, self.power = hop_length or self.win_length // 2, pad, power
        self.normalized, self.center, self.pad_mode = normalized, center, pad_mode
        self.register_buffer("window", window_fn(self.win_length, **(wkwargs or {})))

    def forward(self, waveform: Tensor) -> Tensor:
        flat = nn.functional.pad(waveform.reshape(-1, waveform.shape[-1]), (self.pad, self.pad))
        bins = torch.stft(
            flat,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            self.center,
            self.pad_mode,
            return_complex=True,
        )
        bins = bins.reshape(*waveform.shape[:-1], *bins.shape[-2:])
        if self.normalized:
            bins = bins / self.window.pow(2).sum().sqrt()
        return bins if self.power is None else bins.abs().pow(self.power)


class MelSpectrogram(nn.Module):
    """torchaudio.transforms.MelSpectrogram: (..., N) -> (..., n_mels, T), with bands of equal width."""

    bands: Tensor

    def __init__(self, sample_rate: int = 16000, n_fft: int = 400, *args: Any, n_mels: int = 128, **more: Any):
        super().__init__()
        known = {name: value for name, value in more.items() if name not in ("f_min", "f_max", "norm", "mel_scale")}
        self.spectrogram = Spectrogram(n_fft, *args[:2], **known)
        self.register_buffer("bands", mel_filters(sample_rate, n_fft, n_mels, tensor=True))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.bands @ self.spectrogram(waveform)


def as_it_is(waveform: Tensor, rate_hz: int, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
    """torchaudio.sox_effects.apply_effects_tensor, without effects."""
    return waveform, rate_hz


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


def mel_filters(sr: float, n_fft: int, n_mels: int = 128, *args: Any, tensor: bool = False, **kwargs: Any) -> Any:
    """librosa.filters.mel, with bands of equal width. tensor: as one, not as an array."""
    bins = torch.arange(1 + n_fft // 2)
    bands = (bins[None] * n_mels // len(bins) == torch.arange(n_mels)[:, None]).float()
    return bands if tensor else bands.numpy()


def spelled(text: Any, *args: Any, **kwargs: Any) -> Any:
    """phonemizer.phonemize and what else rewrites texts: the text itself, or the list of texts."""
    return text


class Phonemizer:
    """phonemizer.backend.EspeakBackend."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.phonemize = spelled


KNOWN: Mapping[str, Any] = {
    "phonemizer.phonemize": spelled,
    "phonemizer.backend.EspeakBackend": Phonemizer,
    "unidecode.unidecode": spelled,
    "ftfy.fix_text": spelled,
    "torchaudio.load": load,
    "torchaudio.sox_effects.apply_effects_tensor": as_it_is,
    "torchaudio.transforms.Spectrogram": Spectrogram,
    "torchaudio.transforms.MelSpectrogram": MelSpectrogram,
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

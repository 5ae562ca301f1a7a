"""Codecs that transformers knows, as `Codec`s: DAC, EnCodec, Mimi and the Higgs tokenizer, chosen by the checkpoint's
model_type."""

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from earnest.codecs.resampling import as_torchaudio
from earnest.errors import UserError
from earnest.loading import checkpoint_of


def _of_dac(upsampling_ratios: list[int]) -> tuple[float, float]:
    """DAC's decoder (transformers' DacDecoder): a convolution over 7 frames, then for each ratio a transposed one and
    three residual units over 7 steps with dilations 1, 3 and 9, and one over 7 samples."""
    frames, steps_per_frame = 3.0, 1
    for ratio in upsampling_ratios:
        frames += 1 / steps_per_frame
        steps_per_frame *= ratio
        frames += 3 * (1 + 3 + 9) / steps_per_frame
    frames = math.ceil(frames + 3 / steps_per_frame)
    return frames, frames


class Family:
    """Where one model_type keeps what a codec needs: its class, and how to ask the model. As transformers names it in
    DAC and in the Higgs tokenizer; others differ."""

    model_class = "DacModel"

    def sample_rate_hz(self, config: Any) -> int:
        return config.sampling_rate

    def hop_samples(self, config: Any) -> int:
        return config.hop_length

    def encode(self, model: Any, wave_B1N: Tensor) -> Tensor:
        """-> codes_BCT."""
        return model.encode(wave_B1N).audio_codes

    def decode(self, model: Any, codes_BCT: Tensor) -> Tensor:
        """-> wave (B, N) or (B, 1, N)."""
        return model.decode(audio_codes=codes_BCT).audio_values

    def context_frames(self, config: Any) -> tuple[float, float]:
        return _of_dac(config.upsampling_ratios)


class _Encodec(Family):
    model_class = "EncodecModel"

    def encode(self, model: Any, wave_B1N: Tensor) -> Tensor:
        return model.encode(wave_B1N, bandwidth=max(model.config.target_bandwidths)).audio_codes[0]

    def decode(self, model: Any, codes_BCT: Tensor) -> Tensor:
        return model.decode(codes_BCT[None], [None]).audio_values

    def context_frames(self, config: Any) -> tuple[float, float]:
        """An LSTM reads all that is before; a clip's start is padded with what follows it."""
        return math.inf, 8 if config.use_causal_conv else math.inf


class _Mimi(Family):
    model_class = "MimiModel"

    def hop_samples(self, config: Any) -> int:
        return round(config.sampling_rate / config.frame_rate)

    def context_frames(self, config: Any) -> tuple[float, float]:
        """Attention reads all that is before."""
        return math.inf, 0 if config.use_causal_conv else math.inf


class _HiggsTokenizer(Family):
    model_class = "HiggsAudioV2TokenizerModel"

    def sample_rate_hz(self, config: Any) -> int:
        return config.sample_rate

    def decode(self, model: Any, codes_BCT: Tensor) -> Tensor:
        return model.decode(codes_BCT).audio_values

    def context_frames(self, config: Any) -> tuple[float, float]:
        return _of_dac(config.acoustic_model_config.upsampling_ratios)


FAMILIES = {"dac": Family(), "encodec": _Encodec(), "mimi": _Mimi(), "higgs_audio_v2_tokenizer": _HiggsTokenizer()}


class PretrainedCodec(nn.Module):
    """A transformers codec behind the `Codec` protocol, for inference.

    Of clips that are padded to twice their length (noise, random weights, a second each) DAC gives 1 % other codes, all
    in the last frame, and the Higgs tokenizer, whose semantic encoder attends over the whole row, 87 %
    (`python -m benchmarks.padding`): `data.store` encodes the ends of the one again, and of the other clips of one
    length together.
    """

    def __init__(self, name: str, model: Any, family: Family):
        super().__init__()
        self.name, self.model, self.family = name, model.eval(), family
        self.channels = 1
        self.sample_rate_hz = int(family.sample_rate_hz(model.config))
        self.hop_samples = int(family.hop_samples(model.config))
        self.codebook_size = int(model.config.codebook_size)
        # asked, as each config counts them in its own way
        self.codebooks = self.encode(torch.zeros(1, self.sample_rate_hz)).shape[1]
        self.eval()  # itself too: who puts it back as it was must not wake the dropout of its parts

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def context_frames(self) -> tuple[float, float]:
        return self.family.context_frames(self.model.config)

    @torch.no_grad()
    def encode(self, wave_BN: Tensor) -> Tensor:
        padded_BN = F.pad(wave_BN, (0, -wave_BN.shape[1] % self.hop_samples))
        return self.family.encode(self.model, padded_BN[:, None])[..., : padded_BN.shape[1] // self.hop_samples]

    @torch.no_grad()
    def decode(self, codes_BCT: Tensor) -> Tensor:
        wave_BN = self.family.decode(self.model, codes_BCT).flatten(1)
        samples = codes_BCT.shape[2] * self.hop_samples
        return F.pad(wave_BN, (0, max(0, samples - wave_BN.shape[1])))[:, :samples]


def model_class(name: str) -> Any:
    """A codec's class of transformers. That of the Higgs tokenizer is imported past transformers' own door, which is
    shut without torchaudio: it takes one function of it, which `resampling` has."""
    if name != "HiggsAudioV2TokenizerModel":
        return getattr(import_module("transformers"), name)
    with as_torchaudio():
        module = import_module("transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer")
    return getattr(module, name)


def load_pretrained(name_or_path: str) -> PretrainedCodec:
    """A checkpoint directory of transformers, or one on the Hub.

    Raises UserError if it cannot be read, is none of `FAMILIES`, is not mono, or scales its input (EnCodec 48 kHz).
    """
    import transformers

    try:
        config: Any = transformers.AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"codec {name_or_path!r}: {str(error).splitlines()[0]}",
            "a checkpoint that transformers can read",
            "check the name and the network",
        ) from error
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserError(
            f"{name_or_path}: model_type {config.model_type!r}",
            f"one of {', '.join(FAMILIES)}",
            "choose the checkpoint of a codec",
        )
    if getattr(config, "audio_channels", 1) != 1 or getattr(config, "normalize", False):
        raise UserError(
            f"{name_or_path} is stereo or scales its input",
            "a mono codec whose codes say everything",
            "take its 24 kHz mono version",
        )
    try:
        load = model_class(family.model_class).from_pretrained
        with checkpoint_of(name_or_path):
            model, report = load(
                name_or_path, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except (OSError, ImportError) as error:
        raise UserError(
            f"codec {name_or_path!r}: {' '.join(str(error).split())}",
            f"weights in safetensors, and what {family.model_class} needs",
            "add what is missing",
        ) from error
    differing = sorted(report["mismatched_keys"], key=lambda found: (-math.prod(found[1]), found[0]))  # a set otherwise
    if wrong := [f"{key} {tuple(there)} for {tuple(here)}" for key, there, here in differing]:
        raise UserError(
            f"weights of another shape in {name_or_path}: {'; '.join(wrong[:3])}",
            "the weights that config.json describes",
            "take both files of one codec",
        )
    return PretrainedCodec(name_or_path, model, family)

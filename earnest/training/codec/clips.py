"""From the place that a codec's configuration names to batches: clips are read, their teachers' features made, and
windows cut at random places."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earnest.codecs.trainable import TrainableCodec
from earnest.data.audio import ClipError
from earnest.data.clip import Clip
from earnest.data.layouts.chatml import Conversation
from earnest.data.pitch import pitch_and_level
from earnest.data.sides import split_clips
from earnest.data.teachers import FeatureTable, load_teacher, teach
from earnest.data.waves import FULL_SCALE, StoredWave, Waves, store_waves
from earnest.errors import UserError
from earnest.facts import Facts
from earnest.files import cache_dir
from earnest.losses.codec import CodecBatch
from earnest.training.clips import find_clips
from earnest.training.codec.assembly import CodecAssembly, Teaching
from earnest.training.codec.config import CodecConfig, CodecData
from earnest.training.run import OnProgress

HELD_OUT_S = 10  # of a held-out clip: scores are means over clips, and a long one would take the time of many


@dataclass(frozen=True)
class ClipSide:
    """The clips of one side, and by stream the features that its teachers have of them. Training waves are read as
    int16, held-out ones as float32 and cut at HELD_OUT_S."""

    clips: Sequence[Clip]
    waves: Waves
    features: Mapping[str, FeatureTable] = field(default_factory=dict[str, FeatureTable])

    def target_features(self, clip: int, first_frame: int, frames: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per teacher (features_TF, exists_T) of a stretch of a clip."""
        return {name: table.rows(self.clips[clip].name, first_frame, frames) for name, table in self.features.items()}


@dataclass(frozen=True)
class CodecClips:
    """Both sides; facts: what became of the clips, and their teachers."""

    train: ClipSide
    held_out: ClipSide
    facts: Facts


def read_and_teach(
    config: CodecConfig,
    assembly: CodecAssembly,
    device: torch.device,
    on_progress: OnProgress,
    most: int | None = None,
) -> CodecClips:
    """Read all clips, or the first `most` of them, and let the teachers look at them."""
    rate_hz, skipped = assembly.codec.sample_rate_hz, list[ClipError]()
    sides = split_clips(_clips(config.data)[:most], config.data.held_out_frac, config.seed)
    total = sum(map(len, sides))
    train, held_out = (
        ClipSide(store_waves(side, waves, rate_hz, skipped, total), waves)
        for side, waves in zip(sides, (Waves(in_16_bits=not assembly.teachers), Waves()), strict=True)
    )
    teachers: dict[str, dict[str, Any]] = {}
    for stream, teaching in assembly.teachers.items():
        train, held_out, teachers[stream] = _taught(
            stream, teaching, assembly.codec, train, held_out, device, on_progress
        )
        if not teachers[stream]["frames_taught_frac"]:
            raise UserError(
                f"--{stream} {teaching.name}, which says nothing of any clip of {config.data.path}",
                "transcripts that a language model can read: a column text in metadata.csv or metadata.jsonl",
                f"add them, or leave --{stream} out",
            )
    train = replace(train, waves=train.waves.in_16_bits())
    held_out = replace(held_out, waves=held_out.waves.cut(HELD_OUT_S * rate_hz))
    facts = Facts(
        train_clips=len(train.clips),
        train_s=train.waves.samples / rate_hz,
        held_out_clips=len(held_out.clips),
        left_out_clips=tuple(str(error) for error in skipped),
        teachers=teachers,
    )
    return CodecClips(train, held_out, facts)


def _clips(data: CodecData) -> Sequence[Clip]:
    clips = find_clips(data, needed=())
    if any(isinstance(clip, Conversation) for clip in clips):
        raise UserError(f"conversations in {data.path} for a codec", "a folder of audio", "name one with --data.path")
    return [clip for clip in clips if isinstance(clip, Clip)]


def _taught(
    stream: str,
    teaching: Teaching,
    codec: TrainableCodec[Any],
    train: ClipSide,
    held_out: ClipSide,
    device: torch.device,
    on_progress: OnProgress,
) -> tuple[ClipSide, ClipSide, dict[str, Any]]:
    """Both sides with the features of one more teacher, and facts about it."""
    if teaching.codebook >= codec.codebooks:
        raise UserError(
            f"a codec of {codec.codebooks} codebook and --{stream}",
            "codebooks 0 and 1",
            "give the codec more codebooks",
        )
    teacher = load_teacher(teaching.name, teaching.layer, device)

    def with_features(side: ClipSide, kind: str) -> ClipSide:
        waves = (wave[:] for wave in side.waves)
        table = teach(
            *(teacher, side.clips, waves, codec.sample_rate_hz, codec.hop_samples, cache_dir() / "teachers"),
            lambda done, total: on_progress(f"teacher {stream}", done, total, kind),
        )
        return replace(side, features={**side.features, stream: table})

    train, held_out = with_features(train, "clips"), with_features(held_out, "held-out clips")
    return (
        train,
        held_out,
        {
            "name": teaching.name,
            "layer": teaching.layer,
            "alignment": teacher.alignment,
            "clips_with_words_timed": sum(bool(clip.words) for clip in train.clips),
            "frames_taught_frac": train.features[stream].exists_frac,
        },
    )


def batches(
    train: ClipSide, config: CodecConfig, codec: TrainableCodec[Any], device: torch.device, skip: int = 0
) -> Iterator[CodecBatch]:
    """Random windows, the teachers' features of them, and their pitch and level if the quantiser wants them.

    With teachers a window begins with a frame, else anywhere.
    """
    hop = codec.hop_samples
    window = math.ceil(config.data.window_s * codec.sample_rate_hz / hop) * hop
    every = hop if train.features else 1
    for wave_BN, places in random_windows(train.waves, window, config.data.clips_per_batch, config.seed, every, skip):
        targets = [train.target_features(clip, start // hop, window // hop) for clip, start in places]
        features = dict[str, tuple[Tensor, Tensor]]()
        for name in train.features:
            features_BTF, exists_BT = (np.stack([clip[name][part] for clip in targets]) for part in (0, 1))
            features[name] = torch.as_tensor(features_BTF).to(device), torch.as_tensor(exists_BT).to(device)
        pitch_and_level_BT2 = None
        if codec.quantiser.wants_pitch_and_level:
            measured = [pitch_and_level(wave_N, codec.sample_rate_hz, hop).features_T2() for wave_N in wave_BN.numpy()]
            pitch_and_level_BT2 = torch.as_tensor(np.stack(measured)).float().to(device)
        yield CodecBatch(wave_BN.to(device), features, pitch_and_level_BT2)


def random_windows(
    waves: Sequence[np.ndarray] | Sequence[StoredWave],
    window: int,
    clips: int,
    seed: int,
    every: int = 1,
    skip: int = 0,
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Yield wave_BN and (clip, first sample) of each row, without end: windows at random places of clips drawn in
    proportion to their durations, beginning at a multiple of `every` samples.

    A function of (seed, step): `skip` steps are left out without being drawn, as a resumed run needs.
    """
    share = np.array([len(wave_N) for wave_N in waves], dtype=np.float64)
    share /= share.sum()
    for step in range(skip, 2**62):
        random = np.random.default_rng([seed, step])
        wave_BN, places = np.zeros((clips, window), dtype=np.float32), list[tuple[int, int]]()
        chosen: list[int] = random.choice(len(waves), clips, p=share).tolist()
        for row_N, clip in zip(wave_BN, chosen, strict=True):
            start = every * int(random.integers(max(len(waves[clip]) - window, 0) // every + 1))
            piece_N = waves[clip][start : start + window]
            row_N[: len(piece_N)] = piece_N / FULL_SCALE
            places.append((clip, start))
        yield torch.as_tensor(wave_BN), places

"""From the place that a codec's configuration names to batches: clips read, heard by the teachers, and cut at random
places."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from earnest.codecs.amy import TrainableCodec
from earnest.data.audio import ClipError
from earnest.data.folder import Clip, load_clips, read_clips, split_clips
from earnest.data.pitch import pitch_and_level
from earnest.data.teachers import FeatureTable, load_teacher, teach
from earnest.errors import UserError
from earnest.files import cache_dir
from earnest.losses.codec import TAUGHT, CodecBatch
from earnest.training.codec_config import CodecConfig
from earnest.training.session import OnProgress


@dataclass(frozen=True)
class Heard:
    """The clips of one side. Training waves are int16 (115 MB an hour, kept in memory), held-out ones float32 and cut
    at ten seconds: their scores are means over clips, and a long one would take the time of many."""

    clips: list[Clip]
    waves: list[np.ndarray]
    features: dict[str, FeatureTable] = field(default_factory=dict)

    def taught(self, clip: int, first_frame: int, frames: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per teacher (features_TF, exists_T) of a stretch of a clip."""
        return {name: table.rows(self.clips[clip].name, first_frame, frames) for name, table in self.features.items()}


def listen(
    config: CodecConfig, codec: TrainableCodec, device: torch.device, on_progress: OnProgress
) -> tuple[Heard, Heard, dict]:
    """Read all clips, let the teachers see them -> (training, held out, facts)."""
    rate_hz = codec.sample_rate_hz
    sides = split_clips(load_clips(config.data.path, needed=()), config.data.held_out_frac, config.seed)
    skipped: list[ClipError] = []
    train, held_out = [list(read_clips(side, rate_hz, skipped)) for side in sides]
    facts = {
        "train_clips": len(train),
        "train_s": sum(len(wave_N) for _, wave_N in train) / rate_hz,
        "held_out_clips": len(held_out),
        "held_out_names": [clip.name for clip, _ in held_out],
        "left_out_clips": [str(error) for error in skipped],
        "teachers": {},
    }
    heard = [Heard([clip for clip, _ in pairs], [wave_N for _, wave_N in pairs]) for pairs in (train, held_out)]
    for stream, (name, layer) in {
        "llm": (config.llm, config.llm_layer),
        "wavlm": (config.wavlm, config.wavlm_layer),
    }.items():
        if not name or not getattr(config.loss_weights, stream):
            continue
        if TAUGHT[stream] >= codec.codebooks:
            raise UserError(
                f"a codec of {codec.codebooks} codebook and --{stream}",
                "codebooks 0 and 1",
                "give the codec more codebooks",
            )
        teacher = load_teacher(name, layer, device)
        for side, what in zip(heard, ("clips", "held-out clips"), strict=True):
            note = lambda done, total, what=what: on_progress(f"teacher {stream}", done, total, what)  # noqa: B023, E731
            cache = cache_dir() / "teachers"
            side.features[stream] = teach(teacher, side.clips, side.waves, rate_hz, codec.hop_samples, cache, note)
        if not heard[0].features[stream].exists_frac:
            raise UserError(
                f"--{stream} {name}, which says nothing of any clip of {config.data.path}",
                "transcripts that a language model can read: a column text in metadata.csv or metadata.jsonl",
                f"add them, or leave --{stream} out",
            )
        facts["teachers"][stream] = {
            "name": name,
            "layer": layer,
            "alignment": teacher.alignment,
            "clips_with_words_timed": sum(bool(clip.words) for clip in heard[0].clips),
            "frames_taught_frac": heard[0].features[stream].exists_frac,
        }
    quantise = lambda wave_N: np.rint(wave_N.clip(-1, 1) * 32767).astype(np.int16)  # noqa: E731
    return (
        Heard(heard[0].clips, [quantise(wave_N) for wave_N in heard[0].waves], heard[0].features),
        Heard(heard[1].clips, [wave_N[: 10 * rate_hz] for wave_N in heard[1].waves], heard[1].features),
        facts,
    )


def batches(
    train: Heard, config: CodecConfig, codec: TrainableCodec, device: torch.device, skip: int = 0
) -> Iterator[CodecBatch]:
    """Random windows, what the teachers say of them, and how high and loud they are where that is to be taken out of
    codebook 0's keys.

    With teachers a window begins with a frame, else anywhere.
    """
    hop = codec.hop_samples
    window = math.ceil(config.data.window_s * codec.sample_rate_hz / hop) * hop
    every = hop if train.features else 1
    for wave_BN, places in random_windows(train.waves, window, config.data.clips_per_batch, config.seed, every, skip):
        taught = [train.taught(clip, start // hop, window // hop) for clip, start in places]
        features = {}
        for name in train.features:
            stacked = (np.stack([one[name][part] for one in taught]) for part in (0, 1))
            features[name] = tuple(torch.from_numpy(array).to(device) for array in stacked)
        prosody_BT2 = None
        if codec.quantiser.erasure is not None:
            prosody = [pitch_and_level(wave_N, codec.sample_rate_hz, hop).features_T2() for wave_N in wave_BN.numpy()]
            prosody_BT2 = torch.from_numpy(np.stack(prosody)).float().to(device)
        yield CodecBatch(wave_BN.to(device), features, prosody_BT2)


def random_windows(
    waves: Sequence[np.ndarray], window: int, clips: int, seed: int, every: int = 1, skip: int = 0
) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
    """Yield wave_BN and (clip, first sample) of each row, without end: windows at random places of clips drawn in
    proportion to their durations, beginning at a multiple of `every` samples.

    A function of (seed, step): `skip` steps are left out without being drawn, as a resumed run needs.
    """
    share = np.array([len(wave_N) for wave_N in waves], dtype=np.float64)
    share /= share.sum()
    for step in range(skip, 2**62):
        random = np.random.default_rng([seed, step])
        wave_BN, places = np.zeros((clips, window), dtype=np.float32), []
        for row_N, clip in zip(wave_BN, random.choice(len(waves), clips, p=share), strict=True):
            start = every * int(random.integers(max(len(waves[clip]) - window, 0) // every + 1))
            piece_N = waves[clip][start : start + window]
            row_N[: len(piece_N)] = piece_N / 32767
            places.append((int(clip), start))
        yield torch.from_numpy(wave_BN), places

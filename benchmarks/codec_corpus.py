"""The folder of audio that the embedded codec was trained on: `python -m benchmarks.codec_corpus OUT`.

Needs the Debian packages asterisk-core-sounds-{en,es,fr,it,ru}-g722, for texts those without -g722 too, and pip's g722
and espeakng-loader. Writes 16 kHz mono wavs, with texts: every real prompt of the five voices, the embedded espeak-ng
corpus, and the ten digits in twelve more espeak-ng variants at three rates.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from earnest.data.audio import ClipError, read_wave
from earnest.data.layouts.sources import (
    ASTERISK,
    DIGITS,
    SAMPLE_RATE_HZ,
    VOICES,
    Recording,
    Voice,
    asterisk_texts,
    embedded_texts,
    speak,
    write_folder,
)

SOUNDS = Path("/usr/share/asterisk/sounds")


def real_prompts(left_out: Counter) -> Iterator[Recording]:
    """Every prompt of every voice, the tones too: a codec meets them on the telephone."""
    for language, prompts in ASTERISK.items():
        listing = Path(f"/usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")
        texts = asterisk_texts(listing) if listing.exists() else {}
        for path in sorted((SOUNDS / prompts.folder).rglob("*.g722")):
            text = texts.get(path.relative_to(SOUNDS / prompts.folder).with_suffix("").as_posix(), "")
            spoken = "" if re.search(r"[][()<>]", text) else text  # brackets describe a sound
            try:
                yield (
                    path.relative_to(SOUNDS).with_suffix(".wav").as_posix(),
                    read_wave(path, SAMPLE_RATE_HZ),
                    spoken,
                    language,
                )
            except ClipError as error:
                left_out[error.reason] += 1


def espeak_speech() -> Iterator[Recording]:
    """Synthetic English."""
    for voice in VOICES:
        for text in chain(*embedded_texts().values()):
            yield f"espeak/{voice.name}/{text.replace(' ', '_')}.wav", speak(text, voice), text, "en"
    for variant in ["f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]:
        voice = Voice(f"en-us+{variant}")
        for words_per_minute in (110, 140, 180):
            for text in DIGITS:
                wave_N = speak(text, replace(voice, words_per_minute=words_per_minute))
                yield f"espeak/{voice.name}_{words_per_minute}/{text}.wav", wave_N, text, "en"


if __name__ == "__main__":
    credits = "".join(
        f"{prompts.credit}, {prompts.licence}: asterisk-core-sounds-{name}\n" for name, prompts in ASTERISK.items()
    )
    left_out: Counter[str] = Counter()
    rows = chain(real_prompts(left_out), espeak_speech())
    print(
        write_folder(
            Path(sys.argv[1]),
            rows,
            f"{credits}espeak/: synthesised by espeak-ng (GPL-3.0-or-later)\n",
            left_out,
            ("text", "language"),
        )
    )

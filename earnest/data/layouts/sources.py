"""Real speech with transcripts, as audiofolders: Debian's Asterisk prompts, and an espeak-ng corpus that needs pip
alone.

Each source writes a folder of 16 kHz, 16-bit audio with metadata.csv (file_name, text, speaker, language) and an
ATTRIBUTION file; the folder appears whole or not at all.
"""

import csv
import ctypes
import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from earnest.data.audio import ClipError, read_wave, write_wave
from earnest.errors import UserError
from earnest.files import whole_directory

SAMPLE_RATE_HZ = 16000
Recording = tuple[str, np.ndarray, *tuple[str, ...]]  # file_name, wave_N or wave_NK, and what is known of it


@dataclass(frozen=True)
class Prepared:
    """What a source wrote: how many clips, how long they are together, and what it left out, by reason."""

    path: Path
    clips: int
    minutes: float
    left_out: dict[str, int] = field(default_factory=dict[str, int])

    def __str__(self) -> str:
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{self.path}: {self.clips} clips, {self.minutes:.1f} minutes" + (
            f"; left out: {left_out}" if left_out else ""
        )


# --- Asterisk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompts:
    """Debian's prompts of one language: the sounds' folder, who speaks, and the credit that the licence asks for."""

    folder: str
    speaker: str
    licence: str
    credit: str


ASTERISK = {  # facts from /usr/share/doc/asterisk-core-sounds-*/copyright
    "en": Prompts("en_US_f_Allison", "allison", "CC-BY-SA-3.0", "Copyright 2003-2010, Allison Smith"),
    "es": Prompts("es_MX_f_Allison", "allison", "CC-BY-SA-3.0", "Copyright 2003-2010, Allison Smith"),
    "fr": Prompts("fr_CA_f_June", "june", "CC-BY-SA-3.0", "Copyright 2006-2008, June Wallack"),
    "it": Prompts(
        "it_IT_m_Carlo", "carlo", "CC-BY-3.0", "Copyright 2012 Carlo Flora; text translated by Silvia Petrin"
    ),
    "ru": Prompts("ru_RU_f_IvrvoiceRU", "ivrvoice", "CC-BY-3.0", "Copyright 2010, Maxim Topal (ivrvoice.ru)"),
}


def asterisk(language: str, out: Path, root: Path = Path("/")) -> Prepared:
    """Turn Debian's Asterisk prompts of one language (en, es, fr, it, ru) into an audiofolder of 16 kHz FLAC.

    One studio voice per language. Left out are prompts without a text, texts without a prompt, and texts with brackets:
    they describe a sound (``[simple tone]``) or contain a note, so the voice does not say what is written. Raises
    UserError if the language is unknown, the packages are not installed, or `out` holds something already.
    """
    if language not in ASTERISK:
        raise UserError(f"language {language!r}", f"one of {', '.join(ASTERISK)}", "choose one of these")
    prompts = ASTERISK[language]
    sounds = root / "usr/share/asterisk/sounds" / prompts.folder
    listing = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    audio = {path.relative_to(sounds).with_suffix("").as_posix(): path for path in sorted(sounds.rglob("*.g722"))}
    if not audio or not listing.exists():
        raise UserError(
            f"no {listing if audio else sounds / '*.g722'}",
            f"the prompts and texts of Debian's asterisk-core-sounds-{language}",
            f"apt-get install asterisk-core-sounds-{language}-g722 asterisk-core-sounds-{language}",
        )
    texts = asterisk_texts(listing)
    left_out = Counter({"texts without a prompt": len(texts.keys() - audio.keys())})

    def rows() -> Iterator[Recording]:
        for name, path in audio.items():
            text = texts.get(name, "")
            if not text:
                left_out["without a text"] += 1
            elif re.search(r"[][()<>]", text):
                left_out["with brackets in the text"] += 1
            else:
                try:
                    yield f"{name}.flac", read_wave(path, SAMPLE_RATE_HZ), text, prompts.speaker, language
                except ClipError as error:
                    left_out[error.reason] += 1

    attribution = (
        f"Asterisk core sounds ({language}), from the Debian package asterisk-core-sounds-{language}-g722.\n"
        f"{prompts.credit}\nLicence: {prompts.licence}\n"
        "Changed: decoded from G.722 to 16-bit PCM and stored as FLAC; some prompts left out.\n"
    )
    return write_folder(out, rows(), attribution, left_out)


def asterisk_texts(listing: Path) -> dict[str, str]:
    """``key: text`` lines -> {key: text}; a line without a key continues the text above it, `;` begins a comment.

    The first line of a key counts: the Spanish listing has digits/0 twice, the second time with the text of 10.
    """
    texts: dict[str, str] = {}
    key = None
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8-sig").splitlines():
        if line.startswith(";") or not line.strip():
            continue
        start = re.match(r"([\w/-]+):(?: |$)", line)
        if start:
            key = start[1] if start[1] not in texts else None
            # `slash [/]` names a symbol, which is not read out; the Russian listing has one key twice in its line
            text = re.sub(r"\[\W?\]", "", line[start.end() :]).strip().removeprefix(f"{start[1]}:")
        else:
            text = line
        if key is not None:
            texts[key] = " ".join(f"{texts.get(key, '')} {text}".split())
    return texts


# --- espeak-ng --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice: a language with a variant (`en-us+f1`), how fast and how high it speaks."""

    name: str = "en-us"
    words_per_minute: int = 130
    pitch: int = 50  # 0..99


# Of 16 variants those whose digits pocketsphinx tells apart best: 9.75 of 10 or more with each (measured).
VOICES = [
    Voice("en-us+f2", 115, 35),
    Voice("en-us+annie", 115, 55),
    Voice("en-us+m1", 115, 35),
    Voice("en-us+adam", 115, 50),
]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SENTENCES = """\
a small boat on the lake
she found the blue key
three birds sang at dawn
close the window please
my brother likes fresh bread
five of them were late
the train leaves at nine
turn left after the bridge
we saw two young foxes
good morning everyone
a cup of hot tea
the music stopped again
seven days of rain
open the green box
he threw the ball high
thank you very much
zero degrees this morning
which shoes are yours
the doctor will call back
take one more apple
my voice is quiet now
eight years ago today
a joyful noise outside
count from six to four
the judge changed her mind
put the book down
they measured every house
nobody knows the answer
four chairs and a table
sunshine after the storm
drive slowly through town
her watch was wrong
choose a number
what a pleasure to hear
the fire burned all night
six children play outside
look under the old bed
yes that would be lovely
nine clouds in the sky
please wait a moment
""".splitlines()
ADJECTIVES = ["red", "old", "quiet", "young", "broken", "yellow", "tall", "heavy", "empty", "wooden", "cheap", "frozen"]
NOUNS = [
    "apples",
    "horses",
    "letters",
    "windows",
    "bottles",
    "rivers",
    "teachers",
    "machines",
    "shoes",
    "islands",
    "spoons",
]
# The steps through the lists are such that no text comes twice (a test counts them).
COUNTS = [f"{DIGITS[i % 10]} {ADJECTIVES[5 * i % 12]} {NOUNS[3 * i % 11]}" for i in range(80)]
NUMBERS = [f"{DIGITS[i % 10]} {DIGITS[(3 * i + i // 10) % 10]} {DIGITS[(7 * i + i // 100) % 10]}" for i in range(100)]
# how a voice varies its single digits
TAKES = [(rate_frac, pitch) for rate_frac in (0.85, 0.9, 0.95, 1.0, 1.1, 1.2) for pitch in (-8, -4, 0, 4, 8)]
HELD_OUT_EVERY = 13  # of the longer texts; prime to the lengths above, so that every word is also trained on


def embedded_name() -> str:
    """Names the embedded corpus by what is in it, so that a cache tells old from new."""
    contents = hashlib.sha256(repr((VOICES, TAKES, embedded_texts())).encode()).hexdigest()
    return f"espeak-{contents[:12]}"


def embedded_texts() -> dict[str, list[str]]:
    """Texts of the embedded corpus by split: no voice says a held-out text in training, but its words occur there."""
    longer = SENTENCES + COUNTS + NUMBERS
    held_out = longer[::HELD_OUT_EVERY]
    return {"train": DIGITS + [text for text in longer if text not in held_out], "validation": held_out}


ESPEAK_RATE, ESPEAK_PITCH = 1, 3  # espeak_PARAMETER, espeak-ng's speak_lib.h
ESPEAK_SYNCHRONOUS, ESPEAK_DONT_EXIT, ESPEAK_UTF8, ESPEAK_CHARACTERS = 2, 0x8000, 1, 1  # ibid.
ESPEAK_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def espeak(out: Path) -> Prepared:
    """Write the embedded corpus: digits (thirty takes each) and short phrases in four voices, synthesised by espeak-ng,
    as 16 kHz WAV.

    Bit-identical from run to run. It is synthetic speech, made so that everything runs anywhere; a model trained on it
    has learnt espeak-ng. Raises UserError without the espeakng-loader package, or if `out` holds something already.
    """

    def rows() -> Iterator[Recording]:
        for split, texts in embedded_texts().items():
            for voice in VOICES:
                for text in texts:
                    for take, (rate_frac, pitch) in enumerate(TAKES if text in DIGITS else [(1.0, 0)]):
                        words_per_minute = round(rate_frac * voice.words_per_minute)
                        varied = replace(voice, words_per_minute=words_per_minute, pitch=voice.pitch + pitch)
                        name = f"{split}/{voice.name}/{text.replace(' ', '_')}_{take}.wav"
                        yield name, speak(text, varied), text, voice.name, "en"

    attribution = (
        "Synthesised by espeak-ng (GPL-3.0-or-later) as shipped in the espeakng-loader wheel.\n"
        "The texts are earnest's own (Apache-2.0).\n"
    )
    return write_folder(out, rows(), attribution, Counter())


def speak(text: str, voice: Voice = VOICES[0], sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Speak a text: wave_N, float32, with the silence around it cut; the same arguments give the same samples.

    Raises UserError without the espeakng-loader package, for an unknown voice, and for a text that gives no sound.
    """
    with _fresh_espeak() as (library, espeak_hz, chunks):
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise UserError(
                f"voice {voice.name!r}", "a voice of espeak-ng, such as en-us+f1, ar, fr or de", "choose one of these"
            )
        library.espeak_SetParameter(ESPEAK_RATE, voice.words_per_minute, 0)
        library.espeak_SetParameter(ESPEAK_PITCH, voice.pitch, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, ESPEAK_CHARACTERS, 0, ESPEAK_UTF8, None, None)
    wave_N = np.concatenate([*chunks, np.zeros(0, np.int16)]).astype(np.float32) / 32768
    if not wave_N.any():
        raise UserError(f"espeak-ng gives no sound for {text!r}", "a text with words in it", "change the text")
    return _trim(soxr.resample(wave_N, espeak_hz, sample_rate_hz), sample_rate_hz)


@contextmanager
def _fresh_espeak() -> Generator[tuple[ctypes.CDLL, int, list[np.ndarray]], None, None]:
    """Load espeak-ng, and unload it at the end: (library, its rate, the list its callback fills with int16 chunks).

    It is loaded anew for each utterance (6 ms, measured): its synthesiser keeps phase and flutter between utterances,
    so the same word would sound different the second time, and a new initialisation resets neither. Its random numbers,
    which initialisation seeds with the clock, get a fixed seed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "no espeakng-loader package", "espeakng-loader, which carries espeak-ng", 'pip install "earnest[demo]"'
        ) from error
    from _ctypes import dlclose

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[np.ndarray] = []

    @ESPEAK_CALLBACK
    def collect(pcm: Any, count: int, events: Any) -> int:
        if pcm and count:
            chunks.append(np.ctypeslib.as_array(pcm, (count,)).copy())
        return 0

    try:
        espeak_hz = library.espeak_Initialize(
            ESPEAK_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), ESPEAK_DONT_EXIT
        )
        if espeak_hz <= 0:
            raise UserError(
                f"espeak-ng does not start with {espeakng_loader.get_data_path()}",
                "its data at a path that it can take",
                "reinstall espeakng-loader, in an environment with a shorter path",
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.espeak_SetSynthCallback(collect)
        yield library, espeak_hz, chunks
        library.espeak_Terminate()
    finally:
        dlclose(library._handle)


def _trim(wave_N: np.ndarray, sample_rate_hz: int, before_s: float = 0.02, after_s: float = 0.06) -> np.ndarray:
    """Cut what lies below -40 dB of the peak at both ends, and leave a little of it before and after."""
    loud = np.flatnonzero(np.abs(wave_N) > 0.01 * np.abs(wave_N).max())
    return wave_N[max(0, loud[0] - round(before_s * sample_rate_hz)) : loud[-1] + round(after_s * sample_rate_hz)]


# --- all --------------------------------------------------------------------------------------------------------------


def write_folder(
    out: Path,
    rows: Iterable[Recording],
    attribution: str,
    left_out: Counter[str],
    facts: tuple[str, ...] = ("text", "speaker", "language"),
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Prepared:
    """Write rows (file_name, wave, and a value for each of `facts`) as an audiofolder, whole or not at all.

    Raises UserError if `out` holds something already.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} holds something already", "a new or empty folder", "name another folder, or remove this one"
        )
    clips = samples = 0
    with whole_directory(out) as aside:
        with open(aside / "metadata.csv", "w", encoding="utf-8", newline="") as file:
            metadata = csv.writer(file)
            metadata.writerow(["file_name", *facts])
            for name, wave_N, *values in rows:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                write_wave(aside / name, wave_N, sample_rate_hz)
                metadata.writerow([name, *values])
                clips, samples = clips + 1, samples + len(wave_N)
        (aside / "ATTRIBUTION").write_text(attribution, encoding="utf-8")
    minutes = samples / sample_rate_hz / 60
    return Prepared(out, clips, minutes, {reason: count for reason, count in left_out.items() if count})

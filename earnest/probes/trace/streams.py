"""Which streams a model has, as far as names and shapes tell: codebooks, text, or tokens of one kind."""

from collections.abc import Sequence

from earnest.probes.trace.read import Reading
from earnest.streams import AUDIO, TEXT, Codebook, Part, Stream

AUDIO_WORDS = (
    "audio",
    "codec",
    "code_predictor",
    "codebook",
    "speech",
    "mel",
    "semantic",
    "acoustic",
    "depth",
    "depformer",
)
TEXT_WORDS = ("text", "word")
MUCH_LARGER = 4  # a vocabulary so many times that of the others is text's (assumed)


def streams(readings: Sequence[Reading]) -> dict[Stream, Reading]:
    """By stream what was read of it. Codebooks are numbered in the order of the ids that are looked up."""
    text = [reading for reading in readings if _is_text(reading, readings)]
    rest = [reading for reading in readings if reading not in text]
    named: dict[Stream, Reading] = {}
    for reading in text:
        _enter(named, TEXT, reading)
    if len(rest) == 1 or (rest and all(one.index is None for one in rest) and rest[0].scores.codebooks == 1):
        for reading in rest:
            _enter(named, AUDIO if text or _has_word(reading, AUDIO_WORDS) else Part("tokens"), reading)
        return named
    if len({reading.time[0] if reading.time else None for reading in rest}) == 1:
        rest = sorted(rest, key=lambda one: (one.index is None, one.index))
    for number, reading in enumerate(rest):
        _enter(named, Codebook(number), reading)
    return named


def _is_text(reading: Reading, readings: Sequence[Reading]) -> bool:
    """Whether a stream is text: by the name of its output layer, else of its table, else by the size of its
    vocabulary."""
    for words, text in ((TEXT_WORDS, True), (AUDIO_WORDS, False)):
        if any(word in reading.layer.lower() for word in words):
            return text
    if _has_word(reading, AUDIO_WORDS):
        return False
    others = [one.scores.classes for one in readings if one.scores.classes != reading.scores.classes]
    larger = bool(others) and reading.scores.classes >= MUCH_LARGER * max(others)
    return _has_word(reading, TEXT_WORDS) or larger


def _has_word(reading: Reading, words: Sequence[str]) -> bool:
    return any(word in f"{reading.layer} {reading.tokens or ''}".lower() for word in words)


def _enter(named: dict[Stream, Reading], stream: Stream, reading: Reading) -> None:
    number, name = 2, stream
    while name in named:
        name, number = Part(f"{stream}_{number}"), number + 1
    named[name] = reading

"""A recording and a file beside it that says what is said when: label tracks of Audacity, subtitles, whisper's JSON,
Praat's TextGrid. Each part is a clip."""

import re
from pathlib import Path
from typing import Any, NamedTuple, cast

from earnest.data.layouts.opened import text_of
from earnest.errors import UserError
from earnest.records import loads

ENDINGS = (".txt", ".srt", ".vtt", ".textgrid", ".json", ".tsv")
MOST_CHARACTERS = 2**24
LABEL = re.compile(r"(\d+(?:[.,]\d+)?)\t(\d+(?:[.,]\d+)?)\t(.*)")
CUE = re.compile(r"(?:(\d+):)?(\d+):(\d+)[.,](\d+)\s+-->\s+(?:(\d+):)?(\d+):(\d+)[.,](\d+)")
INTERVAL = re.compile(r'xmin\s*=\s*([\d.]+)\s+xmax\s*=\s*([\d.]+)\s+text\s*=\s*"((?:[^"]|"")*)"')
WHISPER_WINDOW_S = 30.0  # a clip that whisper hears at once is one clip


class Part(NamedTuple):
    """What is said from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


def parts_of(path: Path) -> list[Part]:
    """The parts that a file beside a recording names, in order; none if it is no such file."""
    try:
        if path.stat().st_size > MOST_CHARACTERS:
            return []
        text = text_of(path)
    except (OSError, UnicodeError, UserError):
        return []
    read = {".srt": _cues, ".vtt": _cues, ".textgrid": _intervals, ".json": _segments}
    parts = read.get(path.suffix.lower(), _labels)(text)
    return [part for part in parts if part.text.strip() and part.end_s > part.start_s]


def _labels(text: str) -> list[Part]:
    """Audacity: start, end and text between tabs; a line that begins with a backslash holds frequencies."""
    rows = [line for line in text.splitlines() if line.strip() and not line.startswith("\\")]
    matches = [match for line in rows if (match := LABEL.fullmatch(line.rstrip()))]
    if len(matches) != len(rows):
        return []
    return [Part(_decimal(match[1]), _decimal(match[2]), match[3].strip()) for match in matches]


def _decimal(word: str) -> float:
    return float(word.replace(",", "."))


def _cues(text: str) -> list[Part]:
    """SRT and WebVTT: times in a line, and the text in those that follow."""
    parts: list[Part] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        if times := CUE.search(block):
            said = re.sub(r"<[^>]*>|\{\\[^}]*\}", "", block[times.end() :].partition("\n")[2])
            parts.append(Part(_clock(*times.groups()[:4]), _clock(*times.groups()[4:]), " ".join(said.split())))
    return parts


def _clock(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _intervals(text: str) -> list[Part]:
    """The tier of utterances or words of a TextGrid; one of words is one part, as long as it is."""
    tiers = re.split(r"item\s*\[\d+\]:", text)[1:]
    named = [(re.search(r'name\s*=\s*"([^"]*)"', tier), tier) for tier in tiers]
    tiers = [tier for name, tier in named if not (name and re.search(r"phon|syll", name[1], re.IGNORECASE))] or tiers
    intervals = [
        Part(float(start), float(end), said.strip()) for start, end, said in INTERVAL.findall("".join(tiers[:1]))
    ]
    spoken = [part._replace(text=part.text.replace('""', '"')) for part in intervals if part.text]
    if len(spoken) > 1 and not any(" " in part.text for part in spoken):  # words, not utterances
        return [Part(0.0, intervals[-1].end_s, " ".join(part.text for part in spoken))]
    return spoken


def _segments(text: str) -> list[Part]:
    """Whisper's JSON; what it hears in one window is one clip with the whole text."""
    try:
        document: Any = loads(text)
    except ValueError:
        return []
    segments = cast(dict[str, Any], document).get("segments") if isinstance(document, dict) else None
    if not isinstance(segments, list):
        return []
    parts: list[Part] = []
    for segment in cast(list[Any], segments):
        try:
            parts.append(Part(float(segment["start"]), float(segment["end"]), str(segment["text"]).strip()))
        except (TypeError, KeyError, ValueError):
            return []
    return parts if parts and parts[-1].end_s > WHISPER_WINDOW_S else []

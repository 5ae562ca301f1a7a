"""Which column of a list is what: by the names that public data sets give their columns, and, if a list has no header,
by what its cells look like."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import PurePosixPath
from typing import Literal, get_args

from earnest.data.audio import AUDIO_SUFFIXES
from earnest.errors import UserError

Role = Literal["audio", "text", "speaker", "language", "tags", "words", "split", "start_s", "end_s", "duration_s"]
# What data sets call a column of this role, the best first; compared in lower case, with _ for - and blanks
NAMES: dict[Role, tuple[str, ...]] = {
    "audio": (
        *("file_name", "audio_filepath", "audio_file", "audio_path", "audio_file_path", "wav_filename", "wav_path"),
        *("wav_file", "wav", "audio", "path", "file_path", "filepath", "filename", "file", "fname", "clip", "mp3"),
        *("audio_filename", "wav_id", "utt_id", "utterance_id", "segment_id", "item_name", "ytid", "youtube_id"),
        *("key", "utt", "id", "recording_id", "source"),
    ),
    "text": (
        *("normalized_text", "text_normalized", "normalised_text", "text_norm", "text", "transcription", "transcript"),
        *("sentence", "transcripts", "text_tn", "clean", "raw_text", "raw_transcription", "txt", "utterance", "wrd"),
        *("words", "caption", "description"),
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id", "spk", "spk_id", "spkid", "voice", "reader_id"),
    "language": ("language", "lang", "locale", "lang_code", "language_code"),
    # MusicCaps' and audiocraft's names; a caption beside a text counts as tags
    "tags": (
        *("tags", "aspect_list", "caption", "description", "captions", "caption_1", "genre", "genres", "labels"),
        *("label", "category"),
    ),
    "words": ("words", "alignments"),
    "split": ("split", "subset"),
    "start_s": ("offset", "start_s", "start", "start_time", "begin_time"),  # seconds from the beginning of the file
    "end_s": ("end", "end_s", "end_time"),
    "duration_s": ("duration", "duration_s"),
}
# ISO 639-1, and what lists of Chinese and Japanese trainers write beside it
LANGUAGES = frozenset(
    re.findall(
        r"\w+",
        "aa ab af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee "
        "el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io "
        "is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn "
        "mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se "
        "sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo "
        "wa wo xh yi yo za zh zu jp cn yue cmn wuu all_zh all_ja all_ko all_yue auto",
    )
)
BLANKS = " \t\n\r\f\v\u00a0\u200b\u2060\ufeff\u3000"
ANSWERS = frozenset({"true", "false", "yes", "no", "none", "nan"})
MOST_ARE_AUDIO = 0.25  # assumed: half of the names of files that are not there, a quarter of those that are
ALIKE = 0.5  # assumed: from this share of common letters on, a column of texts is another spelling of the one before


def plain_name(name: str) -> str:
    """audio_file of audio-file, `Audio File` and audioFile."""
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower())


def chosen_columns(words: Sequence[str]) -> dict[Role, str]:
    """``ROLE=COLUMN`` words of --data.columns by role. Raises UserError for what is no such word."""
    chosen: dict[Role, str] = {}
    roles: dict[str, Role] = {str(role): role for role in get_args(Role)}
    for word in words:
        name, _, column = word.partition("=")
        role = roles.get(name)
        if role is None or not column:
            raise UserError(
                f"--data.columns {word}",
                f"ROLE=COLUMN, the role one of {', '.join(get_args(Role))}",
                "--data.columns audio=path text=sentence",
            )
        chosen[role] = column
    return chosen


def named_roles(columns: Sequence[str], chosen: Mapping[Role, str], source: object) -> dict[Role, tuple[str, ...]]:
    """Role -> the columns of a list that bear one of its names, the best first; those that the user chose alone.

    Raises UserError if the user chose a column that is not there.
    """
    for role, column in chosen.items():
        if column not in columns:
            raise UserError(
                f"--data.columns {role}={column}", f"a column of {source}: {', '.join(columns)}", "name one of these"
            )
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(plain_name(column), column)
    roles: dict[Role, tuple[str, ...]] = {}
    for role, names in NAMES.items():
        found = (chosen[role],) if role in chosen else tuple(by_name[name] for name in names if name in by_name)
        if found:
            roles[role] = found
    if "tags" in roles and "text" in roles and "tags" not in chosen:  # one caption is not both
        roles["tags"] = tuple(column for column in roles["tags"] if column != roles["text"][0])
        if not roles["tags"]:
            del roles["tags"]
    return roles


def is_header(cells: Sequence[str]) -> bool:
    """Whether a line is one of names: one of them is known, and none is the name of an audio file."""
    known = {name for names in NAMES.values() for name in names}
    return any(plain_name(cell) in known for cell in cells) and not any(map(names_audio, cells))


def names_audio(cell: str) -> bool:
    return PurePosixPath(cell.strip()).suffix.lower() in AUDIO_SUFFIXES


def guessed_names(rows: Sequence[Sequence[str]], is_audio: Callable[[str], bool]) -> list[str]:
    """Names for the columns of a list without a header, from a sample of its rows; those without a role get their
    number.

    LJSpeech `id|text|normalised text`, piper `id|speaker|text`, VITS `path|speaker number|text`, GPT-SoVITS
    `path|speaker|language|text`, CSS10 `path|text|normalised text|seconds`, ... differ in the order and the number of
    their columns, so each column is told by its cells: names of files; a language's code; numbers; few different words;
    texts, of which a later one that is alike is the normalised one.
    """
    columns = [[row[place].strip() for row in rows] for place in range(len(rows[0]) if rows else 0)]
    names = [str(place + 1) for place in range(len(columns))]
    shares = [_share(is_audio, cells) or _share(names_audio, cells) / 2 for cells in columns]
    if not shares or max(shares) < MOST_ARE_AUDIO:
        return names
    audio = shares.index(max(shares))
    names[audio] = "audio"
    texts: list[int] = []
    for place, cells in enumerate(columns):
        if place == audio or not any(cells):
            continue
        if all(map(_is_language, cells)):
            names[place] = "language"
        elif all(re.fullmatch(r"\d*\.\d+", cell) for cell in cells):
            names[place] = "seconds"
        elif not all(re.match(r"\w+://", cell) for cell in cells):
            texts.append(place)
    if not texts and "language" in names:
        texts.append(names.index("language"))  # a list of one line: `hi` is a text
    if len(texts) > 1 and _is_speaker(columns[texts[0]], columns[texts[1]]):
        names[texts.pop(0)] = "speaker"
    if texts:
        alike = [place for place in texts[1:] if _alike(columns[texts[0]], columns[place])]
        names[alike[0] if alike else texts[0]] = "text"
        last = texts[-1] if len(texts) > 1 and texts[-1] == len(columns) - 1 else None
        if last is not None and last not in alike and "speaker" not in names and _are_few(columns[last]):
            names[last] = "speaker"  # StyleTTS 2 and XTTS: path|text|speaker
    return names


def _is_language(cell: str) -> bool:
    code = cell.lower().replace("-", "_")
    return code in LANGUAGES or code.partition("_")[0] in LANGUAGES


def _share(holds: Callable[[str], bool], cells: Sequence[str]) -> float:
    return sum(map(holds, cells)) / max(len(cells), 1)


def _is_speaker(cells: Sequence[str], following: Sequence[str]) -> bool:
    """Whether a column before the texts names speakers: numbers, or words without blanks, or few different ones."""
    if _alike(cells, following):
        return False
    # a sentence of Chinese, Japanese or Thai has no blanks either, but letters that no identifier has
    return len(set(cells)) <= len(cells) / 2 or all(
        re.fullmatch(r"\S{1,64}", cell, re.ASCII) and cell.isascii() for cell in cells
    )


def _are_few(cells: Sequence[str]) -> bool:
    """Whether a column behind the texts names speakers: few different words or numbers, which are no answers."""
    different = {cell.lower() for cell in cells}
    are_words = all(re.fullmatch(r"\S{1,64}", cell) for cell in cells) and not different <= ANSWERS
    return are_words and len(different) <= len(cells) / 2


def _alike(cells: Sequence[str], others: Sequence[str]) -> bool:
    pairs = [(a.lower(), b.lower()) for a, b in zip(cells[:20], others[:20], strict=True) if a or b]
    ratios = [SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairs]
    return bool(ratios) and sum(ratios) / len(ratios) >= ALIKE


def first_filled(row: Mapping[str, str], columns: Iterable[str]) -> str:
    """The first of these cells that is not empty, without blanks around it, also those of no width."""
    return next((cell for column in columns if (cell := row.get(column, "").strip(BLANKS))), "")

"""Checks of the transcripts: language, repetition, what recognisers invent, speed, characters."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

from earnest.data.checks.checked import Checked, Fault, share
from earnest.data.checks.measure import Measured
from earnest.data.clip import Clip

SCRIPTS = {  # of languages that are not written in Latin letters
    language: frozenset(scripts.split())
    for languages, scripts in {
        "ru uk bg be mk sr kk ky mn tg": "CYRILLIC",
        "ar fa ur ps ug ckb": "ARABIC",
        "zh yue cmn wuu": "CJK",
        "ja jp": "CJK HIRAGANA KATAKANA",
        "ko": "HANGUL CJK",
        "hi mr ne": "DEVANAGARI",
        "el": "GREEK",
        "he": "HEBREW",
        "th": "THAI",
        "ka": "GEORGIAN",
        "hy": "ARMENIAN",
        "am": "ETHIOPIC",
        "ta": "TAMIL",
        "te": "TELUGU",
        "bn": "BENGALI",
    }.items()
    for language in languages.split()
}
TWO_SCRIPTS = {"sr", "kk", "ky", "mn", "tg", "ug", "uz", "az"}  # written in Latin letters too
SYLLABLES = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL"}  # a letter is a syllable or more
HALLUCINATED = re.compile(  # what recognisers write over silence and music
    r"(thank(s| you)( so much)? for watching|subtitles? by|amara\.org|don't forget to subscribe|"
    r"like and subscribe|sous-titr|untertitel|субтитры|字幕|ご視聴ありがとう|시청해 ?주셔서)|"
    r"^\W*[\[(♪][^\])♪]*[\])♪]\W*$",
    re.IGNORECASE,
)
LETTERS_PER_S = {False: (0.7, 32.0), True: (0.3, 14.0)}  # of letters, and of syllables: assumed, speech has 5 to 22
REPEATED_CLIPS = 5
# Codes of one language, or of some that are written so much alike that an identifier takes one for the other
SAME = {"jp": "ja", "cmn": "zh", "yue": "zh", "wuu": "zh", "nb": "no", "nn": "no"}
WRONG_SCRIPT_FRAC = 0.005  # a foreign name here and there is no fault
IDENTIFIED_LETTERS, SURE = 400, 0.95


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]


def _language(checked: Checked, clip: Clip) -> str:
    return re.split(r"[-_]", (checked.limits.language or clip.language).lower())[0]


def language(checked: Checked) -> Iterator[Fault]:
    """The script of every text, and the language of the texts together: a short one tells little."""
    wrong: list[Clip] = []
    texts: dict[str, list[Clip]] = defaultdict(list)
    for clip in checked.clips:
        stated, letters = _language(checked, clip), [each for each in clip.text if each.isalpha()]
        if not stated or not letters:
            continue
        expected = SCRIPTS.get(stated, {"LATIN"})
        expected = expected | {"LATIN"} if stated in TWO_SCRIPTS else expected
        if sum(_script(letter) in expected for letter in letters) < len(letters) / 2:
            wrong.append(clip)
        else:
            texts[stated].append(clip)
    if len(wrong) > WRONG_SCRIPT_FRAC * len(checked.clips):
        yield Fault(
            "language",
            "warning",
            f"{share(wrong, len(checked.clips))} are not written in the letters of the stated language "
            f"({_language(checked, wrong[0])}): {wrong[0].text[:40]!r}",
            "mend the texts, or the column of the language",
            tuple(wrong),
        )
    identify = checked.limits.languages
    if identify is None:
        return
    for stated, clips in sorted(texts.items()):
        other = [clip for clip in clips if len(clip.text) >= 40 and _differs(identify(clip.text), stated, 0.999)]
        whole = " ".join(clip.text for clip in clips)[:20_000]
        all_differ = len(whole) >= IDENTIFIED_LETTERS and _differs(identify(whole), stated, SURE)
        if all_differ or len(other) >= max(3, 0.02 * len(clips)):
            named = identify(whole if all_differ else other[0].text)[0]
            chosen = clips if all_differ else other
            yield Fault(
                "language",
                "warning",
                f"{share(chosen, len(checked.clips))} read as {named}, and {stated} is stated: {chosen[0].text[:40]!r}",
                "mend the texts, or the column of the language (--language)",
                tuple(chosen),
            )


def _differs(identified: tuple[str, float], stated: str, sure: float) -> bool:
    code, probability = identified
    return SAME.get(code, code) != SAME.get(stated, stated) and probability >= sure


def repeated(checked: Checked) -> Iterator[Fault]:
    """One text of many different recordings: a column that slipped, or a recogniser that guessed."""
    groups: dict[str, dict[int, Clip]] = defaultdict(dict)
    for clip, recording in checked.recording.items():
        if len(plain(clip.text).split()) >= 3 or (clip.text and len(clip.text) > 12):
            groups[plain(clip.text)].setdefault(recording, clip)
    for group in groups.values():
        lengths = sorted(checked.measured[clip].duration_s for clip in group.values())
        # takes of one text by several speakers last as long as each other; a text that slipped does not fit
        spread = lengths[-1] > 2.5 * lengths[0]
        if len(group) >= REPEATED_CLIPS and spread and len({clip.speaker for clip in group.values()}) <= len(group) / 2:
            clips = tuple(group.values())
            yield Fault(
                "repeated transcript",
                "warning",
                f"{share(clips, len(checked.clips))} say {clips[0].text[:40]!r}, and last from {lengths[0]:.1f} to "
                f"{lengths[-1]:.1f} s",
                "listen to two of them: one text can hardly be right for all",
                clips,
            )


def hallucinated(checked: Checked) -> Iterator[Fault]:
    clips = [clip for clip in checked.clips if HALLUCINATED.search(clip.text) or _loops(clip.text)]
    if clips:
        yield Fault(
            "hallucinated transcript",
            "warning",
            f"{share(clips, len(checked.clips))} have a text that recognisers invent, or that repeats itself: "
            f"{clips[0].text[:50]!r}",
            "transcribe them again, or take them out",
            tuple(clips),
        )


def _loops(text: str) -> bool:
    """Whether one to four words come again four times in a row, or one word six times."""
    words = plain(text).split()
    for size in range(1, 5):
        times = 6 if size == 1 else 4
        for start in range(len(words) - times * size + 1):
            piece = words[start : start + size]
            digits = all(len(word) <= 1 or word.isdigit() for word in piece)
            if not digits and words[start : start + times * size] == piece * times:
                return True
    return False


def speed(checked: Checked) -> Iterator[Fault]:
    """A text that cannot be said in the time, or that is over long before the audio. If most are, they are captions,
    which nobody says."""
    slow = set[Clip]()

    def badness(clip: Clip, measured: Measured) -> float:
        letters = [each for each in clip.text if each.isalnum()]
        sound_s = max(measured.duration_s - measured.lead_s - measured.tail_s, 0.05)
        if len(letters) < 4 or measured.silent_frac == 1:
            return 0.0
        least, most = LETTERS_PER_S[sum(_script(each) in SYLLABLES for each in letters) > len(letters) / 2]
        rate = len(letters) / sound_s
        if sound_s > 5 and rate < least:
            slow.add(clip)
            return least / rate - 1
        return max(rate / most - 1 if len(letters) > 15 else 0.0, 0.0)

    clips = checked.worst(badness)
    if len(slow) > len(checked.clips) / 2:
        clips = [clip for clip in clips if clip not in slow]
    if clips:
        worst = checked.measured[clips[0]]
        yield Fault(
            "text and audio do not match",
            "warning",
            f"{share(clips, len(checked.clips))} have a text that is too long or too short for their audio: "
            f"{clips[0].name} says {len(clips[0].text)} characters in {worst.duration_s:.1f} s",
            "listen to them: the list slipped, or the recording was cut",
            tuple(clips),
        )


def unknown_characters(checked: Checked) -> Iterator[Fault]:
    odd: dict[str, list[Clip]] = defaultdict(list)
    for clip in checked.clips:
        characters = checked.limits.unknown(clip.text)
        characters |= {
            each for each in clip.text if unicodedata.category(each) in ("Cc", "Co", "Cn") and each not in "\n\t"
        }
        characters |= {"\ufffd"} & set(clip.text)
        characters |= set(re.findall(r"[ÃÂÐÑ][\x80-\xbf]", clip.text))  # UTF-8 read as Latin-1
        for each in characters:
            odd[each].append(clip)
    if odd:
        clips = list(dict.fromkeys(clip for group in odd.values() for clip in group))
        named = ", ".join(
            f"{each!r} ({len(group)})" for each, group in sorted(odd.items(), key=lambda x: -len(x[1]))[:8]
        )
        yield Fault(
            "unknown characters",
            "warning",
            f"{share(clips, len(checked.clips))} have characters that the tokenizer does not know, or that are damage"
            f": {named}",
            "replace them, or read the list in its own encoding",
            tuple(clips),
        )

"""Checks of the data set as a whole: copies, what is held out, lengths, speakers."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from earnest.data.checks.checked import Checked, Fault, share
from earnest.data.checks.measure import Measured
from earnest.data.checks.texts import plain
from earnest.data.clip import Clip

# Up to this share copies are a note. Real corpora hold some: of Debian's prompts, 2 of 549 English ones are one
# recording (correlation 0.9997) and 4 of 506 French ones two, with texts that sound alike (`seconde` and `secondes`,
# `message` and `messages`). So few hardly weigh in training; a copy that is held out is told as leakage.
FEW_COPIES_FRAC = 0.01
LABELS_FRAC = 0.5  # different texts for each clip; with fewer a text is said of several clips, as a label is


def duplicates(checked: Checked) -> Iterator[Fault]:
    groups: dict[int, dict[str, Clip]] = defaultdict(dict)
    for clip, number in checked.recording.items():
        groups[number].setdefault(clip.place, clip)
    copies = [list(group.values()) for group in groups.values() if len(group) > 1]
    if copies:
        clips = [clip for group in copies for clip in group]
        texts = sum(len({clip.text for clip in group}) > 1 for group in copies)
        told = f"; {texts} groups of copies have different texts" if texts else ""
        are_few = len(clips) <= FEW_COPIES_FRAC * len(checked.clips)
        yield Fault(
            "duplicates",
            "note" if are_few else "critical" if texts else "warning",
            f"{share(clips, len(checked.clips))} are copies of each other: "
            f"{', '.join(clip.name for clip in copies[0][:3])}{told}",
            "keep one of each: a copy that is held out is no test, and one with another text is wrong",
            tuple(clips),
        )


def leakage(checked: Checked) -> Iterator[Fault]:
    held_out = [clip for clip in checked.clips if clip.split in ("validation", "test")]
    train = [clip for clip in checked.clips if clip.split not in ("validation", "test")]
    if not held_out or not train:
        return
    known = {checked.recording[clip] for clip in train if clip in checked.recording}
    leaked = [clip for clip in held_out if checked.recording.get(clip) in known]
    if leaked:
        yield Fault(
            "held-out leakage",
            "critical",
            f"{len(leaked)} of {len(held_out)} held-out clips are in training too: "
            f"{', '.join(clip.name for clip in leaked[:3])}",
            "take them out of training: the held-out loss would measure memory",
            tuple(leaked),
        )
    texts = Counter(plain(clip.text) for clip in train)
    if len(texts) < LABELS_FRAC * len(train):
        return  # commands, or captions of parts of tracks: nobody holds a label out
    same = [clip for clip in held_out if clip not in leaked and len(clip.text) >= 20 and plain(clip.text) in texts]
    if len(same) >= 5 and len(same) > len(held_out) / 2:
        yield Fault(
            "held-out texts in training",
            "warning",
            f"{len(same)} of {len(held_out)} held-out clips say a text that is also trained on",
            "hold out texts, not takes of one text, if unseen texts are what the model is for",
            tuple(same),
        )


LEFT_OUT_FRAC = 0.2


def lengths(checked: Checked) -> Iterator[Fault]:
    limits = checked.limits

    def badness(clip: Clip, measured: Measured) -> float:
        positions = measured.duration_s * limits.frame_rate_hz + len(clip.text.encode())
        return max(measured.duration_s - limits.max_duration_s, positions - limits.max_positions, 0)

    clips = checked.worst(badness)
    total_s = sum(measured.duration_s for _, measured in checked.pairs)
    long_s = sum(checked.measured[clip].duration_s for clip in clips)
    if len(clips) > LEFT_OUT_FRAC * len(checked.clips) or long_s > 0.5 * total_s:
        yield Fault(
            "longer than the model's context",
            "warning",
            f"{share(clips, len(checked.clips))}, {long_s / max(total_s, 1e-9):.0%} of the audio, are longer than "
            f"{limits.max_duration_s:g} s or {limits.max_positions} positions: training leaves them out",
            "cut them at pauses, or raise --data.max-duration-s and the model's context",
            tuple(clips),
        )
    short = [clip for clip, measured in checked.pairs if clip.text and measured.duration_s < 0.1]
    if short:
        yield Fault(
            "too short",
            "warning",
            f"{share(short, len(checked.clips))} with a text last less than 0.1 s: {short[0].name}",
            "listen to them: nothing is said in that time",
            tuple(short),
        )


def speakers(checked: Checked) -> Iterator[Fault]:
    names = Counter(clip.speaker for clip in checked.clips if clip.speaker)
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[re.sub(r"[\W_]+", "", name.lower())].add(name)
    twice = [sorted(group) for group in spellings.values() if len(group) > 1]
    if twice:
        clips = [clip for clip in checked.clips if clip.speaker in twice[0]]
        yield Fault(
            "speakers",
            "warning",
            f"speakers spelled in two ways: {' and '.join(twice[0])}" + (", ..." if len(twice) > 1 else ""),
            "write each name in one way",
            tuple(clips),
        )
    nameless = [clip for clip in checked.clips if not clip.speaker]
    if names and nameless and len(nameless) < len(checked.clips):
        yield Fault(
            "speakers",
            "warning",
            f"{share(nameless, len(checked.clips))} have no speaker, the others do: {nameless[0].name}",
            "fill the column in",
            tuple(nameless),
        )
    if len(names) >= 20 and len(names) > 0.9 * sum(names.values()):
        yield Fault(
            "speakers",
            "warning",
            f"{len(names)} speakers for {sum(names.values())} clips: the column is an identifier of clips",
            "name the column of speakers: --data.columns speaker=COLUMN",
        )

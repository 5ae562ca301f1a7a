"""What the checks of a data set look at, and what they say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from earnest.data.audio import ClipError
from earnest.data.checks.measure import Measured, is_copy, measure
from earnest.data.clip import Clip

Severity = Literal["critical", "warning", "note"]
"""A note is reported, but needs no mending before a training, so that the command still exits with 0."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault in a data set: a sentence on it, its fix, and the clips that have it, the worst first."""

    kind: str
    severity: Severity
    sentence: str
    fix: str
    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What the clips are for: --language, the tokenizer, the longest clip and text that the model takes."""

    language: str = ""
    max_duration_s: float = 15.0
    max_positions: int = 2048
    frame_rate_hz: float = 50.0
    unknown: Callable[[str], set[str]] = field(default=lambda text: set())
    """The characters of a text that the tokenizer does not know."""
    languages: Callable[[str], tuple[str, float]] | None = None
    """text -> (language, probability); None if no identifier is installed."""


@dataclass(frozen=True)
class Checked:
    """A data set that was looked at: `clips` as its lists name them, and what their files are like."""

    clips: Sequence[Clip]
    measured: Mapping[Clip, Measured]
    broken: Mapping[Clip, ClipError]
    limits: Limits

    @property
    def pairs(self) -> Iterator[tuple[Clip, Measured]]:
        for clip in self.clips:
            if clip in self.measured:
                yield clip, self.measured[clip]

    @cached_property
    def recording(self) -> dict[Clip, int]:
        """A number for each clip: equal for copies of one recording. Silence is a copy of nothing."""
        numbers: dict[Clip, int] = {}
        buckets: dict[tuple[int, int], list[tuple[Clip, Measured]]] = {}
        for clip, measured in self.pairs:
            frames = len(measured.envelope_T)
            loudest = int(measured.envelope_T.argmax()) if frames else 0
            bucket = buckets.setdefault((frames, loudest), [])
            same = [other for other, each in bucket if frames and is_copy(each.envelope_T, measured.envelope_T)]
            numbers[clip] = numbers[same[0]] if same else len(numbers)
            bucket.append((clip, measured))
        return numbers

    def worst(self, badness: Callable[[Clip, Measured], float]) -> list[Clip]:
        """The clips whose badness is above 0, the worst first."""
        scored = [(badness(clip, measured), clip) for clip, measured in self.pairs]
        return [clip for score, clip in sorted(scored, key=lambda pair: (-pair[0], pair[1].name)) if score > 0]


def look_at(clips: Sequence[Clip], limits: Limits, on_progress: Callable[[int, int], None]) -> Checked:
    """Measure every clip. A file in two splits is read once."""
    measured: dict[Clip, Measured] = {}
    broken: dict[Clip, ClipError] = {}
    by_place: dict[str, Measured | ClipError] = {}
    for done, clip in enumerate(clips, 1):
        if clip.place not in by_place:
            try:
                by_place[clip.place] = measure(clip.path, clip.segment)
            except ClipError as error:
                by_place[clip.place] = error
        seen = by_place[clip.place]
        if isinstance(seen, ClipError):
            broken[clip] = seen
        else:
            measured[clip] = seen
        on_progress(done, len(clips))
    return Checked(clips, measured, broken, limits)


def share(clips: Sequence[object], of: int) -> str:
    return f"{len(clips)} of {of} clips"

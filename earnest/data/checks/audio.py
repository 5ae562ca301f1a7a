"""Checks of the recordings: what cannot be read, clipping, range, silence, level, band, noise."""

from collections import Counter
from collections.abc import Iterator

from earnest.data.checks.checked import Checked, Fault, share
from earnest.data.checks.measure import SILENT_DB, Measured
from earnest.data.clip import Clip

CLIPPED_FRAC = 0.0005  # assumed: one sample in two thousand is heard as a crackle
LONG_SILENCE_S, MOSTLY_SILENT_FRAC = 2.0, 0.6
EDGE_FRAC = 0.05  # of a long recording: a song fades out
LOSSY = frozenset({".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".wma"})
QUIET_PEAK = 0.02  # -34 dB
BAND_FRAC = 0.65  # of half the sample rate; MP3 at 128 kbit/s ends at 0.73 of it
NOISY_CONTRAST_DB, NOISY_PAUSE_DB = 21.0, 5.5  # clean prompts that are cut as closely differ by 7.6 dB and more
NOISE_MIN_S = 0.5


def unreadable(checked: Checked) -> Iterator[Fault]:
    if checked.broken:
        clips = tuple(checked.broken)
        told = "; ".join(f"{clip.name}: {checked.broken[clip].reason}" for clip in clips[:3])
        yield Fault(
            "unreadable",
            "critical" if len(clips) > 0.05 * len(checked.clips) else "warning",
            f"{share(clips, len(checked.clips))} cannot be used ({told}{'; ...' if len(clips) > 3 else ''})",
            "mend these files, or take their lines out",
            clips,
        )


def clipping(checked: Checked) -> Iterator[Fault]:
    clips = checked.worst(lambda _, measured: max(measured.clipped_frac - CLIPPED_FRAC, 0))
    if clips:
        most = checked.measured[clips[0]].clipped_frac
        yield Fault(
            "clipping",
            "warning",
            f"{share(clips, len(checked.clips))} have flat tops, up to {most:.1%} of the samples of {clips[0].name}",
            "record or convert these again at a lower level",
            tuple(clips),
        )


def out_of_range(checked: Checked) -> Iterator[Fault]:
    """The decoder of a lossy format returns more than 1 for a recording that was nearly as loud: that is a note."""
    clips = checked.worst(lambda _, measured: measured.peak - 1.0)
    if clips:
        is_decoded = all(clip.path.suffix.lower() in LOSSY for clip in clips)
        yield Fault(
            "out of range",
            "note" if is_decoded else "warning",
            f"{share(clips, len(checked.clips))} have samples outside [-1, 1], up to "
            f"{checked.measured[clips[0]].peak:.4g} in {clips[0].name}; training scales them",
            "nothing has to be done: a decoder returns such samples for a recording that is loud"
            if is_decoded
            else "write them in [-1, 1]: divide samples of 16 bits by 32768",
            tuple(clips),
        )


def silence(checked: Checked) -> Iterator[Fault]:
    def badness(_: Clip, measured: Measured) -> float:
        if measured.peak < 0.001 or measured.silent_frac == 1:
            return 100.0
        edge_s, most_s = max(measured.lead_s, measured.tail_s), max(LONG_SILENCE_S, EDGE_FRAC * measured.duration_s)
        mostly = measured.silent_frac > MOSTLY_SILENT_FRAC and measured.duration_s > 1
        return max(edge_s - most_s, 0) + (measured.silent_frac if mostly else 0)

    clips = checked.worst(badness)
    if clips:
        empty = sum(badness(clip, checked.measured[clip]) >= 100 for clip in clips)
        told = f", {empty} of them wholly" if empty else ""
        yield Fault(
            "silence",
            "critical" if empty else "warning",
            f"{share(clips, len(checked.clips))} are silent for more than {LONG_SILENCE_S:g} s at an end, or for most "
            f"of their length{told}: {', '.join(clip.name for clip in clips[:3])}",
            "cut the silence, or take them out",
            tuple(clips),
        )


def quiet(checked: Checked) -> Iterator[Fault]:
    clips = checked.worst(lambda _, measured: QUIET_PEAK - measured.peak if measured.peak >= 0.001 else 0)
    if clips:
        yield Fault(
            "very quiet",
            "warning",
            f"{share(clips, len(checked.clips))} peak below {QUIET_PEAK:g}: {', '.join(c.name for c in clips[:3])}",
            "raise their level to that of the others",
            tuple(clips),
        )


def band_limit(checked: Checked) -> Iterator[Fault]:
    pairs = [(clip, each) for clip, each in checked.pairs if each.band_hz < BAND_FRAC * each.rate_hz / 2]
    if pairs:
        edges = sorted(each.band_hz for _, each in pairs)
        edge_hz, rate_hz = edges[len(edges) // 2], pairs[0][1].rate_hz
        yield Fault(
            "band limit",
            "warning",
            f"{share(pairs, len(checked.clips))} hold nothing above {edge_hz / 1000:.1f} kHz at {rate_hz} samples a "
            "second: they were recorded at a lower rate, or sent over a telephone",
            "take the recordings before they were converted; else the codec and the voice learn the muffled sound",
            tuple(clip for clip, _ in pairs),
        )
    rates = Counter(measured.rate_hz for _, measured in checked.pairs)
    low = [clip for clip, measured in checked.pairs if measured.rate_hz < max(rates, default=0) / 2]
    if low and len(low) < len(checked.clips) / 2:
        yield Fault(
            "low sample rate",
            "warning",
            f"{share(low, len(checked.clips))} have less than half the sample rate of the others ({max(rates)})",
            "take one rate: these sound muffled beside the others",
            tuple(low),
        )


def noise(checked: Checked) -> Iterator[Fault]:
    """Speech has pauses; if all have one level, hardly below the speech, and sound as noise does, it fills them. Music
    has none, and neither has a word that is cut closely."""

    def badness(clip: Clip, measured: Measured) -> float:
        is_judged = clip.text and measured.duration_s >= NOISE_MIN_S and measured.floor_db >= SILENT_DB
        if not is_judged or not measured.has_noise or measured.pause_db > NOISY_PAUSE_DB:
            return 0.0
        return max(NOISY_CONTRAST_DB - measured.contrast_db, 0)

    clips = checked.worst(badness)
    if clips:
        least = checked.measured[clips[0]].contrast_db
        yield Fault(
            "noise",
            "warning",
            f"{share(clips, len(checked.clips))} have noise in every pause: speech stands less than "
            f"{NOISY_CONTRAST_DB:g} dB above it ({least:.0f} dB in {clips[0].name})",
            "remove the noise, or these clips: the model learns to make it",
            tuple(clips),
        )

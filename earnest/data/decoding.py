"""Clips -> waves, read some clips ahead; how many of them may be bad."""

from collections.abc import Iterable, Iterator

import numpy as np

from earnest.data.ahead import in_order
from earnest.data.audio import ClipError, read_wave
from earnest.data.clip import BAD_CLIPS_FRAC, Clip, allowed_bad, log, log_left_out, some
from earnest.errors import UserError


def skip(error: ClipError, skipped: list[ClipError], total: int) -> None:
    """Count a clip that cannot be used. Raises UserError if more than 5 % of `total` are counted; it names the first
    ten."""
    skipped.append(error)
    if len(skipped) > allowed_bad(total):
        listed = "".join(f"\n          {error}" for error in skipped[:10])
        raise UserError(
            f"{len(skipped)} clips cannot be used (of {total}; reading stopped there):{listed}",
            f"at most {BAD_CLIPS_FRAC:.0%} of the clips broken",
            "mend these files, or take them out of the folder",
        ) from error


def read_clips(
    clips: Iterable[Clip], sample_rate_hz: int, skipped: list[ClipError], total: int | None = None, channels: int = 1
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yield (clip, wave_N), or wave_2N, at `sample_rate_hz`; a clip that cannot be used is appended to `skipped`
    instead, and logged at the end, as are clips that had to be scaled.

    Files are read, decoded and resampled by threads, some clips ahead of the one that is asked for. Raises UserError as
    soon as more than 5 % of the clips are in `skipped`; it names the first ten. `total`: how many clips there are, if
    `clips` are only those of one side, or that were not read before.
    """
    if total is None:
        clips = list(clips)
        total = len(clips)
    bad, scaled = list[ClipError](), list[str]()

    def read(clip: Clip) -> tuple[Clip, np.ndarray | ClipError]:
        try:
            return clip, read_wave(clip.path, sample_rate_hz, channels, clip.segment, scaled.append)
        except ClipError as error:
            return clip, error

    for clip, wave_N in in_order(read, clips):
        if isinstance(wave_N, np.ndarray):
            yield clip, wave_N
        else:
            bad.append(wave_N)
            skip(wave_N, skipped, total)
    log_left_out("that cannot be used", [str(error) for error in bad])
    if scaled:
        log.warning("scaled %d clips with samples outside [-1, 1]: %s", len(scaled), some(scaled))

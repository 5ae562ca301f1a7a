"""Windows: the stretch of a clip that one batch sees. Random in training, fixed in evaluation.

Evaluation takes start 0, where text and speech begin together, so that its figures compare from step to step.
"""

import hashlib
import struct
from typing import TypeVar

Array = TypeVar("Array")  # numpy array or torch tensor


def window(codes_CT: Array, window_frames: int, start: int = 0) -> Array:
    """codes_CT[:, start : start + window_frames], along the last axis: codes_CT (C, T) -> (C, min(window_frames, T - start)).

    A clip shorter than the window comes back whole; nothing is padded here. Raises ValueError for a start outside the clip.
    """
    frames = codes_CT.shape[-1]  # type: ignore[attr-defined]
    if window_frames < 1 or not 0 <= start < max(frames, 1):
        raise ValueError(f"window of {window_frames} frames at {start} in a clip of {frames} frames")
    return codes_CT[..., start : start + window_frames]  # type: ignore[index]


def random_start(frames: int, window_frames: int, seed: int, epoch: int, clip_index: int) -> int:
    """Where the window of this clip starts in this epoch: uniform on 0 .. frames - window_frames, 0 for a shorter clip.

    A pure function of (seed, epoch, clip_index), by a hash. There is no generator whose state workers and ranks would share
    or copy, and a resumed run draws what the uninterrupted one would have.
    """
    starts = max(frames - window_frames, 0) + 1
    digest = hashlib.blake2b(struct.pack("<qqq", seed, epoch, clip_index), digest_size=8).digest()
    return int.from_bytes(digest, "little") % starts

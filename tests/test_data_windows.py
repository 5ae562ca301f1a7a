"""Windows: what they cut, and that their starts are uniform, repeatable and different where they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earnest.data.windows import random_start, window

counts = st.integers(0, 2**40)


@given(st.integers(1, 500), st.integers(1, 500), counts, counts, counts)
def test_a_random_window_lies_in_the_clip_and_is_full_where_it_can_be(frames, window_frames, seed, epoch, clip):
    start = random_start(frames, window_frames, seed, epoch, clip)
    codes_CT = np.arange(2 * frames).reshape(2, frames)
    cut_CT = window(codes_CT, window_frames, start)
    assert cut_CT.shape == (2, min(frames, window_frames))
    np.testing.assert_array_equal(cut_CT[0], np.arange(start, start + cut_CT.shape[1]))


def test_starts_are_uniform_and_differ_between_epochs_clips_and_seeds():
    starts = np.array([random_start(109, 100, seed, epoch, clip) for seed in range(10) for epoch in range(10) for clip in range(100)])
    counted = np.bincount(starts, minlength=10)
    assert len(counted) == 10 and abs(counted - 1000).max() < 150  # 5 standard deviations
    epochs = starts.reshape(10, 10, 100)
    for axis in range(3):
        same_frac = np.mean(epochs.take(range(1, epochs.shape[axis]), axis) == epochs.take(range(epochs.shape[axis] - 1), axis))
        assert abs(same_frac - 0.1) < 0.02


def test_starts_stay_what_they_were():
    """A resumed run, on another machine or version, must draw the same: these numbers may not change."""
    assert [random_start(1000, 10, 0, 0, clip) for clip in range(5)] == [533, 505, 96, 153, 394]


def test_torch_waves_are_cut_along_the_last_axis():
    assert window(torch.zeros(3, 1, 50), 20, 5).shape == (3, 1, 20)


@pytest.mark.parametrize(("window_frames", "start"), [(0, 0), (5, -1), (5, 10)])
def test_windows_outside_the_clip_are_refused(window_frames, start):
    with pytest.raises(ValueError):
        window(np.zeros((2, 10)), window_frames, start)

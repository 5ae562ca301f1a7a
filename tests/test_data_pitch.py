"""Pitch and level of sounds of which both are known."""

import numpy as np
import pytest

from earnest.data.pitch import pitch_and_level


@pytest.mark.parametrize("hz", [90, 140, 220, 330])
@pytest.mark.parametrize("hop", [320, 1920])
def test_pitch_and_level_of_a_buzz(hz, hop):
    rate_hz = 16_000
    time_N = np.arange(rate_hz) / rate_hz
    wave_N = sum(np.sin(2 * np.pi * hz * harmonic * time_N) / harmonic for harmonic in range(1, 8)) * 0.1
    found = pitch_and_level(wave_N.astype(np.float32), rate_hz, hop)
    inner = slice(2, -2)
    assert np.isfinite(found.pitch_log2_hz_T[inner]).all()
    assert np.abs(found.pitch_log2_hz_T[inner] - np.log2(hz)).max() < 0.05
    np.testing.assert_allclose(found.level_db_T[inner], 10 * np.log10(np.square(wave_N).mean()), atol=1)


def test_noise_and_silence_have_no_pitch():
    noise_N = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    assert np.isnan(pitch_and_level(noise_N, 16_000, 320).pitch_log2_hz_T).mean() > 0.9
    silent = pitch_and_level(np.zeros(1000, np.float32), 16_000, 320)
    assert (
        len(silent.pitch_log2_hz_T) == 4
        and np.isnan(silent.pitch_log2_hz_T).all()
        and np.isnan(silent.level_db_T).all()
    )

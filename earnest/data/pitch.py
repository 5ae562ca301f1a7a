"""Pitch and level of speech, per codec frame: a target of training (what codebook 0 shall not hold) and of a probe."""

from dataclasses import dataclass

import numpy as np

WINDOW_S = 0.04  # two and a half periods of the lowest pitch (assumed)
LOWEST_HZ, HIGHEST_HZ = 60, 400  # voices of adults and most children (assumed)
PEAK_FRAC = 0.85  # of the highest peak, that an earlier one must reach (McLeod and Wyvill: 0.8 to 1)
VOICED = 0.5  # normalised autocorrelation from which a frame is voiced (Boersma: 0.45)
AUDIBLE = 1e-4  # of the energy of the loudest frame: 40 dB below it is silence (assumed)


@dataclass(frozen=True)
class PitchAndLevel:
    """Pitch and level of each codec frame: log2 of Hz, NaN if unvoiced; dB of full scale, NaN in silence."""

    pitch_log2_hz_T: np.ndarray
    level_db_T: np.ndarray

    def features_T2(self) -> np.ndarray:
        """Pitch and level as the two columns of one matrix."""
        return np.stack([self.pitch_log2_hz_T, self.level_db_T], axis=1)


def pitch_and_level(wave_N: np.ndarray, sample_rate_hz: int, hop_samples: int) -> PitchAndLevel:
    """Measure a wave at the centre of each codec frame.

    The period is a peak of the autocorrelation of 40 ms, divided by that of the window (Boersma 1993, "Accurate
    short-term analysis of the fundamental frequency", IFA Proceedings 17). Multiples of the period peak too: the first
    peak that reaches 0.85 of the highest is taken (McLeod and Wyvill 2005, "A smarter way to find pitch", ICMC). A
    frame is voiced if that peak reaches half of the energy.
    """
    frames, window = -(-len(wave_N) // hop_samples), round(WINDOW_S * sample_rate_hz)
    centre_T = np.arange(frames) * hop_samples + hop_samples // 2
    padded_N = np.pad(wave_N.astype(np.float64), (window, window + hop_samples))
    pieces_TW = padded_N[centre_T[:, None] + window // 2 + np.arange(window)]
    energy_T = np.square(pieces_TW).mean(1)
    correlation_TL = _normalised_autocorrelation(pieces_TW)
    lags = np.arange(sample_rate_hz // HIGHEST_HZ, sample_rate_hz // LOWEST_HZ + 1)
    middle_TL = correlation_TL[:, lags]
    peak_TL = (middle_TL >= correlation_TL[:, lags - 1]) & (middle_TL >= correlation_TL[:, lags + 1])
    best_T = (peak_TL & (middle_TL >= PEAK_FRAC * middle_TL.max(1, keepdims=True))).argmax(1)
    audible_T = energy_T > max(AUDIBLE * energy_T.max(initial=0.0), 1e-10)
    voiced_T = audible_T & (middle_TL[np.arange(frames), best_T] > VOICED)
    return PitchAndLevel(
        pitch_log2_hz_T=np.where(voiced_T, np.log2(sample_rate_hz / lags[best_T]), np.nan),
        level_db_T=np.where(audible_T, 10 * np.log10(np.maximum(energy_T, 1e-12)), np.nan),
    )


def _normalised_autocorrelation(pieces_TW: np.ndarray) -> np.ndarray:
    """Autocorrelation by lag, 1 at lag 0, with the window's own decay divided out: (T, W)."""
    window = pieces_TW.shape[1]
    tapered_TW = (pieces_TW - pieces_TW.mean(1, keepdims=True)) * np.hanning(window)
    correlation_TL = np.fft.irfft(np.abs(np.fft.rfft(tapered_TW, 2 * window)) ** 2)[:, :window]
    of_window_L = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(window), 2 * window)) ** 2)[:window]
    return correlation_TL / np.maximum(correlation_TL[:, :1], 1e-12) / np.maximum(of_window_L / of_window_L[0], 1e-3)

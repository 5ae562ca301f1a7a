"""What each codebook holds: words, pitch and level, by a table with a row per code.

Codes of training clips fill the table, codes of held-out clips are looked up: what one code alone predicts, as a
language model's first layer would. Codebook 0 should know words, codebook 1 pitch and level.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from earnest.codecs.codec import Codec
from earnest.data.clip import Clip
from earnest.data.pitch import pitch_and_level
from earnest.data.teachers import word_times
from earnest.data.waves import StoredWave
from earnest.signals import key
from earnest.streams import Codebook

Labels = Mapping[str, np.ndarray]  # signal -> one value per codec frame; NaN, or "" for a word, if there is none
WORDS = "word_accuracy_frac"  # the signal whose labels are words; those of the others are numbers


class CodeProbes:
    """The probes of codes on clips that are labelled once."""

    def __init__(
        self,
        codec: Codec,
        train: Sequence[tuple[Clip, np.ndarray]],
        held_out: Sequence[tuple[Clip, np.ndarray]] | Sequence[tuple[Clip, StoredWave]],
    ):
        self.train, self.held_out = (
            [(wave, labels_of(clip, wave[:], codec)) for clip, wave in side] for side in (train, held_out)
        )

    def score(self, codec: Codec) -> dict[str, float]:
        """`probe` of the codes that the codec gives now."""
        fit, test = (
            [
                (codec.encode(torch.as_tensor(wave[:])[None].to(codec.device))[0].cpu().numpy(), labels)
                for wave, labels in side
            ]
            for side in (self.train, self.held_out)
        )
        return probe(fit, test, codec.codebook_size)


def labels_of(clip: Clip, wave_N: np.ndarray, codec: Codec) -> Labels:
    """What is to be predicted of each frame, by the signal that says how well it is predicted."""
    measured = pitch_and_level(wave_N, codec.sample_rate_hz, codec.hop_samples)
    words = word_times(clip, wave_N, codec.sample_rate_hz)
    return {
        "f0_r2": measured.pitch_log2_hz_T,
        "energy_r2": measured.level_db_T,
        WORDS: word_at_frame(words, len(measured.level_db_T), codec.frame_rate_hz),
    }


def word_at_frame(words: Sequence[tuple[str, float, float]], frames: int, frame_rate_hz: float) -> np.ndarray:
    """The word at the centre of each codec frame, "" between words."""
    centre_s = (np.arange(frames) + 0.5) / frame_rate_hz
    labels = np.full(frames, "", dtype=object)
    for word, start_s, end_s in words:
        labels[(centre_s >= start_s) & (centre_s < end_s)] = word.lower().strip(".,;:!?\"'")
    return labels


def r2(fit_codes: np.ndarray, fit_values: np.ndarray, codes: np.ndarray, values: np.ndarray, size: int) -> float:
    """Share of the variance of `values` that the mean value of their code explains; NaN without values that vary."""
    fit, test = np.isfinite(fit_values), np.isfinite(values)
    if fit.sum() < 2 or test.sum() < 2 or not np.ptp(values[test]):
        return float("nan")
    count = np.bincount(fit_codes[fit], minlength=size)
    total = np.bincount(fit_codes[fit], fit_values[fit], minlength=size)
    mean = fit_values[fit].mean()
    table = (total + mean) / (count + 1)  # a code that was never seen predicts the mean; a rare one leans towards it
    left = np.square(values[test] - table[codes[test]]).sum()
    return float(1 - left / np.square(values[test] - values[test].mean()).sum())


def accuracy(fit_codes: np.ndarray, fit_labels: np.ndarray, codes: np.ndarray, labels: np.ndarray, size: int) -> float:
    """How often the commonest label of a code is the label; NaN without labels."""
    fit, test = fit_labels != "", labels != ""
    if not fit.any() or not test.any():
        return float("nan")
    names, index = np.unique(fit_labels[fit].astype(str), return_inverse=True)
    counts = np.zeros((size, len(names)))
    np.add.at(counts, (fit_codes[fit], index), 1)
    counts += 1e-3 * np.bincount(index) / len(index)  # ties, and codes never seen: the commonest label of all
    return float((names[counts.argmax(1)][codes[test]] == labels[test].astype(str)).mean())


def probe(
    fit: Sequence[tuple[np.ndarray, Labels]], test: Sequence[tuple[np.ndarray, Labels]], size: int
) -> dict[str, float]:
    """Pairs of codes_CT and labels per frame -> per label and codebook, what a code predicts; labels without values are
    left out.

    The score of words has a baseline: that of the commonest word, as stream `commonest`.
    """
    fit_CN, test_CN = (np.concatenate([codes_CT for codes_CT, _ in pairs], 1) for pairs in (fit, test))
    scores: dict[str, float] = {}
    for name in fit[0][1]:
        score = accuracy if name == WORDS else r2
        fit_values, values = (np.concatenate([labels[name] for _, labels in pairs]) for pairs in (fit, test))
        for k, (fit_codes, codes) in enumerate(zip(fit_CN, test_CN, strict=True)):
            scores[key(name, Codebook(k), "eval")] = score(fit_codes, fit_values, codes, values, size)
        if name == WORDS:
            one_code = np.zeros_like(fit_CN[0]), np.zeros_like(test_CN[0])
            scores[key(name, "commonest", "eval")] = accuracy(one_code[0], fit_values, one_code[1], values, 1)
    return {name: value for name, value in scores.items() if np.isfinite(value)}

"""What each codebook says: words from its codes, and how high and how loud the voice is, by a table with a row per
code.

Codes of training clips fill the table, codes of held-out clips are looked up: what one code alone predicts, as a
language model's first layer would. Codebook 0 should know words, codebook 1 pitch and loudness.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from earnest.signals import key
from earnest.streams import Codebook

Labels = Mapping[str, np.ndarray]  # name -> one value per codec frame; NaN, or "" for a word, where there is none


def spoken(words: Sequence[tuple[str, float, float]], frames: int, frame_rate_hz: float) -> np.ndarray:
    """The word spoken at the centre of each codec frame, "" between words."""
    centre_s = (np.arange(frames) + 0.5) / frame_rate_hz
    labels = np.full(frames, "", dtype=object)
    for word, start_s, end_s in words:
        labels[(centre_s >= start_s) & (centre_s < end_s)] = word.lower().strip(".,;:!?\"'")
    return labels


def r2(fit_codes: np.ndarray, fit_values: np.ndarray, codes: np.ndarray, values: np.ndarray, size: int) -> float:
    """Share of the variance of `values` that the mean value of their code explains; NaN without values."""
    fit, test = np.isfinite(fit_values), np.isfinite(values)
    if fit.sum() < 2 or test.sum() < 2:
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

    A word's score has a baseline: that of the commonest word, as stream `commonest`.
    """
    together = lambda pairs, name: np.concatenate([labels[name] for _, labels in pairs])  # noqa: E731
    fit_CN, test_CN = (np.concatenate([codes_CT for codes_CT, _ in pairs], 1) for pairs in (fit, test))
    found = {}
    for name in fit[0][1]:
        score = accuracy if name == "word_accuracy_frac" else r2
        fit_values, values = together(fit, name), together(test, name)
        for k, (fit_codes, codes) in enumerate(zip(fit_CN, test_CN, strict=True)):
            found[key(name, Codebook(k), "eval")] = score(fit_codes, fit_values, codes, values, size)
        if score is accuracy:
            found[key(name, "commonest", "eval")] = score(
                np.zeros_like(fit_CN[0]), fit_values, np.zeros_like(test_CN[0]), values, 1
            )
    return {name: value for name, value in found.items() if np.isfinite(value)}

"""What codes say of words, pitch and level: the labels and the tables."""

import numpy as np
import pytest

from earnest.monitors.codes import accuracy, probe, r2, word_at_frame


def test_the_word_at_the_centre_of_each_frame():
    assert word_at_frame([("Hello,", 0.1, 0.3), ("you", 0.3, 0.4)], 5, 10.0).tolist() == [
        "",
        "hello",
        "hello",
        "you",
        "",
    ]


def test_r2_is_the_share_that_the_codes_explain():
    random = np.random.default_rng(0)
    codes, test_codes = random.integers(0, 8, 4000), random.integers(0, 8, 4000)
    noise = random.normal(size=(2, 4000))
    assert r2(codes, codes + noise[0], test_codes, test_codes + noise[1], 8) == pytest.approx(5.25 / 6.25, abs=0.02)
    assert abs(r2(codes, noise[0], test_codes, noise[1], 8)) < 0.02
    values = np.where(codes < 4, np.nan, codes + noise[0])  # unvoiced frames do not count
    assert r2(codes, values, test_codes, np.where(test_codes < 4, np.nan, test_codes), 8) > 0.9
    assert np.isnan(r2(codes, np.full(4000, np.nan), test_codes, noise[1], 8))


def test_accuracy_names_the_commonest_word_of_a_code():
    words = np.array(["", "one", "two", "one"], dtype=object)
    codes = np.random.default_rng(0).integers(0, 4, 500)
    assert accuracy(codes, words[codes], codes, words[codes], 4) == 1.0
    unseen = np.full(500, 3)
    assert accuracy(codes[codes < 3], words[codes[codes < 3]], unseen, words[unseen], 4) in (0.0, 1.0)
    assert np.isnan(accuracy(codes, np.full(500, "", dtype=object), codes, words[codes], 4))


def test_a_probe_scores_each_codebook_beside_its_baseline():
    random = np.random.default_rng(0)

    def clip():
        level = random.integers(0, 4, 300)
        codes_CT = np.stack([level, random.integers(0, 4, 300)])
        labels = {
            "energy_r2": level.astype(float),
            "word_accuracy_frac": np.array(["a", "a", "a", "b"], dtype=object)[level],
        }
        return codes_CT, labels

    found = probe([clip() for _ in range(5)], [clip() for _ in range(5)], 4)
    assert found["eval/energy_r2/codebook_0"] > 0.99 and abs(found["eval/energy_r2/codebook_1"]) < 0.05
    assert found["eval/word_accuracy_frac/codebook_0"] == 1.0
    assert found["eval/word_accuracy_frac/codebook_1"] == pytest.approx(
        found["eval/word_accuracy_frac/commonest"], abs=0.02
    )
    assert found["eval/word_accuracy_frac/commonest"] == pytest.approx(0.75, abs=0.05)

"""`earnest.quantiles` beside numpy's own."""

import numpy as np
import pytest

from earnest.quantiles import median, medians, quantile


@pytest.mark.parametrize("points", [1, 2, 3, 4, 25, 60, 1001])
@pytest.mark.parametrize("odd", [0.5, np.nan, np.inf])
def test_medians_are_numpys_to_the_last_bit(points, odd):
    value = np.random.default_rng(points).standard_normal(points)
    value[points // 2] = odd
    before = value.copy()
    for each in (value, np.round(value, 1), list(value)):
        np.testing.assert_array_equal(median(each), np.median(each))
    rows = np.stack([value, value[::-1] + 1, value * 2])
    np.testing.assert_array_equal(medians(rows), np.median(rows, axis=1))
    np.testing.assert_array_equal(value, before)
    np.testing.assert_array_equal(median(value, overwrite=True), np.median(before))
    assert np.isnan(median([]))


@pytest.mark.parametrize("points", [1, 2, 3, 4, 25, 60, 1001])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 0.95, 1.0])
def test_quantiles_are_numpys_to_the_last_bit(points, share):
    value = np.random.default_rng(points).standard_normal(points)
    for each in (value, np.round(value, 1), np.full(points, 0.1), list(value)):
        assert quantile(each, share) == np.quantile(each, share)
    assert np.isnan(quantile([*value, np.nan], share))

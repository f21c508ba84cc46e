"""Means, intervals and pairing against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from mgs_trl.study.statistics import mean, paired_difference, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 29, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_quantile_is_students(freedom, confidence):
    expected = stats.t.ppf(0.5 + confidence / 2, freedom)
    assert t_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-4)


def test_mean_and_standard_error():
    values = np.random.default_rng(0).normal(0.4, 0.1, 7).tolist()
    found = mean(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.error == pytest.approx(stats.sem(values), rel=1e-12)
    assert found.n == 7


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.5, 0.2, 6), rng.normal(0.4, 0.2, 6)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-4)
    assert found.mean == pytest.approx(np.mean(first - second), rel=1e-12)
    assert found.positive == (first > second).sum()


def test_only_seeds_that_both_have_are_compared():
    found = paired_difference({0: 1.0, 1: 5.0, 3: 2.0}, {3: 1.0, 0: 0.5, 2: 9.0})
    assert (found.n, found.mean, found.positive) == (2, 0.75, 2)


def test_too_few_values_have_no_interval():
    one = paired_difference({4: 0.75}, {4: 0.5})
    assert (one.mean, one.n, one.positive) == (0.25, 1, 1)
    assert all(map(math.isnan, (one.error, one.low, one.high)))
    none = paired_difference({0: 1.0}, {1: 1.0})
    assert none.n == 0 and math.isnan(none.mean)
    assert mean([]).n == 0 and math.isnan(mean([]).mean)

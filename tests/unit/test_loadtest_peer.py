"""The functions of statistics.py, which a generator has without scipy, beside scipy's own (decision 36)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats

from loadtest import statistics

TOTALS = (1.0, 2.5, 59.0, 299.0, 10_000.0, 1e6)
SHARES = (0.0, 1e-6, 0.001, 0.05, 0.5, 0.95, 0.999, 1.0)
CONFIDENCES = (0.9, 0.95, 0.99)
CHANCE = np.random.default_rng(7)


@pytest.mark.parametrize("total", TOTALS)
def test_bounds_of_a_share(total: float) -> None:
    for share, confidence in itertools.product(SHARES, CONFIDENCES):
        count = share * total
        lower, upper = statistics.share_bounds(count, total, confidence)

        # At the ends nothing is solved: scipy has NaN there.
        known_lower = special.betaincinv(count, total - count + 1, 1 - confidence) if count else 0.0
        known_upper = special.betaincinv(count + 1, total - count, confidence) if count < total else 1.0
        assert (lower, upper) == pytest.approx((known_lower, known_upper), rel=1e-9, abs=1e-13)


def test_quantiles_of_student() -> None:
    for share, freedom in itertools.product((0.5, 0.9, 0.975, 0.9938, 0.9999), (1.0, 2.0, 4.0, 7.3, 30.0, 1000.0)):
        assert statistics.student_quantile(share, freedom) == pytest.approx(
            stats.t.ppf(share, freedom), rel=1e-9, abs=1e-9
        )


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0, 30.0])
def test_p_values(shift: float) -> None:
    for size in (5, 8, 13):
        a, b = CHANCE.normal(10, 1, size), CHANCE.lognormal(2, 0.3, size + 2) + shift
        pairs = CHANCE.normal(shift / 10, 1, size)

        assert statistics.welch(a, b) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)
        assert statistics.paired(pairs) == pytest.approx(stats.ttest_1samp(pairs, 0).pvalue, rel=1e-9)


def test_an_exact_permutation() -> None:
    a, b = CHANCE.normal(0, 1, 5), CHANCE.normal(1, 1, 5)
    known = stats.permutation_test((a, b), lambda x, y: y.mean() - x.mean(), n_resamples=np.inf)

    assert statistics.permutation(a, b, seed=0) == pytest.approx(known.pvalue, rel=1e-9)


def test_the_slope_of_growth() -> None:
    moments, values = np.arange(20.0), CHANCE.normal(100, 5, 20)
    slope = stats.theilslopes(values, moments).slope

    assert statistics.drift(moments, values) == pytest.approx(slope * 19 / np.median(values), rel=1e-9)

"""Bounds and tests against values from tables and against exact counting."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from loadtest import detectable_change, statistics


def test_scipy_is_imported_by_what_judges_only() -> None:
    """Its import takes longer than the start of a process that sends load."""
    code = "import sys, loadtest.__main__; sys.exit('scipy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("share", "confidence", "needed"), [(0.99, 0.95, 299), (0.99, 0.99, 459), (0.95, 0.95, 59)])
def test_least_requests_are_those_of_mlperf(share: float, confidence: float, needed: int) -> None:
    assert statistics.least_requests(share, confidence) == needed


def test_nearest_rank_never_invents_a_value() -> None:
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])

    assert [statistics.percentile(values, share) for share in (0.2, 0.5, 0.99, 1.0)] == [1, 3, 5, 5]
    assert math.isnan(statistics.percentile(np.empty(0), 0.5))


@pytest.mark.parametrize("count", [0, 1, 3, 10, 100])
def test_bounds_of_a_share_are_where_the_binomial_tails_have_the_chance_left_over(count: int) -> None:
    total, confidence = 100, 0.95

    lower, upper = statistics.share_bounds(count, total, confidence)

    at_most = sum(math.comb(total, k) * upper**k * (1 - upper) ** (total - k) for k in range(count + 1))
    at_least = sum(math.comb(total, k) * lower**k * (1 - lower) ** (total - k) for k in range(count, total + 1))
    assert upper == 1 if count == total else at_most == pytest.approx(0.05, abs=1e-6)
    assert lower == 0 if count == 0 else at_least == pytest.approx(0.05, abs=1e-6)


def test_student_quantiles_are_those_of_the_tables() -> None:
    assert statistics.student_quantile(0.975, 8) == pytest.approx(2.306, abs=1e-3)
    assert statistics.student_quantile(0.95, 4) == pytest.approx(2.132, abs=1e-3)


def test_welch_finds_the_chance_of_a_t_of_the_tables() -> None:
    # Equal spread, five a side: eight degrees of freedom; a t of 2.306 has a chance of 5 %.
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])

    assert statistics.welch(a, a + 2.306) == pytest.approx(0.05, abs=1e-4)


def test_permutation_of_five_against_five_is_exact() -> None:
    a, b = np.arange(5.0), np.arange(5.0) + 100

    # Of 252 splits only two are as extreme.
    assert statistics.permutation(a, b, seed=0) == pytest.approx(2 / 252)


def test_paired_p_value_is_that_of_students_table() -> None:
    # t = 2.365 with 7 degrees of freedom is 5 %, two-sided.
    differences = np.array([-1.0, 1.0] * 4)
    spread = np.std(differences, ddof=1) / math.sqrt(8)

    assert statistics.paired(differences + 2.365 * spread) == pytest.approx(0.05, abs=1e-4)
    assert statistics.paired(np.zeros(8)) == 1


def test_signs_of_eight_pairs_are_exact() -> None:
    # All of one sign: only they and their opposite are as extreme, of 256.
    assert statistics.sign_flips(np.arange(1.0, 9.0), seed=0) == pytest.approx(2 / 256)
    assert statistics.sign_flips(np.zeros(8), seed=0) == 1
    assert statistics.sign_flips(np.arange(1.0, 21.0), seed=0) < 0.001


def test_a_p_value_by_chance_is_never_nothing() -> None:
    far = np.arange(12.0) + 1000

    assert statistics.permutation(np.arange(12.0), far, seed=0) == pytest.approx(1 / 5001)
    assert statistics.sign_flips(far, seed=0) >= 1 / 4096


@pytest.mark.parametrize("runs", [5, 8])
def test_a_change_of_the_visible_size_is_found_in_eight_of_ten_comparisons(runs: int) -> None:
    """Over many experiments, each with its own estimate of the noise, and with both tests."""
    rng, found, tries = np.random.default_rng(3), 0, 60
    for _ in range(tries):
        visible = detectable_change.detectable_change(
            rng.normal(100, 5, runs), rng.normal(100, 5, runs), 0.0125, 0.05, 1
        )
        a, b = rng.normal(100, 5, runs), rng.normal(100 * (1 + visible), 5, runs)
        is_sure = max(statistics.welch(a, b), statistics.permutation(a, b, 1)) < 0.0125
        found += is_sure and b.mean() / a.mean() - 1 >= 0.05

    assert 0.72 <= found / tries <= 0.92


def test_a_mean_of_the_visible_size_is_found_in_eight_of_ten_comparisons_of_pairs() -> None:
    rng, found, tries = np.random.default_rng(4), 0, 60
    for _ in range(tries):
        visible = detectable_change.detectable_mean(rng.normal(0, 0.05, 10), 0.0125, 0.05, 1)
        differences = rng.normal(visible, 0.05, 10)
        is_sure = max(statistics.paired(differences), statistics.sign_flips(differences, 1)) < 0.0125
        found += is_sure and differences.mean() >= 0.05

    assert 0.72 <= found / tries <= 0.92


def test_too_few_runs_see_nothing_however_large() -> None:
    assert math.isinf(
        detectable_change.detectable_change(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]), 0.0125, 0.05, 1)
    )


def test_bootstrap_mean_holds_the_mean() -> None:
    low, high = statistics.bootstrap_mean(np.random.default_rng(1).normal(5, 1, 50), 0.95, seed=2)

    assert low < 5 < high < low + 1


def test_holm_multiplies_step_by_step_and_never_falls() -> None:
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_bootstrap_interval_holds_the_true_change() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(100, 3, 20), rng.normal(110, 3, 20)

    low, high = statistics.bootstrap_change(a, b, 0.95, seed=2)

    assert low < 0.10 < high
    assert high - low < 0.06


def test_drift_is_the_growth_from_first_to_last() -> None:
    moments = np.arange(20.0)

    assert statistics.drift(moments, 100 + moments) == pytest.approx(19 / 109.5)
    assert statistics.drift(moments, np.full(20, 7.0)) == 0

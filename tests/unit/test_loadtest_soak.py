"""What does not grow is not called growing, whatever its noise; what does grow is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtest import soak
from loadtest.soak import CHANCE, WINDOWS, growth
from loadtest.statistics import chance_of_rise, percentile
from loadtest.statuses import Status
from tests.unit.loadtest_queues import Queue

MOMENTS = np.arange(float(WINDOWS))
RUNS = 150


def windows(responses: np.ndarray) -> np.ndarray:
    return np.array([percentile(part, 0.99) for part in np.array_split(responses, WINDOWS)])


def is_fault(values: np.ndarray) -> bool:
    return soak.status_of(*growth(MOMENTS, values), 0.1) == Status.FAIL


@pytest.mark.parametrize("seconds", [120, 900])
@pytest.mark.parametrize("queue", [Queue(1, 0.05, 0.5), Queue(1, 0.01, 0.9)], ids=lambda queue: queue.name)
@pytest.mark.parametrize("odd", [None, math.inf, math.nan])
def test_a_stationary_soak_fails_in_at_most_two_of_a_hundred(queue: Queue, seconds: float, odd: float | None) -> None:
    rng = np.random.default_rng(1)
    faults = 0
    for _ in range(RUNS):
        values = windows(queue.responses_ms(rng, seconds))
        if odd is not None:
            values[rng.integers(WINDOWS)] = odd
        faults += is_fault(values)

    assert faults <= RUNS * 0.02


def test_latencies_that_double_during_a_soak_are_found() -> None:
    rng = np.random.default_rng(2)
    runs = [rng.lognormal(3, 0.8, 18_000) * np.linspace(1, 2, 18_000) for _ in range(20)]

    assert sum(is_fault(windows(run)) for run in runs) >= 19


def test_one_window_without_an_answer_neither_makes_nor_hides_a_growth() -> None:
    steady, growing = np.full(WINDOWS, 50.0), np.linspace(50, 100, WINDOWS)
    steady[9] = growing[9] = math.inf

    assert growth(MOMENTS, steady)[0] == 0
    assert is_fault(growing)


def test_windows_that_say_nothing_at_all_do_not_grow() -> None:
    assert growth(MOMENTS, np.full(WINDOWS, math.inf)) == (0.0, 1.0)


def test_correlated_windows_are_merged_before_they_are_tested() -> None:
    """A slow wave that happens to rise once is no growth for sure: five windows are left of it."""
    wave = 50 + 10 * np.sin(np.linspace(-1.5, 4.5, WINDOWS))

    assert growth(MOMENTS, wave)[1] > CHANCE


def test_the_chance_of_a_rise_is_exact_for_few() -> None:
    assert chance_of_rise(np.arange(5.0)) == pytest.approx(1 / 120)
    assert chance_of_rise(np.arange(5.0)[::-1]) == 1
    assert chance_of_rise(np.full(20, 3.0)) == 1
    assert chance_of_rise(np.arange(20.0)) < 1e-8
    assert chance_of_rise(np.arange(2.0)) == 1

"""The queue's figures are those of the books, and of a simulation; more cores bear more than their share."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from loadtest import scaling
from loadtest.scaling import Wait, Work

WAITS = (Wait(0.4, 0.001),)


@pytest.mark.parametrize(
    ("load", "cores", "share"),
    # One core: the load itself. Two: 2a²/(2+a)/2 … as tables of Erlang's C have it.
    [(0.5, 1, 0.5), (0.9, 1, 0.9), (1.0, 2, 1 / 3), (1.6, 2, 0.7111), (8.0, 10, 0.4092)],
)
def test_the_share_that_waits_is_erlangs(load: float, cores: int, share: float) -> None:
    assert scaling.waiting_share(load, cores) == pytest.approx(share, abs=1e-4)


def simulated_late_share(rps: float, cores: int, cpu_seconds: float, seconds: float) -> float:
    """Poisson arrivals, exponential work, first come first served."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(1 / rps, 400_000))
    free = [0.0] * cores
    late = 0
    for moment, work in zip(arrivals.tolist(), rng.exponential(cpu_seconds, arrivals.size).tolist(), strict=True):
        begins = max(moment, heapq.heappop(free))
        late += begins - moment > seconds
        heapq.heappush(free, begins + work)
    return late / arrivals.size


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_simulation_waits_as_the_formula_says(cores: int) -> None:
    rps = 0.85 * cores / 0.01

    assert simulated_late_share(rps, cores, 0.01, 0.02) == pytest.approx(
        scaling.late_share(rps, cores, Work(0.01), 0.02), rel=0.1
    )


def test_capacity_keeps_the_wait_and_one_more_percent_does_not() -> None:
    work = Work(0.008, 0.4)

    found = scaling.capacity_rps(2, work, WAITS)

    assert scaling.late_share(found, 2, work, 0.4) <= 0.001 < scaling.late_share(found * 1.01, 2, work, 0.4)
    assert 0.9 * 250 < found < 250


def test_more_cores_bear_more_than_their_share_and_unlike_requests_less() -> None:
    work = Work(0.008, 0.4)
    one, two, eight = (scaling.capacity_rps(cores, work, WAITS) for cores in (1, 2, 8))

    assert two > 2 * one
    assert eight > 4 * two
    assert scaling.capacity_rps(2, Work(0.008, 3.0), WAITS) < two


def test_a_part_of_a_core_counts_in_part() -> None:
    work = Work(0.008, 0.4)

    rates = [scaling.capacity_rps(cores, work, WAITS) for cores in (1, 1.5, 1.9, 2)]

    assert rates == sorted(rates)


def test_like_requests_do_not_vary_and_those_of_several_images_do() -> None:
    assert scaling.variability_of({"classify_raw": 3, "detect_raw": 1}) == pytest.approx(0)
    assert scaling.variability_of({"classify_raw": 1, "classify_several": 1}) == pytest.approx(8.5 / 6.25 - 1)


def test_a_promise_leaves_its_limit_less_the_service_for_waiting() -> None:
    waits = scaling.waits_of({0.95: 500.0}, 0.001, 20.0)

    assert waits[0].seconds == pytest.approx(0.48)
    assert waits[0].share == pytest.approx(0.05)
    assert waits[1] == Wait(scaling.MAX_WAIT_SECONDS, 0.001)


def test_a_card_without_the_servers_cost_predicts_nothing() -> None:
    table = {
        "capacity_rps": 200.0,
        "mix": {"classify_raw": 1.0},
        "promise": {"limits_ms": {"p95": 500}, "max_failed_share": 0.001},
    }

    server = {"cpu_ms_per_request": 8.0, "cores": 2, "busy_cores": 1.6}

    assert scaling.of_card(table) == {}
    assert scaling.of_card({**table, "server": {**server, "busy_cores": 1.0}}) == {}
    assert "1.00 of 2" in scaling.reason_against({**table, "server": {**server, "busy_cores": 1.0}})
    assert scaling.of_card({**table, "server": server})[2] == pytest.approx(
        scaling.capacity_rps(2, Work(0.008, 0.0), scaling.waits_of({0.95: 500.0}, 0.001, 8.0))
    )
    assert list(scaling.of_card({**table, "server": server}, [1.85])) == [1.85]
